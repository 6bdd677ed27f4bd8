"""Faster R-CNN: a network proposes regions, a second head says what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.published import backbone_weights
from clearsight.models.base import Backbone
from clearsight.models.detect.box_head import BoxHead
from clearsight.models.detect.pyramid import Pyramid, build_pyramid
from clearsight.models.detect.regions import RegionDetections, detect_regions, score_regions, size_of
from clearsight.models.detect.retinanet import convert_torchvision_retinanet
from clearsight.models.detect.rois import Rois, RoiSampler
from clearsight.models.detect.rpn import Rpn
from clearsight.nn.input import InputNorm
from clearsight.ops.selection import Selection
from clearsight.types import Instances, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.proposal_sections import FasterRcnnConfig, MaskRcnnConfig

__all__ = [
    "FasterRcnn",
    "FasterRcnnParts",
    "build_faster_rcnn",
    "build_parts",
    "convert_torchvision_faster_rcnn",
]

SELECTION = Selection()

LEVELS = ("c2", "c3", "c4", "c5")
Stage = Literal["joint", "rpn", "boxes"]


class FasterRcnn(nn.Module):
    """Faster R-CNN on a pyramid of a backbone with levels c2 to c5.

    Method: Ren et al. 2015, arXiv:1506.01497, on a pyramid as Lin et al. 2017, arXiv:1612.03144, sections 4.1 and 4.2,
    in the form that torchvision publishes weights for. Both stages learn together ("approximate joint training",
    section 3.2 there), or in turns: `rpn` first, then `boxes` or `joint` from its weights.

    Args:
        backbone: gives the levels that the neck takes.
        neck: gives any number of levels.
        rpn: of all levels of the neck.
        box_head: reads the first of them.
        statistics: of the input's channels.
        stage: whose terms `loss` gives: `joint`, `rpn` or `boxes`. Nothing is frozen: what no term depends on gets no
            gradient, so in stage `rpn` the box head stays as it is, and in stage `boxes` the head of the proposals.
            `predict` always uses both, and finds nothing of use before the box head was trained.
        sampler: which regions the box head learns from; None for `RoiSampler()`.

    Shape: images `(n, c, h, w)` → `RegionDetections`.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes.

    Raises:
        ConfigError: the stage is unknown.
    """

    class_layer = tuple(
        f"box_head.{layer}.{part}" for layer in ("cls_score", "bbox_pred") for part in ("weight", "bias")
    )

    def __init__(
        self,
        backbone: Backbone,
        neck: Pyramid,
        rpn: Rpn,
        box_head: BoxHead,
        *,
        statistics: Statistics,
        stage: Stage = "joint",
        sampler: RoiSampler | None = None,
    ) -> None:
        super().__init__()
        if stage not in ("joint", "rpn", "boxes"):
            raise ConfigError(f"stage: expected 'joint', 'rpn' or 'boxes', got {stage!r}")
        self.input_norm = InputNorm(statistics)
        self.backbone = backbone
        self.neck = neck
        self.rpn = rpn
        self.box_head = box_head
        self.stage: Stage = stage
        self.sampler = RoiSampler() if sampler is None else sampler

    def forward(self, images: Tensor) -> RegionDetections:
        """Scores and boxes of every proposal.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        return self._score(self.levels(images), size_of(images))

    def levels(self, images: Tensor) -> list[Tensor]:
        """The pyramid, `(n, channels, h, w)` a level, in rising stride."""
        return self.neck(self.backbone.features(self.input_norm(images)))

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Terms `rpn_class` and `rpn_box` (see `RpnLoss`), `class` and `box` (see `BoxHead.loss`).

        Draws first the anchors and then the regions from PyTorch's global stream on the CPU; see `sample_balanced`.
        """
        levels = self.levels(images)
        outputs = self.rpn(levels, size_of(images))
        terms = {} if self.stage == "boxes" else self.rpn.loss(outputs, targets)
        if self.stage == "rpn":
            return terms
        found = self.rpn.propose(outputs, size_of(images), learning=True)
        return terms | self._region_terms(levels, self.sampler(found, targets), targets)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor, selection: Selection = SELECTION) -> list[Instances]:
        """Boxes in pixels of the images as given; see `models.base.Detects`."""
        return self._detect(self.levels(images), size_of(images), sizes, selection)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published weights under this model's names: torchvision's detector, or its classifier for the backbone."""
        if any(name.startswith("backbone.body.") for name in state):
            return convert_torchvision_faster_rcnn(state)
        return backbone_weights(self.backbone, state)

    def reset_classes(self) -> None:
        """Start the outputs of the box head anew."""
        self.box_head.reset_outputs()

    # What a subclass that reads more from the regions builds on.
    def _score(self, levels: list[Tensor], size: tuple[int, int]) -> RegionDetections:
        """Scores and boxes of every proposal, from the pyramid of images of this size."""
        found = self.rpn.propose(self.rpn(levels, size), size)
        return score_regions(self.box_head, partial(self.box_head, levels), found, size)

    def _region_terms(self, levels: list[Tensor], rois: Rois, targets: Targets) -> dict[str, Tensor]:
        """The terms of what learns from the sampled regions."""
        regions = self.box_head(levels, rois.boxes, rois.image)
        class_loss, box_loss = self.box_head.loss(regions, rois, targets)
        return {"class": class_loss, "box": box_loss}

    def _detect(
        self, levels: list[Tensor], size: tuple[int, int], sizes: Tensor, selection: Selection
    ) -> list[Instances]:
        """Boxes of each image, from the pyramid of images of this size with valid parts of `sizes`."""
        found = self.rpn.propose(self.rpn(levels, size), sizes)
        return detect_regions(self.box_head, partial(self.box_head, levels), found, sizes, selection)


