"""Pre-activation ResNet: the names and numbers of timm's `resnetv2`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones.preact_resnet import PREACT_RESNETS, PreActResNet
from clearsight.nn.dropout import DropPath


def peer(name: str) -> str:
    return name.replace("preact_resnet", "resnetv2_")


@pytest.mark.parametrize("name", ["preact_resnet18", "preact_resnet50"])
def test_numbers_are_timms(name: str, same_as_peer: Callable[..., None]) -> None:
    same_as_peer(PREACT_RESNETS[name](), timm.create_model(peer(name)), size=(65, 47))


@pytest.mark.parametrize("name", ["preact_resnet18", "preact_resnet50"])
def test_numbers_in_training_are_timms(name: str, same_as_peer: Callable[..., None]) -> None:
    # In double precision: behind batch norms over few pixels, gradients of float32 differ by more than 1e-4.
    same_as_peer(PREACT_RESNETS[name](), timm.create_model(peer(name)), batch=2, train=True, double=True)


@pytest.mark.parametrize("name", PREACT_RESNETS)
def test_names_and_counts_are_timms(name: str) -> None:
    with torch.device("meta"):
        theirs, ours = timm.create_model(peer(name)), PREACT_RESNETS[name]()
    adapted, own = ours.adapt_weights(theirs.state_dict()), ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert adapted["head.weight"].shape == (1000, ours.embedding)
    assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(("name", "millions"), [("preact_resnet18", 11.69), ("preact_resnet50", 25.55)])
def test_parameters_are_timms_number(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = PREACT_RESNETS[name]()
    count = sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1)
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize("small_input", [False, True])
def test_levels(small_input: bool, has_levels: Callable[..., None]) -> None:
    for depth in (18, 50):
        model = PreActResNet(depth, channels=2, small_input=small_input)
        has_levels(model, (97, 65), (32, 32), (64, 33))
        assert list(model.strides.values()) == ([1, 2, 4, 8] if small_input else [4, 8, 16, 32])


def test_levels_are_the_sums_and_the_last_is_normed_and_activated() -> None:
    model, x = PreActResNet(18).eval(), torch.randn(1, 3, 64, 64)
    found, expected = model.features(x), model.stem(x)
    for level, stage in zip(("c2", "c3", "c4", "c5"), model.stages, strict=True):
        expected = stage(expected)
        if level != "c5":
            assert (found[level] < 0).any()  # nothing has activated it, in place neither
            torch.testing.assert_close(found[level], expected)
    torch.testing.assert_close(found["c5"], model.norm(expected).relu())
    torch.testing.assert_close(model.embed(x), found["c5"].mean((2, 3)))


@pytest.mark.parametrize("norm", ["batch", "group", "frozen_batch"])
@pytest.mark.parametrize("channels", [1, 5])
def test_any_norm_and_channels_give_gradients(norm: str, channels: int) -> None:
    model = PreActResNet(18, norm=norm, channels=channels)
    model.features(torch.randn(2, channels, 64, 64))["c5"].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_first_weights_are_drawn_as_timms() -> None:
    drawn = dict(PreActResNet(18).named_parameters())
    for name, value in timm.create_model("resnetv2_18").named_parameters():
        if not name.startswith("head."):
            assert drawn[name].std().item() == pytest.approx(value.std().item(), rel=0.1, abs=1e-8), name


def test_paths_are_dropped_more_the_deeper() -> None:
    drops = [layer.p for layer in PreActResNet(18, drop_path=0.7).modules() if isinstance(layer, DropPath)]
    assert drops == pytest.approx([0.1 * k for k in range(1, 8)])


def test_channels_last_and_half_precision() -> None:
    model = PreActResNet(18).eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model(x)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full).abs().max() / full.abs().max() < 0.05


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="there is no pre-activation ResNet-20; choose one of 18, 34"):
        PreActResNet(20)
    with pytest.raises(ConfigError, match="norm: there is none named"):
        PreActResNet(18, norm="bach")
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        PreActResNet(18).features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="31×64 are smaller than its largest stride, 32"):
        PreActResNet(18).embed(torch.zeros(1, 3, 31, 64))
