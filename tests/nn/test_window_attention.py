"""Windows against torchvision's, values and gradients; who sees whom after a shift; one mask for each size."""

from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models.swin_transformer import ShiftedWindowAttention

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.window_attention import (
    WindowAttention,
    relative_position_index,
    shift_mask,
    window_partition,
    window_reverse,
)


# ------------------------------------------------------------------------------------------------ windows
def test_windows_by_hand() -> None:
    x = torch.arange(2 * 4 * 6).view(2, 4, 6, 1)
    windows = window_partition(x, (2, 3))
    assert windows.shape == (8, 6, 1)
    assert windows[1].flatten().tolist() == [3, 4, 5, 9, 10, 11]  # the right one of the first row
    assert windows[4].flatten().tolist() == [24, 25, 26, 30, 31, 32]  # the first one of the second image


@pytest.mark.parametrize("n", [0, 1, 3])
def test_windows_join_to_the_map_they_came_from(n: int) -> None:
    x = torch.randn(n, 6, 8, 5)
    assert torch.equal(window_reverse(window_partition(x, (3, 2)), (3, 2), (6, 8)), x)


@pytest.mark.parametrize("window", [(7, 7), (2, 3), (1, 4), (1, 1)])
def test_offsets_are_numbered_as_in_torchvision(window: tuple[int, int]) -> None:
    theirs = ShiftedWindowAttention(4, list(window), [0, 0], 1).relative_position_index
    assert torch.equal(relative_position_index(window), theirs)


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [((8, 12), (4, 4), (2, 2)), ((8, 12), (4, 4), (1, 3)), ((6, 10), (3, 5), (2, 0)), ((6, 10), (3, 5), (0, 4))],
)
def test_a_shifted_window_keeps_apart_what_was_far_apart(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]
) -> None:
    rows, columns = (
        window_partition(where.roll((-shift[0], -shift[1]), (0, 1))[None, :, :, None], window).squeeze(-1)
        for where in torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    )
    far_down = (rows[:, :, None] - rows[:, None]).abs() >= window[0]
    far_across = (columns[:, :, None] - columns[:, None]).abs() >= window[1]
    mask = shift_mask(size, window, shift)
    assert torch.equal(mask == -torch.inf, far_down | far_across)
    assert torch.equal(mask == 0, ~(far_down | far_across))


# ------------------------------------------------------------------------------------------------ the layer
def pair(
    window: tuple[int, int], shift: tuple[int, int], *, bias: bool
) -> tuple[WindowAttention, ShiftedWindowAttention]:
    theirs = ShiftedWindowAttention(12, list(window), list(shift), 3, qkv_bias=bias).double()
    with torch.no_grad():
        theirs.relative_position_bias_table.normal_()
    ours = WindowAttention(12, 3, window, shift=shift, bias=bias).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shift", [(0, 0), (2, 2), (0, 3), (3, 1)])
@pytest.mark.parametrize("size", [(8, 12), (9, 14), (4, 4), (4, 11), (13, 3), (1, 1)])
def test_windows_are_torchvisions(size: tuple[int, int], shift: tuple[int, int], bias: bool) -> None:
    # (4, 4) and below: one window covers the map, and there is no shift; (4, 11) and (13, 3): on one axis.
    ours, theirs = pair((4, 4), shift, bias=bias)
    x = torch.randn(2, *size, 12, dtype=torch.float64, requires_grad=True)
    found, expected = ours(x), theirs(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    weight = torch.randn_like(found)
    mine = torch.autograd.grad((found * weight).sum(), (x, *dict(sorted(ours.named_parameters())).values()))
    other = torch.autograd.grad((expected * weight).sum(), (x, *dict(sorted(theirs.named_parameters())).values()))
    torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)
    with torch.no_grad():  # a kernel of its own
        torch.testing.assert_close(ours(x), expected, rtol=1e-9, atol=1e-10)


