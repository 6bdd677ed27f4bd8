"""What a recipe may say of segmenters and contour models: one section a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clearsight.recipe.backbone_names import Backbone, BackboneNorm, DropPath, Norm
from clearsight.recipe.detector_sections import CentreSection
from clearsight.recipe.section import Count, Pixels, Positive, Rate, Section

__all__ = [
    "DanetConfig",
    "DeepSnakeConfig",
    "SegmentLossConfig",
    "SegmenterSection",
    "SemanticFpnConfig",
    "SwinUnetConfig",
    "TransUnetConfig",
    "UNetConfig",
]


class SegmentLossConfig(Section):
    """What a wrong class of a pixel costs; see `models.segment.semantic_loss`."""

    name: Literal["ce_dice", "cross_entropy", "dice", "focal", "tversky"] = "ce_dice"
    dice_weight: Positive = 1.0
    """Of the Dice term beside cross-entropy."""
    label_smoothing: Rate = 0.0
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """Of the focal loss."""


ClassWeights = Literal["none", "inverse", "inverse_sqrt", "median", "effective"]


class SegmenterSection(Section):
    """What all segmenters have in common."""

    loss: SegmentLossConfig = SegmentLossConfig()
    class_weights: ClassWeights = "none"
    """How much a pixel of each class counts, from the number of its pixels in the training images."""
    weights: str | None = None
    """Path or URL of published weights, of the segmenter or of its backbone."""
    weights_sha256: str | None = None


Four = tuple[Count, Count, Count, Count]


class UNetConfig(SegmenterSection):
    """U-Net (Ronneberger et al. 2015), plain or on a backbone."""

    name: Literal["unet"] = "unet"
    backbone: Backbone | None = None
    """None is the published way down of double convolutions; else the decoder stands on a backbone's levels."""
    norm: Norm | None = "batch"
    """None is the published net, without any."""
    drop_path: DropPath = 0.0
    """Of the backbone."""
    padding: Literal["same", "valid"] = "same"
    """`valid` is the published form: mirrored borders, and tiles that fit together without a seam."""
    width: Count = 64
    """Channels of the first level; they double at each."""
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    """Halvings of the image."""
    dropout: Rate = 0.0
    """At the end of the way down."""
    up: Literal["transposed", "bilinear"] = "transposed"
    decoder_channels: tuple[Count, Count, Count, Count, Count] = (256, 128, 64, 32, 16)
    """Of the decoder on a backbone."""


class TransUnetConfig(SegmenterSection):
    """TransUNet (Chen et al. 2021): a transformer on the deepest map of a ResNet, and a decoder with skips."""

    name: Literal["transunet"] = "transunet"
    layers: Count = 12
    width: Count = 768
    """Of the tokens."""
    heads: Count = 12
    backbone_width: Annotated[int, Field(ge=4, strict=True)] = 64
    """Channels of the ResNet's stem."""
    backbone_blocks: tuple[Count, Count, Count] = (3, 4, 9)
    decoder: tuple[Count, Count, Count, Count, Count] = (512, 256, 128, 64, 16)
    """Channels behind the transformer, and of the four steps up."""
    image_size: Annotated[Pixels, Field(multiple_of=16)] = 224
    """Side of the square whose grid the positions are learned for; other sizes interpolate them."""
    dropout: Rate = 0.1
    """Of the tokens and the transformer's layers."""


class SwinUnetConfig(SegmenterSection):
    """Swin-Unet (Cao et al. 2021): windows of attention on the way down and up."""

    name: Literal["swin_unet"] = "swin_unet"
    width: Count = 96
    """Channels of the first stage; they double at each."""
    depths: Four = (2, 2, 2, 2)
    heads: Four = (3, 6, 12, 24)
    """Of each stage; they divide its channels."""
    window: Annotated[int, Field(ge=2, strict=True)] = 7
    """Side in patches."""
    patch: Annotated[int, Field(ge=2, strict=True)] = 4
    """Side in pixels."""
    drop_path: DropPath = 0.2


class SemanticFpnConfig(SegmenterSection):
    """Semantic FPN (Kirillov et al. 2019): the levels of a feature pyramid, brought to one size and added."""

    name: Literal["semantic_fpn"] = "semantic_fpn"
    backbone: Backbone = "resnet18"
    norm: BackboneNorm = None
    drop_path: DropPath = 0.0
    fpn_channels: Count = 256
    head_channels: Count = 128


class DanetConfig(SegmenterSection):
    """DANet (Fu et al. 2019): attention over positions and over channels, side by side."""

    name: Literal["danet"] = "danet"
    backbone: Backbone = "resnet18"
    norm: BackboneNorm = None
    drop_path: DropPath = 0.0
    head_channels: Count = 128
    output_stride: Literal[8, 16] | None = 8
    """Of the deepest level: a ResNet's last stages dilate instead of halving; null is the backbone's own, of any."""


class DeepSnakeConfig(CentreSection):
    """Deep Snake (Peng et al. 2020): CenterNet's boxes, each drawn tight by a network on a ring of vertices."""

    name: Literal["deep_snake"] = "deep_snake"
    points: Annotated[int, Field(ge=16, strict=True)] = 128
    """Vertices of a contour."""
    start_points: Annotated[int, Field(ge=16, multiple_of=4, strict=True)] = 40
    """Vertices of the diamond that finds the extreme points."""
    iterations: Count = 3
    snake_channels: Count = 128
    extreme_weight: Positive = 1.0
    contour_weight: Positive = 1.0
    max_objects: Count = 256
    """Contours of a batch that are learned from; of more, a random part."""
