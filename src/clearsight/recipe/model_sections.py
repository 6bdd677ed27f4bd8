"""What a recipe may say of its model: one section a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clearsight.recipe.backbone_names import Backbone, BackboneNorm, DropPath
from clearsight.recipe.detector_sections import (
    CenterNetConfig,
    CornerNetConfig,
    DenseBoxConfig,
    EfficientDetConfig,
    FcosConfig,
    LightConfig,
    RepPointsConfig,
    RetinaNetConfig,
    SsdConfig,
    YoloV3Config,
)
from clearsight.recipe.proposal_sections import (
    CascadeRcnnConfig,
    FasterRcnnConfig,
    FastRcnnConfig,
    MaskRcnnConfig,
    RcnnConfig,
)
from clearsight.recipe.section import Rate, Section
from clearsight.recipe.segment_sections import (
    DanetConfig,
    DeepSnakeConfig,
    SemanticFpnConfig,
    SwinUnetConfig,
    TransUnetConfig,
    UNetConfig,
)
from clearsight.types import Task

__all__ = ["MODEL_SECTIONS", "ClassifierConfig", "ModelConfig", "model_task"]


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


ModelConfig = Annotated[
    ClassifierConfig
    | RetinaNetConfig
    | FcosConfig
    | SsdConfig
    | YoloV3Config
    | EfficientDetConfig
    | RepPointsConfig
    | DenseBoxConfig
    | CenterNetConfig
    | CornerNetConfig
    | RcnnConfig
    | FastRcnnConfig
    | FasterRcnnConfig
    | CascadeRcnnConfig
    | LightConfig
    | UNetConfig
    | TransUnetConfig
    | SwinUnetConfig
    | SemanticFpnConfig
    | DanetConfig
    | MaskRcnnConfig
    | DeepSnakeConfig,
    Field(discriminator="name"),
]
MODEL_SECTIONS: dict[str, type[Section]] = {
    "classifier": ClassifierConfig,
    "retinanet": RetinaNetConfig,
    "fcos": FcosConfig,
    "ssd": SsdConfig,
    "yolov3": YoloV3Config,
    "efficientdet": EfficientDetConfig,
    "reppoints": RepPointsConfig,
    "densebox": DenseBoxConfig,
    "centernet": CenterNetConfig,
    "cornernet": CornerNetConfig,
    "rcnn": RcnnConfig,
    "fast_rcnn": FastRcnnConfig,
    "faster_rcnn": FasterRcnnConfig,
    "cascade_rcnn": CascadeRcnnConfig,
    "light": LightConfig,
    "unet": UNetConfig,
    "transunet": TransUnetConfig,
    "swin_unet": SwinUnetConfig,
    "semantic_fpn": SemanticFpnConfig,
    "danet": DanetConfig,
    "mask_rcnn": MaskRcnnConfig,
    "deep_snake": DeepSnakeConfig,
}
SEMANTIC = ("unet", "transunet", "swin_unet", "semantic_fpn", "danet")
INSTANCE = ("mask_rcnn", "deep_snake")


def model_task(name: str) -> Task:
    """What a model of `MODEL_SECTIONS` is trained to do."""
    if name == "classifier":
        return "classification"
    if name in SEMANTIC:
        return "semantic"
    return "instance" if name in INSTANCE else "detection"
