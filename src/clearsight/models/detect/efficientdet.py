"""EfficientDet: RetinaNet's anchors and loss on a pyramid and heads that grow with one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from clearsight.assign import MaxIou, build_assigner
from clearsight.models.backbones import build_backbone
from clearsight.models.base import Backbone
from clearsight.models.detect.dense import LEVELS, PointGrid
from clearsight.models.detect.efficientdet_head import EfficientDetHead
from clearsight.models.detect.retinanet import ANCHOR_SIZES, OCTAVES, RATIOS, RetinaNet
from clearsight.models.detect.retinanet_loss import RetinaNetLoss
from clearsight.models.necks.bifpn import Bifpn, Fusion

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.detector_sections import EfficientDetConfig

__all__ = ["EFFICIENTDET_SIZES", "EfficientDet", "EfficientDetSize", "build_efficientdet"]

BEND = 0.1


class EfficientDetSize(NamedTuple):
    """One of the published networks, by the names of a recipe's `model` section.

    Args:
        backbone: a name of `clearsight models`.
        bifpn_channels: of every level.
        bifpn_layers: rounds of the pyramid.
        head_convs: of each head.
        fusion: see `models.necks.bifpn.WeightedSum`.
        side: of the images that it was trained on, pixels; a recipe has it in its `data` section.
        anchor_sizes: side of the first anchor of each level, pixels.
    """

    backbone: str
    bifpn_channels: int
    bifpn_layers: int
    head_convs: int
    fusion: Fusion
    side: int
    anchor_sizes: tuple[float, ...] = ANCHOR_SIZES


# Tan et al. 2020, table 1. Fusion and anchors as in the authors' code: the largest did not train well with weights.
EFFICIENTDET_SIZES: dict[str, EfficientDetSize] = {
    "d0": EfficientDetSize("efficientnet_b0", 64, 3, 3, "fast", 512),
    "d1": EfficientDetSize("efficientnet_b1", 88, 4, 3, "fast", 640),
    "d2": EfficientDetSize("efficientnet_b2", 112, 5, 3, "fast", 768),
    "d3": EfficientDetSize("efficientnet_b3", 160, 6, 4, "fast", 896),
    "d4": EfficientDetSize("efficientnet_b4", 224, 7, 4, "fast", 1024),
    "d5": EfficientDetSize("efficientnet_b5", 288, 7, 4, "fast", 1280),
    "d6": EfficientDetSize("efficientnet_b6", 384, 8, 5, "sum", 1280),
    "d7": EfficientDetSize("efficientnet_b6", 384, 8, 5, "sum", 1536, (40.0, 80.0, 160.0, 320.0, 640.0)),
}
"""The published networks by name; a recipe takes their values one by one."""


class EfficientDet(RetinaNet):
    """EfficientDet on a backbone with levels c3 to c5.

    Method: Tan et al. 2020, arXiv:1911.09070, sections 3 and 4; `EFFICIENTDET_SIZES` has the published networks.
    Anchors stand in the middle of their cells, as in the authors' code; their nine shapes and the codes of the boxes
    are RetinaNet's as torchvision has them (ratios 1/2, 1, 2; corners in whole pixels), where the authors round the
    ratios to 0.7 by 1.4. Norms over a batch need more than one value a channel: images that are one pixel at the last
    level are trained at least two at a time.

    Args:
        backbone: gives `c3`, `c4`, `c5`.
        neck: gives any number of levels.
        head: nine anchors a location, as many levels as the neck.
        statistics: of the input's channels.
        anchor_sizes: side of the first anchor of each level, pixels.
        criterion: the loss; None for the authors' focal loss of gamma 1.5 and smooth L1 with a bend at 0.1, of anchors
            that overlap an object by half (their box loss weighs 1.25 times as much beside the focal loss).

    Shape: images `(n, c, h, w)` → `RetinaNetOutputs`.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes; the last two are those of an
            assigner that learns (`assign.auto_assign`), which others lack.

    Raises:
        ConfigError: there are not as many anchor sizes as levels.
    """

    class_layer = (
        "head.classification_head.output.pointwise.weight",
        "head.classification_head.output.pointwise.bias",
        "criterion.assigner.mean",
        "criterion.assigner.log_sigma",
    )

    def __init__(
        self,
        backbone: Backbone,
        neck: Bifpn,
        head: EfficientDetHead,
        *,
        statistics: Statistics,
        anchor_sizes: Sequence[float] = ANCHOR_SIZES,
        criterion: RetinaNetLoss | None = None,
    ) -> None:
        super().__init__(
            backbone,
            neck,
            head,
            statistics=statistics,
            anchor_sizes=anchor_sizes,
            criterion=_authors_loss() if criterion is None else criterion,
        )
        # in the middle of their cells, where RetinaNet's stand in the corner
        self.points = PointGrid(tuple(neck.strides.values()), anchors=self.points.anchors)


def build_efficientdet(
    config: EfficientDetConfig, *, num_classes: int, channels: int, statistics: Statistics
) -> EfficientDet:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `efficientdet`.
        num_classes: k.
        channels: of the input.
        statistics: of the input's channels.
    """
    backbone = build_backbone(
        config.backbone, norm=config.norm, channels=channels, drop_path=config.drop_path, levels=LEVELS
    )
    neck = Bifpn(
        {level: backbone.channels[level] for level in LEVELS},
        config.bifpn_channels,
        strides=backbone.strides,
        layers=config.bifpn_layers,
        fusion=config.fusion,
        norm=config.head_norm,
    )
    head = EfficientDetHead(
        config.bifpn_channels,
        OCTAVES * len(RATIOS),
        num_classes,
        levels=len(neck.strides),
        convs=config.head_convs,
        norm=config.head_norm,
    )
    criterion = RetinaNetLoss(
        assigner=build_assigner(config.assigner, num_classes=num_classes),
        box_loss=config.box_loss,
        alpha=config.focal_alpha,
        gamma=config.focal_gamma,
        beta=BEND,
    )
    return EfficientDet(
        backbone, neck, head, statistics=statistics, anchor_sizes=config.anchor_sizes, criterion=criterion
    )


def _authors_loss() -> RetinaNetLoss:
    return RetinaNetLoss(assigner=MaxIou(positive=0.5, negative=0.5), box_loss="smooth_l1", gamma=1.5, beta=BEND)
