from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data.read import read_dataset
from clearsight.doctor.data.imbalance import ClassImbalance, FewExamples
from clearsight.doctor.rule import examine
from clearsight.recipe.resolve import load_recipe
from clearsight.types import Object, Record


def images_of(*counts: int, split: str = "train") -> list[Record]:
    return [
        Record(image=Path(f"{split}-{label}-{i}.png"), label=label, split=split)
        for label, count in enumerate(counts)
        for i in range(count)
    ]


def photo_of(*counts: int) -> Record:
    objects = [Object(label=k, box=(0, 0, 5, 5)) for k, count in enumerate(counts) for _ in range(count)]
    return Record(image=Path("photo.png"), objects=objects, split="train")


def test_ten_times_is_quiet_and_more_is_information_with_the_advice_of_its_degree(evidence_of) -> None:
    assert list(ClassImbalance().check(evidence_of(images_of(200, 20)))) == []
    (mild,) = ClassImbalance().check(evidence_of(images_of(220, 20)))
    assert (mild.id, mild.severity, mild.remedy) == ("class-imbalance", "info", {})
    assert mild.evidence["ratio"] == 11
    assert mild.evidence["counts"] == {"b": 20, "a": 220}
    assert "Collect" not in mild.explanation
    assert "11 times" in mild.explanation
    (strong,) = ClassImbalance().check(evidence_of(images_of(1020, 20)))
    assert "Collect" in strong.explanation
    assert strong.severity == "info"


def test_rare_classes_are_below_a_tenth_of_the_mean_class(evidence_of) -> None:
    (found,) = ClassImbalance().check(evidence_of(images_of(300, 50, 12, 0), classes=("a", "b", "c", "empty")))
    assert found.evidence["rare"] == ["c"]  # a tenth of the mean of 120.7 is 12.07
    assert found.evidence["classes"] == 3
    weights = found.evidence["weights"]
    assert weights["c"] / weights["a"] == pytest.approx(5.0, rel=1e-3)  # √(300 / 12)


def test_only_training_images_count(evidence_of) -> None:
    records = images_of(50, 50) + images_of(500, 1, split="val")
    assert list(ClassImbalance().check(evidence_of(records))) == []


def test_objects_are_counted_not_images(evidence_of) -> None:
    evidence = evidence_of([photo_of(60, 5), photo_of(60, 5)], task="detection")
    (found,) = ClassImbalance().check(evidence)
    assert found.evidence["unit"] == "objects"
    assert "repeat-factor" in found.explanation


def test_pixels_of_masks_are_counted_and_the_recipe_gets_weights(evidence_of, tmp_path: Path) -> None:
    def records_with(rare: int) -> list[Record]:
        mask = np.zeros((40, 50), np.uint8)
        mask.flat[:rare] = 1
        Image.fromarray(mask).save(tmp_path / "mask.png")
        return [Record(image=tmp_path / "x.png", semantic=tmp_path / "mask.png", split="train")]

    recipe = load_recipe("membrane-unet", ["model.class_weights=none"])
    (mild,) = ClassImbalance().check(evidence_of(records_with(100), task="semantic", recipe=recipe))
    assert mild.evidence["ratio"] == 19
    assert mild.remedy == {"model.class_weights": "inverse_sqrt"}
    (strong,) = ClassImbalance().check(evidence_of(records_with(20), task="semantic", recipe=recipe))
    assert strong.remedy == {"model.class_weights": "median"}
    for key, value in strong.remedy.items():
        load_recipe(recipe, [f"{key}={value}"])  # the patch is one that a recipe takes
    weighted = load_recipe(recipe, ["model.class_weights=median"])
    assert list(ClassImbalance().check(evidence_of(records_with(100), task="semantic", recipe=weighted))) == []
    (rest,) = ClassImbalance().check(evidence_of(records_with(20), task="semantic", recipe=weighted))
    assert rest.remedy == {}
    assert "Collect" in rest.explanation
    assert examine([FewExamples()], evidence_of(records_with(5), task="semantic")).silent["few-examples"]


def test_nine_examples_of_most_classes_are_a_warning_and_ten_are_not(evidence_of) -> None:
    assert list(FewExamples().check(evidence_of(images_of(30, 10)))) == []
    (found,) = FewExamples().check(evidence_of(images_of(30, 9, 2, 0), classes=tuple("abcd")))
    assert (found.id, found.severity) == ("few-examples", "warning")
    assert found.evidence["counts"] == {"c": 2, "b": 9}  # none at all is another finding
    assert "'c' (2), 'b' (9)" in found.explanation


def test_one_rare_class_is_information_and_next_to_nothing_a_warning(evidence_of) -> None:
    """42, 30, 17 and 8 images are five to one, as a set may be; three teach nothing."""
    (found,) = FewExamples().check(evidence_of(images_of(42, 30, 17, 8), classes=tuple("abcd")))
    assert (found.severity, found.evidence["counts"]) == ("info", {"d": 8})
    (found,) = FewExamples().check(evidence_of(images_of(42, 30, 17, 5), classes=tuple("abcd")))
    assert found.severity == "info"
    (found,) = FewExamples().check(evidence_of(images_of(42, 30, 17, 4), classes=tuple("abcd")))
    assert found.severity == "warning"
    (found,) = FewExamples().check(evidence_of(images_of(42, 30, 9, 9), classes=tuple("abcd")))
    assert found.severity == "warning"


def test_one_class_and_no_labels_are_said_to_be_lacking(evidence_of) -> None:
    seen = examine([ClassImbalance(), FewExamples()], evidence_of([photo_of()], classes=("cell",), task="detection"))
    assert seen.silent == {"class-imbalance": "two classes or more", "few-examples": "labels"}
    assert seen.findings == []


@pytest.mark.real
@pytest.mark.parametrize(("name", "found"), [("bccd", ["class-imbalance"]), ("sign_digits", []), ("membrane", [])])
def test_real_sets(read_evidence, shared_data: Path, name: str, found: list[str]) -> None:
    seen = examine([ClassImbalance(), FewExamples()], read_evidence(read_dataset(shared_data / name)))
    assert [finding.id for finding in seen.findings] == found
    assert all(finding.severity == "info" for finding in seen.findings)
