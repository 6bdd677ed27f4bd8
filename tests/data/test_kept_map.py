"""A kept class map is the same when it is taken out, and small until then."""

from __future__ import annotations

import numpy as np
import pytest

from clearsight.data.kept_map import KeptMap
from clearsight.errors import RangeError, ShapeError


def test_it_comes_back_and_is_small() -> None:
    rows, columns = np.mgrid[:300, :200]
    labels = ((rows // 40 + columns // 30) % 5).astype(np.int64)
    labels[0, 0] = 255
    kept = KeptMap.of(labels)
    assert kept.labels().dtype == np.uint8
    assert np.array_equal(kept.labels(), labels)
    assert len(kept.packed) < labels.size / 20


@pytest.mark.parametrize("size", [(0, 0), (0, 7), (1, 1)])
def test_of_almost_nothing(size: tuple[int, int]) -> None:
    assert KeptMap.of(np.zeros(size, np.uint8)).labels().shape == size


def test_what_does_not_fit() -> None:
    with pytest.raises(RangeError, match="0 to 256"):
        KeptMap.of(np.array([[0, 256]]))
    with pytest.raises(ShapeError, match="expected"):
        KeptMap.of(np.zeros(3))
