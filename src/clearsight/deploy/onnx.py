"""A model as an ONNX file, from pixels to answers: preparation, decoding and suppression are part of the graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from clearsight.deploy.onnx_detector import DetectorGraph, RegionGraph, ScoresBoxes
from clearsight.deploy.onnx_file import ExportGraph, example_images, require_onnx, write_graph
from clearsight.deploy.onnx_instances import MaskGraph
from clearsight.deploy.onnx_semantic import DepthGraph, SemanticGraph
from clearsight.deploy.onnx_snake import DETECTOR, SNAKE, ContourGraph, SnakeDetectorGraph
from clearsight.errors import ConfigError, ShapeError
from clearsight.models.classify.classifier import Classifier
from clearsight.models.contour.deep_snake import DeepSnake
from clearsight.models.detect.cascade_rcnn import CascadeRcnn
from clearsight.models.detect.faster_rcnn import FasterRcnn
from clearsight.models.detect.given_regions import GivenRegions
from clearsight.models.detect.regions import size_of
from clearsight.models.segment.depth import DepthNet
from clearsight.models.segment.mask_rcnn import MaskRcnn
from clearsight.models.segment.segmenter import Segmenter
from clearsight.ops.selection import Selection

if TYPE_CHECKING:
    from clearsight.nn.input import InputNorm

__all__ = ["ClassifierGraph", "export_onnx"]

EXPORTABLE = (
    "classifiers; segmenters and nets of depth; all detectors but CornerNet, so retinanet, fcos, ssd, yolov3, "
    "efficientdet, reppoints, densebox, centernet, light, faster_rcnn, cascade_rcnn, fast_rcnn, rcnn; mask_rcnn; "
    "deep_snake"
)
KINDS = (Classifier, Segmenter, DepthNet, DeepSnake, FasterRcnn, CascadeRcnn, GivenRegions)
LARGEST = 255.0  # value of uint8


class ClassifierGraph(ExportGraph):
    """A classifier whose answer is probabilities.

    Args:
        model: it is set to evaluation mode.

    Shape: images `(n, c, h, w)` → probabilities `(n, k)`.
    """

    task = "classification"
    outputs = ("probabilities",)

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Of every class."""
        return self.model(images).float().softmax(dim=1)

    def check(self, given: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        """Probabilities are equal."""
        sizes = torch.tensor([size_of(given[0])] * len(given[0]))
        expected = self.model.predict(given[0], sizes)
        self.require("probabilities", answers[0], torch.stack([each.probs for each in expected]))


def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    size: tuple[int, int],
    channels: int = 3,
    selection: Selection | None = None,
    classes: Sequence[str] = (),
    example: Tensor | None = None,
) -> Path:
    """Write a model as ONNX: uint8 pixels in, answers out, any number of images of one size.

    A model of 16-bit images takes uint16. Segmenters whose net allows it take any size of which their `multiple` (in
    the metadata) divides both sides.

    A classifier gives `probabilities` `(n, k)`; a segmenter `labels` and `probabilities`, see `SemanticAnswer`; a net
    of depths `depth` `(n, h, w)`; a detector `boxes`, `labels` and `scores`, see `Detections`; Mask R-CNN `masks` too,
    see `MaskDetections`. Deep Snake becomes a folder with two files, see `onnx_snake.run_snake`. Class names and
    settings are in the files' metadata.

    Args:
        model: it is set to evaluation mode, its weights are not changed.
        path: the file, or Deep Snake's folder; folders are made.
        size: `(height, width)` of the images.
        channels: of the images.
        selection: which boxes a detector keeps; None for `Selection()`.
        classes: names, for the metadata.
        example: `(n, channels, *size)` uint8 or uint16, n at least 2, on which ONNX Runtime's answers are compared with
            the model's; None for made up images.

    Returns:
        The file, or the folder.

    Raises:
        MissingExtra: the packages are not installed.
        ConfigError: this model cannot be exported, or ONNX Runtime does not answer as the model does.
        ShapeError: the example is of another shape.
    """
    require_onnx()
    _check_known(model)
    dtype = torch.uint16 if cast("InputNorm", model.input_norm).scale > LARGEST else torch.uint8
    images = example_images(2, channels, size, dtype=dtype) if example is None else example
    if images.ndim != 4 or len(images) < 2 or images.shape[1:] != (channels, *size) or images.dtype != dtype:
        raise ShapeError(
            f"example: expected {dtype} (2 or more, {channels}, {size[0]}, {size[1]}), got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    if any(one.device.type != "cpu" for one in model.parameters()):
        model = copy.deepcopy(model).to("cpu")
    target = Path(path).expanduser()
    chosen = Selection() if selection is None else selection
    about = _about(model, size=size, channels=channels, classes=classes, selection=chosen)
    if not isinstance(model, DeepSnake):
        return write_graph(_graph(model, chosen, images), [images], target, about=about)
    if target.suffix == ".onnx" or target.is_file():
        raise ConfigError(f"export: Deep Snake becomes two files; give a folder instead of {target}")
    detector, snake = SnakeDetectorGraph(model, chosen, images), ContourGraph(model, size)
    write_graph(detector, [images], target / DETECTOR, about=about)
    write_graph(snake, snake.example(images), target / SNAKE, about=about)
    return target


def _check_known(model: nn.Module) -> None:
    if not isinstance(model, KINDS) and not isinstance(model, ScoresBoxes):
        raise ConfigError(f"export: {type(model).__name__} cannot be exported; these can: {EXPORTABLE}")


def _about(
    model: nn.Module, *, size: tuple[int, int], channels: int, classes: Sequence[str], selection: Selection
) -> dict[str, object]:
    """The metadata."""
    norm = cast("InputNorm", model.input_norm)
    about: dict[str, object] = {
        "size": size,
        "channels": channels,
        "classes": list(classes),
        "normalisation": {"mean": norm.mean.tolist(), "std": norm.std.tolist(), "scale": norm.scale},
    }
    if not isinstance(model, Classifier | Segmenter | DepthNet):
        about["selection"] = {name: getattr(selection, name) for name in selection.__slots__}
    return about


def _graph(model: nn.Module, selection: Selection, example: Tensor) -> ExportGraph:
    if isinstance(model, Classifier):
        return ClassifierGraph(model)
    if isinstance(model, Segmenter):
        return SemanticGraph(model, size_of(example))
    if isinstance(model, DepthNet):
        return DepthGraph(model, size_of(example))
    if isinstance(model, MaskRcnn):
        return MaskGraph(model, selection)
    if isinstance(model, FasterRcnn | CascadeRcnn | GivenRegions):
        return RegionGraph(model, selection, example)
    return DetectorGraph(model, selection, example)
