"""ResNet and its forms: torchvision's and timm's names and numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones.resnet import RESNETS, ResNet
from clearsight.nn.dropout import DropPath

TORCHVISION = [name for name in RESNETS if not name.startswith("se")]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_numbers_are_torchvisions(name: str, same_as_peer: Callable[..., None]) -> None:
    same_as_peer(RESNETS[name](), getattr(torchvision.models, name)(weights=None), size=(65, 47))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_numbers_in_training_are_torchvisions(name: str, same_as_peer: Callable[..., None]) -> None:
    same_as_peer(RESNETS[name](), getattr(torchvision.models, name)(weights=None), batch=2, train=True, double=True)


@pytest.mark.parametrize("name", ["seresnet18", "seresnet50"])
def test_numbers_with_gates_are_timms(name: str, same_as_peer: Callable[..., None]) -> None:
    same_as_peer(RESNETS[name](), timm.create_model(name), size=(65, 47))


@pytest.mark.parametrize("name", RESNETS)
def test_names_and_counts_are_the_peers(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name) if name.startswith("se") else getattr(torchvision.models, name)(weights=None)
        ours = RESNETS[name]()
    adapted = ours.adapt_weights(theirs.state_dict())
    own = ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(("name", "millions"), [("resnet18", 11.69), ("resnet50", 25.56), ("seresnet50", 28.09)])
def test_parameters_are_the_published_number(name: str, millions: float) -> None:
    model = RESNETS[name]()
    count = sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1)
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize("small_input", [False, True])
def test_levels(small_input: bool, has_levels: Callable[..., None]) -> None:
    for name in ("resnet18", "resnet50", "seresnet18"):
        has_levels(RESNETS[name](channels=2, small_input=small_input), (97, 65), (32, 32), (64, 33))


@pytest.mark.parametrize("norm", ["batch", "group", "frozen_batch"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_norm_and_channels_give_gradients(norm: str, channels: int) -> None:
    model = ResNet(18, norm=norm, channels=channels)
    model.features(torch.randn(2, channels, 64, 64))["c5"].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(("small_input", "stride"), [(False, 2), (True, 1)])
def test_the_stem_is_a_level_where_it_is_asked_for(
    small_input: bool, stride: int, has_levels: Callable[..., None]
) -> None:
    model = ResNet(18, small_input=small_input).eval()
    images = torch.randn(1, 3, 64, 96)
    before = model.features(images)
    model.show_stem()
    after = model.features(images)
    assert model.strides["c1"] == stride
    assert list(after) == ["c1", *before] == ["c1", "c2", "c3", "c4", "c5"]
    assert all(torch.equal(after[level], value) for level, value in before.items())
    stem = model.relu(model.bn1(model.conv1(images)))
    torch.testing.assert_close(after["c1"], stem, rtol=1e-5, atol=1e-5)
    has_levels(model, (97, 65))


def test_small_input_keeps_the_resolution() -> None:
    model = ResNet(18, small_input=True).eval()
    assert model.strides == {"c2": 1, "c3": 2, "c4": 4, "c5": 8}
    found = model.features(torch.randn(1, 3, 32, 32))
    assert [feature.shape[-1] for feature in found.values()] == [32, 16, 8, 4]


def test_paths_are_dropped_more_the_deeper() -> None:
    drops = [layer.p for layer in ResNet(18, drop_path=0.7).modules() if isinstance(layer, DropPath)]
    assert drops == pytest.approx([0.1 * k for k in range(1, 8)])


def test_channels_last_and_half_precision() -> None:
    model = ResNet(18).eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model(x)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full).abs().max() / full.abs().max() < 0.05


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="there is no ResNet-20; choose one of 18, 34"):
        ResNet(20)
    with pytest.raises(ConfigError, match="only bottlenecks have groups"):
        ResNet(18, groups=32)
    model = nn.Module.eval(ResNet(18))
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        model.features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="31×64 are smaller than its largest stride, 32"):
        model.embed(torch.zeros(1, 3, 31, 64))
