"""Mask R-CNN: Faster R-CNN with a third output, a mask for each box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.base import Backbone
from clearsight.models.detect.box_head import BoxHead
from clearsight.models.detect.faster_rcnn import FasterRcnn, Stage, build_parts, convert_torchvision_faster_rcnn
from clearsight.models.detect.pyramid import Pyramid
from clearsight.models.detect.regions import size_of
from clearsight.models.detect.rois import Rois, RoiSampler
from clearsight.models.detect.rpn import Rpn
from clearsight.models.segment.mask_head import MaskHead
from clearsight.ops.paste import paste_masks
from clearsight.ops.selection import Selection
from clearsight.types import Instances, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.proposal_sections import MaskRcnnConfig

__all__ = ["MaskRcnn", "MaskRcnnOutputs", "build_mask_rcnn", "convert_torchvision_mask_rcnn"]

SELECTION = Selection()


class MaskRcnnOutputs(NamedTuple):
    """What Mask R-CNN says of each image, before suppression: p proposals, and the masks of the t best of them.

    A mask belongs to `boxes[i, region, label]`; `ops.paste.paste_masks` brings its sigmoid into the image.

    Args:
        scores: `(n, p, k)` probabilities of the classes, background left out; 0 where there was no proposal.
        boxes: `(n, p, k, 4)` xyxy pixels, clipped to the image, or `(n, p, 1, 4)` where the classes share them.
        region: `(n, t)` int64 index into the proposals, by falling score of their best class.
        label: `(n, t)` int64, that class.
        masks: `(n, t, s, s)` logits of that class in that box.
    """

    scores: Tensor
    boxes: Tensor
    region: Tensor
    label: Tensor
    masks: Tensor


class MaskRcnn(FasterRcnn):
    """Mask R-CNN on a pyramid of a backbone with levels c2 to c5.

    Method: He et al. 2017, arXiv:1703.06870, in the form that torchvision publishes weights for; all but the masks is
    `FasterRcnn`'s. Training draws masks in the sampled regions, prediction in the boxes that are kept.

    Args:
        backbone: gives the levels that the neck takes.
        neck: gives any number of levels.
        rpn: of all levels of the neck.
        box_head: reads the first of them.
        mask_head: reads the same.
        statistics: of the input's channels.
        stage: whose terms `loss` gives, see `FasterRcnn`; the masks learn with the boxes, in `boxes` and `joint`.
        sampler: which regions both heads learn from; None for `RoiSampler()`.
        mask_regions: t, how many masks `forward` draws for an image; `predict` draws all that are kept.

    Shape: images `(n, c, h, w)` → `MaskRcnnOutputs`.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes.

    Raises:
        ConfigError: the stage is unknown, the classes of both heads differ, or `mask_regions` is below 1.
    """

    class_layer = (*FasterRcnn.class_layer, *(f"mask_head.mask_fcn_logits.{part}" for part in ("weight", "bias")))

    def __init__(  # noqa: PLR0913 - the parts of Faster R-CNN and one more
        self,
        backbone: Backbone,
        neck: Pyramid,
        rpn: Rpn,
        box_head: BoxHead,
        mask_head: MaskHead,
        *,
        statistics: Statistics,
        stage: Stage = "joint",
        sampler: RoiSampler | None = None,
        mask_regions: int = 100,
    ) -> None:
        super().__init__(backbone, neck, rpn, box_head, statistics=statistics, stage=stage, sampler=sampler)
        classes, masks = box_head.cls_score.out_features - 1, mask_head.mask_fcn_logits.out_channels
        if classes != masks:
            raise ConfigError(f"mask_rcnn: the heads have {classes} classes of boxes and {masks} of masks")
        if mask_regions < 1:
            raise ConfigError(f"mask_regions: must be at least 1, got {mask_regions}")
        self.mask_head = mask_head
        self.mask_regions = mask_regions

    def forward(self, images: Tensor) -> MaskRcnnOutputs:  # pyright: ignore[reportIncompatibleMethodOverride] - more
        """Scores and boxes of every proposal, and masks of the best.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        levels = self.levels(images)
        scores, boxes = self._score(levels, size_of(images))
        best, label = scores.max(dim=2)
        region = best.topk(min(self.mask_regions, best.shape[1]), dim=1).indices
        label = label.gather(1, region)
        place = torch.arange(images.shape[0], device=images.device)[:, None].expand_as(region)
        image, own = place.flatten(), label.flatten()
        row = own if boxes.shape[2] > 1 else torch.zeros_like(own)
        logits = self.mask_head(levels, boxes[image, region.flatten(), row], image)
        side = logits.shape[-1]
        masks = logits.gather(1, own[:, None, None, None].expand(-1, 1, side, side))
        return MaskRcnnOutputs(scores, boxes, region, label, masks.view(*region.shape, side, side))

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Faster R-CNN's terms, and `mask` behind them (see `MaskHead.loss`).

        Raises:
            ShapeError: there are objects without masks, or masks of another size than the images.
        """
        if self.stage != "rpn":
            _check_masks(targets, size_of(images))
        return super().loss(images, targets)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor, selection: Selection = SELECTION) -> list[Instances]:
        """Boxes and masks in pixels of the images as given; see `models.base.Detects`.

        Masks are `(n, h, w)` bool of the whole `images`: they may reach a pixel beyond box and valid part.
        """
        if not len(images):
            return []
        levels = self.levels(images)
        found = self._detect(levels, size_of(images), sizes, selection)
        counts = [len(each) for each in found]
        boxes = torch.cat([each.boxes for each in found])
        labels = torch.cat([each.labels for each in found])
        repeats = torch.tensor(counts, device=boxes.device)
        image = torch.arange(len(found), device=boxes.device).repeat_interleave(repeats)
        probs = self.mask_head.probabilities(levels, boxes, image, labels)
        for each, masks in zip(found, paste_masks(probs, boxes, size_of(images)).split(counts), strict=True):
            each.masks = masks
        return found

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published weights under this model's names.

        They are torchvision's Mask R-CNN or Faster R-CNN, or its classifier for the backbone.
        """
        if any(name.startswith("backbone.body.") for name in state):
            return convert_torchvision_mask_rcnn(state)
        return super().adapt_weights(state)

    def reset_classes(self) -> None:
        """Start the outputs of both heads anew."""
        super().reset_classes()
        self.mask_head.reset_outputs()

    def _region_terms(self, levels: list[Tensor], rois: Rois, targets: Targets) -> dict[str, Tensor]:
        terms = super()._region_terms(levels, rois, targets)
        return terms | {"mask": self.mask_head.loss(levels, rois, targets)}


