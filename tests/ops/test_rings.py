"""Rings by hand, beside NumPy's one at a time, and under rotations that must be undone exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearsight.errors import ConfigError, ShapeError
from clearsight.ops.contours import polygon_area, polygon_box, resample_contour
from clearsight.ops.outlines import mask_to_polygons, polygons_to_mask
from clearsight.ops.rings import (
    align_rings,
    cut_rings,
    diamond,
    extreme_points,
    match_rings,
    octagon,
    orient_rings,
    resample_rings,
    ring_areas,
    ring_boxes,
)

SQUARE = torch.tensor([[[2.0, 4.0], [10.0, 4.0], [10.0, 12.0], [2.0, 12.0]]])


def ellipse(count: int, *, start: float = 0.0) -> Tensor:
    """20 wide and 10 high around (30, 40), clockwise on a screen, in double precision."""
    angle = start + torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    return torch.stack((30 + 10 * angle.cos(), 40 + 5 * angle.sin()), dim=1)[None]


def some_rings(rings: int, points: int, *, seed: int = 0) -> Tensor:
    """Of any shape, crossing themselves, with repeated vertices at their ends."""
    draws = torch.Generator().manual_seed(seed)
    made = torch.rand(rings, points, 2, generator=draws, dtype=torch.float64) * 50
    used = torch.randint(1, points + 1, (rings, 1, 1), generator=draws)
    return made.gather(1, torch.arange(points)[None, :, None].minimum(used - 1).expand(-1, -1, 2))


# ------------------------------------------------------------------------------------------------ by hand
def test_a_square() -> None:
    assert ring_areas(SQUARE, signed=True).tolist() == [64.0]
    assert ring_areas(SQUARE.flip(1), signed=True).tolist() == [-64.0]
    assert ring_areas(SQUARE.flip(1)).tolist() == [64.0]
    assert ring_boxes(SQUARE).tolist() == [[2.0, 4.0, 10.0, 12.0]]
    # Every side is flat: the middle of each.
    assert extreme_points(SQUARE)[0].tolist() == [[6.0, 4.0], [2.0, 8.0], [6.0, 12.0], [10.0, 8.0]]
    assert diamond(ring_boxes(SQUARE))[0].tolist() == [[6.0, 4.0], [10.0, 8.0], [6.0, 12.0], [2.0, 8.0]]
    assert diamond(ring_boxes(SQUARE), 8)[0, 1].tolist() == [8.0, 6.0]
    assert resample_rings(SQUARE, 8)[0, :3].tolist() == [[2.0, 4.0], [6.0, 4.0], [10.0, 4.0]]


def test_the_octagon_of_a_square() -> None:
    # Sides of 8: each extreme point reaches 1 to either hand.
    expected = [
        *([6, 4], [7, 4], [10, 7], [10, 8], [10, 9], [7, 12], [6, 12], [5, 12]),
        *([2, 9], [2, 8], [2, 7], [5, 4]),
    ]
    found = octagon(extreme_points(SQUARE))
    assert found[0].tolist() == expected
    # Four corners of legs 3 and 3 are cut off the square.
    assert ring_areas(found, signed=True).item() == 64 - 4 * 4.5


def test_an_octagon_ends_at_the_corners() -> None:
    # A right-angled triangle: topmost at the right corner, rightmost at the top corner, and so on.
    extremes = torch.tensor([[[8.0, 0.0], [0.0, 8.0], [4.0, 8.0], [8.0, 0.5]]])
    expected = [
        *([8, 0], [8, 0], [8, 0], [8, 0.5], [8, 1.5], [5, 8], [4, 8], [3, 8]),
        *([0, 8], [0, 8], [0, 7], [7, 0]),
    ]
    assert octagon(extremes)[0].tolist() == expected


def test_an_ellipse() -> None:
    ring = ellipse(720)
    area = ring_areas(ring, signed=True).item()
    assert area == pytest.approx(math.pi * 50, rel=1e-4)
    assert area > 0  # clockwise
    expected = torch.tensor([[30.0, 35], [20, 40], [30, 45], [40, 40]], dtype=torch.float64)
    torch.testing.assert_close(extreme_points(ring)[0], expected, rtol=0, atol=1e-9)
    # An octagon around (30, 40): a 20 × 10 box less four triangles of legs 7.5 and 3.75.
    assert ring_areas(octagon(extreme_points(ring))).item() == pytest.approx(200 - 2 * 7.5 * 3.75)
    # Steps of one length but for the arcs that they cut short, and the length of the whole (Ramanujan's formula).
    steps = torch.linalg.vector_norm(torch.diff(resample_rings(ring, 64), dim=1), dim=2)
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=5e-3, atol=0)
    assert steps.mean().item() * 64 == pytest.approx(48.442241, rel=2e-3)


def test_an_object_that_the_border_cuts() -> None:
    # The left half of the ellipse is beyond x = 30; what remains has a flat side from (30, 35) to (30, 45).
    ring = ellipse(720)
    ring[..., 0] = ring[..., 0].clamp(min=30)
    top, left, bottom, right = extreme_points(ring)[0].tolist()
    assert left == pytest.approx([30, 40])
    assert right == pytest.approx([40, 40])
    # Within 2 % of 10 from the top the outline goes on to x = 30 + 10 √(1 - 0.96²) = 32.8.
    assert top == pytest.approx([31.4, 35], abs=0.05)
    assert bottom == pytest.approx([31.4, 45], abs=0.05)
    exact = extreme_points(ring, tolerance=0.0)[0]
    assert exact[0].tolist() == pytest.approx([30, 35])


def test_of_two_summits_the_left_one_counts() -> None:
    ring = torch.tensor([[[6.0, 0.0], [8, 0], [8, 9], [0, 9], [0, 0], [2, 0], [2, 4], [6, 4]]])
    for shift in range(8):
        for turned in (ring.roll(shift, dims=1), ring.roll(shift, dims=1).flip(1)):
            assert extreme_points(turned)[0, 0].tolist() == [1.0, 0.0]


def test_pixels() -> None:
    for width, height in ((1, 1), (2, 1), (1, 3)):
        mask = np.zeros((6, 6), dtype=bool)
        mask[2 : 2 + height, 3 : 3 + width] = True
        (outline,) = mask_to_polygons(mask)
        ring = torch.from_numpy(outline)[None]
        extremes = extreme_points(ring)
        x, y = 3 + width / 2, 2 + height / 2
        assert extremes[0].tolist() == [[x, 2], [3, y], [x, 2 + height], [3 + width, y]]
        around = resample_rings(cut_rings(ring, extremes[:, 0]), 128)
        assert (polygons_to_mask([around[0].numpy()], (6, 6)) == mask).all()


# ------------------------------------------------------------------------------------------------ beside one ring
def test_each_ring_as_numpy_has_it() -> None:
    for points, wanted in ((3, 9), (12, 40), (50, 17)):
        rings = some_rings(20, points)
        sampled = resample_rings(rings, wanted)
        for ring, found, area, box in zip(
            rings.numpy(), sampled.numpy(), ring_areas(rings, signed=True), ring_boxes(rings), strict=True
        ):
            np.testing.assert_allclose(found, resample_contour(ring, wanted), atol=1e-9)
            assert area.item() == pytest.approx(polygon_area(ring, signed=True), abs=1e-9)
            assert tuple(box.tolist()) == polygon_box(ring)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 24))
def test_repeated_vertices_change_nothing(seed: int, points: int) -> None:
    rings = some_rings(3, points, seed=seed)
    longer = torch.cat((rings, rings[:, -1:].expand(-1, 20, -1)), dim=1)
    at = torch.tensor([[10.0, 20.0]] * 3, dtype=torch.float64)
    same = {
        "areas": (ring_areas(rings), ring_areas(longer)),
        "boxes": (ring_boxes(rings), ring_boxes(longer)),
        "extremes": (extreme_points(rings), extreme_points(longer)),
        "resampled": (resample_rings(rings, 31), resample_rings(longer, 31)),
        "cut": (resample_rings(cut_rings(rings, at), 31), resample_rings(cut_rings(longer, at), 31)),
        "turned": (resample_rings(orient_rings(rings), 31), resample_rings(orient_rings(longer), 31)),
    }
    for name, (short, long) in same.items():
        torch.testing.assert_close(short, long, rtol=0, atol=1e-8, msg=name)


def test_rings_without_length() -> None:
    ring = torch.tensor([[[3.0, 5.0]] * 4])
    still = ring.clone().requires_grad_()
    sampled = resample_rings(still, 20)
    assert sampled.unique(dim=1).tolist() == [[[3.0, 5.0]]]
    sampled.sum().backward()
    assert still.grad is not None
    assert bool(still.grad.isfinite().all())
    assert cut_rings(ring, torch.zeros(1, 2)).unique(dim=1).tolist() == [[[3.0, 5.0]]]
    assert extreme_points(ring)[0].tolist() == [[3.0, 5.0]] * 4
    assert octagon(extreme_points(ring)).unique(dim=1).tolist() == [[[3.0, 5.0]]]
    assert ring_areas(ring).tolist() == [0.0]


def test_no_rings() -> None:
    none = torch.zeros(0, 7, 2)
    assert ring_areas(none).shape == (0,)
    assert ring_boxes(none).shape == (0, 4)
    assert extreme_points(none).shape == (0, 4, 2)
    assert resample_rings(none, 5).shape == (0, 5, 2)
    assert orient_rings(none).shape == align_rings(none, none[:, 0]).shape == match_rings(none, none).shape == (0, 7, 2)
    assert cut_rings(none, none[:, 0]).shape == (0, 8, 2)
    assert octagon(torch.zeros(0, 4, 2)).shape == (0, 12, 2)
    assert diamond(torch.zeros(0, 4), 40).shape == (0, 40, 2)


def test_resampling_has_exact_gradients() -> None:
    for points in (5, 20):
        rings = torch.rand(3, points, 2, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: resample_rings(x, 13), (rings,))


# ------------------------------------------------------------------------------------------------ order
def test_direction() -> None:
    rings = torch.cat((SQUARE, SQUARE.flip(1)))
    turned = orient_rings(rings)
    assert torch.equal(turned[0], SQUARE[0])
    assert ring_areas(turned, signed=True).tolist() == [64.0, 64.0]
    assert torch.equal(turned[1, 0], rings[1, 0])
    loops = torch.tensor([[[0.0, 0], [2, 2], [2, 0], [0, 2]]])  # two that cancel out
    assert torch.equal(orient_rings(loops), loops)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 140), st.integers(0, 200))
def test_a_known_rotation_is_undone_exactly(seed: int, points: int, shift: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    rings = torch.rand(4, points, 2, generator=draws) * 100 + 1000
    turned = rings.roll(shift % points, dims=1)
    assert torch.equal(match_rings(turned, rings), rings)
    assert torch.equal(match_rings(turned, rings + torch.randn(4, 1, 2, generator=draws)), rings)
    assert torch.equal(align_rings(turned, rings[:, 0] + 1e-3 * torch.randn(4, 2, generator=draws)), rings)


def test_the_best_rotation_is_the_nearest() -> None:
    rings, like = some_rings(6, 17), some_rings(6, 17, seed=1)
    every = torch.stack([(rings.roll(-shift, dims=1) - like).square().sum(dim=(1, 2)) for shift in range(17)])
    found = (match_rings(rings, like) - like).square().sum(dim=(1, 2))
    torch.testing.assert_close(found, every.amin(dim=0))


def test_a_cut_is_the_nearest_place() -> None:
    cut = cut_rings(SQUARE, torch.tensor([[5.0, 1.0]]))
    assert cut[0].tolist() == [[5, 4], [10, 4], [10, 12], [2, 12], [2, 4]]
    rings, at = some_rings(8, 12), torch.rand(8, 2, dtype=torch.float64) * 50
    fine = resample_rings(rings, 20_000)
    nearest = torch.linalg.vector_norm(fine - at[:, None], dim=2).amin(dim=1)
    found = torch.linalg.vector_norm(cut_rings(rings, at)[:, 0] - at, dim=1)
    assert bool((found <= nearest + 1e-9).all())
    torch.testing.assert_close(found, nearest, rtol=0, atol=0.02)
    torch.testing.assert_close(ring_areas(cut_rings(rings, at), signed=True), ring_areas(rings, signed=True))


@pytest.mark.parametrize("size", [0.125, 3.0])
def test_everything_follows_a_shift_and_a_scale(size: float) -> None:
    rings, shift = some_rings(6, 15), torch.tensor([32.0, -8.0], dtype=torch.float64)
    moved = rings * size + shift
    torch.testing.assert_close(extreme_points(moved), extreme_points(rings) * size + shift)
    torch.testing.assert_close(resample_rings(moved, 40), resample_rings(rings, 40) * size + shift)
    torch.testing.assert_close(octagon(extreme_points(moved)), octagon(extreme_points(rings)) * size + shift)
    torch.testing.assert_close(diamond(ring_boxes(moved), 40), diamond(ring_boxes(rings), 40) * size + shift)


def test_extreme_points_that_contradict_each_other() -> None:
    extremes = torch.tensor([[[5.0, 9.0], [8.0, 3.0], [1.0, 2.0], [0.0, 4.0]]])  # the left one lies right of all
    found = octagon(extremes)
    assert ring_boxes(found).tolist() == [[0.0, 2.0, 8.0, 9.0]]
    assert bool(found.isfinite().all())


def test_what_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"pass ring\[None\]"):
        ring_areas(SQUARE[0])
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        resample_rings(SQUARE, 0)
    for points in (0, 42):
        with pytest.raises(ConfigError, match=f"multiple of 4, got {points}"):
            diamond(ring_boxes(SQUARE), points)


def test_compiled() -> None:
    torch.compiler.reset()

    def all_of_it(rings: Tensor) -> Tensor:
        return resample_rings(octagon(extreme_points(cut_rings(orient_rings(rings), rings[:, 0]))), 128)

    rings = some_rings(5, 30)
    compiled = torch.compile(all_of_it, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(rings), all_of_it(rings))
