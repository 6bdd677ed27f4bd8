"""The semantic map of a record as class indices, whichever way its file writes them."""

from __future__ import annotations

import numpy as np

from clearsight.data.decode import read_index_map
from clearsight.types import Record

__all__ = ["BINARY", "IGNORED", "THRESHOLD", "read_class_map"]

BINARY = "binary"
"""Value of `Record.attributes["mask"]` where the file is black and white: `THRESHOLD` and more is class 1."""
IGNORED = 255
"""Class index of pixels that count neither way."""
THRESHOLD = 128
"""The lowest grey value of class 1 in a black and white mask, whose edges may be soft."""


def read_class_map(record: Record) -> np.ndarray:
    """Class indices of every pixel.

    Args:
        record: with `semantic`; `attributes["mask"] == "binary"` says that its file is black and white: 0 and 255 are
            classes 0 and 1, and of grey values between, `THRESHOLD` and more are class 1.

    Returns:
        `(h, w)` uint8 or uint16; 255 is ignored (index and palette masks only).

    Raises:
        DataError: as `decode.read_index_map`.
        ValueError: the record has no semantic map.
    """
    if record.semantic is None:
        raise ValueError(f"{record.image}: the record has no semantic map")
    values = read_index_map(record.semantic)
    return (values >= THRESHOLD).astype(np.uint8) if record.attributes.get("mask") == BINARY else values