def test_oblong_windows_are_torchvisions() -> None:
    ours, theirs = pair((3, 5), (1, 2), bias=True)
    x = torch.randn(2, 8, 11, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-10)


def test_pixels_from_opposite_edges_do_not_see_each_other() -> None:
    layer, x = WindowAttention(8, 2, 4, shift=2), torch.randn(1, 8, 8, 8)
    changed = x.clone()
    changed[:, 0, 0] = 100.0  # shares the last window with the three other corners
    same = (layer(x) == layer(changed)).all(-1)[0]
    assert not same[:2, :2].any()
    assert same[2:].all()
    assert same[:, 2:].all()


def test_gradients() -> None:
    layer = WindowAttention(2, 1, 2, shift=1).double()
    x = torch.randn(1, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


# ------------------------------------------------------------------------------------------------ the mask
def test_the_mask_is_made_once_a_size() -> None:
    layer, x = WindowAttention(8, 2, 4, shift=2), torch.randn(1, 8, 8, 8)
    assert layer._held is None
    layer(x)
    mask = layer._held[1]
    layer(x[:, :7, :6])  # padded to the same size
    assert layer._held[1] is mask
    layer(torch.randn(1, 16, 4, 8))  # four windows too, in another order
    assert layer._held[1] is not mask
    torch.testing.assert_close(layer(x), copy.deepcopy(layer)(x), rtol=0, atol=0)
    assert sorted(layer.state_dict()) == sorted(ShiftedWindowAttention(8, [4, 4], [2, 2], 2).state_dict())


def test_a_mask_made_while_predicting_serves_in_training() -> None:
    layer, x = WindowAttention(8, 2, 4, shift=2), torch.randn(1, 8, 8, 8)
    with torch.inference_mode():
        expected = layer(x)
    assert not layer._held[1].is_inference()
    found = layer(x)
    found.sum().backward()
    torch.testing.assert_close(found, expected)


def test_compiled_in_one_graph_for_a_size_that_does_not_divide() -> None:
    layer = WindowAttention(8, 2, 4, shift=2)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=False)
    x = torch.randn(2, 9, 3, 8)
    torch.testing.assert_close(compiled(x), layer(x))


# ------------------------------------------------------------------------------------------------ options
def test_dropout_of_weights_and_of_outputs_in_training_only() -> None:
    x = torch.randn(4, 14, 14, 8)
    for given in ({"dropout": 0.4}, {"out_dropout": 0.4}):
        layer = WindowAttention(8, 2, 7, **given)
        other = WindowAttention(8, 2, 7)
        other.load_state_dict(layer.state_dict())
        assert not torch.allclose(layer(x), other(x))
        torch.testing.assert_close(layer.eval()(x), other(x))
    fallen = (WindowAttention(8, 2, 7, out_dropout=0.4)(x) == 0).float().mean().item()
    assert fallen == pytest.approx(0.4, abs=0.03)


def test_in_mixed_precision() -> None:
    layer, x = WindowAttention(16, 2, 4, shift=2), torch.randn(2, 9, 8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.02)
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="WindowAttention: heads: found 5, which does not divide 12 channels; use 1, 2"
    ):
        WindowAttention(12, 5)
    for shift in (7, -1, (0, 7)):
        with pytest.raises(ConfigError, match=r"shift: must be in \[0, 7\), the window's side, got"):
            WindowAttention(12, 3, 7, shift=shift)
    with pytest.raises(ConfigError, match="window: must be at least 1, got 0"):
        WindowAttention(12, 3, (7, 0))
    with pytest.raises(RangeError, match=r"in \[0, 1\), got 1.0"):
        WindowAttention(12, 3, dropout=1.0)
    with pytest.raises(RangeError, match=r"in \[0, 1\), got -0.1"):
        WindowAttention(12, 3, out_dropout=-0.1)
    with pytest.raises(ShapeError, match=r"WindowAttention: x: expected \(n, h, w, c\), got \(2, 49, 12\)"):
        WindowAttention(12, 3)(torch.randn(2, 49, 12))
