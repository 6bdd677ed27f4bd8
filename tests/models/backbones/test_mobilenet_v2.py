"""MobileNetV2 beside torchvision's and timm's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torchvision.models import mobilenet_v2

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones.mobilenet_v2 import MOBILENETS_V2, MobileNetV2


@pytest.mark.parametrize(("size", "width"), [((64, 96), 1.0), ((65, 47), 1.0), ((65, 47), 0.35)])
def test_numbers_are_torchvisions(size: tuple[int, int], width: float, same_as_peer: Callable[..., None]) -> None:
    theirs = mobilenet_v2(weights=None, width_mult=width)
    same_as_peer(MobileNetV2(width=width), theirs, size=size)


def test_numbers_in_training_are_torchvisions(same_as_peer: Callable[..., None]) -> None:
    theirs = mobilenet_v2(weights=None, dropout=0.0)
    same_as_peer(MobileNetV2(), theirs, batch=2, train=True, double=True)


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.0, 1.4])
def test_names_and_counts_are_torchvisions(width: float) -> None:
    with torch.device("meta"):
        theirs, ours = mobilenet_v2(weights=None, width_mult=width), MobileNetV2(width=width)
    adapted = ours.adapt_weights(theirs.state_dict())
    own = ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert all(adapted[key].shape == value.shape for key, value in own.items())


def test_parameters_are_the_published_number() -> None:
    model = MOBILENETS_V2["mobilenet_v2"]()
    assert sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1) == 3504872


def test_levels(has_levels: Callable[..., None]) -> None:
    has_levels(MobileNetV2(channels=2), (97, 65), (32, 32), (64, 33))
    has_levels(MobileNetV2(small_input=True), (33, 29), (32, 32), (8, 9))
    assert MobileNetV2(small_input=True).strides == {"c2": 1, "c3": 2, "c4": 4, "c5": 8}
    with torch.device("meta"):
        theirs = timm.create_model("mobilenetv2_100", features_only=True)
    assert list(MobileNetV2().channels.values()) == theirs.feature_info.channels()[1:]
    assert list(MobileNetV2().strides.values()) == theirs.feature_info.reduction()[1:]


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_any_norm_gives_gradients(norm: str) -> None:
    model = MobileNetV2(norm=norm, channels=1, width=0.25)
    model.embed(torch.randn(2, 1, 64, 64)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_initial_weights_are_torchvisions() -> None:
    other = mobilenet_v2(weights=None).state_dict()
    for name, value in MobileNetV2().named_parameters():
        if value.numel() > 3000:
            torch.testing.assert_close(value.std(), other[name].std(), rtol=0.1, atol=0)
        elif value.ndim == 1:
            assert torch.equal(value, other[name])


def test_channels_last_and_half_precision() -> None:
    model = MobileNetV2().eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model(x)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full).abs().max() / full.abs().max() < 0.1


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="width: must be above 0, got 0"):
        MobileNetV2(width=0)
    model = MobileNetV2(width=0.25).eval()
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        model.features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="backbone: images of 31×64 are smaller than its largest stride, 32"):
        model.embed(torch.zeros(1, 3, 31, 64))
