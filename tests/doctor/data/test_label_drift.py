from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.data.read import read_dataset
from clearsight.data.splits import split_dataset
from clearsight.doctor.data.label_drift import LabelDrift, total_variation
from clearsight.doctor.rule import examine
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import SplitConfig
from clearsight.types import Object, Record


def images_of(split: str, *counts: int, group: int | None = None) -> list[Record]:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return [
        Record(
            image=Path(f"{split}-{i}.png"),
            label=label,
            split=split,
            group=None if group is None else f"{split} {i // group}",
        )
        for i, label in enumerate(labels)
    ]


def photos_of(split: str, images: int, share: float, *, seed: int) -> list[Record]:
    """Photos of twenty objects that are all of one class, which is the first in `share` of the photos."""
    rng = np.random.default_rng(seed)
    return [
        Record(
            image=Path(f"{split}-{i}.png"),
            objects=[Object(label=int(rng.random() > share), box=(0, 0, 9, 9))] * 20,
            split=split,
        )
        for i in range(images)
    ]


def _distance(first: list[Record], second: list[Record]) -> float:
    counts = [np.bincount([r.objects[0].label for r in part], minlength=2) for part in (first, second)]
    return total_variation(*counts)


def test_other_shares_are_found(evidence_of) -> None:
    (found,) = LabelDrift().check(evidence_of(images_of("train", 80, 80) + images_of("val", 56, 24)))
    assert (found.id, found.severity, found.where) == ("label-drift", "info", "data.val")
    assert found.evidence["distance"] == pytest.approx(0.2)
    assert found.evidence["p"] <= 0.005
    (found,) = LabelDrift().check(evidence_of(images_of("train", 80, 80) + images_of("val", 76, 4)))
    assert found.severity == "warning"
    assert found.evidence["odds"] == pytest.approx(17)  # (76.5 / 80.5) / (4.5 / 80.5)
    assert "'b' is 50.0% of the training labels and 5.0% of val" in found.explanation


def test_a_training_part_of_five_to_one_is_information(evidence_of) -> None:
    """A third of the labels would have to change, but no class is outweighed by ten times."""
    (found,) = LabelDrift().check(evidence_of(images_of("train", 400, 80) + images_of("val", 80, 80)))
    assert (found.severity, found.evidence["distance"]) == ("info", pytest.approx(0.3333, abs=1e-4))
    assert found.evidence["odds"] == pytest.approx(4.98, abs=0.01)
    (found,) = LabelDrift().check(evidence_of(images_of("train", 400, 30) + images_of("val", 80, 80)))
    assert found.severity == "warning"


def test_copies_of_a_file_count_once(evidence_of) -> None:
    """The rare class is listed ten times as often, as a remedy of its rarity: no other images than in validation."""
    pictures = [np.full((6, 6), 40 + number, np.uint8) for number in range(120)]
    records = images_of("train", 60, 60) + images_of("val", 60, 6)
    files = pictures[:60] + pictures[60:66] * 10 + pictures[:66]
    assert list(LabelDrift().check(evidence_of(records, files))) == []
    files = pictures + pictures[:66]
    assert [found.severity for found in LabelDrift().check(evidence_of(records, files))] == ["info"]


def test_a_seventh_is_let_pass_and_so_is_what_chance_gives(evidence_of) -> None:
    assert list(LabelDrift().check(evidence_of(images_of("train", 800, 800) + images_of("val", 512, 288)))) == []
    assert list(LabelDrift().check(evidence_of(images_of("train", 80, 80) + images_of("val", 14, 6)))) == []


def test_objects_of_one_photo_are_no_independent_evidence(evidence_of) -> None:
    """Shares of 20 photos are far from a half by chance; of 400 objects drawn one by one they could not be."""
    train = photos_of("train", 60, 0.5, seed=1)
    val = next(part for seed in range(99) if _distance(train, part := photos_of("val", 20, 0.5, seed=seed)) > 0.16)
    assert list(LabelDrift().check(evidence_of(train + val, task="detection"))) == []
    sure = photos_of("val", 60, 0.05, seed=3)
    assert [f.severity for f in LabelDrift().check(evidence_of(train + sure, task="detection"))] == ["warning"]


def test_groups_are_the_unit_and_explain_it(evidence_of) -> None:
    few = images_of("train", 80, 80, group=20) + images_of("val", 76, 4, group=20)
    assert "15 labelled images" in examine([LabelDrift()], evidence_of(few)).silent["label-drift"]
    many = images_of("train", 80, 80, group=2) + images_of("val", 76, 4, group=2)
    assert [found.severity for found in LabelDrift().check(evidence_of(many))] == ["info"]


def test_the_remedy_is_a_split_in_proportion_where_the_recipe_splits_otherwise(evidence_of) -> None:
    records = images_of("train", 80, 80) + images_of("test", 56, 24)
    recipe = load_recipe("digits", ["data.split.method=random"])
    (found,) = LabelDrift().check(evidence_of(records, recipe=recipe))
    assert found.remedy == {"data.split.method": "stratified"}
    assert found.where == "data.test"
    load_recipe(recipe, ["data.split.method=stratified"])
    assert next(iter(LabelDrift().check(evidence_of(records)))).remedy == {}


def test_total_variation_by_hand() -> None:
    assert total_variation(np.array([1, 1, 2]), np.array([10, 0, 10])) == pytest.approx(0.25)
    assert total_variation(np.array([3, 0]), np.array([0, 5])) == 1


def test_what_is_lacking_is_said(evidence_of) -> None:
    assert examine([LabelDrift()], evidence_of(images_of("train", 50, 50))).silent
    one = images_of("train", 50) + images_of("val", 50)
    assert examine([LabelDrift()], evidence_of(one, classes=("a",))).silent == {"label-drift": "two classes or more"}


@pytest.mark.real
@pytest.mark.parametrize("name", ["bccd", "sign_digits"])
def test_real_sets_have_no_drift(read_evidence, shared_data: Path, name: str) -> None:
    dataset = split_dataset(read_dataset(shared_data / name), SplitConfig())
    assert examine([LabelDrift()], read_evidence(dataset)).passed == ("label-drift",)
