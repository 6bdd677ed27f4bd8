"""What a recipe may say of its model: one section a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from clearsight.errors import nearest
from clearsight.recipe.assigner_sections import (
    AssignerConfig,
    CentreSamplingConfig,
    MaxIouConfig,
    MultiBoxConfig,
    SimOtaConfig,
)
from clearsight.recipe.section import Count, Fraction, Positive, Rate, Section

__all__ = [
    "BACKBONE_NAMES",
    "MODEL_SECTIONS",
    "CascadeRcnnConfig",
    "ClassifierConfig",
    "FasterRcnnConfig",
    "FcosConfig",
    "LightConfig",
    "ModelConfig",
    "RetinaNetConfig",
    "SsdConfig",
]


# ------------------------------------------------------------------------------------------------ models
# fmt: off
BACKBONE_NAMES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
    "wide_resnet50_2", "wide_resnet101_2",
    "seresnet18", "seresnet34", "seresnet50", "seresnet101", "seresnet152",
    "preact_resnet18", "preact_resnet34", "preact_resnet50", "preact_resnet101", "preact_resnet152",
    "densenet121", "densenet161", "densenet169", "densenet201",
    "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn",
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "googlenet",
    "inception_v3",
    "vit_ti_16", "vit_s_16", "vit_b_16", "vit_b_32", "vit_l_16",
    "swin_t", "swin_s", "swin_b",
    "convmixer_768_32", "convmixer_1024_20_ks9_p14", "convmixer_1536_20",
    "fnet_ti_16", "fnet_s_16", "fnet_b_16",
    "repvgg_a0", "repvgg_a1", "repvgg_a2", "repvgg_b0", "repvgg_b1", "repvgg_b2", "repvgg_b3",
    "acnet18",
)
# fmt: on


def _known_backbone(name: str) -> str:
    if name not in BACKBONE_NAMES and not name.startswith("timm:"):
        raise ValueError(f"there is no backbone {name!r}{nearest(name, BACKBONE_NAMES)}")
    return name


Backbone = Annotated[
    str,
    AfterValidator(_known_backbone),
    Field(description="A name of `clearsight models`, or `timm:` and a name of timm's."),
    WithJsonSchema({"anyOf": [{"enum": list(BACKBONE_NAMES)}, {"type": "string", "pattern": "^timm:.+"}]}),
]
Overlap = Annotated[float, Field(gt=0.0, le=1.0)]
Norm = Literal["batch", "group", "layer", "layer_channels", "instance", "frozen_batch"]
BackboneNorm = Annotated[Norm | None, Field(description="Of the backbone; null for the published network's.")]
DropPath = Annotated[
    Rate, Field(description="Share of samples whose residual branch is left out, in the backbone's deepest block.")
]


class ClassifierConfig(Section):
    """A backbone, global pooling and a linear layer."""

    name: Literal["classifier"] = "classifier"
    backbone: Backbone = "resnet18"
    norm: BackboneNorm = None
    dropout: Rate = 0.0
    """Share of the last features that is dropped."""
    drop_path: DropPath = 0.0
    label_smoothing: Rate = 0.0
    small_input: bool = False
    """A quarter of the backbone's strides, for images of 28 to 64 pixels."""
    auxiliary: bool = False
    """Classifiers half-way, in training only (GoogLeNet, Inception V3)."""
    weights: str | None = None
    """Path or URL of published weights."""
    weights_sha256: str | None = None