def convert_torchvision_faster_rcnn(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's `FasterRCNN` on a ResNet-FPN under this model's names.

    `backbone.body.` becomes `backbone.`, `backbone.fpn.` becomes `neck.`, `roi_heads.box_head.` and
    `roi_heads.box_predictor.` become `box_head.`; also of files older than torchvision 0.14, whose convolutions in
    the pyramid and in the head of the proposals have shorter names. Torchvision counts the background as class 0: its
    91 classes are 90 here.

    Args:
        state: torchvision's state dict.

    Returns:
        A new dict; tensors are not copied.
    """
    found: dict[str, Tensor] = {}
    for name, value in convert_torchvision_retinanet(state).items():
        new = name
        for prefix in ("roi_heads.box_head.", "roi_heads.box_predictor."):
            new = new.replace(prefix, "box_head.")
        if new.startswith("rpn.head.conv.") and new.count(".") == 3:  # rpn.head.conv.weight
            new = new.replace("conv.", "conv.0.0.")
        found[new] = value
    return found


class FasterRcnnParts(NamedTuple):
    """What a Faster R-CNN is made of; see there."""

    backbone: Backbone
    neck: Pyramid
    rpn: Rpn
    box_head: BoxHead


def build_faster_rcnn(
    config: FasterRcnnConfig, *, num_classes: int, channels: int, statistics: Statistics
) -> FasterRcnn:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `faster_rcnn`.
        num_classes: k, without background.
        channels: of the input.
        statistics: of the input's channels.
    """
    return FasterRcnn(
        *build_parts(config, num_classes=num_classes, channels=channels),
        statistics=statistics,
        stage=config.stage,
        sampler=RoiSampler(samples=config.samples),
    )


def build_parts(config: FasterRcnnConfig | MaskRcnnConfig, *, num_classes: int, channels: int) -> FasterRcnnParts:
    """The parts that a section with Faster R-CNN's keys describes.

    Args:
        config: of name `faster_rcnn` or `mask_rcnn`.
        num_classes: k, without background.
        channels: of the input.
    """
    backbone, neck = build_pyramid(config, channels=channels, levels=LEVELS, extra="p6", neck=config.neck)
    strides = list(neck.strides.values())
    rpn = Rpn(
        config.fpn_channels,
        strides,
        anchor_sizes=config.anchor_sizes,
        proposals=config.proposals,
        train_proposals=config.train_proposals,
    )
    box_head = BoxHead(
        config.fpn_channels,
        num_classes,
        strides=strides[:-1],
        width=config.box_width,
        pooling=config.pooling,
    )
    return FasterRcnnParts(backbone, neck, rpn, box_head)
