"""Columns told by name."""

from __future__ import annotations

import pytest

from clearsight.data.formats.csv_columns import find_columns, pick_delimiter


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("path,label", ","),
        ("file;class;note, with a comma", ";"),
        ("image\tcategory", "\t"),
        ('"file, of image";path;label', ";"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", ","),
    ],
)
def test_delimiter(header, delimiter):
    assert pick_delimiter(header) == delimiter


def test_meanings_in_any_case_and_order():
    columns = find_columns([" Class ", "X1", "y1", "x2", "Y2", "File Name", "patient", "camera"])
    assert columns.place == {"path": 5, "label": 0, "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4, "group": 6}
    assert columns.extra == {"camera": 7}
    assert columns.has_boxes
    assert columns.fits


@pytest.mark.parametrize("header", [["Id", "SalePrice"], ["path"], ["label", "xmin"], []])
def test_other_tables_do_not_fit(header):
    assert not find_columns(header).fits


def test_the_first_name_listed_wins():
    columns = find_columns(["target", "label", "image", "path"])
    assert (columns.place["label"], columns.place["path"]) == (1, 3)
    assert columns.extra == {"target": 0, "image": 2}
