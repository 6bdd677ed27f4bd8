"""Fields against objects: shares, sizes after the resize, sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.data.dataset import Dataset
from clearsight.errors import DataError, ShapeError
from clearsight.measure.field_and_objects import compare_with_objects, object_sizes
from clearsight.measure.receptive_field import Field
from clearsight.types import Object, Record


def dataset(*objects, size=(480, 640)):
    record = Record(image=Path("a.jpg"), size=size, objects=list(objects))
    return Dataset(records=[record], classes=("x",), task="detection", root=Path(), format="voc")


def level(name="p5", size=(100, 100), **more):
    return Field(name=name, kind="level", shape=(1, 8, 4, 4), size=size, local_size=size, **more)


def test_sizes_are_those_of_the_scaled_image_without_crowds():
    objects = Object(label=0, box=(0, 0, 64, 480)), Object(label=0, box=(0, 0, 9, 9), crowd=True)
    assert object_sizes(dataset(*objects), (320, 320), "letterbox").tolist() == [[240.0, 32.0]]
    assert object_sizes(dataset(*objects), (320, 320), "stretch").tolist() == [[320.0, 32.0]]
    with pytest.raises(DataError, match="no object has a box"):
        object_sizes(dataset(), (320, 320), "letterbox")


def test_the_sentence_of_the_bar():
    sizes = np.array([[101.0, 5.0]] * 6 + [[5.0, 120.0]] * 6 + [[100.0, 100.0]] * 88)
    found = compare_with_objects([level()], sizes, name="resnet18", effective={"p5": 99.0})
    assert found.rows[0].larger == pytest.approx(0.12)
    assert found.rows[0].larger_effective == 1.0
    assert str(found) == (
        "12 % of your objects are larger than the field at P5 (resnet18, 100 px); "
        "100 % than its effective field (99 px)"
    )
    assert (found.objects, max(found.sides)) == (100, 120.0)


def test_nothing_is_rounded_away():
    sizes = np.array([[200.0, 5.0]] + [[5.0, 5.0]] * 999)
    assert str(compare_with_objects([level()], sizes, name="n")).startswith("less than 1 % of your objects are")
    assert str(compare_with_objects([level()], 100 + sizes[:1], name="n")).startswith("100 % of")
    mostly = np.concatenate([sizes[1:], np.full((9990, 2), 300.0)])
    assert "91 %" in str(compare_with_objects([level()], mostly, name="n"))
    assert str(compare_with_objects([level(at_least=True)], sizes[1:], name="n")) == (
        "none of your objects is larger than the field at P5 (n, at least 100 px)"
    )


def test_the_whole_image_and_layers():
    whole = Field(name="backbone.norm", kind="layer", shape=(1,), whole=True, local_whole=True)
    assert str(compare_with_objects([whole], np.ones((1, 2)), name="vit")) == (
        "backbone.norm sees the whole image: no object is larger than its field (vit)"
    )
    wide = compare_with_objects([level("c2", (10, 30))], np.array([[11.0, 1.0], [1.0, 11.0]]), name="n")
    assert str(wide) == "50 % of your objects are larger than the field at C2 (n, 10×30 px)"
    with pytest.raises(ShapeError, match=r"got \(0, 2\)"):
        compare_with_objects([level()], np.empty((0, 2)), name="n")
