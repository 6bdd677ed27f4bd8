"""Segmenters and nets of depth as ONNX files, beside what `predict` gives of real images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

from clearsight.data.normalisation import fixed_statistics
from clearsight.deploy.onnx import export_onnx
from clearsight.deploy.onnx_semantic import SemanticGraph
from clearsight.errors import ConfigError
from clearsight.models import create_model
from clearsight.models.segment.depth import DepthNet
from clearsight.models.segment.unet import UNet

Photos = Callable[[int, tuple[int, int]], Tensor]

SIZE = (64, 96)
PLAIN: dict[str, Any] = {"width": 4, "depth": 2}
DEEP: dict[str, Any] = {"backbone": "resnet18"}
NETS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "plain": ("unet", PLAIN, 4),
    "valid": ("unet", {**PLAIN, "padding": "valid", "norm": None}, None),
    "backbone": ("unet", {**DEEP, "decoder_channels": (16, 16, 8, 8, 8)}, 32),
    "transunet": (
        "transunet",
        {"layers": 1, "width": 16, "heads": 2, "backbone_width": 8, "backbone_blocks": (1, 1, 1), "image_size": 32},
        16,
    ),
    "swin_unet": ("swin_unet", {"width": 8, "depths": (1, 1, 1, 1), "heads": (1, 2, 2, 2), "window": 4}, None),
    "semantic_fpn": ("semantic_fpn", {**DEEP, "fpn_channels": 16, "head_channels": 16}, 32),
    "danet": ("danet", {**DEEP, "head_channels": 16}, 8),
}


def small(name: str) -> nn.Module:
    """A segmenter of three classes."""
    torch.manual_seed(0)
    method, options, _ = NETS[name]
    return create_model(method, num_classes=3, **options).eval()


def answers(path: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    found = InferenceSession(str(path)).run(["labels", "probabilities"], {"images": images.numpy()})
    return torch.as_tensor(found[0]), torch.as_tensor(found[1])


def assert_answers(path: Path, model: nn.Module, images: Tensor) -> None:
    labels, probabilities = answers(path, images)
    sizes = torch.tensor([images.shape[-2:]] * len(images))
    expected = model.predict(images, sizes)  # pyright: ignore[reportCallIssue]
    assert labels.dtype == torch.uint8
    torch.testing.assert_close(probabilities, torch.stack([one.probs for one in expected]), rtol=0, atol=1e-4)
    assert (labels == torch.stack([one.labels for one in expected])).double().mean() >= 0.9999
    assert len(labels.unique()) > 1


@pytest.mark.parametrize(
    "name", [one if one in ("plain", "valid") else pytest.param(one, marks=pytest.mark.long) for one in NETS]
)
def test_the_file_gives_what_predict_gives(name: str, tmp_path: Path, photos: Photos) -> None:
    model, images = small(name), photos(3, SIZE)
    path = export_onnx(model, tmp_path / "m.onnx", size=SIZE, classes=("a", "b", "c"), example=images[:2])
    for some in (images[:1], images):
        assert_answers(path, model, some)
    about = json.loads(InferenceSession(str(path)).get_modelmeta().custom_metadata_map["clearsight"])
    assert (about["task"], about["classes"], about["multiple"]) == ("semantic", ["a", "b", "c"], NETS[name][2])
    if about["multiple"] is not None:
        assert_answers(path, model, photos(2, (96, 160)))


def test_a_size_that_the_net_pads_is_fixed(tmp_path: Path, photos: Photos) -> None:
    model, images = small("plain"), photos(2, (37, 50))
    path = export_onnx(model, tmp_path / "m.onnx", size=(37, 50))
    assert_answers(path, model, images)
    about = json.loads(InferenceSession(str(path)).get_modelmeta().custom_metadata_map["clearsight"])
    assert about["multiple"] is None


def test_images_of_sixteen_bits(tmp_path: Path, photos: Photos) -> None:
    statistics = dataclasses.replace(fixed_statistics("unit", channels=1), scale=65535.0)
    model = create_model("unet", num_classes=2, channels=1, statistics=statistics, **PLAIN).eval()
    path = export_onnx(model, tmp_path / "m.onnx", size=SIZE, channels=1)
    images = (photos(2, SIZE)[:, :1].to(torch.int32) * 257).to(torch.uint16)
    expected = model.predict(images, torch.tensor([SIZE] * 2))  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(
        answers(path, images)[1], torch.stack([one.probs for one in expected]), rtol=0, atol=1e-4
    )


def test_depth(tmp_path: Path, photos: Photos) -> None:
    model = DepthNet(UNet(3, 1, width=4, depth=1), statistics=fixed_statistics("imagenet", channels=3)).eval()
    path, images = export_onnx(model, tmp_path / "m.onnx", size=SIZE), photos(2, SIZE)
    (found,) = InferenceSession(str(path)).run(["depth"], {"images": images.numpy()})
    expected = model.predict(images, torch.tensor([SIZE] * 2))
    torch.testing.assert_close(torch.as_tensor(found), torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_other_answers_are_refused(photos: Photos) -> None:
    model, images = small("plain"), photos(2, SIZE)
    graph = SemanticGraph(model, SIZE)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        labels, probabilities = graph(images)
    graph.check([images], (labels, probabilities))
    with pytest.raises(ConfigError, match=r"probabilities differ by 0\.0"):
        graph.check([images], (labels, probabilities + 0.01))
    labels[:, :8] = 2 - labels[:, :8]
    with pytest.raises(ConfigError, match="of the labels differ"):
        graph.check([images], (labels, probabilities))
