"""Networks, one published method a file; `create_model` makes one by name."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from typing import TYPE_CHECKING, cast

from pydantic import ValidationError
from torch import nn

from clearsight.data.normalisation import fixed_statistics
from clearsight.errors import ConfigError, nearest
from clearsight.models.backbones import BACKBONES, TIMM
from clearsight.models.backbones.timm_backbone import timm_names
from clearsight.models.base import Classifies, Detects, Model, Segments
from clearsight.models.classify.classifier import build_classifier
from clearsight.models.contour.deep_snake import build_deep_snake
from clearsight.models.detect.cascade_rcnn import build_cascade_rcnn
from clearsight.models.detect.centernet import build_centernet
from clearsight.models.detect.cornernet import build_cornernet
from clearsight.models.detect.densebox import build_densebox
from clearsight.models.detect.efficientdet import build_efficientdet
from clearsight.models.detect.fast_rcnn import build_fast_rcnn
from clearsight.models.detect.faster_rcnn import build_faster_rcnn
from clearsight.models.detect.fcos import build_fcos
from clearsight.models.detect.light import build_light
from clearsight.models.detect.rcnn import build_rcnn
from clearsight.models.detect.reppoints import build_reppoints
from clearsight.models.detect.retinanet import build_retinanet
from clearsight.models.detect.ssd import build_ssd
from clearsight.models.detect.yolov3 import build_yolov3
from clearsight.models.segment.danet import build_danet
from clearsight.models.segment.mask_rcnn import build_mask_rcnn
from clearsight.models.segment.semantic_fpn import build_semantic_fpn
from clearsight.models.segment.swin_unet import build_swin_unet
from clearsight.models.segment.transunet import build_transunet
from clearsight.models.segment.unet import build_unet
from clearsight.models.weights import WeightsReport, load_weights
from clearsight.recipe.model_sections import MODEL_SECTIONS

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.model_sections import ModelConfig

__all__ = [
    "BACKBONES",
    "BUILDERS",
    "Classifies",
    "Detects",
    "Model",
    "Segments",
    "WeightsReport",
    "build_model",
    "create_model",
    "list_models",
    "load_weights",
]

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "classifier": build_classifier,
    "retinanet": build_retinanet,
    "fcos": build_fcos,
    "ssd": build_ssd,
    "yolov3": build_yolov3,
    "efficientdet": build_efficientdet,
    "reppoints": build_reppoints,
    "densebox": build_densebox,
    "centernet": build_centernet,
    "cornernet": build_cornernet,
    "rcnn": build_rcnn,
    "fast_rcnn": build_fast_rcnn,
    "faster_rcnn": build_faster_rcnn,
    "cascade_rcnn": build_cascade_rcnn,
    "light": build_light,
    "unet": build_unet,
    "transunet": build_transunet,
    "swin_unet": build_swin_unet,
    "semantic_fpn": build_semantic_fpn,
    "danet": build_danet,
    "mask_rcnn": build_mask_rcnn,
    "deep_snake": build_deep_snake,
}


def list_models(pattern: str | None = None) -> list[str]:
    """Names that `create_model` takes: every method, and every backbone (a classifier on it).

    Args:
        pattern: keep names that contain it, or match it where it has `*` or `?`; None keeps all. One that starts with
            `timm:` looks among timm's.

    Returns:
        Sorted names.

    Raises:
        MissingExtra: timm is asked for and not installed.

    Example:
        >>> list_models("resnet1*")
        ['resnet101', 'resnet152', 'resnet18']
    """
    names = sorted([*BUILDERS, *BACKBONES])
    if pattern is not None and pattern.startswith(TIMM):
        names = sorted(TIMM + name for name in timm_names())
    if pattern is None:
        return names
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [name for name in names if fnmatch(name, glob)]


def create_model(
    name: str,
    *,
    num_classes: int,
    channels: int = 3,
    statistics: Statistics | None = None,
    **options: object,
) -> nn.Module:
    """A model by name, with random weights unless `weights=` names a file or URL.

    Args:
        name: a method, a key of `BUILDERS` (`classifier`, `retinanet`, …), or a backbone (`resnet18`, `timm:NAME`, …: a
            classifier on it).
        num_classes: k, without background.
        channels: of the input.
        statistics: mean and deviation of the input's channels; None takes ImageNet's for three channels, else
            scales to [0, 1] only.
        options: the method's options as a recipe's `model` section has them, for example `backbone="resnet34"`.

    Returns:
        A module with `forward`, `loss` and `predict`; see `models.base.Model`.

    Raises:
        ConfigError: a name, an option or a value is not known; the message has the nearest one.
        WeightsError: `weights` do not fit.

    Example:
        >>> model = create_model("retinanet", backbone="resnet34", num_classes=3)
    """
    method = name
    if name in BACKBONES or name.startswith(TIMM):
        if options.get("backbone", name) != name:
            raise ConfigError(f"create_model: {name!r} is a backbone already; drop backbone={options['backbone']!r}")
        method, options = "classifier", {**options, "backbone": name}
    if method not in BUILDERS:
        raise ConfigError(f"create_model: there is no model {name!r}{nearest(name, list_models())}")
    if num_classes < 1 or channels < 1:
        raise ConfigError(f"create_model: num_classes and channels must be at least 1, got {num_classes}, {channels}")
    config = MODEL_SECTIONS[method]
    for option in options:
        if option not in config.model_fields:
            known = list(config.model_fields)
            raise ConfigError(f"create_model: {method} has no option {option!r}{nearest(option, known)}")
    try:
        checked = config.model_validate({**options, "name": method})
    except ValidationError as error:
        raise ConfigError("create_model: " + "; ".join(_readable(fault) for fault in error.errors())) from None
    if statistics is None:
        statistics = fixed_statistics("imagenet" if channels == 3 else "unit", channels=channels)
    return build_model(cast("ModelConfig", checked), num_classes=num_classes, channels=channels, statistics=statistics)


def build_model(config: ModelConfig, *, num_classes: int, channels: int, statistics: Statistics) -> nn.Module:
    """The model that a recipe's `model` section describes, published weights loaded where it names them.

    Args:
        config: the section.
        num_classes: k, without background.
        channels: of the input.
        statistics: of the input's channels.

    Returns:
        The model.

    Raises:
        WeightsError: `config.weights` do not fit.
    """
    model = BUILDERS[config.name](config, num_classes=num_classes, channels=channels, statistics=statistics)
    if config.weights is not None:
        load_weights(model, config.weights, sha256=config.weights_sha256)
    return model


def _readable(fault: object) -> str:
    """One line of a pydantic error: where, what was found, what was expected."""
    where = ".".join(str(part) for part in fault["loc"])  # pyright: ignore[reportIndexIssue]
    found, message = fault["input"], fault["msg"]  # pyright: ignore[reportIndexIssue]
    message = message.removeprefix("Value error, ")
    return f"{where}: found {found!r}; {message[0].lower()}{message[1:]}"
