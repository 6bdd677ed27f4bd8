"""Which images and boxes are examples of a class, and where they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.labelled import condense, labelled_examples, place
from clearsight.types import Object, Record


def evidence(records, task, **scan):
    data = Dataset(records=records, classes=("a", "b"), task=task, root=Path(), format="voc")
    return SimpleNamespace(dataset=data, scan=SimpleNamespace(**scan))


def test_images_with_a_label_that_can_be_read():
    labels = [0, None, 1, 1]
    records = [Record(image=Path(f"{number}.png"), label=label) for number, label in enumerate(labels)]
    features = np.arange(8, dtype=np.float32).reshape(4, 2)
    readable = np.array([True, True, False, True])
    found = labelled_examples(evidence(records, "classification", readable=readable, features=features))
    assert found.record.tolist() == [0, 3]
    assert found.labels.tolist() == [0, 1]
    assert found.features.tolist() == [[0, 1], [6, 7]]
    assert place(evidence(records, "classification").dataset, 3, int(found.item[1])) == "3.png"


def test_boxes_that_are_learned():
    objects = [
        Object(label=1, box=(0, 0, 10, 10), where="a.xml:9"),
        Object(label=0, box=(0, 0, 10, 3.5)),  # nothing to see
        Object(label=0, box=(0, 0, 10, 10), crowd=True),
        Object(label=0, box=(0, 0, 10, 10), difficult=True),
        Object(label=0, box=(0, 0, 4, 10)),
    ]
    given = evidence(
        [Record(image=Path("a.png"), objects=objects)],
        "detection",
        object_record=np.zeros(5, dtype=np.int64),
        object_index=np.arange(5),
        object_label=np.array([1, 0, 0, 0, 0]),
        object_features=np.arange(5, dtype=np.float32)[:, None],
    )
    found = labelled_examples(given)
    assert found.item.tolist() == [0, 4]
    assert found.labels.tolist() == [1, 0]
    assert found.features.ravel().tolist() == [0, 4]
    assert [place(given.dataset, 0, item) for item in (0, 4)] == ["a.xml:9", "a.png#4"]
    assert found.of_classes_with(2).labels.tolist() == []
    assert len(found.sample(1)) == 1


def test_condensed_features_keep_distances_and_have_fewer_columns():
    features = np.random.default_rng(0).normal(size=(50, 90)) * np.arange(1, 91)
    condensed = condense(features)
    assert condensed.shape == (50, 50)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    np.testing.assert_allclose(np.linalg.norm(condensed[0] - condensed[1]), np.linalg.norm(scaled[0] - scaled[1]))
    assert condense(features, most=8).shape == (50, 8)
