"""Detectors and classifiers as ONNX files, suppression included, beside what `predict` gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

import clearsight as cs
from clearsight.cli import main
from clearsight.deploy.onnx import DetectorGraph, export_onnx
from clearsight.errors import ConfigError, NotFound
from clearsight.models import create_model
from clearsight.ops.selection import Selection
from clearsight.types import Instances

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


def sets(boxes: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """Rows in an order that does not depend on that of equal scores."""
    rows = torch.cat((scores[:, None], labels[:, None].float(), boxes), dim=1)
    place = rows.double() @ torch.tensor([1e4, 1e3, 1.0, 0.37, 0.11, 0.053], dtype=torch.float64)
    return rows[torch.argsort(place)]


def assert_same(found: list[Tensor], expected: list[Instances]) -> None:
    boxes, labels, scores = found
    for row, truth in enumerate(expected):
        assert truth.scores is not None
        count = int((scores[row] > 0).sum())
        assert count == len(truth)
        assert bool((labels[row, count:] == -1).all())
        assert not bool(boxes[row, count:].any())
        mine = sets(boxes[row, :count], labels[row, :count], scores[row, :count])
        torch.testing.assert_close(mine, sets(truth.boxes, truth.labels, truth.scores), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("name", SMALL)
def test_the_file_gives_what_predict_gives(name: str, tmp_path: Path) -> None:
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
def test_the_graph_keeps_what_predict_keeps(name: str, selection: Selection) -> None:
    model, images = small(name), pictures(2)
    with torch.no_grad():
        found = DetectorGraph(model, selection, images)(images)
    assert_same(list(found), model.predict(images, torch.tensor([SIZE] * 2), selection))  # pyright: ignore[reportCallIssue]


def test_what_is_no_number_is_no_detection() -> None:
    model, images = small("light"), pictures(2)
    model.head.classes.bias.data[1] = torch.nan  # pyright: ignore
    with torch.no_grad():
        found = DetectorGraph(model, VOTED, images)(images)
    assert 1 not in found.labels
    assert bool(torch.isfinite(found.scores).all())


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CornerNet cannot be exported with its suppression; detectors of one stage"):
        export_onnx(create_model("cornernet", num_classes=2), tmp_path / "x.onnx", size=SIZE)
    with pytest.raises(ConfigError, match="soft suppression has no ONNX operator"):
        export_onnx(small("light"), tmp_path / "x.onnx", size=SIZE, selection=Selection(nms="soft"))


def test_a_run_by_function_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = cs.train(
        "digits", "data.format=image_folder", f"data.root={folder_of_squares(tmp_path)}", "data.val=null",
        "data.size=[32, 32]", "trainer.epochs=1", "eval.bootstrap=0", out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    path = cs.export(run, tmp_path / "a.onnx")
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "b.onnx")])
    assert not stopped.value.code
    assert "b.onnx" in capsys.readouterr().out
    image = np.full((1, 3, 32, 32), 200, np.uint8)
    answers = [InferenceSession(str(tmp_path / name)).run(None, {"images": image})[0] for name in ("a.onnx", "b.onnx")]
    np.testing.assert_array_equal(*answers)
    (expected,) = run.model.eval().predict(torch.from_numpy(image), torch.tensor([[32, 32]]))  # pyright: ignore
    np.testing.assert_allclose(answers[0][0], expected.probs.numpy(), rtol=1e-4, atol=1e-6)
    assert path == tmp_path / "a.onnx"
    with pytest.raises(NotFound):
        cs.export(tmp_path / "none", tmp_path / "c.onnx")


def folder_of_squares(folder: Path) -> Path:
    from PIL import Image

    for split in ("train", "test"):
        for label, level in (("dark", 40), ("light", 220)):
            target = folder / "data" / split / label
            target.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32), (level + number,) * 3).save(target / f"{number}.png")
    return folder / "data"
