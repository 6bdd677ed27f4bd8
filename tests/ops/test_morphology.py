"""Morphology against scikit-image, batched and at the border."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import binary_fill_holes
from skimage import morphology as peer
from torch import Tensor

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.ops.morphology import closing, dilate, erode, fill_holes, opening, remove_small

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)))
ELEMENTS = ("square", "cross", "disk")


def footprint(element: str, radius: int) -> np.ndarray:
    if element == "disk":
        return np.asarray(peer.disk(radius))
    full = np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8)
    if element == "cross":
        full[:] = 0
        full[radius], full[:, radius] = 1, 1
    return full


@settings(max_examples=150, deadline=None)
@given(MASKS, st.sampled_from(ELEMENTS), st.integers(0, 8))
def test_grown_and_worn_off_as_by_scikit_image(masks: np.ndarray, element: str, radius: int):
    near, stack = footprint(element, radius), torch.from_numpy(masks)
    pairs = ((dilate, peer.dilation), (erode, peer.erosion), (opening, peer.opening), (closing, peer.closing))
    for ours, theirs in pairs:
        expected = np.stack([theirs(mask, near, mode="ignore") for mask in masks])
        np.testing.assert_array_equal(ours(stack, radius, element=element).numpy(), expected)


@settings(max_examples=150, deadline=None)
@given(MASKS, st.integers(0, 9))
def test_holes_and_specks_as_by_scipy_and_scikit_image(masks: np.ndarray, area: int):
    stack = torch.from_numpy(masks)
    filled = [binary_fill_holes(mask) for mask in masks]
    np.testing.assert_array_equal(fill_holes(stack).numpy(), np.stack(filled))
    kept = [peer.remove_small_objects(mask, max_size=area - 1) if area else mask for mask in masks]
    np.testing.assert_array_equal(remove_small(stack, area).numpy(), np.stack(kept))
    kept = [peer.remove_small_objects(mask, max_size=area, connectivity=2) for mask in masks]
    np.testing.assert_array_equal(remove_small(stack, area + 1, connectivity=8).numpy(), np.stack(kept))


def test_large_radii_on_real_sizes():
    mask = torch.zeros(300, 400, dtype=torch.bool)
    mask[150, 200] = True
    y, x = torch.meshgrid(torch.arange(300) - 150, torch.arange(400) - 200, indexing="ij")
    assert torch.equal(dilate(mask, 90), y**2 + x**2 <= 90**2)
    assert torch.equal(dilate(mask, 1000, element="square"), torch.ones_like(mask))
    assert torch.equal(dilate(mask, 1000), torch.ones_like(mask))
    assert dilate(mask, 120, element="cross").sum() == 2 * 241 - 1


def test_an_object_cut_by_the_border_keeps_its_cut_side():
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[:, :3] = True
    assert erode(mask).sum(dim=1).tolist() == [2] * 5
    assert torch.equal(opening(mask), mask)
    assert torch.equal(erode(torch.ones_like(mask), 3), torch.ones_like(mask))


def test_holes_by_hand():
    ring = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 1, 0, 1]]).bool()
    assert fill_holes(ring).sum() == ring.sum() + 1
    assert fill_holes(ring, connectivity=8).sum() == ring.sum() + 1
    ring[0, 0] = False  # a corner is open to 8 neighbours only
    assert fill_holes(ring)[1, 1]
    assert not fill_holes(ring, connectivity=8)[1, 1]
    frame = torch.ones(5, 5, dtype=torch.bool)
    frame[1, 1] = frame[3, 2:4] = False
    assert fill_holes(frame, max_area=1).sum() == 23
    assert fill_holes(frame, max_area=2).sum() == 25
    assert not fill_holes(torch.zeros(4, 4, dtype=torch.bool)).any()


def test_masks_of_a_batch_know_nothing_of_each_other():
    masks = torch.rand(4, 9, 11) < 0.5
    calls: tuple[Callable[[Tensor], Tensor], ...] = (
        dilate, erode, opening, closing, fill_holes, lambda mask: remove_small(mask, 4)
    )  # fmt: skip
    for call in calls:
        assert torch.equal(call(masks), torch.stack([call(mask) for mask in masks]))
        before = masks.clone()
        call(masks)
        assert torch.equal(masks, before)
        assert call(masks[:0]).shape == (0, 9, 11)
        assert call(masks[:, :0]).shape == (4, 0, 11)
        assert call(masks[:, :, :0]).shape == (4, 9, 0)


def test_what_is_given_back_is_new():
    mask = torch.zeros(1, 1, dtype=torch.bool)
    for element in ELEMENTS:
        for radius in (0, 2):
            dilate(mask, radius, element=element).fill_(value=True)
            assert not mask.any()


@pytest.mark.parametrize("call", [dilate, erode, opening, closing, fill_holes, lambda mask: remove_small(mask, 3)])
def test_what_is_no_mask_is_refused(call: Callable[[Tensor], Tensor]):
    with pytest.raises(ShapeError, match=r"expected \(n, h, w\) or \(h, w\), got \(1, 1, 3, 3\)"):
        call(torch.ones(1, 1, 3, 3, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"must be bool, got torch.float32; a soft mask needs a threshold"):
        call(torch.rand(3, 3))


def test_wrong_arguments_are_refused():
    mask = torch.ones(3, 3, dtype=torch.bool)
    with pytest.raises(ConfigError, match="element: there is none named 'disc'; did you mean 'disk'"):
        dilate(mask, element="disc")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="radius: must be at least 0, got -1"):
        erode(mask, -1)
    with pytest.raises(ConfigError, match="must be 4 or 8"):
        remove_small(mask, 3, connectivity=1)  # pyright: ignore[reportArgumentType]
