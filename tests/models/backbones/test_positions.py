"""Positions for other grids, beside timm's and PyTorch's interpolation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.layers.pos_embed import resample_abs_pos_embed

from clearsight.models.backbones.positions import PositionResize, cubic_weights


@pytest.mark.parametrize(("old", "new"), [(14, 9), (14, 20), (7, 3), (7, 1), (14, 29), (1, 4), (5, 5)])
def test_the_matrix_is_pytorchs_interpolation(old: int, new: int) -> None:
    x, weights = torch.randn(1, 1, old, old, dtype=torch.float64), cubic_weights(old, new)
    expected = F.interpolate(x, size=(new, new), mode="bicubic", antialias=True)[0, 0]
    torch.testing.assert_close(weights @ x[0, 0] @ weights.T, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(1), torch.ones(new, dtype=torch.float64))


@pytest.mark.parametrize("size", [(9, 20), (3, 7), (28, 28), (7, 14)])
def test_a_grid_is_resized_as_timm_does(size: tuple[int, int]) -> None:
    positions = torch.randn(1, 14 * 14, 24)
    expected = resample_abs_pos_embed(positions, list(size), [14, 14], num_prefix_tokens=0)
    torch.testing.assert_close(PositionResize((14, 14))(positions, size), expected, rtol=0, atol=1e-5)


def test_a_grid_that_is_not_square() -> None:
    positions = torch.randn(1, 6 * 10, 8)
    expected = resample_abs_pos_embed(positions, [10, 6], [6, 10], num_prefix_tokens=0)
    torch.testing.assert_close(PositionResize((6, 10))(positions, (10, 6)), expected, rtol=0, atol=1e-5)


def test_matrices_are_kept_for_the_last_size_and_serve_training_after_a_prediction() -> None:
    resize, positions = PositionResize((4, 4)), torch.randn(1, 16, 3, requires_grad=True)
    assert resize(positions, (4, 4)) is positions
    with torch.inference_mode():
        first = resize(positions, (6, 5)).clone()
    held = resize._held
    again = resize(positions, (6, 5))
    assert resize._held is held
    torch.testing.assert_close(first, again)
    again.sum().backward()
    assert positions.grad is not None
    assert resize(positions, (5, 6)).shape == (1, 30, 3)
    assert resize._held is not held


def test_gradients_and_half_precision() -> None:
    resize = PositionResize((3, 3))
    x = torch.randn(1, 9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resize(x, (4, 2)), (x,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = resize(x.detach().float(), (4, 2))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, resize(x.detach(), (4, 2)).float())
