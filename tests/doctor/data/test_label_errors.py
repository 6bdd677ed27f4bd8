"""Planted label errors in real digits, hand signs and blood cells: how many, which; none in clean sets."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from clearsight.data.dataset import Dataset
from clearsight.data.read import read_dataset
from clearsight.doctor.data.crop_features import describe_crop
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.label_errors import LabelErrors, agreement, estimate_noise, out_of_sample
from clearsight.doctor.rule import examine
from clearsight.types import Record

pytest.importorskip("cleanlab")


def flipped(labels, share, *, seed=1):
    """Labels of which a share is another class, drawn evenly; and which."""
    rng = np.random.default_rng(seed)
    at = rng.choice(len(labels), round(share * len(labels)), replace=False)
    wrong = labels.copy()
    wrong[at] = (wrong[at] + rng.integers(1, labels.max() + 1, len(at))) % (labels.max() + 1)
    return wrong, wrong != labels


def described(features, labels, classes=None, *, val=0, copies=1):
    """Evidence of images with these features and labels; the last `val` are validated on, `copies` others one file."""
    names = tuple(f"class{number}" for number in range(classes or labels.max() + 1))
    splits = ["train"] * (len(labels) - val) + ["val"] * val if val else [None] * len(labels)
    records = [
        Record(image=Path(f"{number}.png"), label=int(label), split=split)
        for number, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]
    data = Dataset(records=records, classes=names, task="classification", root=Path("d"), format="image_folder")
    scan = _scan(features, [str(n // copies if n < len(labels) - val else n) for n in range(len(labels))])
    parts = {name: data.split(name) if val else None for name in ("train", "val")}
    evidence = DataEvidence(dataset=data, test=None, **parts)
    evidence.scan = scan  # stands for reading the files
    return evidence


def _scan(features, digests):
    """What a scan of grey noise says, but for the features."""
    n, rng = len(features), np.random.default_rng(7)
    fields = {"mean": (n, 3), "std": (n, 3), "sharpness": n, "entropy": n}
    return SimpleNamespace(
        readable=np.ones(n, dtype=bool),
        features=features,
        md5=digests,
        phash=rng.integers(0, 2**63, n).astype(np.uint64),
        thumbnails=rng.integers(0, 255, (n, 32, 32)).astype(np.uint8),
        size=np.full((n, 2), 32),
        **{name: rng.random(shape) for name, shape in fields.items()},
    )


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    pixels = (data.images * 15.9).astype(np.uint8)[..., None]
    return np.stack([describe_crop(image) for image in pixels[:900]]), data.target[:900]


def judged(evidence):
    return examine([LabelErrors()], evidence)


def test_clean_digits_give_no_warning(digits):
    assert [finding.severity for finding in judged(described(*digits)).findings if finding.severity != "info"] == []


@pytest.mark.parametrize("share", [0.06, 0.3])
def test_noise_is_measured_and_found(digits, share):
    features, labels = digits
    wrong, planted = flipped(labels, share)
    found = judged(described(features, wrong)).findings[0]
    assert (found.id, found.severity) == ("label-error", "warning")
    assert found.evidence["noise"] == pytest.approx(share, rel=0.35)
    first = found.evidence["first"]
    assert len(first) == 20
    at = [int(Path(entry["where"]).stem) for entry in first]
    assert planted[at].mean() >= 0.9
    right = [entry["suggested"] == f"class{labels[index]}" for index, entry in zip(at, first, strict=True)]
    assert np.mean(right) >= 0.85
    assert [entry["given"] for entry in first] == [f"class{wrong[index]}" for index in at]


def test_a_little_noise_is_no_warning(digits):
    features, labels = digits
    wrong, _ = flipped(labels, 0.015)
    assert [one.severity for one in judged(described(features, wrong)).findings] == ["info"]


def test_classes_that_overlap_are_no_noise():
    # The best classifier there is errs in 16 % of these; that where it is unsure it errs more often gives it away.
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    features = rng.normal(size=(1000, 12))
    features[:, 0] += 2.0 * labels
    noise = estimate_noise(labels, out_of_sample(features, labels))
    assert min(noise.joint, noise.sure) > 0.03
    assert noise.sure_least > 0.015
    assert [one.severity for one in judged(described(features, labels)).findings if one.severity == "warning"] == []


def likenesses(labels, *, apart):
    """Features of classes that overlap."""
    features = np.random.default_rng(0).normal(size=(len(labels), 12))
    features[:, 0] += apart * labels
    return features


def test_labels_of_one_split_that_are_wrong_are_found_where_classes_overlap():
    """Its own errors keep the classifier from saying how many labels are wrong, but not that splits differ in it."""
    labels = np.random.default_rng(1).integers(0, 2, 1000)
    features = likenesses(labels, apart=2.0)
    wrong, planted = flipped(labels[:700], 0.2)
    noisy = np.concatenate([wrong, labels[700:]])
    assert [one.severity for one in judged(described(features, noisy)).findings if one.severity != "info"] == []
    (found,) = judged(described(features, noisy, val=300)).findings
    assert (found.id, found.severity, found.where) == ("label-error", "warning", "data.train")
    assert found.evidence["noise"] == pytest.approx(0.2 * (1 - 2 * 0.1), abs=0.06)
    assert found.evidence["z"] > 4
    at = [int(Path(entry["where"]).stem) for entry in found.evidence["first"]]
    assert max(at) < 700
    assert planted[at].mean() >= 0.9
    (found,) = judged(described(features[::-1].copy(), noisy[::-1].copy(), val=700)).findings
    assert found.where == "data.val"  # the other way round


def test_splits_that_are_as_hard_or_as_noisy_as_each_other_make_no_contrast():
    labels = np.random.default_rng(1).integers(0, 2, 1000)
    features = likenesses(labels, apart=2.0)
    for share in (0.0, 0.02, 0.2):
        given, _ = flipped(labels, share)
        found = judged(described(features, given, val=300)).findings
        assert [one for one in found if one.severity != "info"] == []


def test_copies_are_looked_at_once(digits):
    features, labels = digits
    wrong, _ = flipped(labels, 0.3)
    (found,) = judged(described(np.repeat(features, 3, axis=0), np.repeat(wrong, 3), copies=3)).findings
    assert (found.severity, found.evidence["examples"]) == ("warning", len(labels))
    assert found.evidence["noise"] == pytest.approx(0.3, rel=0.35)


def test_pairs_of_classes_that_features_hardly_tell_apart_are_no_noise():
    """Of a quarter of a turn all is known, of half a turn little: as of photos that were turned."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 600)
    features = rng.normal(size=(600, 60))
    features[:, 0] += 6.0 * (labels % 2)
    features[:, 1] += 0.8 * (labels // 2)
    sure = estimate_noise(labels, out_of_sample(features, labels)).doubt < 0.5
    assert agreement(features, labels, sure) < 0.8
    assert judged(described(features, labels)).findings == []
    blind = examine([LabelErrors(steady=0.0)], described(features, labels)).findings
    assert [one.severity for one in blind] == ["warning"]  # how sure they are does not tell
    # Near miss: they are told apart, and labels are wrong within the pairs.
    features = features[:, :20]
    features[:, 1] += 6.0 * (labels // 2)
    wrong = np.where(rng.random(600) < 0.25, (labels + 2) % 4, labels)
    sure = estimate_noise(wrong, out_of_sample(features, wrong)).doubt < 0.5
    assert agreement(features, wrong, sure) > 0.95
    (found,) = judged(described(features, wrong)).findings
    assert found.evidence["noise"] == pytest.approx(0.25, abs=0.05)


def test_features_that_tell_nothing_are_not_judged():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    assert judged(described(rng.normal(size=(600, 20)), labels)).passed == ("label-error",)


def test_the_measure_of_a_known_case():
    # Ten sure examples of each class, one of them labelled otherwise; ten unsure, of which half are.
    sure = np.array([[0.99, 0.01]] * 10 + [[0.01, 0.99]] * 10)
    unsure = np.array([[0.6, 0.4]] * 10 + [[0.4, 0.6]] * 10)
    labels = np.array([0] * 9 + [1] + [1] * 10 + [0, 1] * 5 + [1, 0] * 5)
    noise = estimate_noise(labels, np.concatenate([sure, unsure]))
    assert noise.sure == pytest.approx(0.05)
    assert noise.sure_least == pytest.approx(0.0089, abs=1e-4)  # Wilson's for 1 of 20
    assert noise.unsure == pytest.approx(0.4)  # two of the first five of each kind
    assert noise.agreed == pytest.approx(0.95)
    assert noise.accuracy == pytest.approx(1 - (11 / 40 - 0.05) / 0.95)
    assert noise.suspects[0] == 9


def test_hand_signs_that_features_confuse_are_not_judged(shared_data):
    data = read_dataset(shared_data / "sign_digits")
    given = DataEvidence(dataset=data, train=None, val=None, test=None)
    assert judged(given).findings == []


def test_digits_in_a_folder(shared_data, tmp_path):
    pixels, labels = (
        np.frombuffer(
            gzip.decompress(next((shared_data / "mnist_t10k").glob(f"*{kind}*.gz")).read_bytes()), np.uint8, -1, at
        )
        for kind, at in (("images", 16), ("labels", 8))
    )
    images, labels = pixels.reshape(-1, 28, 28)[:1500], labels[:1500].astype(int)
    wrong, planted = flipped(labels, 0.15)
    for number, (image, label) in enumerate(zip(images, wrong, strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / str(label) / f"{number}.png")
    given = DataEvidence(dataset=read_dataset(tmp_path), train=None, val=None, test=None)
    found = judged(given).findings[0]
    assert found.severity == "warning"
    assert found.evidence["noise"] == pytest.approx(0.15, abs=0.04)
    assert np.mean([planted[int(Path(entry["where"]).stem)] for entry in found.evidence["first"]]) >= 0.9


def test_blood_cells_by_their_boxes(shared_data):
    data = read_dataset(shared_data / "bccd")
    data = replace(data, records=data.records[:150])
    given = DataEvidence(dataset=data, train=None, val=None, test=None)
    assert [one for one in judged(given).findings if one.severity != "info"] == []
    wrong, planted = flipped(given.scan.object_label, 0.06)
    found = judged(SimpleNamespace(dataset=data, scan=replace(given.scan, object_label=wrong))).findings[0]
    assert found.severity == "warning"
    assert "objects" in found.explanation
    owners = zip(given.scan.object_record[planted], given.scan.object_index[planted], strict=True)
    places = {data.records[record].objects[index].where for record, index in owners}
    assert np.mean([entry["where"] in places for entry in found.evidence["first"]]) >= 0.9


def test_what_is_missing_is_said(digits):
    features, labels = digits
    few = described(features[:40], np.arange(40) % 10)
    assert judged(few).silent == {"label-error": "two classes with 5 examples each"}
    small = described(features[:149], labels[:149])
    assert judged(small).silent == {"label-error": "150 examples"}
    assert judged(described(features[:150], labels[:150])).silent == {}
    one = described(features, np.zeros(len(labels), dtype=int))
    assert judged(one).silent == {"label-error": "classes of images or objects to tell apart"}
