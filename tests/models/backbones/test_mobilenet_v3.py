"""MobileNetV3 beside torchvision's and timm's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones.mobilenet_v3 import MOBILENETS_V3, MobileNetV3
from clearsight.nn.frozen_norm import FrozenBatchNorm


@pytest.mark.parametrize("name", MOBILENETS_V3)
def test_numbers_are_torchvisions(name: str, same_as_peer: Callable[..., None]) -> None:
    same_as_peer(MOBILENETS_V3[name](), getattr(torchvision.models, name)(weights=None), size=(65, 47))


@pytest.mark.parametrize("name", MOBILENETS_V3)
def test_numbers_in_training_are_torchvisions(name: str, same_as_peer: Callable[..., None]) -> None:
    theirs = getattr(torchvision.models, name)(weights=None, dropout=0.0)
    same_as_peer(MOBILENETS_V3[name](), theirs, batch=2, train=True, double=True)


@pytest.mark.parametrize("width", [0.5, 1.0, 1.25])
@pytest.mark.parametrize("size", ["small", "large"])
def test_names_and_counts_are_torchvisions(size: str, width: float) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"mobilenet_v3_{size}")(weights=None, width_mult=width)
        ours = MobileNetV3(size, width=width)
    adapted = ours.adapt_weights(theirs.state_dict())
    own = ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(("size", "count"), [("small", 2542856), ("large", 5483032)])
def test_parameters_are_the_published_number(size: str, count: int) -> None:
    with torch.device("meta"):
        model = MobileNetV3(size)
    assert sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1) == count


@pytest.mark.parametrize("size", ["small", "large"])
def test_levels(size: str, has_levels: Callable[..., None]) -> None:
    has_levels(MobileNetV3(size, channels=2), (97, 65), (32, 32), (64, 33))
    has_levels(MobileNetV3(size, small_input=True), (33, 29), (32, 32), (8, 9))
    assert MobileNetV3(size, small_input=True).strides == {"c2": 1, "c3": 2, "c4": 4, "c5": 8}
    with torch.device("meta"):
        theirs = timm.create_model(f"mobilenetv3_{size}_100", features_only=True)
    found = MobileNetV3(size).channels
    assert [found["c2"], found["c3"], found["c4"]] == theirs.feature_info.channels()[1:-1]
    assert found["c5"] == {"small": 96, "large": 160}[size]  # before the 1×1 that timm counts to it


@pytest.mark.parametrize("norm", [None, "frozen_batch"])
def test_norms_have_the_published_constants(norm: str | None) -> None:
    layers = [layer for layer in MobileNetV3("small", norm=norm).modules() if hasattr(layer, "running_mean")]
    assert len(layers) == 34
    assert all(layer.eps == 1e-3 for layer in layers)
    assert all(isinstance(layer, FrozenBatchNorm) or layer.momentum == 0.1 for layer in layers)


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_any_norm_gives_gradients(norm: str) -> None:
    model = MobileNetV3("small", norm=norm, channels=1)
    model.embed(torch.randn(2, 1, 64, 64)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_initial_weights_are_torchvisions() -> None:
    other = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    for name, value in MobileNetV3("small").named_parameters():
        if value.numel() > 3000:
            torch.testing.assert_close(value.std(), other[name].std(), rtol=0.1, atol=0)
        elif value.ndim == 1:
            assert torch.equal(value, other[name])


def test_channels_last_and_half_precision() -> None:
    model = MobileNetV3("small").eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model(x)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full).abs().max() / full.abs().max() < 0.1


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="size: there is no MobileNetV3 named 'larg'; did you mean 'large'"):
        MobileNetV3("larg")
    with pytest.raises(ConfigError, match="width: must be above 0, got 0"):
        MobileNetV3("small", width=0)
    model = nn.Module.eval(MobileNetV3("small"))
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        model.features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="backbone: images of 31×64 are smaller than its largest stride, 32"):
        model.embed(torch.zeros(1, 3, 31, 64))
