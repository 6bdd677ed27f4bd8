from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from clearsight.data.decode import read_image
from clearsight.data.read import read_dataset
from clearsight.doctor.data.spurious import SpuriousProperty, predictive_power
from clearsight.doctor.rule import examine
from clearsight.recipe.resolve import load_recipe
from clearsight.types import Object, Record


def of_two_classes(gap: float, number: int = 120) -> tuple[list[Record], list[np.ndarray]]:
    """Noise whose brightness has a deviation of 10 within a class and a gap between the classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(number) % 2
    level = rng.normal(110, 10, number) + gap * labels
    images = [np.clip(rng.normal(value, 30, (16, 16, 3)), 0, 255).astype(np.uint8) for value in level]
    return [Record(image=Path("x"), label=int(label), split="train") for label in labels], images


def single(labels: np.ndarray) -> np.ndarray:
    return np.arange(len(labels))


# ------------------------------------------------------------------------------------------------ power
def test_power_is_0_by_chance_and_1_where_the_number_says_it_all() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    power, error = predictive_power(rng.normal(size=2000), labels, single(labels))
    assert abs(power) < 3 * error < 0.05
    assert predictive_power(labels // 5 + rng.uniform(0, 0.5, 2000), labels // 5, single(labels))[0] > 0.95


def test_power_is_that_of_a_decision_tree_with_as_many_leaves() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice(3, 1500, p=(0.7, 0.2, 0.1))
    values = rng.normal(labels * 1.2)
    tree = DecisionTreeClassifier(max_leaf_nodes=20, class_weight="balanced", random_state=0)
    theirs = balanced_accuracy_score(labels, cross_val_predict(tree, values[:, None], labels), adjusted=True)
    assert predictive_power(values, labels, single(labels))[0] == pytest.approx(theirs, abs=0.06)


def test_the_error_is_the_spread_over_repeated_draws() -> None:
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = np.arange(200) % 2
        found.append(predictive_power(rng.normal(labels * 2.0), labels, single(labels)))
    powers, errors = np.array(found).T
    assert errors.mean() == pytest.approx(powers.std(), rel=0.35)


def test_few_different_values_and_labels_with_gaps_do() -> None:
    labels = np.array([3, 7] * 40)
    assert predictive_power((labels == 3) * 1.0, labels, single(labels))[0] == 1
    assert predictive_power(np.ones(80), labels, single(labels))[0] <= 0.01


def test_a_group_is_not_known_again() -> None:
    """Each of twenty groups has its own brightness, and its class by chance."""
    rng = np.random.default_rng(0)
    group = np.arange(400) // 20
    labels = rng.permutation(np.arange(20) % 2)[group]
    values = rng.permutation(20)[group] + rng.normal(0, 0.1, 400)
    assert predictive_power(values, labels, single(labels))[0] > 0.9
    assert predictive_power(values, labels, group)[0] < 0.3


# ------------------------------------------------------------------------------------------------ rule
def test_a_background_that_gives_the_class_away_is_a_warning(evidence_of) -> None:
    records, images = of_two_classes(60)
    found = list(SpuriousProperty().check(evidence_of(records, images, recipe=load_recipe("digits"))))
    bright = next(f for f in found if f.evidence["property"] == "border brightness")
    assert (bright.id, bright.severity) == ("spurious-property", "warning")
    assert bright.remedy == {"augment.brightness": 0.4}
    load_recipe("digits", ["augment.brightness=0.4"])  # the patch is one that a recipe takes
    assert list(bright.evidence["medians"]) == ["a", "b"]
    assert [f.evidence["power"] for f in found] == sorted((f.evidence["power"] for f in found), reverse=True)


def test_brightness_of_the_object_alone_is_information(evidence_of) -> None:
    records, images = of_two_classes(60)
    for image in images:
        image[[0, 1, 2, -3, -2, -1]] = 90
        image[:, [0, 1, 2, -3, -2, -1]] = 90
    found = list(SpuriousProperty().check(evidence_of(records, images)))
    assert found[0].evidence["power"] > 0.9
    assert {finding.severity for finding in found} == {"info"}


def test_moderate_power_is_information_and_less_is_nothing(evidence_of) -> None:
    (*_, found) = SpuriousProperty().check(evidence_of(*of_two_classes(18)))
    assert found.severity == "info"
    assert 0.3 < found.evidence["power"] < 0.7
    assert examine([SpuriousProperty()], evidence_of(*of_two_classes(3))).passed == ("spurious-property",)


def test_image_size_is_a_property_and_objects_vote(evidence_of) -> None:
    records, images = of_two_classes(0)
    images = [image[: 16 - 4 * (number % 2)] for number, image in enumerate(images)]
    for record in records:
        record.objects = [Object(label=label, box=(0, 0, 5, 5)) for label in (record.label, record.label, 0)]
        record.label = None
    found = list(SpuriousProperty().check(evidence_of(records, images, task="detection")))
    assert {"size", "aspect"} <= {f.evidence["property"] for f in found}
    assert found[0].severity == "warning"


def test_crops_of_every_size_are_information(evidence_of) -> None:
    rng = np.random.default_rng(0)
    records, _ = of_two_classes(0)
    sides = rng.integers(16, 40, 120) + np.arange(120) % 2 * 40
    images = [rng.integers(0, 255, (side, side), dtype=np.uint8) for side in sides]
    (found,) = [f for f in SpuriousProperty().check(evidence_of(records, images)) if f.evidence["property"] == "size"]
    assert found.evidence["power"] > 0.95
    assert found.severity == "info"


def test_only_training_images_and_classes_of_twenty_are_judged(evidence_of) -> None:
    records, images = of_two_classes(60)
    for record in records[:90]:
        record.split = "val"
    assert (
        "20 training images" in examine([SpuriousProperty()], evidence_of(records, images)).silent["spurious-property"]
    )


@pytest.mark.real
def test_photos_of_signs_have_no_such_property(read_evidence, shared_data: Path) -> None:
    seen = examine([SpuriousProperty()], read_evidence(read_dataset(shared_data / "sign_digits")))
    assert seen.passed == ("spurious-property",)


@pytest.mark.real
def test_what_cells_look_like_is_no_warning(evidence_of, shared_data: Path) -> None:
    """Platelets, red and white cells, cut out: they differ in size and colour because they do."""
    images, labels = [], []
    for record in read_dataset(shared_data / "bccd").records[:50]:
        photo = read_image(record.image)
        for item in record.objects[:8]:
            left, top, right, bottom = (int(edge) for edge in item.box)
            if right > left + 4 and bottom > top + 4:
                images.append(np.ascontiguousarray(photo[top:bottom, left:right]))
                labels.append(item.label)
    records = [Record(image=Path("x"), label=label, split="train") for label in labels]
    found = list(SpuriousProperty().check(evidence_of(records, images, classes=("Platelets", "RBC", "WBC"))))
    assert found[0].evidence["power"] > 0.7
    assert {finding.severity for finding in found} == {"info"}
