"""VGG: torchvision's names and numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones.vgg import VGGS, Vgg
from clearsight.nn.init import kaiming_init


def peer(name: str, *, hidden: int = 32, dropout: float = 0.5) -> nn.Module:
    """Torchvision's network with a narrow classifier: the published one has 120 million parameters."""
    with torch.device("meta"):
        model = getattr(torchvision.models, name)(weights=None)
    layers = [nn.Linear(512 * 49, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()]
    model.classifier = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(hidden, 7))
    model.features.to_empty(device="cpu")
    kaiming_init(model)
    return model


@pytest.mark.parametrize(("name", "size"), [("vgg11", (65, 47)), ("vgg16", (96, 64)), ("vgg13_bn", (50, 61))])
def test_numbers_are_torchvisions(name: str, size: tuple[int, int], same_as_peer: Callable[..., None]) -> None:
    same_as_peer(VGGS[name](hidden=32), peer(name), size=size)


def test_numbers_in_training_are_torchvisions(same_as_peer: Callable[..., None]) -> None:
    ours, theirs = VGGS["vgg11_bn"](hidden=32, dropout=0.0), peer("vgg11_bn", dropout=0.0)
    same_as_peer(ours, theirs, size=(32, 32), batch=2, train=True, double=True)


@pytest.mark.parametrize("name", VGGS)
def test_names_and_counts_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs, ours = getattr(torchvision.models, name)(weights=None), VGGS[name]()
    adapted, own = ours.adapt_weights(theirs.state_dict()), ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert own.keys() <= adapted.keys()
    assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(("name", "millions"), [("vgg11", 132.863), ("vgg16", 138.358), ("vgg19_bn", 143.678)])
def test_parameters_are_the_published_number(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = VGGS[name]()
    assert round((sum(p.numel() for p in model.parameters()) + 1000 * 4097) / 1e6, 3) == millions


@pytest.mark.parametrize("small_input", [False, True])
def test_levels(small_input: bool, has_levels: Callable[..., None]) -> None:
    model = VGGS["vgg11_bn"](channels=2, small_input=small_input, hidden=8)
    has_levels(model, (97, 65), (32, 32), (64, 33))
    assert model.strides["c5"] == (8 if small_input else 32)


def test_the_pyramid_is_the_published_network_where_the_strides_divide_the_image() -> None:
    model = Vgg(13, hidden=0)
    theirs = peer("vgg13")
    model.load_state_dict({k: v for k, v in model.adapt_weights(theirs.state_dict()).items() if "head" not in k})
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found = model.features(images)
        for level, end in {"c2": 14, "c3": 19, "c4": 24, "c5": 25}.items():
            torch.testing.assert_close(found[level], theirs.features[:end](images))
        torch.testing.assert_close(model(images), found["c5"])
        torch.testing.assert_close(model.embed(images), found["c5"].mean(dim=(2, 3)))
    assert model.embedding == 512


def test_an_odd_column_is_seen_by_the_pyramid() -> None:
    model = Vgg(11, hidden=0)
    images = torch.randn(1, 3, 33, 33)
    images[:, :, :, :32] = 0
    blank = images.clone()
    blank[:, :, :, 32] = 0
    with torch.no_grad():
        for found, without in zip(model.features(images).values(), model.features(blank).values(), strict=True):
            assert not torch.equal(found[..., -1], without[..., -1])


@pytest.mark.parametrize(("norm", "layer"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)])
@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_norm_by_name_and_channels(name: str, norm: str, layer: type) -> None:
    model = VGGS[name](norm=norm, channels=1, hidden=0)
    assert sum(isinstance(part, layer) for part in model.modules()) == 8
    model.features(torch.randn(2, 1, 32, 32))["c5"].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_initial_weights() -> None:
    for name, value in Vgg(11, hidden=64).named_parameters():
        expected = 0.01 if "classifier" in name else (2 / (9 * len(value))) ** 0.5
        assert value.std().item() == pytest.approx(expected if value.ndim > 1 else 0.0, rel=0.1)


def test_channels_last_and_half_precision() -> None:
    model = Vgg(11, hidden=0).eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model(x)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full).abs().max() / full.abs().max() < 0.05


def test_compiles_and_exports() -> None:
    model = VGGS["vgg11_bn"](hidden=0).eval()
    images = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        expected = model.features(images)
        compiled = torch.compile(model.features, backend="eager", fullgraph=True)
        for level, feature in compiled(images).items():
            torch.testing.assert_close(feature, expected[level])
        torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), expected["c5"])


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="there is no VGG-18; choose one of 11, 13"):
        Vgg(18)
    model = Vgg(11, hidden=0)
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        model.features(torch.zeros(1, 1, 64, 64))
    with torch.device("meta"):
        whole = Vgg(11)
    with pytest.raises(ShapeError, match="backbone: images of 31×64 are smaller than its largest stride, 32"):
        whole.embed(torch.zeros(1, 3, 31, 64))
