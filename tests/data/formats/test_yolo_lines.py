"""Lines of a label file: pixels, shares, and what each faulty line is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearsight.data.formats.yolo_lines import line_of, one_ring, parse_labels
from clearsight.ops.masks import mask_to_rle
from clearsight.ops.outlines import mask_to_polygons, polygons_to_mask
from clearsight.types import Finding, Object

SIZE = (300, 400)


def parse(tmp_path: Path, text: str, **options):
    file, findings = tmp_path / "a.txt", list[Finding]()
    file.write_text(text)
    return parse_labels(file, SIZE, {0: 0, 1: 1, 2: None}, findings, **options), findings


def test_by_hand(tmp_path: Path):
    items, findings = parse(tmp_path, "0 0.5 0.5 0.5 0.1\n1 0 0 1 0 1 1\n\n1.0\t0.5 0.5 0.5 0.1\r\n")
    assert findings == []
    assert [(item.label, item.box) for item in items] == [
        (0, (100, 135, 300, 165)),
        (1, (0, 0, 400, 300)),
        (1, (100, 135, 300, 165)),
    ]
    assert items[1].polygons[0].tolist() == [[0, 0], [400, 0], [400, 300]]
    assert [item.where.rpartition(":")[2] for item in items] == ["1", "2", "4"]


@pytest.mark.parametrize(
    ("line", "id_", "words"),
    [
        ("0 0.5 0.5 0.1", "unreadable-annotation", "4 columns, expected 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", "unreadable-annotation", "6 columns"),
        ("0 0 0 1 0 1 1 1", "unreadable-annotation", "8 columns"),
        ("0 0.5 0,5 0.1 0.1", "unreadable-annotation", "something that is no number"),
        ("cat 0.5 0.5 0.1 0.1", "unreadable-annotation", "'cat 0.5"),
        ("3 0.5 0.5 0.1 0.1", "unknown-class", "class 3 is not one of the 3 that are named"),
        ("-1 0.5 0.5 0.1 0.1", "unknown-class", "class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "unknown-class", "class 0.5"),
        ("nan 0.5 0.5 0.1 0.1", "unknown-class", "class nan"),
    ],
)
def test_a_faulty_line_costs_itself_only(tmp_path: Path, line: str, id_: str, words: str):
    items, findings = parse(tmp_path, f"0 0.5 0.5 0.1 0.1\n{line}\n0 0.5 0.5 0.1 0.1\n")
    assert len(items) == 2
    assert [(finding.id, finding.severity) for finding in findings] == [(id_, "error")]
    assert findings[0].where == f"{tmp_path / 'a.txt'}:2"
    assert words in findings[0].explanation


def test_unwanted_classes_are_passed_over_here(tmp_path: Path):
    assert parse(tmp_path, "2 0.5 0.5 0.1 0.1") == ([], [])


def test_numbers_that_are_not_finite_are_carried_to_the_checks(tmp_path: Path):
    items, findings = parse(tmp_path, "0 nan 0.5 0.1 inf\n0 0 0 nan 1 1 1\n")
    assert findings == []
    assert np.isnan(items[0].box[0])
    assert np.isnan(items[1].box).any()
    assert line_of(items[0], 0, SIZE).startswith("0 nan ")


def test_a_file_that_cannot_be_read(tmp_path: Path):
    findings: list[Finding] = []
    assert parse_labels(tmp_path / "none.txt", SIZE, {}, findings) == []
    assert "cannot be read" in findings[0].explanation


@pytest.fixture(scope="module")
def label_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels") / "a.txt"


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.data())
def test_whole_pixels_come_back_exactly_and_others_nearly(label_file: Path, height: int, width: int, data):
    def back(box: tuple[float, float, float, float]) -> tuple[float, ...]:
        label_file.write_text(line_of(Object(label=0, box=box), 0, (height, width)))
        return parse_labels(label_file, (height, width), {0: 0}, [])[0].box

    x, y = data.draw(st.tuples(st.integers(-9, width), st.integers(-9, height)))
    w, h = data.draw(st.tuples(st.integers(0, width), st.integers(0, height)))
    whole = (float(x), float(y), float(x + w), float(y + h))
    assert back(whole) == whole
    shift = data.draw(st.floats(0.001, 0.999))
    moved = tuple(value + shift for value in whole)
    np.testing.assert_allclose(back(moved), moved, rtol=0, atol=1e-7)


def test_a_mask_with_holes_and_parts_becomes_one_ring_of_the_same_pixels(tmp_path: Path):
    mask = np.zeros(SIZE, dtype=bool)
    mask[5:200, 6:300] = mask[250:260, 10:13] = True
    mask[8:120, 10:20] = False
    for item in (
        Object(label=0, box=(0, 0, 1, 1), rle=mask_to_rle(mask)),
        Object(label=0, box=(0, 0, 1, 1), polygons=mask_to_polygons(mask)),
    ):
        (back,), findings = parse(tmp_path, line_of(item, 0, SIZE))
        assert findings == []
        assert len(back.polygons) == 1
        assert (polygons_to_mask(back.polygons, SIZE) == mask).all()


def test_rings_that_mean_their_union_are_united():
    square = np.array([[0, 0], [40, 0], [40, 40], [0, 40.0]])
    item = Object(label=0, box=(0, 0, 60, 60), polygons=[square, square + 20], attributes={"fill": "union"})
    ring = one_ring(item, SIZE)
    assert ring is not None
    assert polygons_to_mask([ring], SIZE).sum() == 40 * 40 * 2 - 20 * 20


def test_no_outline_gives_the_box():
    assert one_ring(Object(label=0, box=(0, 0, 1, 1)), SIZE) is None
    empty = Object(label=0, box=(100, 0, 300, 300), rle=mask_to_rle(np.zeros(SIZE)))
    assert line_of(empty, 7, SIZE) == "7 0.5 0.5 0.5 1"
