"""A light one-stage detector for small images and few cores: anchor-free, one shared head, dynamic assignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.assign import Assigner, build_assigner
from clearsight.assign.assignment import Points, Predictions
from clearsight.assign.simota import SimOta
from clearsight.losses.box import giou_loss
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.backbones.published import backbone_weights
from clearsight.models.base import Backbone
from clearsight.models.detect.bag_terms import bag_terms
from clearsight.models.detect.dense import LEVELS, PointGrid, Scored, class_targets, postprocess
from clearsight.models.necks.fpn import Fpn
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.init import kaiming_init, prior_bias
from clearsight.nn.input import InputNorm
from clearsight.nn.parallel import mean_over_processes
from clearsight.ops.box_codes import decode_distances
from clearsight.ops.boxes import paired_giou, paired_iou
from clearsight.ops.selection import Selection
from clearsight.types import Instances, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.detector_sections import LightConfig

__all__ = ["LightDetector", "LightOutputs", "build_light"]

SELECTION = Selection(nms_iou=0.6)

LARGEST_EXPONENT = 6.0  # exp(6) = 403 half-strides: no box is larger, and no wild guess overflows


class LightOutputs(NamedTuple):
    """What the head says at each point.

    Args:
        logits: `(n, l, k)` class logits; the probability is meant to be the box's IoU with an object of the class.
        distances: `(n, l, 4)` left, top, right, bottom from the point, in strides, above 0.
    """

    logits: Tensor
    distances: Tensor


class LightHead(nn.Module):
    """Convolutions shared by all levels, then a class score and four distances at each point.

    Args:
        channels: of every level.
        num_classes: k.
        levels: number of levels; each has a learned scale of its distances (as in FCOS, arXiv:1904.01355, section 3.2).
        convs: 3×3 convolutions before the two predictions.
        norm: a name of `nn.norm`.
    """

    def __init__(self, channels: int, num_classes: int, *, levels: int, convs: int, norm: str) -> None:
        super().__init__()
        self.tower = nn.Sequential(*(ConvNormAct(channels, channels, 3, norm=norm) for _ in range(convs)))
        kaiming_init(self.tower)
        self.classes = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.distances = nn.Conv2d(channels, 4, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(levels))
        self.reset_prior()
        nn.init.normal_(self.distances.weight, std=0.01)
        nn.init.zeros_(self.distances.bias)  # pyright: ignore[reportArgumentType]

    def reset_prior(self) -> None:
        """Start the class scores anew, at one positive in a hundred (RetinaNet, arXiv:1708.02002, section 4.1)."""
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.constant_(self.classes.bias, prior_bias(0.01))  # pyright: ignore[reportArgumentType]

    def forward(self, levels: Sequence[Tensor]) -> LightOutputs:
        """Predict: `(n, channels, h, w)` a level → `LightOutputs` over the l points of all levels."""
        logits, distances = [], []
        for level, scale in zip(levels, self.scales, strict=True):
            shared = self.tower(level)
            logits.append(self.classes(shared).flatten(2).mT)  # n hw k
            distances.append(self.distances(shared).flatten(2).mT.float() * scale)
        # Twice the exponential: at its start the head predicts boxes of four strides, the middle of a level's range.
        raw = torch.cat(distances, dim=1)
        return LightOutputs(torch.cat(logits, dim=1).float(), 2 * raw.clamp(max=LARGEST_EXPONENT).exp())


class LightDetector(nn.Module):
    """One-stage, anchor-free detector.

    A small residual backbone, a feature pyramid at strides 8, 16 and 32, one head shared by the levels. Points are
    assigned by what the model predicts (SimOTA, Ge et al. 2021, arXiv:2107.08430); a point's class score learns the IoU
    of its box (as in Zhang et al. 2021, VarifocalNet, arXiv:2008.13367, with plain cross-entropy), so that the score
    ranks boxes by how well they fit; boxes learn by GIoU (arXiv:1902.09630).

    Shape: images `(n, c, h, w)` uint8, uint16 or float → `LightOutputs`.

    Args:
        backbone: gives levels `c3`, `c4`, `c5`.
        num_classes: k.
        statistics: of the training images.
        fpn_channels: of the pyramid and the head.
        head_convs: 3×3 convolutions of the head.
        norm: a name of `nn.norm`.
        assigner: None for `SimOta()`. One with parameters is trained and saved with the model.
        box_weight: factor of the box loss.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes; the last two are those of an
            assigner that learns (`assign.auto_assign`), which others lack.
    """

    class_layer = ("head.classes.weight", "head.classes.bias", "assigner.mean", "assigner.log_sigma")

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        statistics: Statistics,
        fpn_channels: int = 64,
        head_convs: int = 2,
        norm: str = "batch",
        assigner: Assigner | None = None,
        box_weight: float = 2.0,
    ) -> None:
        super().__init__()
        used = {level: backbone.channels[level] for level in LEVELS}
        self.input_norm = InputNorm(statistics)
        self.backbone = backbone
        self.neck = Fpn(used, fpn_channels, strides=backbone.strides, norm=norm)
        self.head = LightHead(fpn_channels, num_classes, levels=len(used), convs=head_convs, norm=norm)
        self.num_classes = num_classes
        self.assigner: Assigner = SimOta() if assigner is None else assigner
        self.box_weight = box_weight
        self.points = PointGrid(tuple(self.neck.strides.values()))

    def forward(self, images: Tensor) -> LightOutputs:
        """Raw predictions at all points."""
        return self.head(self.neck(self.backbone.features(self.input_norm(images))))

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Training losses; their sum is what is minimised.

        Args:
            images: `(n, c, h, w)`.
            targets: objects in pixels of the images.

        Returns:
            `class` (cross-entropy of the scores with the IoU of each point's box) and `box` (1 - GIoU, each pair
            weighted by its IoU, so that good boxes get better and hopeless ones do not pull), both divided by the sum
            of the pairs' IoU, averaged over processes. With an assigner that gives objects bags of points `bag` and
            `background`, see `models.detect.bag_terms`; a pair's box loss is 1 - GIoU, and `box_weight` without effect.
        """
        outputs = self(images)
        points = self.points(images.shape[-2:], images.device)
        boxes = _boxes(outputs, points)
        predictions = Predictions(outputs.logits.detach(), boxes.detach())
        assignment = self.assigner(points, targets, predictions, images=len(images))
        image = targets.image[assignment.object]
        matched, truth = boxes[image, assignment.point], targets.boxes[assignment.object]
        if assignment.combine != "each":
            return bag_terms(assignment, targets, outputs.logits, 1 - paired_giou(matched, truth))
        overlap = paired_iou(matched.detach(), truth)
        assignment.quality = overlap
        wanted, weight = class_targets(assignment, targets, classes=self.num_classes)
        entropy = F.binary_cross_entropy_with_logits(outputs.logits, wanted, weight[..., None], reduction="sum")
        share = assignment.weight * overlap
        total = mean_over_processes(share.sum()).clamp(min=1.0)
        return {
            "class": entropy / total,
            "box": self.box_weight * giou_loss(matched, truth, weight=share) / total,
        }

    def scored(self, images: Tensor) -> Scored:
        """What `predict` selects from."""
        outputs = self(images)
        points = self.points(images.shape[-2:], images.device)

        def decode(image: Tensor, point: Tensor) -> Tensor:
            return decode_distances(outputs.distances[image, point], points.xy[point], points.stride[point])

        return Scored(outputs.logits, decode=decode, level=points.level)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor, selection: Selection = SELECTION) -> list[Instances]:
        """Boxes in pixels of the images as given; see `models.base.Detects`."""
        return postprocess(self.scored(images), sizes, selection)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published classifier's weights under this model's names, for the backbone."""
        return backbone_weights(self.backbone, state)

    def reset_classes(self) -> None:
        """Start the last layer of the class scores anew, at the prior."""
        self.head.reset_prior()


def _boxes(outputs: LightOutputs, points: Points) -> Tensor:
    """Decoded boxes of all points, `(n, l, 4)`."""
    return decode_distances(outputs.distances, points.xy, points.stride)


def build_light(config: LightConfig, *, num_classes: int, channels: int, statistics: Statistics) -> LightDetector:
    """The light detector that a recipe describes.

    Args:
        config: the recipe's `model` section.
        num_classes: number of classes.
        channels: of the images.
        statistics: of the training images.
    """
    if config.backbone is None:
        backbone = LightBackbone(channels=channels, widths=config.widths, depths=config.depths, norm=config.norm)
    else:
        backbone = build_backbone(config.backbone, channels=channels, levels=LEVELS)
    return LightDetector(
        backbone,
        num_classes=num_classes,
        statistics=statistics,
        fpn_channels=config.fpn_channels,
        head_convs=config.head_convs,
        norm=config.norm,
        assigner=build_assigner(config.assigner, num_classes=num_classes),
        box_weight=config.box_weight,
    )
