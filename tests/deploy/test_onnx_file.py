"""A graph becomes a file only if ONNX Runtime answers as the model does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor

from clearsight.deploy.onnx_file import ExportGraph, example_images, run_file, write_graph
from clearsight.errors import ConfigError


class Doubled(ExportGraph):
    """Twice the image; says in its check that it is `factor` times."""

    task = "doubling"
    outputs = ("doubled",)

    def __init__(self, factor: float, multiple: int | None = None) -> None:
        super().__init__()
        self.factor = factor
        self.multiple = multiple
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        return images.float() * 2

    def check(self, given: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        self.seen.append(tuple(given[0].shape))
        self.require("doubled", answers[0], given[0].float() * self.factor)


class OfOneSize(Doubled):
    """Which the exporter finds out."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() * 2 + torch.zeros(images.shape[2], int(images.shape[3]) // 8).sum() * torch.zeros(8, 16)


IMAGES = example_images(2, 3, (8, 16))


def about(path: Path) -> dict[str, object]:
    return json.loads(InferenceSession(str(path)).get_modelmeta().custom_metadata_map["clearsight"])


def test_a_file_that_agrees_is_kept(tmp_path: Path) -> None:
    graph = Doubled(2)
    path = write_graph(graph, [IMAGES], tmp_path / "a" / "m.onnx", about={"classes": ["x"]})
    assert about(path) == {"task": "doubling", "classes": ["x"], "multiple": None}
    five = example_images(5, 3, (8, 16))
    torch.testing.assert_close(run_file(path, [five])[0], five.float() * 2)
    assert [one.name for one in path.parent.iterdir()] == ["m.onnx"]
    assert graph.seen == [(2, 3, 8, 16)]


def test_a_file_that_differs_is_not(tmp_path: Path) -> None:
    kept = tmp_path / "m.onnx"
    kept.write_text("before")
    with pytest.raises(ConfigError, match=r"doubled differ by .* between ONNX Runtime and the model, more than 0.0"):
        write_graph(Doubled(2.001), [IMAGES], kept, about={})
    assert kept.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]


def test_sides_that_are_free(tmp_path: Path) -> None:
    graph = Doubled(2, multiple=8)
    path = write_graph(graph, [example_images(2, 3, (16, 24))], tmp_path / "m.onnx", about={})
    assert about(path)["multiple"] == 8
    assert graph.seen == [(2, 3, 16, 24), (2, 3, 24, 40)]  # checked on another size too


def test_sides_that_are_not_free_after_all(tmp_path: Path) -> None:
    graph = OfOneSize(2, multiple=8)
    path = write_graph(graph, [IMAGES], tmp_path / "m.onnx", about={})
    assert about(path)["multiple"] is None
    assert graph.seen == [(2, 3, 8, 16)]


def test_require() -> None:
    graph, one = Doubled(2), torch.tensor([1000.0, 1.0])
    graph.require("things", one + 0.05, one)
    with pytest.raises(ConfigError, match=r"things differ by 0\.2"):
        graph.require("things", one + 0.2, one)
    with pytest.raises(ConfigError, match=r"things are \(1,\) in ONNX Runtime and \(2,\) in the model"):
        graph.require("things", one[:1], one)
    with pytest.raises(ConfigError, match="differ by nan"):
        graph.require("things", one * torch.nan, one)


def test_examples_are_images() -> None:
    assert IMAGES.shape == (2, 3, 8, 16)
    assert IMAGES.dtype == torch.uint8
    assert IMAGES.float().std() > 30
    assert torch.equal(IMAGES, example_images(2, 3, (8, 16)))
    sixteen = example_images(2, 3, (8, 16), dtype=torch.uint16)
    assert torch.equal(sixteen.to(torch.int32), IMAGES.to(torch.int32) * 257)
