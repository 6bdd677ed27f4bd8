from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from clearsight.data.digit_scenes import read_digit_scenes
from clearsight.data.read import read_dataset
from clearsight.data.splits import split_dataset
from clearsight.doctor.data.shift import SplitDrift, separability
from clearsight.doctor.rule import examine
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import SplitConfig
from clearsight.types import Record


def sets(first: int, second: int, *, shift: float = 0.0, stretch: float = 1.0, seed: int = 0) -> tuple:
    """Two sets of twenty features; the second's first feature is shifted and stretched."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(first + second, 20)) @ np.random.default_rng(123).normal(size=(20, 20))
    features[first:, 0] = features[first:, 0] * stretch + shift * features[:, 0].std()
    return features, np.arange(first + second) >= first, np.arange(first + second)


def photos(brightness: np.ndarray, *, seed: int = 0) -> list[np.ndarray]:
    """Noise of 24 × 24 pixels about a brightness of each image."""
    rng = np.random.default_rng(seed)
    return [np.clip(rng.normal(value, 25, (24, 24, 3)), 0, 255).astype(np.uint8) for value in brightness]


def records_of(train: int, val: int, *, group: bool = False) -> list[Record]:
    splits = ["train"] * train + ["val"] * val
    return [
        Record(image=Path("x"), label=i % 2, split=split, group=f"{split} {i % 20}" if group else None)
        for i, split in enumerate(splits)
    ]


def brightness(train: int, val: int, *, by: float) -> np.ndarray:
    values = np.random.default_rng(5).normal(110, 12, train + val)
    values[train:] += by
    return values


# ------------------------------------------------------------------------------------------------ separability
def test_sets_of_one_kind_cannot_be_told_apart() -> None:
    found = [separability(*sets(120, 60, seed=seed)) for seed in range(20)]
    assert max(one.low for one in found) < 0.6
    assert np.mean([one.auc for one in found]) == pytest.approx(0.5, abs=0.04)
    assert all(one.low < one.auc < one.high for one in found)


def test_a_shift_is_seen_as_well_as_by_logistic_regression() -> None:
    features, positive, units = sets(300, 200, shift=1.0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    score = cross_val_predict(LogisticRegression(), scaled, positive, cv=folds, method="decision_function")
    assert separability(features, positive, units).auc > roc_auc_score(positive, score) - 0.05
    assert separability(features, positive, units).low > 0.75


def test_a_change_of_spread_is_seen_where_a_line_sees_none() -> None:
    features, positive, units = sets(300, 300, stretch=4.0)
    assert separability(features, positive, units).low > 0.6


def test_fewer_images_than_features_give_the_same_direction() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(60, 100))
    features[30:, 0] += 4
    found = separability(features, np.arange(60) >= 30, np.arange(60))
    assert found.auc > 0.7
    assert found.images == (30, 30)


def test_the_interval_covers_what_many_more_images_say() -> None:
    truth = separability(*sets(4000, 4000, shift=0.6, seed=99)).auc
    found = [separability(*sets(600, 600, shift=0.6, seed=seed)) for seed in range(20)]
    # Of fewer images a little less is learned, so the intervals lie a little low: never alarming without a reason.
    assert sum(one.low < truth < one.high + 0.02 for one in found) >= 18


def test_groups_are_not_known_again() -> None:
    """Ten groups, each of a look of its own, half of them in each set: nothing else tells the sets apart."""
    rng = np.random.default_rng(0)
    group = np.arange(200) // 20
    features = rng.normal(size=(10, 20))[group] * 5 + rng.normal(size=(200, 20))
    positive = group % 2 == 1
    assert separability(features, positive, np.arange(200)).auc > 0.95
    assert separability(features, positive, group).low < 0.6


# ------------------------------------------------------------------------------------------------ rule
def test_brighter_validation_images_are_a_warning_that_says_what_differs(evidence_of) -> None:
    (found,) = SplitDrift().check(evidence_of(records_of(60, 40), photos(brightness(60, 40, by=40))))
    assert (found.id, found.severity, found.where) == ("split-drift", "warning", "data.val")
    assert found.evidence["properties"][0]["property"] in ("brightness", "border brightness")
    assert found.evidence["interval"][0] > 0.75
    assert found.evidence["images"] == (60, 40)


def test_the_same_kind_of_images_is_let_pass_and_so_is_a_hint_of_a_change(evidence_of) -> None:
    for by in (0, 3):
        evidence = evidence_of(records_of(60, 40), photos(brightness(60, 40, by=by)))
        assert examine([SplitDrift()], evidence).passed == ("split-drift",)


def test_a_weaker_change_is_information(evidence_of) -> None:
    (found,) = SplitDrift().check(evidence_of(records_of(150, 100), photos(brightness(150, 100, by=9))))
    assert found.severity == "info"


def test_a_picture_that_is_listed_many_times_is_one_picture(evidence_of) -> None:
    """Twenty pictures four times each can be told from others by heart, but other pictures they are not."""
    few = photos(brightness(20, 60, by=0))
    assert list(SplitDrift().check(evidence_of(records_of(80, 60), few[:20] * 4 + few[20:]))) == []
    (found,) = SplitDrift().check(
        evidence_of(records_of(80, 60), few[:20] * 4 + photos(brightness(20, 60, by=60))[20:])
    )
    assert (found.severity, found.evidence["images"]) == ("warning", (20, 60))


def test_groups_and_ordered_splits_differ_by_nature(evidence_of) -> None:
    (found,) = SplitDrift().check(evidence_of(records_of(60, 40, group=True), photos(brightness(60, 40, by=60))))
    assert found.severity == "info"
    assert "Groups" in found.explanation
    recipe = load_recipe("digits", ["data.split.method=ordered"])
    (found,) = SplitDrift().check(evidence_of(records_of(60, 40), photos(brightness(60, 40, by=60)), recipe=recipe))
    assert found.severity == "info"
    assert "ordered" in found.evidence["natural"]


def test_small_splits_are_not_judged(evidence_of) -> None:
    evidence = evidence_of(records_of(60, 14), photos(brightness(60, 14, by=60)))
    assert "15 images" in examine([SplitDrift()], evidence).silent["split-drift"]


@pytest.mark.real
@pytest.mark.parametrize("name", ["bccd", "sign_digits", "nuclei"])
def test_real_sets_have_no_drift(read_evidence, shared_data: Path, name: str) -> None:
    dataset = split_dataset(read_dataset(shared_data / name), SplitConfig())
    assert [f for f in SplitDrift().check(read_evidence(dataset)) if f.severity != "info"] == []


def test_digit_scenes_have_no_drift(read_evidence) -> None:
    assert examine([SplitDrift()], read_evidence(read_digit_scenes(scenes=150))).passed == ("split-drift",)
