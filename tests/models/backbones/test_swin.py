"""Swin: torchvision's names and numbers, timm's weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import SwinTransformer as TorchvisionSwin

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.models.backbones.swin import SWINS, SwinTransformer
from clearsight.nn.transformer import WindowBlock

TIMM = {
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
}
SMALL = ((2, 2, 2, 2), (1, 2, 4, 8))  # blocks and heads


def ours(**options: object) -> SwinTransformer:
    return SwinTransformer(16, *SMALL, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("train", [False, True])
def test_numbers_are_torchvisions(train: bool, same_as_peer: Callable[..., None]) -> None:
    depths, heads = SMALL
    theirs = TorchvisionSwin([4, 4], 16, list(depths), list(heads), [7, 7], stochastic_depth_prob=0.0, num_classes=9)
    same_as_peer(ours(), theirs, size=(224, 97), batch=2, train=train)
    same_as_peer(ours(), theirs, size=(66, 35), train=train)  # no multiples of the patch: its convolution cuts


def test_numbers_of_the_tiny_one_are_torchvisions(same_as_peer: Callable[..., None]) -> None:
    same_as_peer(SWINS["swin_t"](), torchvision.models.swin_t(weights=None), size=(64, 96))


def test_numbers_are_timms() -> None:
    theirs = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=24, depths=SMALL[0], num_classes=9).eval()
    backbone, head = SwinTransformer(24, SMALL[0], (3, 6, 12, 24)).eval(), nn.Linear(192, 9)
    adapted = backbone.adapt_weights(theirs.state_dict())
    head.load_state_dict({name: adapted.pop(f"head.{name}") for name in ("weight", "bias")})
    assert backbone.load_state_dict(adapted) == ([], [])
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(head(backbone.embed(x)), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SWINS)
def test_names_and_counts_are_the_peers(name: str) -> None:
    with torch.device("meta"):
        backbone = SWINS[name]()
        peers = (getattr(torchvision.models, name)(weights=None), timm.create_model(TIMM[name]))
    own = backbone.state_dict()
    for theirs in peers:
        adapted = backbone.adapt_weights(theirs.state_dict())
        assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
        assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(("name", "count"), [("swin_t", 28_288_354), ("swin_s", 49_606_258), ("swin_b", 87_768_224)])
def test_parameters_are_the_published_number(name: str, count: int) -> None:
    with torch.device("meta"):
        model = SWINS[name]()
    assert sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1) == count


def test_first_weights_are_drawn_as_torchvisions() -> None:
    with torch.no_grad():
        drawn = dict(SwinTransformer(96, *SMALL).named_parameters())
        theirs = TorchvisionSwin([4, 4], 96, [2, 2, 2, 2], [1, 2, 4, 8], [7, 7])
    for name, value in theirs.named_parameters():
        if not name.startswith("head."):
            assert drawn[name].std().item() == pytest.approx(value.std().item(), rel=0.25, abs=1e-8), name


@pytest.mark.parametrize("small_input", [False, True])
def test_levels(small_input: bool, has_levels: Callable[..., None]) -> None:
    model = ours(channels=2, small_input=small_input)
    has_levels(model, (97, 65), (32, 32), (61, 34))
    assert list(model.strides.values()) == ([1, 2, 4, 8] if small_input else [4, 8, 16, 32])
    assert list(model.channels.values()) == [16, 32, 64, 128]


def test_levels_are_the_stages_outputs_as_they_are() -> None:
    model, x = ours().eval(), torch.randn(2, 3, 64, 64)
    found = model.features(x)
    theirs = TorchvisionSwin([4, 4], 16, [2, 2, 2, 2], [1, 2, 4, 8], [7, 7]).eval()
    theirs.features.load_state_dict(model.features.state_dict())
    for number, level in enumerate(("c2", "c3", "c4", "c5")):
        expected = theirs.features[: 2 * number + 2](x).permute(0, 3, 1, 2)
        torch.testing.assert_close(found[level], expected, rtol=1e-4, atol=1e-5)
        assert found[level].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), found["c5"])


def test_paths_are_dropped_more_the_deeper() -> None:
    blocks = [layer for layer in ours(drop_path=0.7).modules() if isinstance(layer, WindowBlock)]
    assert [block.drop_path.p for block in blocks] == pytest.approx([0.1 * k for k in range(8)])
    assert [block.attn.shift for block in blocks] == [(0, 0), (3, 3)] * 4


def test_other_channels_give_gradients() -> None:
    model = ours(channels=5)
    levels = model.features(torch.randn(2, 5, 66, 64))
    (sum(level.sum() for level in levels.values()) + model.embed(torch.randn(1, 5, 40, 64)).square().sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_compiled_and_in_half_precision() -> None:
    model, x = ours().eval(), torch.randn(2, 3, 65, 80)
    with torch.no_grad():
        full = model.embed(x)
        compiled = torch.compile(model.embed, backend="aot_eager", fullgraph=True)(x)
        torch.testing.assert_close(compiled, full, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (model.embed(x) - full).abs().max() < 0.1


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="leave `norm` out"):
        SWINS["swin_t"](norm="batch")
    with pytest.raises(ConfigError, match="heads"):
        SwinTransformer(16, (1, 1, 1, 1), (3, 3, 3, 3))
    with pytest.raises(ConfigError, match="four stages"):
        SwinTransformer(16, (1, 1), (1, 1))
    with pytest.raises(RangeError):
        ours(drop_path=1.0)
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        ours().features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="31×64 are smaller than its largest stride, 32"):
        ours().embed(torch.zeros(1, 3, 31, 64))
