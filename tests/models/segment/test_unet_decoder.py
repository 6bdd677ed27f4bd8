"""The way up: the shortcut past enlarging is exact, skips go where their strides say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.deploy.fuse import fuse
from clearsight.errors import ConfigError
from clearsight.models.segment.unet_decoder import DecoderBlock, UNetDecoder, enlarged_conv


def plain(x: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv2d(x if skip is None else torch.cat((x, skip), dim=1), weight, bias, padding=1)


@pytest.mark.parametrize("skips", [0, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3)])
def test_shortcut_is_enlarging_and_convolving(size: tuple[int, int], skips: int) -> None:
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    height, width = size
    skip = torch.randn(2, skips, 2 * height, 2 * width, dtype=torch.float64, requires_grad=True) if skips else None
    weight = torch.randn(5, 4 + skips, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    inputs = [x, weight, bias] if skip is None else [x, skip, weight, bias]
    found, expected = enlarged_conv(x, skip, weight, bias), plain(x, skip, weight, bias)
    torch.testing.assert_close(found, expected)
    wanted = torch.randn_like(expected)
    mine, other = torch.autograd.grad(found, inputs, wanted), torch.autograd.grad(expected, inputs, wanted)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_block_takes_the_shortcut_where_it_pays(layout: torch.memory_format) -> None:
    block = DecoderBlock(6, 4, 8).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    x, skip = (part.contiguous(memory_format=layout) for part in (torch.randn(4, 6, 16, 16), torch.randn(4, 4, 32, 32)))
    seen: list[Tensor] = []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as record:
        short = block(x, skip)
    assert any("conv_transpose" in event.key for event in record.key_averages())
    handle = block.conv1.register_forward_hook(lambda layer, given, out: seen.append(out))
    whole = block(x, skip)  # whoever watches the convolution gets to see it
    handle.remove()
    assert len(seen) == 1
    assert short.is_contiguous(memory_format=layout)
    torch.testing.assert_close(short, whole, rtol=1e-5, atol=1e-5)
    one, two = block(x[:1, :, :4, :4], skip[:1, :, :8, :8]), block(x[:0], skip[:0])
    assert (one.shape, two.shape) == ((1, 8, 8, 8), (0, 8, 32, 32))


@pytest.mark.parametrize("norm", ["batch", "group", "cross_iteration"])
def test_any_norm_gives_gradients(norm: str) -> None:
    block = DecoderBlock(4, 2, 4, norm=norm)
    block(torch.randn(4, 4, 16, 16), torch.randn(4, 2, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters() if p.ndim == 4)


def test_a_folded_norm_is_not_lost() -> None:
    block = DecoderBlock(4, 2, 4)
    x, skip = torch.randn(4, 4, 16, 16), torch.randn(4, 2, 32, 32)
    block(x + 1, skip)  # statistics that are not those of the start
    expected = block.eval()(x, skip)
    fused = fuse(block, (x, skip)).model
    assert len(list(fused.modules())) == len(list(block.modules()))
    torch.testing.assert_close(fused(x, skip), expected, rtol=1e-5, atol=1e-5)


def test_half_precision() -> None:
    block = DecoderBlock(4, 2, 4).eval()
    x, skip = torch.randn(4, 4, 16, 16), torch.randn(4, 2, 32, 32)
    with torch.no_grad():
        full = block(x, skip)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = block(x, skip)
    assert (half - full).abs().max() < 0.05 * full.abs().max()


def test_compiled_is_eager() -> None:
    block = DecoderBlock(4, 2, 4).eval()
    x, skip = torch.randn(4, 4, 16, 16), torch.randn(4, 2, 32, 32)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, skip), block(x, skip), rtol=1e-5, atol=1e-5)


def test_skips_have_their_strides() -> None:
    strides = {"c1": 2, "c2": 4, "c3": 8, "c4": 16, "c5": 32}
    channels = {level: 8 + k for k, level in enumerate(strides)}
    decoder = UNetDecoder(channels, strides=strides, widths=(10, 9, 8, 7, 6))
    assert decoder.skips == ("c4", "c3", "c2", "c1", None)
    features = {
        level: torch.randn(2, width, 64 // strides[level], 96 // strides[level]) for level, width in channels.items()
    }
    out = decoder(features)
    assert out.shape == (2, 6, 64, 96)
    gone = {**features, "c1": features["c1"] + 1}
    assert not torch.equal(decoder(gone), out)


def test_without_a_stem_and_with_small_strides() -> None:
    decoder = UNetDecoder({"c2": 4, "c5": 8}, strides={"c2": 4, "c5": 32}, widths=(6, 6, 6, 6, 6))
    assert decoder.skips == (None, None, "c2", None, None)
    small = UNetDecoder({"c2": 4, "c3": 6, "c4": 8}, strides={"c2": 1, "c3": 2, "c4": 4}, widths=(256, 128, 64, 5, 3))
    assert small.skips == ("c3", "c2")
    features = {"c2": torch.randn(1, 4, 8, 8), "c3": torch.randn(1, 6, 4, 4), "c4": torch.randn(1, 8, 2, 2)}
    assert small(features).shape == (1, 3, 8, 8)


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="never gets from stride 28 to 1"):
        UNetDecoder({"c5": 4}, strides={"c5": 28})
    with pytest.raises(ConfigError, match=r"expected 5 or more, to come back from stride 32, got 2"):
        UNetDecoder({"c5": 4}, strides={"c5": 32}, widths=(8, 8))
    assert isinstance(UNetDecoder({"c5": 4}, strides={"c5": 2}, widths=(8,)), nn.Module)
