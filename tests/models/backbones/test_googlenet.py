"""GoogLeNet beside torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from clearsight.errors import ShapeError
from clearsight.models.backbones.googlenet import GOOGLENETS, GoogLeNet

theirs_of = partial(torchvision.models.googlenet, weights=None, init_weights=False, dropout=0.0)


@pytest.fixture(scope="module")
def model() -> GoogLeNet:
    return GoogLeNet(channels=2).eval()


@pytest.mark.parametrize("size", [(64, 96), (97, 65)])
def test_numbers_are_torchvisions(size: tuple[int, int], same_as_peer: Callable[..., None]) -> None:
    same_as_peer(GOOGLENETS["googlenet"](), theirs_of(aux_logits=False), size=size)


def test_numbers_in_training_are_torchvisions(same_as_peer: Callable[..., None]) -> None:
    same_as_peer(GoogLeNet(), theirs_of(aux_logits=False), batch=2, train=True, double=True)


def without_dropout(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model.double()


def test_auxiliary_branches_are_torchvisions_in_one_pass() -> None:
    theirs, ours = (
        without_dropout(theirs_of(aux_logits=True, num_classes=7)),
        without_dropout(GoogLeNet(auxiliary=True)),
    )
    adapted = ours.adapt_weights(theirs.state_dict())
    left = ours.load_state_dict(adapted, strict=False)
    assert left.missing_keys == []
    layers = ["head", "aux_heads.aux1", "aux_heads.aux2"]
    assert sorted(left.unexpected_keys) == sorted(f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))
    assert ours.adapt_weights(adapted).keys() == adapted.keys()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    calls: list[int] = []
    ours.conv1.register_forward_hook(lambda *_: calls.append(1))
    found = ours.embed_all(images)
    assert calls == [1]
    logits = [
        F.linear(vector, adapted[f"{layer}.weight"], adapted[f"{layer}.bias"])
        for layer, vector in zip(layers, found.values(), strict=True)
    ]
    expected = theirs(images)
    torch.testing.assert_close(logits, [expected.logits, expected.aux_logits1, expected.aux_logits2])
    sum(value.sum() for value in logits).backward()
    expected.logits.add(expected.aux_logits1).add(expected.aux_logits2).sum().backward()
    other = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value.grad, other[name].grad)


def test_auxiliary_branches_are_described() -> None:
    model = GoogLeNet(auxiliary=True)
    assert model.auxiliary == {"aux1": (1024, 0.3), "aux2": (1024, 0.3)}
    assert model.aux1.dropout.p == 0.7
    found = model.eval().embed_all(torch.randn(2, 3, 32, 40))
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(("main", "aux1", "aux2"), (2, 1024))


def test_without_the_branches_their_weights_keep_their_names() -> None:
    with torch.device("meta"):
        theirs, ours = theirs_of(aux_logits=True), GoogLeNet()
    state = theirs.state_dict()
    adapted = ours.adapt_weights(state)
    assert adapted.keys() - state.keys() == {"head.weight", "head.bias"}
    assert {name for name in adapted if name.startswith("aux")} == {name for name in state if name.startswith("aux")}
    assert ours.auxiliary == {}
    assert list(ours.embed_all(torch.zeros(2, 3, 32, 32, device="meta"))) == ["main"]


@pytest.mark.parametrize(("auxiliary", "count"), [(False, 6624904), (True, 13004888)])
def test_parameters_are_the_published_number(auxiliary: bool, count: int) -> None:
    with torch.device("meta"):
        model, theirs = GoogLeNet(auxiliary=auxiliary), theirs_of(aux_logits=auxiliary)
    heads = 1 + len(model.auxiliary)
    assert sum(p.numel() for p in model.parameters()) + heads * 1000 * (model.embedding + 1) == count
    assert sum(p.numel() for p in theirs.parameters()) == count


def test_levels(model: GoogLeNet, has_levels: Callable[..., None]) -> None:
    has_levels(model, (97, 65), (32, 32), (64, 33), (47, 71))
    small = GoogLeNet(small_input=True)
    has_levels(small, (33, 29), (32, 32), (8, 9))
    assert small.strides == {"c2": 1, "c3": 2, "c4": 4, "c5": 8}


def test_levels_are_the_published_networks_where_nothing_is_rounded() -> None:
    ours, theirs = GoogLeNet().eval(), theirs_of(aux_logits=False).eval()
    ours.load_state_dict(ours.adapt_weights(theirs.state_dict()), strict=False)
    x = torch.randn(2, 3, 64, 96)
    levels, expected = ours.features(x), dict[str, Tensor]()
    ends = {"conv3": "c2", "inception3b": "c3", "inception4e": "c4", "inception5b": "c5"}
    for name, layer in list(theirs.named_children())[:-3]:
        x = layer(x)
        if name in ends:
            expected[ends[name]] = x
    assert list(levels) == list(expected)
    torch.testing.assert_close(levels, expected)


def test_an_odd_side_adds_a_window_at_its_end_and_moves_none() -> None:
    model = GoogLeNet(small_input=True).eval()
    pooled: list[Tensor] = []
    model.inception3a.register_forward_hook(lambda _, x, __: pooled.append(x[0]))
    x = torch.randn(1, 3, 11, 9)
    c2 = model.features(x)["c2"]
    model.embed(x)
    up, down = pooled
    assert (up.shape[-2:], down.shape[-2:]) == ((6, 5), (5, 4))
    assert torch.equal(up[..., :-1, :-1], down)
    assert torch.equal(up[..., -1, :-1], F.max_pool2d(c2[..., -1:, :], (1, 3), (1, 2), ceil_mode=True)[..., 0, :])
    assert torch.equal(up[..., -1, -1], c2[..., -1, -1])


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_any_norm_gives_gradients(norm: str) -> None:
    model = GoogLeNet(norm=norm, channels=1, auxiliary=True)
    sum(value.sum() for value in model.embed_all(torch.randn(2, 1, 64, 64)).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_initial_weights_are_torchvisions() -> None:
    other = theirs_of(aux_logits=True, init_weights=True).state_dict()
    for name, value in GoogLeNet(auxiliary=True).named_parameters():
        if value.numel() > 3000:
            torch.testing.assert_close(value.std(), other[name].std(), rtol=0.1, atol=0)
        elif value.ndim == 1 and ".bn." in name:
            assert torch.equal(value, other[name])


def test_channels_last_and_half_precision() -> None:
    model = GoogLeNet().eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 65, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model.features(x)
        assert all(level.is_contiguous(memory_format=torch.channels_last) for level in full.values())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full["c5"]).abs().max() / full["c5"].abs().max() < 0.1


def test_bad_images_are_refused(model: GoogLeNet) -> None:
    for call in (model.features, model.embed, model.embed_all):
        with pytest.raises(ShapeError, match=r"images \(n, 2, h, w\), got \(1, 1, 64, 64\)"):
            call(torch.zeros(1, 1, 64, 64))
        with pytest.raises(ShapeError, match="backbone: images of 31×64 are smaller than its largest stride, 32"):
            call(torch.zeros(1, 2, 31, 64))
