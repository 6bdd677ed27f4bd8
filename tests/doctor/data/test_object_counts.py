from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.doctor.data.object_counts import ImagesWithoutObjects, OddObjectCount, TooManyObjects
from clearsight.doctor.rule import examine
from clearsight.recipe.resolve import load_recipe
from clearsight.types import Object, Record


def photos(*counts: int, difficult: bool = False) -> list[Record]:
    return [
        Record(
            image=Path(f"{number}.jpg"),
            objects=[Object(label=0, box=(0, 0, 9, 9), difficult=difficult) for _ in range(count)],
            split="train",
        )
        for number, count in enumerate(counts)
    ]


def about(middle: int, images: int) -> list[int]:
    return np.random.default_rng(0).poisson(middle, images).tolist()


def test_a_crowd_and_a_half_annotated_photo_are_found(evidence_of) -> None:
    counts = about(20, 60)
    counts[10], counts[11] = 200, 1
    evidence = evidence_of(photos(*counts), task="detection")
    (found,) = OddObjectCount().check(evidence)
    assert (found.id, found.severity) == ("odd-object-count", "info")
    assert sorted(found.evidence["files"]) == ["10.jpg", "11.jpg"]
    assert sorted(found.evidence["counts"]) == [1, 200]


def test_four_times_the_median_is_let_pass_and_so_is_a_wide_spread(evidence_of) -> None:
    counts = [20] * 60
    counts[10] = 99
    assert list(OddObjectCount().check(evidence_of(photos(*counts)))) == []
    wide = np.exp(np.random.default_rng(0).normal(2.5, 1.0, 300)).astype(int) + 1
    assert wide.max() > 5 * np.median(wide)
    assert list(OddObjectCount().check(evidence_of(photos(*wide.tolist())))) == []


def test_images_without_objects_are_no_odd_counts(evidence_of) -> None:
    seen = examine([OddObjectCount()], evidence_of(photos(*[20] * 40, *[0] * 10)))
    assert seen.passed == ("odd-object-count",)
    assert examine([OddObjectCount()], evidence_of(photos(*[20] * 29))).silent
    assert examine([OddObjectCount()], evidence_of(photos(0, 0))).silent == {"odd-object-count": "objects"}


def test_three_images_of_ten_without_objects_are_worth_saying(evidence_of) -> None:
    assert list(ImagesWithoutObjects().check(evidence_of(photos(*[0] * 29, *[1] * 71)))) == []
    (found,) = ImagesWithoutObjects().check(evidence_of(photos(*[0] * 30, *[1] * 70)))
    assert (found.severity, found.evidence["count"], len(found.evidence["files"])) == ("info", 30, 20)
    assert "30%" in found.explanation


def test_more_objects_than_detections_is_a_warning_with_a_patch_that_a_recipe_takes(evidence_of) -> None:
    recipe = load_recipe("cells")
    assert list(TooManyObjects().check(evidence_of(photos(100, 50), recipe=recipe))) == []
    (found,) = TooManyObjects().check(evidence_of(photos(130, 50), recipe=recipe))
    assert (found.severity, found.evidence["lost"], found.where) == ("warning", 30, "eval.max_detections")
    assert found.remedy == {"eval.max_detections": 200}
    changed = load_recipe(recipe, ["eval.max_detections=200"])
    assert list(TooManyObjects().check(evidence_of(photos(130, 50), recipe=changed))) == []


def test_one_object_too_many_of_a_thousand_is_information(evidence_of) -> None:
    (found,) = TooManyObjects().check(evidence_of(photos(101, *[90] * 10), recipe=load_recipe("cells")))
    assert found.severity == "info"


def test_what_is_not_scored_is_not_counted(evidence_of) -> None:
    evidence = evidence_of(photos(200, difficult=True), recipe=load_recipe("cells"))
    assert list(TooManyObjects().check(evidence)) == []


@pytest.mark.parametrize(("name", "lacking"), [("digits", "a model that finds objects"), (None, "a recipe")])
def test_other_tasks_and_no_recipe_are_said(evidence_of, name: str | None, lacking: str) -> None:
    evidence = evidence_of(photos(200), recipe=None if name is None else load_recipe(name))
    assert examine([TooManyObjects()], evidence).silent == {"more-objects-than-detections": lacking}
