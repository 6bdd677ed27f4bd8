"""Copies in two classes, boxes in two classes, and what only looks like it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.conflicting_labels import ConflictingLabels
from clearsight.doctor.rule import examine
from clearsight.types import Object, Record


def images(*pairs):
    """Evidence of images `(digest, label)`."""
    records = [Record(image=Path(f"{number}.png"), label=label) for number, (_, label) in enumerate(pairs)]
    dataset = Dataset(records=records, classes=("a", "b"), task="classification", root=Path(), format="image_folder")
    return SimpleNamespace(dataset=dataset, scan=SimpleNamespace(md5=tuple(digest for digest, _ in pairs)))


def boxes(*objects, more=0, task="detection"):
    """Evidence of one image with these objects, and others with as many single ones."""
    records = [Record(image=Path("0.png"), objects=list(objects))]
    records += [Record(image=Path(f"{n}.png"), objects=[Object(label=0, box=(0, 0, 9, 9))]) for n in range(1, more + 1)]
    dataset = Dataset(records=records, classes=("a", "b"), task=task, root=Path(), format="voc")
    return SimpleNamespace(dataset=dataset, scan=SimpleNamespace(md5=()))


def judged(evidence):
    return examine([ConflictingLabels()], evidence)


def test_copies_in_two_classes():
    done = judged(images(("x", 0), ("y", 1), ("x", 1), ("z", 0)))
    assert [(found.id, found.severity) for found in done.findings] == [("conflicting-labels", "warning")]
    assert done.findings[0].evidence["contradicting"] == 2
    assert done.findings[0].evidence["first"] == [{"where": ["0.png", "2.png"], "classes": ["a", "b"]}]


def test_copies_in_one_class_and_unread_files_are_another_matter():
    assert judged(images(("x", 0), ("x", 0), ("", 0), ("", 1))).passed == ("conflicting-labels",)


def test_few_of_many_are_information():
    many = [(f"n{number}", 0) for number in range(3000)]
    assert judged(images(*many, ("x", 0), ("x", 1))).findings[0].severity == "info"
    assert judged(images(*many[:1900], ("x", 0), ("x", 1))).findings[0].severity == "warning"


def test_one_box_in_two_classes():
    first, second = Object(label=0, box=(10, 10, 50, 50), where="a.xml:3"), Object(label=1, box=(10, 10, 50, 49))
    done = judged(boxes(first, second))
    assert done.findings[0].severity == "warning"
    assert done.findings[0].evidence["first"] == [{"where": ["a.xml:3", "0.png#1"], "classes": ["a", "b"]}]
    assert judged(boxes(first, second, more=3000)).findings[0].severity == "info"


@pytest.mark.parametrize(
    "second",
    [
        Object(label=0, box=(10, 10, 50, 50)),
        Object(label=1, box=(10, 10, 50, 45.9)),  # 0.8975 of the union
        Object(label=1, box=(10, 10, 50, 50), crowd=True),
    ],
    ids=["one class", "less overlap", "crowd"],
)
def test_near_misses(second):
    assert judged(boxes(Object(label=0, box=(10, 10, 50, 50)), second)).passed == ("conflicting-labels",)


def test_nothing_to_contradict():
    evidence = boxes(task="semantic")
    assert judged(evidence).silent == {"conflicting-labels": "classes of images or objects"}
