"""Shapes one by one, in and out."""

from __future__ import annotations

import base64
import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clearsight.data.formats.labelme_shapes import CIRCLE_POINTS, UnsupportedShape, parse_shape, shapes_of
from clearsight.errors import DataError
from clearsight.ops.contours import polygon_area
from clearsight.ops.masks import mask_to_rle, rle_to_mask
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Object

SIZE = (30, 40)


def png(mask) -> str:
    buffer = BytesIO()
    Image.fromarray(np.asarray(mask, bool)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_polygon_with_everything():
    shape = {
        "label": "cat",
        "points": [[1, 2], [10.5, 2], [5, 9]],
        "group_id": 4,
        "description": "left one",
        "shape_type": "polygon",
        "flags": {"occluded": True, "difficult": True, "crowd": False},
        "mask": None,
        "weight": 0.5,
    }
    item = parse_shape(shape, 3, SIZE, "a.json#shapes[0]")
    assert item.box == (1, 2, 10.5, 9)
    assert item.polygons[0].tolist() == [[1, 2], [10.5, 2], [5, 9]]
    assert (item.label, item.difficult, item.crowd) == (3, True, False)
    assert item.attributes == {
        "group_id": 4,
        "description": "left one",
        "flags": {"occluded": True, "crowd": False},
        "weight": 0.5,
    }


def test_rectangle_from_any_corner():
    for points in ([[1, 9], [10, 2]], [[10, 2], [1, 9]], [[1, 2], [10, 9]]):
        item = parse_shape({"points": points, "shape_type": "rectangle"}, 0, SIZE, "")
        assert item.box == (1, 2, 10, 9)
        assert item.polygons == []


def test_circle():
    item = parse_shape({"points": [[10, 10], [13, 14]], "shape_type": "circle"}, 0, SIZE, "")
    ring = item.polygons[0]
    assert ring.shape == (CIRCLE_POINTS, 2)
    np.testing.assert_allclose(np.hypot(*(ring - 10).T), 5)
    assert polygon_area(ring) == pytest.approx(math.pi * 25, rel=0.01)


def test_mask():
    part = [[True, False], [True, True]]
    item = parse_shape({"points": [[3, 4], [4, 5]], "shape_type": "mask", "mask": png(part)}, 0, SIZE, "")
    assert item.rle is not None
    whole = rle_to_mask(item.rle)
    assert whole.shape == SIZE
    assert np.argwhere(whole).tolist() == [[4, 3], [5, 3], [5, 4]]
    assert item.box == (3, 4, 5, 6)


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points", "spline"])
def test_shapes_without_area(kind):
    with pytest.raises(UnsupportedShape, match=f"shape '{kind}' has no area"):
        parse_shape({"points": [[0, 0], [1, 1], [2, 0]], "shape_type": kind}, 0, SIZE, "")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"points": None}, "points is null, expected a list of"),
        ({"points": [[1, 2], [3]]}, "expected a list of"),
        ({"points": [[1, "2"], [3, 4], [5, 6]]}, "expected a list of"),
        ({"points": [[1, True], [3, 4], [5, 6]]}, "expected a list of"),
        ({"points": [[1, 2], [3, 10**400], [5, 6]]}, "too large for a coordinate"),
        ({"points": [[1, 2], [3, 4]]}, "polygon has 2 points, expected at least 3"),
        ({"points": [[1, 2]], "shape_type": "rectangle"}, "rectangle has 1 points, expected 2"),
        ({"points": [[1, 2]], "shape_type": "circle"}, "circle has 1 points"),
        ({"points": [[1, 2], [3, 4], [5, 6]], "flags": [1]}, "flags is"),
        ({"points": [[1, 2], [3, 4]], "shape_type": "mask"}, "mask is missing"),
        ({"points": [[1, 2], [3, 4]], "shape_type": "mask", "mask": "§"}, "mask is no base64"),
        ({"points": [[1, 2], [3, 4]], "shape_type": "mask", "mask": "AAAA"}, "not an image"),
        ({"points": [[39, 2], [41, 4]], "shape_type": "mask", "mask": png([[1, 1]])}, "reaches out of the image"),
        ({"points": [[1, 2], [2, 2]], "shape_type": "mask", "mask": png([[0, 0]])}, "the mask is empty"),
    ],
)
def test_wrong_types(shape, message):
    with pytest.raises(DataError, match=message):
        parse_shape(shape, 0, SIZE, "")


def test_mask_needs_the_size():
    with pytest.raises(DataError, match="imageHeight and imageWidth"):
        parse_shape({"points": [[1, 2], [2, 2]], "shape_type": "mask", "mask": png([[1, 1]])}, 0, None, "")


SQUARE = np.array([[2.0, 2.0], [8.0, 2.0], [8.0, 8.0], [2.0, 8.0]])


@pytest.mark.parametrize(
    "item",
    [
        Object(label=0, box=(1.5, 2, 3, 4)),
        Object(label=0, box=(9, 8, 3, 4)),
        Object(label=0, box=(2, 2, 8, 8), polygons=[SQUARE]),
        Object(label=0, box=(0, 0, 9, 9), polygons=[SQUARE], difficult=True, crowd=True),
        Object(
            label=0, box=(2, 2, 8, 8), polygons=[SQUARE], attributes={"flags": {"a": False}, "group_id": 7, "x": [1]}
        ),
        parse_shape({"points": [[10, 10], [13, 14]], "shape_type": "circle"}, 0, SIZE, ""),
        Object(label=0, box=(2, 2, 8, 8), rle=mask_to_rle(polygons_to_mask([SQUARE], SIZE))),
        Object(label=0, box=(0, 1, 9, 9), rle=mask_to_rle(polygons_to_mask([SQUARE], SIZE)), attributes={"score": 1}),
    ],
)
def test_there_and_back(item):
    (shape,), group = shapes_of(item, "cat", 5)
    assert shape["label"] == "cat"
    if item.rle is not None:  # both corners are pixels of the mask, as LabelMe has it
        assert shape["points"] == [[2, 2], [7, 7]]
    assert group == 5
    back = parse_shape(shape, 0, SIZE, item.where)
    assert back.box == item.box
    assert [ring.tolist() for ring in back.polygons] == [ring.tolist() for ring in item.polygons]
    assert (back.rle, back.crowd, back.difficult, back.attributes) == (
        item.rle,
        item.crowd,
        item.difficult,
        item.attributes,
    )


def test_parts_share_a_group_and_holes_become_a_bridge():
    parts = Object(label=0, box=(2, 2, 28, 8), polygons=[SQUARE, SQUARE + np.array([20.0, 0.0])])
    shapes, group = shapes_of(parts, "cat", 5)
    assert [shape["group_id"] for shape in shapes] == [5, 5]
    assert group == 6
    hole = Object(label=0, box=(2, 2, 8, 8), polygons=[SQUARE, SQUARE / 3 + 3])
    (shape,), group = shapes_of(hole, "cat", 5)
    assert group == 5
    back = parse_shape(shape, 0, SIZE, "")
    np.testing.assert_array_equal(polygons_to_mask(back.polygons, SIZE), polygons_to_mask(hole.polygons, SIZE))
