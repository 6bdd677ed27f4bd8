"""Inception v3 beside torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from clearsight.errors import ShapeError
from clearsight.models.backbones.inception_v3 import INCEPTIONS, InceptionV3

theirs_of = partial(torchvision.models.inception_v3, weights=None, init_weights=False, dropout=0.0)


@pytest.fixture(scope="module")
def model() -> InceptionV3:
    return InceptionV3(channels=2).eval()


@pytest.mark.parametrize("size", [(75, 75), (98, 107)])
def test_numbers_are_torchvisions(size: tuple[int, int], same_as_peer: Callable[..., None]) -> None:
    same_as_peer(INCEPTIONS["inception_v3"](), theirs_of(aux_logits=False), size=size)


def test_numbers_in_training_are_torchvisions(same_as_peer: Callable[..., None]) -> None:
    same_as_peer(InceptionV3(), theirs_of(aux_logits=False), size=(107, 107), batch=2, train=True, double=True)


def test_the_auxiliary_branch_is_torchvisions_in_one_pass() -> None:
    theirs, ours = theirs_of(aux_logits=True, num_classes=7).double(), InceptionV3(auxiliary=True).double()
    adapted = ours.adapt_weights(theirs.state_dict())
    left = ours.load_state_dict(adapted, strict=False)
    assert left.missing_keys == []
    layers = ["head", "aux_heads.AuxLogits"]
    assert sorted(left.unexpected_keys) == sorted(f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))
    assert ours.adapt_weights(adapted).keys() == adapted.keys()
    images = torch.randn(2, 3, 299, 300, dtype=torch.float64)
    calls: list[int] = []
    ours.Conv2d_1a_3x3.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        found, expected = ours.embed_all(images), theirs(images)
    assert calls == [1]
    logits = [
        F.linear(vector, adapted[f"{layer}.weight"], adapted[f"{layer}.bias"])
        for layer, vector in zip(layers, found.values(), strict=True)
    ]
    torch.testing.assert_close(logits, [expected.logits, expected.aux_logits])


def test_the_auxiliary_branch_takes_smaller_images_too() -> None:
    ours = InceptionV3(auxiliary=True, channels=1)
    assert ours.auxiliary == {"AuxLogits": (768, 0.4)}
    found = ours.embed_all(torch.randn(2, 1, 80, 75))
    assert {name: tuple(value.shape) for name, value in found.items()} == {"main": (2, 2048), "AuxLogits": (2, 768)}
    found["AuxLogits"].sum().backward()
    own = [p.grad for name, p in ours.named_parameters() if name.startswith("AuxLogits")]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in own)


def test_without_the_branch_its_weights_keep_their_names() -> None:
    with torch.device("meta"):
        theirs, ours = theirs_of(aux_logits=True), InceptionV3()
    state = theirs.state_dict()
    adapted = ours.adapt_weights(state)
    assert adapted.keys() - state.keys() == {"head.weight", "head.bias"}
    assert {name for name in adapted if name.startswith("Aux")} == {name for name in state if name.startswith("Aux")}
    assert ours.auxiliary == {}
    assert list(ours.embed_all(torch.zeros(2, 3, 75, 75, device="meta"))) == ["main"]


@pytest.mark.parametrize("auxiliary", [False, True])
def test_parameters_are_the_published_number(auxiliary: bool) -> None:
    with torch.device("meta"):
        model = InceptionV3(auxiliary=auxiliary)
    count = sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1)
    count += sum(1000 * (width + 1) for width, _ in model.auxiliary.values())
    assert count == (27161264 if auxiliary else 23834568)


def test_levels(model: InceptionV3, has_levels: Callable[..., None]) -> None:
    has_levels(model, (97, 75), (76, 107))
    small = InceptionV3(small_input=True)
    has_levels(small, (33, 29), (32, 32), (8, 9))
    assert small.strides == {"c2": 1, "c3": 2, "c4": 4, "c5": 8}


@pytest.mark.parametrize("size", [(32, 32), (33, 70), (64, 47)])
def test_levels_of_images_too_small_to_embed(size: tuple[int, int], model: InceptionV3) -> None:
    with torch.no_grad():
        levels = model.features(torch.randn(1, 2, *size))
    for level, found in levels.items():
        stride = model.strides[level]
        assert found.shape == (1, model.channels[level], -(-size[0] // stride), -(-size[1] // stride))


def test_levels_are_centred_on_the_image() -> None:
    # On 2^k·m + 1 pixels, padded windows that step by two start and end at the first and last pixel: all is symmetric.
    model = InceptionV3(channels=1).eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_((layer.weight + layer.weight.flip(-1)) / 2)
                layer.weight.copy_((layer.weight + layer.weight.flip(-2)) / 2)
        x = torch.randn(1, 1, 97, 65)
        whole, turned = model.features(x), model.features(x.flip(-1, -2))
    for level, found in whole.items():
        scale = found.abs().max()
        torch.testing.assert_close(turned[level].flip(-1, -2) / scale, found / scale, rtol=0, atol=1e-5)


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(F.pad(x, [1] * 4, value=-torch.inf), 3, 2)


def padded(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """torchvision's layers, those that it does not pad padded."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.padding = (1, 1)
    part = dict(net.named_children())
    step = {name: dict(part[name].named_children()) for name in ("Mixed_6a", "Mixed_7a")}
    x = pool(nn.Sequential(*(part[name] for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")))(x))
    c2 = part["Conv2d_4a_3x3"](part["Conv2d_3b_1x1"](x))
    c3 = nn.Sequential(*(part[f"Mixed_5{letter}"] for letter in "bcd"))(pool(c2))
    b, d = step["Mixed_6a"], step["Mixed_7a"]
    double = nn.Sequential(*(b[f"branch3x3dbl_{k}"] for k in (1, 2, 3)))(c3)
    c4 = torch.cat((b["branch3x3"](c3), double, pool(c3)), 1)
    c4 = nn.Sequential(*(part[f"Mixed_6{letter}"] for letter in "bcde"))(c4)
    seven = nn.Sequential(*(d[f"branch7x7x3_{k}"] for k in (1, 2, 3, 4)))(c4)
    c5 = torch.cat((d["branch3x3_2"](d["branch3x3_1"](c4)), seven, pool(c4)), 1)
    return {"c2": c2, "c3": c3, "c4": c4, "c5": part["Mixed_7c"](part["Mixed_7b"](c5))}


@pytest.mark.parametrize("size", [(81, 98), (47, 33)])
def test_levels_are_those_of_the_published_layers_padded(size: tuple[int, int]) -> None:
    ours, theirs = InceptionV3().eval(), theirs_of(aux_logits=False).eval()
    ours.load_state_dict(ours.adapt_weights(theirs.state_dict()), strict=False)
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        found, expected = ours.features(x), padded(theirs, x)
    assert list(found) == list(expected)
    for level, other in expected.items():
        scale = other.abs().max()
        torch.testing.assert_close(found[level] / scale, other / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_any_norm_gives_gradients(norm: str) -> None:
    model = InceptionV3(norm=norm, channels=1, auxiliary=True, small_input=True)
    sum(value.sum() for value in model.embed_all(torch.randn(2, 1, 32, 32)).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_initial_weights_are_torchvisions() -> None:
    other = theirs_of(aux_logits=True, init_weights=True).state_dict()
    for name, value in InceptionV3(auxiliary=True).named_parameters():
        if value.numel() > 3000:
            torch.testing.assert_close(value.std(), other[name].std(), rtol=0.1, atol=0)
        elif value.ndim == 1:
            assert torch.equal(value, other[name])


def test_channels_last_and_half_precision() -> None:
    x = torch.randn(1, 3, 65, 64).contiguous(memory_format=torch.channels_last)
    model = InceptionV3().eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model.features(x)
        assert all(level.is_contiguous(memory_format=torch.channels_last) for level in full.values())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full["c5"]).abs().max() / full["c5"].abs().max() < 0.1


def test_bad_images_are_refused(model: InceptionV3) -> None:
    with pytest.raises(ShapeError, match=r"images \(n, 2, h, w\), got \(1, 1, 80, 80\)"):
        model.embed(torch.zeros(1, 1, 80, 80))
    with pytest.raises(ShapeError, match="backbone: images of 31×80 are smaller than its largest stride, 32"):
        model.features(torch.zeros(1, 2, 31, 80))
    for call in (model.embed, model.embed_all):
        with pytest.raises(ShapeError, match="images of 75×74 are too small for its layers without padding"):
            call(torch.zeros(1, 2, 75, 74))