class RetinaNetConfig(Section):
    """RetinaNet (Lin et al. 2017) on a feature pyramid."""

    name: Literal["retinanet"] = "retinanet"
    backbone: Backbone = "resnet18"
    norm: BackboneNorm = None
    drop_path: DropPath = 0.0
    fpn_channels: Count = 256
    head_convs: Annotated[int, Field(ge=0, le=8)] = 4
    anchor_sizes: tuple[Positive, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of the first anchor of each level, pixels; three octave scales and three ratios come of each."""
    assigner: AssignerConfig = MaxIouConfig()
    box_loss: Literal["l1", "smooth_l1", "giou"] = "l1"
    focal_alpha: Fraction = 0.25
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    weights: str | None = None
    weights_sha256: str | None = None


class _ProposalSection(Section):
    """What the detectors of two stages have in common."""

    name: str
    backbone: Backbone = "resnet18"
    norm: BackboneNorm = None
    drop_path: DropPath = 0.0
    fpn_channels: Count = 256
    anchor_sizes: tuple[Positive, Positive, Positive, Positive, Positive] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of each level's anchors, pixels; three shapes come of each."""
    box_width: Count = 1024
    """Of the two hidden layers behind the pooled regions."""
    pooling: Literal["align", "pool"] = "align"
    """Of regions: interpolated (He et al. 2017) or to whole pixels (Girshick 2015)."""
    proposals: Count = 1000
    """Regions an image in use."""
    train_proposals: Count = 2000
    """Regions an image in training, before sampling."""
    samples: Count = 512
    """Regions an image that the heads learn from, a quarter of them objects where there are as many."""
    weights: str | None = None
    weights_sha256: str | None = None


class FasterRcnnConfig(_ProposalSection):
    """Faster R-CNN (Ren et al. 2015) on a feature pyramid: proposes regions, then classifies and refines them."""

    name: Literal["faster_rcnn"] = "faster_rcnn"  # pyright: ignore[reportIncompatibleVariableOverride] - it is frozen
    stage: Literal["joint", "rpn", "boxes"] = "joint"
    """What is trained: both, the proposals alone, or what classifies and refines them (alternating training)."""


class CascadeRcnnConfig(_ProposalSection):
    """Cascade R-CNN (Cai and Vasconcelos 2018): three refinements, each for boxes that overlap more."""

    name: Literal["cascade_rcnn"] = "cascade_rcnn"  # pyright: ignore[reportIncompatibleVariableOverride]
    overlaps: tuple[Overlap, Overlap, Overlap] = (0.5, 0.6, 0.7)
    """IoU from which on a region is an object's, one a stage."""


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


class FcosConfig(Section):
    """FCOS (Tian et al. 2019): no anchors, four distances and a centreness at each point."""

    name: Literal["fcos"] = "fcos"
    backbone: Backbone = "resnet18"
    norm: BackboneNorm = None
    drop_path: DropPath = 0.0
    fpn_channels: Count = 256
    head_convs: Annotated[int, Field(ge=0, le=8)] = 4
    head_norm: Norm = "group"
    assigner: AssignerConfig = CentreSamplingConfig()
    box_loss: Literal["iou", "giou", "diou", "ciou"] = "giou"
    focal_alpha: Fraction = 0.25
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    weights: str | None = None
    weights_sha256: str | None = None


class SsdConfig(Section):
    """SSD (Liu et al. 2016): anchors of several shapes on maps of falling size, hard negatives alone."""

    name: Literal["ssd"] = "ssd"
    backbone: Backbone = "vgg16"
    """A VGG gives the published maps; any other backbone three of its own and three more."""
    norm: BackboneNorm = None
    drop_path: DropPath = 0.0
    anchor_scales: tuple[Positive, Positive, Positive, Positive, Positive, Positive, Positive] = (
        0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05,
    )  # fmt: skip
    """Sides of the anchors of the six maps, and of a seventh, relative to the image."""
    assigner: AssignerConfig = MultiBoxConfig()
    negatives: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.0
    """Background anchors that count, for each positive one."""
    weights: str | None = None
    weights_sha256: str | None = None


ModelConfig = Annotated[
    ClassifierConfig | RetinaNetConfig | FcosConfig | SsdConfig | FasterRcnnConfig | CascadeRcnnConfig | LightConfig,
    Field(discriminator="name"),
]
MODEL_SECTIONS: dict[str, type[Section]] = {
    "classifier": ClassifierConfig,
    "retinanet": RetinaNetConfig,
    "fcos": FcosConfig,
    "ssd": SsdConfig,
    "faster_rcnn": FasterRcnnConfig,
    "cascade_rcnn": CascadeRcnnConfig,
    "light": LightConfig,
}
