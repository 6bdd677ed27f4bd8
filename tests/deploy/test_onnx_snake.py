"""Deep Snake as two ONNX files, beside what `predict` gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

from clearsight.deploy.onnx import export_onnx
from clearsight.deploy.onnx_file import run_file
from clearsight.deploy.onnx_snake import ContourGraph, SnakeDetectorGraph, run_snake
from clearsight.errors import ConfigError, NotFound
from clearsight.models import create_model
from clearsight.models.contour.deep_snake import DeepSnake
from clearsight.ops.selection import Selection

Photos = Callable[[int, tuple[int, int]], Tensor]
Same = Callable[..., list[tuple[Tensor, Tensor]]]

SIZE = (62, 96)  # the first is no multiple of the stride
KEPT = Selection(score_threshold=0.3, max_detections=20)


@pytest.fixture
def model() -> DeepSnake:
    """One that sees something everywhere, and moves its vertices by some pixels."""
    sizes = {"neck_channels": (32, 16, 16), "head_channels": 16, "snake_channels": 16}
    made = create_model("deep_snake", num_classes=3, backbone="resnet18", **sizes).eval()
    assert isinstance(made, DeepSnake)
    for name, layer in made.named_modules():
        if name == "head.heat.1" and isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.weight, std=0.3)
            nn.init.zeros_(layer.bias)
        if name == "head.size.1" and isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.constant_(layer.bias, 5.0)
        if name.endswith("predict.4") and isinstance(layer, nn.Conv1d):
            nn.init.normal_(layer.weight, std=0.1)
    return made


def test_the_graphs_keep_what_predict_keeps(model: DeepSnake, photos: Photos, assert_same: Same) -> None:
    images = photos(3, SIZE)
    expected = model.predict(images, torch.tensor([SIZE] * 3), KEPT)
    with torch.no_grad():
        *found, features = SnakeDetectorGraph(model, KEPT, images[:2])(images)
        for number, (mine, theirs) in enumerate(assert_same(found, expected)):
            image = torch.full((len(mine),), number)
            contours = ContourGraph(model, SIZE)(features, found[0][number, mine], image)
            torch.testing.assert_close(contours, expected[number].contours[theirs], rtol=1e-4, atol=1e-3)  # pyright: ignore
    traced = torch.cat([one.contours for one in expected])  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert len(traced) > 10
    assert traced.amax(dim=(0, 1)).tolist() == [96, 62]  # cut to the image


def test_no_number_is_the_octagon(model: DeepSnake, photos: Photos) -> None:
    images = photos(2, SIZE)
    graph = ContourGraph(model, SIZE)
    features, boxes, image = graph.example(images)
    features[1] = torch.nan
    with torch.no_grad():
        contours = graph(features, boxes, image)
    assert bool(contours.isfinite().all())
    low, high = contours[4:].amin(dim=1), contours[4:].amax(dim=1)
    torch.testing.assert_close(torch.cat((low, high), dim=1), boxes[4:], rtol=0, atol=2.0)


def test_other_contours_are_refused(model: DeepSnake, photos: Photos) -> None:
    graph = ContourGraph(model, SIZE)
    given = graph.example(photos(2, SIZE))
    with torch.no_grad():
        contours = graph(*given)
    graph.check(given, [contours])
    with pytest.raises(ConfigError, match="contours differ by"):
        graph.check(given, [contours + 0.1])


@pytest.mark.long
def test_the_two_files_give_what_predict_gives(
    model: DeepSnake, tmp_path: Path, photos: Photos, assert_same: Same
) -> None:
    folder, images = tmp_path / "new" / "snake", photos(3, SIZE)
    assert export_onnx(model, folder, size=SIZE, selection=KEPT, classes="abc", example=images[:2]) == folder
    assert sorted(one.name for one in folder.iterdir()) == ["detector.onnx", "snake.onnx"]
    for some in (images[:1], images):
        expected = model.predict(some, torch.tensor([SIZE] * len(some)), KEPT)
        found = run_snake(folder, some.numpy())
        for one, truth in zip(found, expected, strict=True):
            columns = [each[None] for each in (one.boxes, one.labels, one.scores) if each is not None]
            ((mine, theirs),) = assert_same(columns, [truth])
            torch.testing.assert_close(one.contours[mine], truth.contours[theirs], rtol=1e-4, atol=2e-3)  # pyright: ignore
            assert torch.equal(one.ring_object, torch.arange(len(truth)))  # pyright: ignore
        assert sum(map(len, expected)) > 10
    features = torch.zeros(1, model.neck.channels, 16, 24)  # pyright: ignore
    (nothing,) = run_file(folder / "snake.onnx", [features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)])
    assert nothing.shape == (0, 128, 2)
    about = InferenceSession(str(folder / "snake.onnx")).get_modelmeta().custom_metadata_map["clearsight"]
    assert json.loads(about)["task"] == "instance"


def test_files_that_are_not_there(tmp_path: Path, photos: Photos) -> None:
    with pytest.raises(NotFound, match=r"there is no detector.onnx; write both with: clearsight export"):
        run_snake(tmp_path, photos(1, SIZE))
