"""Detectors as ONNX files, suppression included, beside what `predict` gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

from clearsight.deploy.onnx import export_onnx
from clearsight.deploy.onnx_detector import DetectorGraph, RegionGraph
from clearsight.models import create_model
from clearsight.ops.selection import Selection

SIZE = (64, 96)
SMALL: dict[str, dict[str, Any]] = {
    "retinanet": {"fpn_channels": 16, "head_convs": 1},
    "fcos": {"fpn_channels": 32, "head_convs": 1},
    "ssd": {},
    "yolov3": {"neck_width": 0.125},
    "efficientdet": {"bifpn_channels": 16, "bifpn_layers": 1, "head_convs": 1},
    "reppoints": {"fpn_channels": 32, "head_convs": 1},
    "densebox": {"fpn_channels": 16},
    "centernet": {"neck_channels": (32, 16, 16), "head_channels": 16},
    "light": {"fpn_channels": 16, "head_convs": 1},
}
VOTED = Selection(score_threshold=0.3, nms_iou=0.5, max_detections=20, box_voting=True)


Same = Callable[..., object]
Photos = Callable[[int, tuple[int, int]], Tensor]


def small(name: str) -> nn.Module:
    """A detector that sees something everywhere: scores of all heights, boxes of all sizes."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, backbone="resnet18", **SMALL[name]).eval()
    spread = 0.3 if name == "efficientdet" else 0.03  # of depthwise weights there are few
    for parameter in model.head.parameters():  # pyright: ignore[reportAttributeAccessIssue]
        nn.init.normal_(parameter, std=spread if parameter.ndim > 1 else 0.3)
    if name == "densebox":  # whose scores are no logits
        model.head.scores.bias.data.fill_(0.6)  # pyright: ignore[reportAttributeAccessIssue]
    return model


def pictures(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=() if one in ("fcos", "light", "centernet") else pytest.mark.long) for one in SMALL],
)
def test_the_file_gives_what_predict_gives(name: str, tmp_path: Path, assert_same: Same) -> None:
    model = small(name)
    path = export_onnx(model, tmp_path / "new" / "m.onnx", size=SIZE, selection=VOTED, classes=("a", "b", "c"))
    session = InferenceSession(str(path))
    kept = 0
    for count in (1, 3):
        images = pictures(count)
        expected = model.predict(images, torch.tensor([SIZE] * count), VOTED)  # pyright: ignore[reportCallIssue]
        found = [torch.as_tensor(one) for one in session.run(None, {"images": images.numpy()})]
        assert_same(found, expected)
        kept += sum(len(one) for one in expected)
    assert kept > 10
    (kept_about,) = [one.value for one in onnx.load(path).metadata_props if one.key == "clearsight"]
    about = json.loads(kept_about)
    assert (about["size"], about["classes"]) == ([64, 96], ["a", "b", "c"])
    assert about["selection"]["max_detections"] == 20


@pytest.mark.parametrize(
    "selection",
    [
        Selection(score_threshold=0.0, nms_iou=0.3, max_detections=5),
        Selection(score_threshold=0.4, nms="agnostic"),
        Selection(score_threshold=0.0, nms_iou=1.0, max_detections=300),
        Selection(score_threshold=0.0, candidates=7),
        Selection(score_threshold=1.0),
    ],
)
@pytest.mark.parametrize("name", ["fcos", "densebox", "centernet"])
def test_the_graph_keeps_what_predict_keeps(name: str, selection: Selection, assert_same: Same) -> None:
    model, images = small(name), pictures(2)
    with torch.no_grad():
        found = DetectorGraph(model, selection, images)(images)
    assert_same(found, model.predict(images, torch.tensor([SIZE] * 2), selection))  # pyright: ignore[reportCallIssue]


def test_what_is_no_number_is_no_detection() -> None:
    model, images = small("light"), pictures(2)
    model.head.classes.bias.data[1] = torch.nan  # pyright: ignore
    with torch.no_grad():
        found = DetectorGraph(model, VOTED, images)(images)
    assert 1 not in found.labels
    assert bool(torch.isfinite(found.scores).all())


def of_regions(name: str) -> nn.Module:
    """A detector of regions that sees something everywhere."""
    torch.manual_seed(0)
    made = {"fpn_channels": 16, "box_width": 16} if name != "rcnn" else {"crop": 32, "region_step": 1.0}
    proposed = {"proposals": 60} if name in ("faster_rcnn", "cascade_rcnn") else {}
    model = create_model(name, num_classes=3, backbone="resnet18", **made, **proposed).eval()
    for part, layer in model.named_modules():
        spread = {"cls_score": 0.5, "cls_logits": 1.0, "bbox_pred": 0.05}.get(part.rsplit(".", 1)[-1])
        if spread is not None and isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=spread)
    return model


@pytest.mark.parametrize(
    "selection",
    [VOTED, Selection(score_threshold=0.0, nms="agnostic"), Selection(score_threshold=0.3, nms_iou=1.0)],
    ids=["voted", "agnostic", "unsuppressed"],
)
@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_rcnn", "fast_rcnn", "rcnn"])
def test_regions_keep_what_predict_keeps(name: str, selection: Selection, photos: Photos, assert_same: Same) -> None:
    model, images = of_regions(name), photos(3, SIZE)
    with torch.no_grad():
        found = RegionGraph(model, selection, images[:2])(images)  # pyright: ignore[reportArgumentType]
    expected = model.predict(images, torch.tensor([SIZE] * 3), selection)  # pyright: ignore[reportCallIssue]
    assert_same(found, expected)
    assert sum(len(one) for one in expected) > 5


@pytest.mark.long
@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_rcnn", "fast_rcnn", "rcnn"])
def test_the_file_of_a_detector_of_regions(name: str, tmp_path: Path, photos: Photos, assert_same: Same) -> None:
    model, images = of_regions(name), photos(3, SIZE)
    path = export_onnx(model, tmp_path / "m.onnx", size=SIZE, selection=VOTED, example=images[:2])
    session = InferenceSession(str(path))
    for some in (images[:1], images):
        found = [torch.as_tensor(one) for one in session.run(None, {"images": some.numpy()})]
        expected = model.predict(some, torch.tensor([SIZE] * len(some)), VOTED)  # pyright: ignore[reportCallIssue]
        assert_same(found, expected)
        assert sum(len(one) for one in expected) > 5
