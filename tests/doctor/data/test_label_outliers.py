"""Examples that are none of their class: another subject among hand signs, far points by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clearsight.data.dataset import Dataset
from clearsight.data.read import read_dataset
from clearsight.doctor.data.crop_features import describe_crop
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.label_outliers import LabelOutliers, outlyingness
from clearsight.doctor.rule import examine
from clearsight.types import Record


def described(features, labels):
    """Evidence of images with these features and labels."""
    records = [Record(image=Path(f"{number}.png"), label=int(label)) for number, label in enumerate(labels)]
    names = tuple(f"class{number}" for number in range(max(labels) + 1))
    data = Dataset(records=records, classes=names, task="classification", root=Path("d"), format="image_folder")
    scan = SimpleNamespace(readable=np.ones(len(labels), dtype=bool), features=np.asarray(features))
    return SimpleNamespace(dataset=data, scan=scan)


def judged(evidence):
    return examine([LabelOutliers()], evidence)


def clouds(far):
    """Two classes of 60 points each in eight dimensions; the last one of the first lies `far` from it."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 8))
    features[60:, 0] += 6
    features[59] = [0, far, 0, 0, 0, 0, 0, 0]
    return features, np.repeat([0, 1], 60)


def test_distances_by_hand():
    # Neighbours at 1 and 2 of the first, 1 and 1 of the second and the third, and 1 and 2 of the fourth; then far off.
    features = np.array([[0.0], [1.0], [2.0], [3.0], [13.0]])
    z, times = outlyingness(features, np.zeros(5, dtype=int), neighbours=2)
    np.testing.assert_allclose(times, np.array([1.5, 1.0, 1.0, 1.5, 10.5]) / 1.5)
    logs = np.log(np.array([1.5, 1.0, 1.0, 1.5, 10.5]))
    deviation = 1.4826 * np.median(np.abs(logs - np.log(1.5)))
    np.testing.assert_allclose(z, (logs - np.log(1.5)) / deviation)


def test_small_classes_and_copies_have_no_outliers():
    z, times = outlyingness(np.array([[0.0], [9.0], *[[5.0]] * 10]), np.array([0, 0] + [1] * 10))
    assert z.tolist() == [0.0] * 12
    assert times.tolist() == [1.0] * 12


def test_a_far_point_is_found_and_a_near_one_is_not():
    done = judged(described(*clouds(30.0)))
    assert [(found.id, found.severity, found.where) for found in done.findings] == [("label-outlier", "info", "59.png")]
    assert done.findings[0].evidence["first"][0]["class"] == "class0"
    assert judged(described(*clouds(2.0))).passed == ("label-outlier",)


def test_a_point_of_another_class_is_far_from_its_own():
    features, labels = clouds(0.0)
    features[60:] += 30
    labels[0] = 1
    assert [entry["where"] for entry in judged(described(features, labels)).findings[0].evidence["first"]] == ["0.png"]


def test_pictures_of_something_else_among_hand_signs(shared_data):
    data = read_dataset(shared_data / "sign_digits")
    given = DataEvidence(dataset=data, train=None, val=None, test=None)
    before = judged(given).findings
    assert sum(len(found.evidence["first"]) for found in before) <= 6  # of 600
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    features = given.scan.features.copy()
    features[7] = describe_crop(noise)
    found = judged(SimpleNamespace(dataset=data, scan=replace(given.scan, features=features))).findings[0]
    assert found.where == str(data.records[7].image)


@pytest.mark.parametrize(("labels", "lacking"), [([0] * 19, "a class with 20 examples"), ([0] * 20, None)])
def test_what_is_missing_is_said(labels, lacking):
    given = described(np.random.default_rng(0).normal(size=(len(labels), 4)), labels)
    assert judged(given).silent == ({} if lacking is None else {"label-outlier": lacking})
