"""Semantic maps as class indices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data.class_map import read_class_map
from clearsight.types import Record


def test_binary_and_index_maps(tmp_path):
    values = np.array([[0, 255], [255, 0]], np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    index = Record(image=Path("a"), semantic=tmp_path / "m.png", attributes={"mask": "index"})
    binary = Record(image=Path("a"), semantic=tmp_path / "m.png", attributes={"mask": "binary"})
    np.testing.assert_array_equal(read_class_map(index), values)
    np.testing.assert_array_equal(read_class_map(binary), [[0, 1], [1, 0]])


def test_soft_edges_are_cut_at_128(tmp_path):
    Image.fromarray(np.array([[0, 1, 127], [128, 254, 255]], np.uint8)).save(tmp_path / "m.png")
    record = Record(image=Path("a"), semantic=tmp_path / "m.png", attributes={"mask": "binary"})
    np.testing.assert_array_equal(read_class_map(record), [[0, 0, 0], [1, 1, 1]])


def test_without_a_map():
    with pytest.raises(ValueError, match="no semantic map"):
        read_class_map(Record(image=Path("a.png")))