def _check_masks(targets: Targets, size: tuple[int, int]) -> None:
    objects = len(targets.boxes)
    if objects and (targets.masks is None or targets.masks.shape != (objects, *size)):
        found = "none" if targets.masks is None else f"masks of {tuple(targets.masks.shape)}"
        raise ShapeError(
            f"mask_rcnn: expected a mask of {size[0]} x {size[1]} for each of {objects} objects, got {found}; read the "
            "data with the task 'instance'"
        )


def convert_torchvision_mask_rcnn(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's `MaskRCNN` on a ResNet-FPN under this model's names.

    As `convert_torchvision_faster_rcnn`; `roi_heads.mask_head.` becomes `mask_head.convs.`, `roi_heads.mask_predictor.`
    becomes `mask_head.`. Torchvision draws a mask of the background too, which nothing reads: it is left out.

    Args:
        state: torchvision's state dict.

    Returns:
        A new dict; tensors are not copied.
    """
    found: dict[str, Tensor] = {}
    for name, value in convert_torchvision_faster_rcnn(state).items():
        new, kept = name, value
        if name.startswith("roi_heads.mask_head."):
            new = name.replace("roi_heads.mask_head.", "mask_head.convs.")
            layer, _, part = new.removeprefix("mask_head.convs.mask_fcn").partition(".")
            if "mask_fcn" in name:  # older than torchvision 0.14: mask_fcn1.weight
                new = f"mask_head.convs.{int(layer) - 1}.0.{part}"
        elif name.startswith("roi_heads.mask_predictor."):
            new = name.replace("roi_heads.mask_predictor.", "mask_head.")
            kept = value[1:] if "mask_fcn_logits" in name else value
        found[new] = kept
    return found


def build_mask_rcnn(config: MaskRcnnConfig, *, num_classes: int, channels: int, statistics: Statistics) -> MaskRcnn:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `mask_rcnn`.
        num_classes: k, without background.
        channels: of the input.
        statistics: of the input's channels.
    """
    parts = build_parts(config, num_classes=num_classes, channels=channels)
    mask_head = MaskHead(
        config.fpn_channels,
        num_classes,
        strides=parts.box_head.strides,
        width=config.mask_channels,
        convs=config.mask_convs,
        size=config.mask_size,
    )
    return MaskRcnn(
        *parts,
        mask_head,
        statistics=statistics,
        stage=config.stage,
        sampler=RoiSampler(samples=config.samples),
    )
