"""Masks and their run lengths, against pycocotools and there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from clearsight.errors import DataError, ShapeError
from clearsight.ops.masks import mask_to_box, mask_to_rle, rle_area, rle_from_string, rle_to_mask, rle_to_string
from clearsight.types import Rle

# pycocotools 2.0.11 hands NumPy 2 an array type without the `copy` keyword
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def coco(mask: np.ndarray) -> Any:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def blobs(height: int, width: int, seed: int) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(height, width))
    return gaussian_filter(noise, 2.0) > 0.02


def test_rle_by_hand():
    mask = np.array([[1, 0, 1], [1, 0, 0]])
    rle = mask_to_rle(mask)
    assert rle == Rle(size=(2, 3), counts=(0, 2, 2, 1, 1))
    assert rle_area(rle) == 3
    assert (rle_to_mask(rle) == (mask == 1)).all()


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_rle_agrees_with_pycocotools(mask: np.ndarray):
    rle, theirs = mask_to_rle(mask), coco(mask)
    text = rle_to_string(rle)
    assert text.encode() == theirs["counts"]
    assert rle_from_string(text, mask.shape) == rle
    assert rle_area(rle) == int(coco_mask.area(theirs)) == mask.sum()
    assert (rle_to_mask(rle) == mask).all()


@pytest.mark.parametrize("shape", [(333, 501), (1, 4000), (3000, 2)])
def test_rle_of_large_masks_agrees_with_pycocotools(shape: tuple[int, int]):
    for seed in range(3):
        mask = blobs(*shape, seed)
        theirs = coco(mask)
        assert rle_to_string(mask_to_rle(mask)).encode() == theirs["counts"]
        assert (rle_to_mask(rle_from_string(theirs["counts"], shape)) == coco_mask.decode(theirs).astype(bool)).all()


def test_rle_takes_tensors_and_strided_masks():
    mask = torch.zeros(6, 8, dtype=torch.uint8)
    mask[2:4, 3:7] = 255
    assert mask_to_rle(mask) == mask_to_rle(mask.numpy()[::1]) == mask_to_rle(np.asfortranarray(mask.numpy()))
    assert mask_to_rle(mask.T) == mask_to_rle(mask.numpy().T)


@pytest.mark.parametrize("counts", [(3, 2), (3, -1, 4), (), (7,)])
def test_runs_that_do_not_fit_are_refused(counts: tuple[int, ...]):
    with pytest.raises(DataError, match=r"add up to 2 x 3 = 6"):
        rle_to_mask(Rle(size=(2, 3), counts=counts))


@pytest.mark.parametrize("text", ["\x10", "abcdefgh~", "o", "é", "P" * 20 + "0"])
def test_foreign_strings_are_refused(text: str):
    with pytest.raises(DataError, match="compressed run lengths"):
        rle_from_string(text, (2, 3))


def test_a_negative_run_is_refused():
    with pytest.raises(DataError, match="negative run"):
        rle_from_string("O", (2, 3))  # one group with the sign bit: -1


def test_empty_rle():
    assert mask_to_rle(np.zeros((0, 4))) == Rle(size=(0, 4), counts=())
    assert rle_to_string(Rle(size=(0, 4), counts=())) == ""
    assert rle_from_string("", (0, 4)).counts == ()
    assert rle_to_mask(Rle(size=(0, 4), counts=())).shape == (0, 4)


def test_box_by_hand():
    mask = np.zeros((5, 6))
    mask[1, 4] = mask[3, 2] = 7
    assert mask_to_box(mask) == (2.0, 1.0, 5.0, 4.0)
    assert mask_to_box(np.zeros((5, 6))) is None
    with pytest.raises(ShapeError, match=r"expected \(h, w\)"):
        mask_to_box(np.zeros((1, 5, 6)))
