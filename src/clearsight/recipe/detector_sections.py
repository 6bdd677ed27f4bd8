"""What a recipe may say of detectors of one stage: one section a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clearsight.recipe.assigner_sections import (
    AssignerConfig,
    CentreSamplingConfig,
    MaxIouConfig,
    MultiBoxConfig,
    PredictedIouConfig,
    ShapeRatioConfig,
    SimOtaConfig,
)
from clearsight.recipe.backbone_names import Backbone, BackboneNorm, DropPath, Norm
from clearsight.recipe.section import Count, Fraction, Positive, Section

__all__ = [
    "CenterNetConfig",
    "CentreSection",
    "CornerNetConfig",
    "DenseBoxConfig",
    "DetectorSection",
    "EfficientDetConfig",
    "FcosConfig",
    "LightConfig",
    "Neck",
    "Overlap",
    "RepPointsConfig",
    "RetinaNetConfig",
    "SsdConfig",
    "YoloV3Config",
]

BoxLoss = Literal["iou", "giou", "diou", "ciou"]
Convs = Annotated[int, Field(ge=0, le=8)]
Gamma = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Overlap = Annotated[float, Field(gt=0.0, le=1.0)]
Sides = tuple[Positive, Positive]
Neck = Annotated[
    Literal["fpn", "pan"],
    Field(description="A feature pyramid (Lin et al. 2017), or one with a way back down (PANet, Liu et al. 2018)."),
]


class DetectorSection(Section):
    """What detectors on a published backbone have in common."""

    backbone: Backbone = "resnet18"
    norm: BackboneNorm = None
    drop_path: DropPath = 0.0
    weights: str | None = None
    """Path or URL of published weights, of the detector or of its backbone."""
    weights_sha256: str | None = None


class RetinaNetConfig(DetectorSection):
    """RetinaNet (Lin et al. 2017) on a feature pyramid."""

    name: Literal["retinanet"] = "retinanet"
    neck: Neck = "fpn"
    fpn_channels: Count = 256
    head_convs: Convs = 4
    anchor_sizes: tuple[Positive, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of the first anchor of each level, pixels; three octave scales and three ratios come of each."""
    assigner: AssignerConfig = MaxIouConfig()
    box_loss: Literal["l1", "smooth_l1", "giou"] = "l1"
    focal_alpha: Fraction = 0.25
    focal_gamma: Gamma = 2.0


class FcosConfig(DetectorSection):
    """FCOS (Tian et al. 2019): no anchors, four distances and a centreness at each point."""

    name: Literal["fcos"] = "fcos"
    neck: Neck = "fpn"
    fpn_channels: Count = 256
    head_convs: Convs = 4
    head_norm: Norm = "group"
    assigner: AssignerConfig = CentreSamplingConfig()
    box_loss: BoxLoss = "giou"
    focal_alpha: Fraction = 0.25
    focal_gamma: Gamma = 2.0


class SsdConfig(DetectorSection):
    """SSD (Liu et al. 2016): anchors of several shapes on maps of falling size, hard negatives alone."""

    name: Literal["ssd"] = "ssd"
    backbone: Backbone = "vgg16"
    """A VGG gives the published maps; any other backbone three of its own and three more."""
    anchor_scales: tuple[Positive, Positive, Positive, Positive, Positive, Positive, Positive] = (
        0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05,
    )  # fmt: skip
    """Sides of the anchors of the six maps, and of a seventh, relative to the image."""
    assigner: AssignerConfig = MultiBoxConfig()
    negatives: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.0
    """Background anchors that count, for each positive one."""


class YoloV3Config(DetectorSection):
    """YOLOv3 (Redmon and Farhadi 2018): three anchors a cell, a score that there is an object, and its class."""

    name: Literal["yolov3"] = "yolov3"
    backbone: Backbone = "darknet53"
    neck_width: Positive = 1.0
    """Channels of the neck, relative to the published 512, 256 and 128."""
    anchors: tuple[Sides, ...] = (
        (10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326),
    )  # fmt: skip
    """Width and height in pixels, three a level, by rising area: nine for c3 to c5, six for c4 and c5 (tiny)."""
    assigner: AssignerConfig = ShapeRatioConfig()
    neck_norm: Norm = "batch"
    """Of the neck and the head; the backbone's is `norm`."""
    box_loss: BoxLoss = "ciou"
    box_weight: Positive = 5.0
    objectness_weight: Positive = 1.0
    class_weight: Positive = 1.0

    @model_validator(mode="after")
    def _three_a_level(self) -> YoloV3Config:
        if len(self.anchors) not in (6, 9):
            raise ValueError(f"anchors: expected six (two levels) or nine (three levels), found {len(self.anchors)}")
        return self


