"""What a format cannot carry, counted by kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.data.carry import lost_by, not_placed, object_area
from clearsight.data.dataset import Dataset
from clearsight.types import Object, Record, Rle

SQUARE = np.array([[0, 0], [4, 0], [4, 4], [0, 4.0]])
FULL = {
    "objects": [Object(label=0, box=(0, 0, 4, 2), polygons=[SQUARE], crowd=True, difficult=True)],
    "split": "train",
    "group": "g",
    "label": 0,
    "semantic": Path("s.png"),
    "attributes": {"lists": ["all"]},
}
ALL = ["boxes", "crowd", "difficult", "groups", "labels", "lists", "polygons", "semantic", "splits"]


def dataset(**changes) -> Dataset:
    record = Record(image=Path("a.png"), **changes)
    return Dataset(records=[record], classes=("a",), task="detection", root=Path("data"), format="voc")


def test_a_format_that_carries_everything_loses_nothing():
    assert lost_by(dataset(**FULL), "it", carries=ALL) == []


@pytest.mark.parametrize("fact", ALL)
def test_each_thing_that_is_not_carried_is_one_finding(fact: str):
    (finding,) = lost_by(dataset(**FULL), "it", carries=set(ALL) - {fact})
    assert (finding.id, finding.severity, finding.evidence) == ("lost-on-write", "warning", {"count": 1})
    assert finding.explanation.startswith("it cannot carry ")


def test_an_instance_map_is_lost_only_if_its_objects_were_not_read():
    (finding,) = lost_by(dataset(instance_map=Path("i.png")), "it", carries=ALL)
    assert finding.explanation == "it cannot carry instance maps (1 images)"
    item = Object(label=0, box=(0, 0, 2, 1), rle=Rle(size=(1, 2), counts=(0, 2)), attributes={"instance": 7})
    read = dataset(instance_map=Path("i.png"), objects=[item])
    assert [(f.explanation, f.severity) for f in lost_by(read, "it", carries=ALL)] == [
        ("it cannot carry run-length masks (1 objects)", "warning"),
        ("it cannot carry the attribute 'instance' (1 objects)", "info"),
    ]
    assert lost_by(read, "it", carries=[*ALL, "rle"])[0].severity == "info"


def test_attributes_are_asked_for_one_by_one():
    item = Object(label=0, box=(0, 0, 1, 1), attributes={"keep": 1, "drop": 2, "id": 7, "pose": "Unspecified"})
    data = dataset(objects=[item], attributes={"source": {"database": "Unknown"}, "owner": "me"})
    data.attributes = {"info": 1, "categories": []}
    keep = lambda key, value: key == "keep"  # noqa: E731
    found = {f.explanation: f.severity for f in lost_by(data, "it", carries=ALL, object_key=keep)}
    assert found == {
        "it cannot carry the attribute 'source', which says nothing (1 images)": "info",
        "it cannot carry the attribute 'owner' (1 images)": "warning",
        "it cannot carry the attribute 'drop' (1 objects)": "warning",
        "it cannot carry the attribute 'id' (1 objects)": "info",
        "it cannot carry the attribute 'pose', which says nothing (1 objects)": "info",
        "it cannot carry the data set's 'info'": "warning",
        "it cannot carry the data set's 'categories'": "info",
    }


@pytest.mark.parametrize(("area", "told"), [(16.0, False), (16.1, True), ("16", True)])
def test_an_area_is_lost_only_if_the_shape_does_not_say_it(area: object, told: bool):
    item = Object(label=0, box=(0, 0, 9, 9), polygons=[SQUARE], attributes={"area": area})
    assert bool(lost_by(dataset(objects=[item]), "it", carries=ALL)) == told


def test_area_is_of_the_most_exact_shape():
    item = Object(label=0, box=(0, 0, 4, 2))
    assert object_area(item) == 8
    item.polygons = [SQUARE, SQUARE + 5]
    assert object_area(item) == 32
    item.rle = Rle(size=(2, 2), counts=(1, 3))
    assert object_area(item) == 3


def test_an_image_that_cannot_be_placed():
    finding = not_placed(Record(image=Path("a.png")), OSError("disk full"))
    assert (finding.id, finding.where) == ("missing-image", "a.png")
    assert "disk full" in finding.explanation
