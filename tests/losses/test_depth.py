"""Depth: equation 4 written out, what a factor does and does not change; pixels without depth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.losses.depth import scale_invariant_loss

NOTHING = (0.0, -1.0, math.nan, math.inf, -math.inf)


def depths(*shape: int) -> Tensor:
    """Metres, some unknown in each of the ways there are."""
    depth = torch.rand(*shape, dtype=torch.float64) * 20 + 0.5
    flat = depth.view(len(depth), -1)
    for place, value in enumerate(NOTHING):
        flat[:, place * 2] = value
    return depth


def written_out(pred_log: Tensor, depth: Tensor, lam: float) -> float:
    """Equation 4, its second form with the sum over pairs of pixels: λ/n² Σᵢⱼ dᵢ dⱼ."""
    each = []
    for p, t in zip(pred_log.numpy().reshape(len(depth), -1), depth.numpy().reshape(len(depth), -1), strict=True):
        d = np.array([a - math.log(b) for a, b in zip(p, t, strict=True) if math.isfinite(b) and b > 0])
        pairs = sum(float(a * b) for a in d for b in d)
        each.append((d**2).sum() / len(d) - lam * pairs / len(d) ** 2)
    return float(np.mean(each))


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_it_is_the_papers(lam: float) -> None:
    depth, pred = depths(3, 1, 4, 5), torch.randn(3, 1, 4, 5, dtype=torch.float64)
    assert scale_invariant_loss(pred, depth, lam=lam).item() == pytest.approx(written_out(pred, depth, lam), rel=1e-12)


def test_by_hand() -> None:
    depth = torch.tensor([[1.0, math.e, 0.0], [1.0, 0.0, 0.0]])
    pred = torch.tensor([[1.0, 4.0, 9.0], [2.0, 7.0, 7.0]])  # d = 1, 3, none; 2, none, none
    first, second = (1 + 9) / 2 - 0.5 * 2**2, 4 - 0.5 * 4
    assert scale_invariant_loss(pred, depth).item() == pytest.approx((first + second) / 2)
    only_first = torch.tensor([[True, False, True], [False, True, True]])
    assert scale_invariant_loss(pred, depth, valid=only_first).item() == pytest.approx((1 - 0.5) / 2)


@settings(max_examples=60, deadline=None)
@given(
    factor=st.lists(st.floats(1e-4, 1e4), min_size=2, max_size=2),
    lam=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_a_factor_on_an_image(factor: list[float], lam: float, seed: int) -> None:
    # It adds log f to every d: mean d² - (mean d)² stays, and of (1 - λ) (mean d)² the rest is seen.
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(2, 11, dtype=torch.float64, generator=generator) + 0.5
    depth[:, 3] = 0
    pred = torch.randn(2, 11, dtype=torch.float64, generator=generator)
    shift = torch.tensor(factor, dtype=torch.float64).log()[:, None]
    change = scale_invariant_loss(pred + shift, depth, lam=lam) - scale_invariant_loss(pred, depth, lam=lam)
    mean = torch.stack([(p - t.log())[t > 0].mean() for p, t in zip(pred, depth, strict=True)])
    expected = (1 - lam) * ((mean + shift[:, 0]).square() - mean.square()).mean()
    torch.testing.assert_close(change, expected, rtol=1e-9, atol=1e-9)


def test_a_large_factor_leaves_float32_its_digits() -> None:
    depth = torch.rand(1, 1000) * 1e-2 + 1.0
    near = scale_invariant_loss(torch.zeros(1, 1000), depth, lam=1.0)
    far = scale_invariant_loss(torch.full((1, 1000), 64.0), depth, lam=1.0)  # mean d² is 4096, the spread 1e-5
    torch.testing.assert_close(far, near, rtol=0.01, atol=0)
    assert far > 0


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_gradients_are_those_of_differences(lam: float) -> None:
    depth = depths(2, 1, 3, 5)
    pred = torch.randn(2, 1, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: scale_invariant_loss(x, depth, lam=lam), pred)


@pytest.mark.parametrize("nothing", NOTHING)
def test_pixels_without_depth_do_not_count(nothing: float) -> None:
    depth = torch.rand(2, 6) + 0.5
    pred = torch.randn(2, 6, requires_grad=True)
    (expected,) = torch.autograd.grad(scale_invariant_loss(pred, depth), pred)
    wide = torch.cat((depth, torch.full((2, 3), nothing)), dim=1)
    more = torch.cat((pred.detach(), torch.tensor([[math.nan, math.inf, 1e4]] * 2)), dim=1).requires_grad_()
    value = scale_invariant_loss(more, wide)
    (gradient,) = torch.autograd.grad(value, more)
    torch.testing.assert_close(value, scale_invariant_loss(pred, depth))
    torch.testing.assert_close(gradient[:, :6], expected)
    assert not gradient[:, 6:].any()


def test_an_image_without_depth_is_zero() -> None:
    pred = torch.randn(3, 1, 2, 2, requires_grad=True)
    depth = torch.rand(3, 1, 2, 2) + 0.5
    depth[1] = torch.tensor(NOTHING[:4]).view(1, 2, 2)
    value = scale_invariant_loss(pred, depth)
    (gradient,) = torch.autograd.grad(value, pred)
    torch.testing.assert_close(value, scale_invariant_loss(pred[[0, 2]], depth[[0, 2]]) * 2 / 3)
    assert gradient.isfinite().all()
    assert not gradient[1].any()
    for shape in ((1, 1, 2, 2), (0, 1, 2, 2), (2, 1, 0, 3)):
        none = torch.randn(*shape, requires_grad=True)
        empty = scale_invariant_loss(none, torch.zeros(shape))
        (slope,) = torch.autograd.grad(empty, none)
        assert empty.item() == 0
        assert not slope.any()


def test_half_precision_is_widened_and_it_compiles() -> None:
    depth, pred = depths(2, 1, 3, 5).float(), torch.randn(2, 1, 3, 5)
    for dtype in (torch.float16, torch.bfloat16):
        half = pred.to(dtype).requires_grad_()
        value = scale_invariant_loss(half, depth)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, scale_invariant_loss(half.float(), depth))
        wild = torch.full_like(pred, 1e4, dtype=dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(scale_invariant_loss(wild, depth), wild)
        assert gradient.isfinite().all()
    tiny = torch.full((1, 4), 1e-60, dtype=torch.float64)  # no number of float32
    assert scale_invariant_loss(torch.zeros(1, 4), tiny).isfinite()
    compiled = torch.compile(scale_invariant_loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(pred, depth), scale_invariant_loss(pred, depth))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"depth: .*\(2, 1, 3\), got \(2, 3\)"):
        scale_invariant_loss(torch.zeros(2, 1, 3), torch.ones(2, 3))
    with pytest.raises(ShapeError, match="valid: "):
        scale_invariant_loss(torch.zeros(2, 3), torch.ones(2, 3), valid=torch.ones(2, 1, dtype=torch.bool))
    for lam in (-0.1, 1.5, math.nan):
        with pytest.raises(RangeError, match=r"lam: must be in \[0, 1\]"):
            scale_invariant_loss(torch.zeros(2, 3), torch.ones(2, 3), lam=lam)