class EfficientDetConfig(DetectorSection):
    """EfficientDet (Tan et al. 2020): a pyramid whose levels exchange in both directions, by learned weights."""

    name: Literal["efficientdet"] = "efficientdet"
    bifpn_channels: Count = 64
    bifpn_layers: Count = 3
    head_convs: Convs = 3
    fusion: Literal["fast", "softmax", "sum"] = "fast"
    """How the inputs of a node are weighed."""
    head_norm: Norm = "batch"
    """Of the pyramid and the heads; the backbone's is `norm`."""
    anchor_sizes: tuple[Positive, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of the first anchor of each level, pixels; three octave scales and three ratios come of each."""
    assigner: AssignerConfig = MaxIouConfig(negative=0.5)
    box_loss: Literal["l1", "smooth_l1", "giou"] = "smooth_l1"
    focal_alpha: Fraction = 0.25
    focal_gamma: Gamma = 1.5


class RepPointsConfig(DetectorSection):
    """RepPoints (Yang et al. 2019): a set of points around each object, refined once, in place of a box."""

    name: Literal["reppoints"] = "reppoints"
    neck: Neck = "fpn"
    fpn_channels: Count = 256
    head_convs: Convs = 3
    head_norm: Norm = "group"
    points: Literal[9, 25] = 9
    """A square number, as a deformable convolution reads them."""
    transform: Literal["moment", "minmax", "partial_minmax"] = "moment"
    """How a set of points becomes a box."""
    assigner: AssignerConfig = PredictedIouConfig()
    """Of the classes and the refined points, by the boxes of the first points."""
    focal_alpha: Fraction = 0.25
    focal_gamma: Gamma = 2.0
    first_weight: Positive = 0.5
    refine_weight: Positive = 1.0


class DenseBoxConfig(DetectorSection):
    """DenseBox (Huang et al. 2015): one map of scores and distances, a disc in each object's middle is positive."""

    name: Literal["densebox"] = "densebox"
    fpn_channels: Count = 128
    radius: Positive = 0.3
    """Of the positive disc, relative to the object."""
    class_loss: Literal["l2", "bce"] = "l2"
    box_weight: Positive = 3.0
    negatives: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Background cells that count, for each positive one."""


class CentreSection(DetectorSection):
    """What models have in common whose objects are the peaks of a heat map."""

    neck: Literal["deconv", "fpn"] = "deconv"
    """The way to a map of stride 4: transposed convolutions, or a feature pyramid."""
    neck_channels: tuple[Count, Count, Count] = (256, 128, 64)
    """Of the three transposed convolutions; a pyramid takes the last."""
    head_channels: Count = 64
    min_overlap: Fraction = 0.7
    """IoU that a box moved within the bump of the heat map keeps with the object."""
    size_weight: Positive = 0.1
    offset_weight: Positive = 1.0


class CenterNetConfig(CentreSection):
    """CenterNet (Zhou et al. 2019): an object is the peak of a heat map, with a size and an offset."""

    name: Literal["centernet"] = "centernet"


class CornerNetConfig(DetectorSection):
    """CornerNet (Law and Deng 2018): two corners, paired by learned embeddings."""

    name: Literal["cornernet"] = "cornernet"
    fpn_channels: Count = 128
    """Of the pyramid that leads to stride 4; an hourglass needs none."""
    head_channels: Count = 128
    min_overlap: Overlap = 0.3
    """IoU that a box moved within the bumps of the heat maps keeps with the object."""
    pull_weight: Positive = 0.1
    push_weight: Positive = 0.1
    offset_weight: Positive = 1.0
    top_corners: Count = 100
    """Corners of each kind that are paired."""
    embedding_distance: Positive = 0.5
    """Of two corners' embeddings, below which they may be one object's."""


class LightConfig(Section):
    """One-stage, anchor-free, for small images and few cores."""

    name: Literal["light"] = "light"
    backbone: Backbone | None = None
    """A name of `clearsight models`, or `timm:` and a name of timm's; null for its own small one."""
    widths: tuple[Count, Count, Count, Count] = (24, 48, 96, 160)
    """Channels of the four residual stages of its own backbone."""
    depths: tuple[Count, Count, Count, Count] = (1, 2, 2, 2)
    """Blocks of the four stages of its own backbone."""
    fpn_channels: Count = 64
    head_convs: Count = 2
    norm: Norm = "batch"
    """Of neck, head and its own backbone; a backbone by name has its published one."""
    assigner: AssignerConfig = SimOtaConfig()
    box_weight: Positive = 2.0
    weights: str | None = None
    weights_sha256: str | None = None
