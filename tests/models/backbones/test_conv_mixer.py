"""ConvMixer: timm's names and numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from timm.models.convmixer import ConvMixer as TimmConvMixer

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones.conv_mixer import CONV_MIXERS, ConvMixer


@pytest.mark.parametrize("name", CONV_MIXERS)
def test_numbers_are_timms(name: str, same_as_peer: Callable[..., None]) -> None:
    same_as_peer(CONV_MIXERS[name](), timm.create_model(name), size=(45, 37))  # no multiples: the convolution cuts


def test_numbers_in_training_are_timms(same_as_peer: Callable[..., None]) -> None:
    theirs = TimmConvMixer(24, 3, 9, 7, num_classes=10)
    same_as_peer(ConvMixer(24, 3), theirs, size=(58, 43), batch=2, train=True)


@pytest.mark.parametrize("name", CONV_MIXERS)
def test_names_and_counts_are_timms(name: str) -> None:
    with torch.device("meta"):
        theirs, ours = timm.create_model(name), CONV_MIXERS[name]()
    adapted, own = ours.adapt_weights(theirs.state_dict()), ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(
    ("name", "millions"),
    [("convmixer_768_32", 21.11), ("convmixer_1024_20_ks9_p14", 24.38), ("convmixer_1536_20", 51.63)],
)
def test_parameters_are_the_published_number(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = CONV_MIXERS[name]()
    count = sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1)
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("patch", "strides", "small"),
    [
        (7, {"c3": 7, "c4": 14, "c5": 28}, {"c2": 1, "c3": 2, "c4": 4, "c5": 8}),
        (14, {"c3": 7, "c4": 14, "c5": 28}, {"c2": 1, "c3": 2, "c4": 4, "c5": 8}),
        (16, {"c2": 4, "c3": 8, "c4": 16, "c5": 32}, {"c2": 1, "c3": 2, "c4": 4, "c5": 8}),
    ],
)
def test_levels(patch: int, strides: dict[str, int], small: dict[str, int], has_levels: Callable[..., None]) -> None:
    for small_input, expected in ((False, strides), (True, small)):
        model = ConvMixer(12, 2, kernel=3, patch=patch, channels=2, small_input=small_input)
        assert model.strides == expected
        has_levels(model, (97, 65), (32, 32), (64, 33))


def test_the_pyramid_is_of_the_map_that_is_classified() -> None:
    model, x = ConvMixer(12, 2, kernel=3).eval(), torch.randn(1, 3, 42, 56)
    found = model.features(x)
    torch.testing.assert_close(found["c3"].mean((2, 3)), model.embed(x))
    assert found["c5"].shape == (1, 12, 2, 2)
    assert found["c5"].amax() == found["c3"].amax()
    torch.testing.assert_close(model(x), found["c5"])


def test_a_border_is_filled_up_for_the_pyramid_and_cut_for_the_class() -> None:
    model, x = ConvMixer(12, 2, kernel=3).eval(), torch.randn(1, 3, 45, 56)
    filled = torch.cat((x, torch.zeros(1, 3, 4, 56)), 2)
    torch.testing.assert_close(model.features(x)["c3"], model.features(filled)["c3"])
    torch.testing.assert_close(model.embed(x), model.embed(x[:, :, :42]))


@pytest.mark.parametrize("norm", [None, "group", "frozen_batch"])
@pytest.mark.parametrize("channels", [1, 5])
def test_any_norm_and_channels_give_gradients(norm: str | None, channels: int) -> None:
    model = ConvMixer(32, 2, kernel=5, norm=norm, channels=channels)
    model.features(torch.randn(2, channels, 64, 64))["c5"].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_channels_last_and_half_precision() -> None:
    model = ConvMixer(32, 2).eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model(x)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full).abs().max() / full.abs().max() < 0.05


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="kernel: must be odd"):
        ConvMixer(12, 1, kernel=4)
    with pytest.raises(ConfigError, match="patch: must be at least 1"):
        ConvMixer(12, 1, patch=0)
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        ConvMixer(12, 1).features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="27×64 are smaller than its largest stride, 28"):
        ConvMixer(12, 1).embed(torch.zeros(1, 3, 27, 64))
