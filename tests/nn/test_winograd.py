"""Winograd's convolution equals the direct one, and is taken only where it is the faster."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clearsight.errors import ShapeError
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.winograd import winograd_conv2d, winograd_pays


@settings(deadline=None)  # the first call of a process is slow
@given(
    n=st.integers(0, 3), c=st.integers(1, 5), o=st.integers(1, 5), h=st.integers(1, 13), w=st.integers(1, 13),
    bias=st.booleans(),
)  # fmt: skip
def test_it_is_the_direct_convolution(n: int, c: int, o: int, h: int, w: int, bias: bool) -> None:
    x = torch.randn(n, c, h, w, dtype=torch.float64)
    weight = torch.randn(o, c, 3, 3, dtype=torch.float64)
    shift = torch.randn(o, dtype=torch.float64) if bias else None
    torch.testing.assert_close(winograd_conv2d(x, weight, shift), F.conv2d(x, weight, shift, padding=1))


def test_many_images_go_in_several_parts() -> None:
    x, weight = torch.randn(9, 3, 21, 17, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(winograd_conv2d(x, weight), F.conv2d(x, weight, padding=1))


def test_float32_and_channels_last() -> None:
    x = torch.randn(4, 256, 20, 24).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3) / 48
    out = winograd_conv2d(x, weight)
    assert out.is_contiguous(memory_format=torch.channels_last)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert float((out - exact).abs().max()) < 2e-4  # of outputs of size 1


def test_what_goes_the_direct_way() -> None:
    x, weight = torch.randn(0, 3, 6, 6, requires_grad=True), torch.randn(4, 3, 3, 3)
    winograd_conv2d(x, weight).sum().backward()
    assert x.grad is not None
    x = torch.randn(2, 3, 9, 10)
    half = winograd_conv2d(x.bfloat16(), weight.bfloat16())
    assert torch.equal(half, F.conv2d(x.bfloat16(), weight.bfloat16(), padding=1))
    compiled = torch.compile(winograd_conv2d, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x, weight), F.conv2d(x, weight, padding=1))
    assert winograd_conv2d(x, weight).is_contiguous(memory_format=torch.channels_last)


def test_other_kernels_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"weight \(o, c, 3, 3\), got \(1, 2, 8, 8\) and \(4, 2, 5, 5\)"):
        winograd_conv2d(torch.zeros(1, 2, 8, 8), torch.zeros(4, 2, 5, 5))
    with pytest.raises(ShapeError, match="got"):
        winograd_conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(4, 2, 3, 3))


def test_where_it_pays() -> None:
    x = torch.zeros(1, 256, 36, 36)
    plain = nn.Conv2d(256, 256, 3, padding=1)
    assert not winograd_pays(x, plain)  # gradients are wanted
    with torch.no_grad():
        assert winograd_pays(x, plain)
        assert not winograd_pays(x[:, :, :20, :20], plain)  # 25 tiles
        assert not winograd_pays(torch.zeros(16, 256, 14, 14), plain)  # a quarter of what the tiles hold lies outside
        assert not winograd_pays(x.bfloat16(), plain)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not winograd_pays(x, plain)
        for other in (
            nn.Conv2d(256, 256, 5, padding=1),
            nn.Conv2d(256, 256, 3),
            nn.Conv2d(256, 256, 3, 2, padding=1),
            nn.Conv2d(256, 256, 3, padding=1, groups=2),
            nn.Conv2d(256, 256, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(256, 64, 3, padding=1),
        ):
            assert not winograd_pays(x, other)


def test_blocks_take_it_where_it_pays() -> None:
    x = torch.randn(1, 192, 36, 36)
    for norm in ("batch", None):
        block = ConvNormAct(192, 192, norm=norm).eval()
        plain = block(x)  # with gradients: the direct way
        with torch.no_grad(), torch.profiler.profile() as profile:
            fast = block(x)
        seen = [event.key for event in profile.key_averages()]
        assert "aten::bmm" in seen
        assert not any("convolution" in key for key in seen)
        torch.testing.assert_close(fast, plain, rtol=0, atol=2e-4)
        handle = block[0].register_forward_hook(lambda *_: None)
        with torch.no_grad(), torch.profiler.profile() as profile:
            block(x)
        assert any("convolution" in event.key for event in profile.key_averages())
        handle.remove()
