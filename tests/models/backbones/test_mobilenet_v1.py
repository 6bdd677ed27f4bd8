"""The first MobileNet beside timm's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones.mobilenet_v1 import MOBILENETS_V1, MobileNetV1


@pytest.mark.parametrize("size", [(64, 96), (65, 47)])
def test_numbers_are_timms(size: tuple[int, int], same_as_peer: Callable[..., None]) -> None:
    same_as_peer(MobileNetV1(), timm.create_model("mobilenetv1_100"), size=size)


def test_numbers_in_training_are_timms(same_as_peer: Callable[..., None]) -> None:
    same_as_peer(MobileNetV1(), timm.create_model("mobilenetv1_100"), batch=2, train=True, double=True)


@pytest.mark.parametrize(("width", "name"), [(1.0, "mobilenetv1_100"), (1.25, "mobilenetv1_125")])
def test_names_and_counts_are_timms(width: float, name: str) -> None:
    with torch.device("meta"):
        theirs, ours = timm.create_model(name), MobileNetV1(width=width)
    adapted = ours.adapt_weights(theirs.state_dict())
    own = ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(("width", "millions"), [(1.0, 4.2), (0.75, 2.6), (0.5, 1.3), (0.25, 0.5)])
def test_parameters_are_the_papers_number(width: float, millions: float) -> None:
    with torch.device("meta"):
        model = MobileNetV1(width=width)
    count = sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1)
    assert round(count / 1e6, 1) == millions  # table 7
    assert width != 1.0 or count == 4231976  # timm's


def test_levels(has_levels: Callable[..., None]) -> None:
    has_levels(MOBILENETS_V1["mobilenet_v1"](channels=2), (97, 65), (32, 32), (64, 33))
    has_levels(MobileNetV1(small_input=True), (33, 29), (32, 32), (8, 9))
    assert MobileNetV1(small_input=True).strides == {"c2": 1, "c3": 2, "c4": 4, "c5": 8}
    with torch.device("meta"):
        theirs = timm.create_model("mobilenetv1_100", features_only=True)
    assert list(MobileNetV1().channels.values()) == theirs.feature_info.channels()[1:]
    assert list(MobileNetV1().strides.values()) == theirs.feature_info.reduction()[1:]


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_any_norm_gives_gradients(norm: str) -> None:
    model = MobileNetV1(norm=norm, channels=1, width=0.25)
    model.embed(torch.randn(2, 1, 64, 64)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_initial_weights_are_timms() -> None:
    other = timm.create_model("mobilenetv1_100").state_dict()
    for name, value in MobileNetV1().named_parameters():
        if value.numel() > 3000:
            torch.testing.assert_close(value.std(), other[name].std(), rtol=0.1, atol=0)
        elif value.ndim == 1:
            assert torch.equal(value, other[name])


def test_channels_last_and_half_precision() -> None:
    model = MobileNetV1().eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model(x)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full).abs().max() / full.abs().max() < 0.1


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match=r"width: must be above 0, got -1\.0"):
        MobileNetV1(width=-1.0)
    model = MobileNetV1(width=0.25).eval()
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        model.features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="backbone: images of 31×64 are smaller than its largest stride, 32"):
        model.embed(torch.zeros(1, 3, 31, 64))
