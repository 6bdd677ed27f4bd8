"""ResNet: torchvision's names and numbers."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from clearsight.errors import ConfigError, WeightsError
from clearsight.models.backbones import BACKBONES
from clearsight.models.backbones.resnet import ResNet, adapt_first_layer

LEVELS = ("c2", "c3", "c4", "c5")


def randomise(model: nn.Module) -> None:
    """Norm statistics that are not one and zero, so that a norm left out shows."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.0)
            layer.bias.data.normal_(std=0.1)
            layer.running_mean.data.normal_(std=0.1)  # pyright: ignore[reportOptionalMemberAccess]
            layer.running_var.data.uniform_(0.8, 1.2)  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_names_and_outputs_are_torchvisions(depth: int) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    randomise(theirs)
    ours = BACKBONES[f"resnet{depth}"]().eval()
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    assert ours.load_state_dict(state) == ([], [])
    x = torch.randn(1, 3, 65, 47)
    expected = {}
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for level, layer in zip(LEVELS, (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), strict=True):
            y = expected[level] = layer(y)
        found = ours.features(x)
    assert tuple(found) == LEVELS
    for level in LEVELS:
        scale = expected[level].abs().max()
        torch.testing.assert_close(found[level] / scale, expected[level] / scale, rtol=1e-4, atol=1e-5)
        assert found[level].shape[1] == ours.channels[level]
        stride = ours.strides[level]
        assert found[level].shape[2:] == (-(-65 // stride), -(-47 // stride))


@pytest.mark.parametrize("norm", ["batch", "group", "frozen_batch"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_norm_and_channels_give_gradients(norm: str, channels: int) -> None:
    model = ResNet(18, norm=norm, channels=channels)
    model.features(torch.randn(2, channels, 64, 64))["c5"].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_small_input_keeps_the_resolution() -> None:
    model = ResNet(18, small_input=True).eval()
    assert model.strides == {"c2": 1, "c3": 2, "c4": 4, "c5": 8}
    found = model.features(torch.randn(1, 3, 32, 32))
    assert [found[level].shape[-1] for level in LEVELS] == [32, 16, 8, 4]


def test_channels_last_and_half_precision() -> None:
    model = ResNet(18).eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model(x)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full).abs().max() / full.abs().max() < 0.05


def test_a_first_layer_for_other_channels() -> None:
    weight = torch.randn(8, 3, 7, 7)
    grey = adapt_first_layer(weight, 1)
    torch.testing.assert_close(grey, weight.sum(1, keepdim=True))
    five = adapt_first_layer(weight, 5)
    assert five.shape == (8, 5, 7, 7)
    x = torch.randn(1, 1, 9, 9)
    expected = nn.functional.conv2d(x.expand(-1, 3, -1, -1), weight)
    torch.testing.assert_close(nn.functional.conv2d(x, grey), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(nn.functional.conv2d(x.expand(-1, 5, -1, -1), five), expected, rtol=1e-4, atol=1e-4)
    assert adapt_first_layer(weight, 3) is weight
    with pytest.raises(WeightsError, match=r"expected weights \(out, in, kh, kw\), got \(3,\)"):
        adapt_first_layer(torch.zeros(3), 1)


def test_unknown_depth() -> None:
    with pytest.raises(ConfigError, match="there is no ResNet-20; choose one of 18, 34"):
        ResNet(20)
