"""What a recipe may say: defaults that hold together, values out of range refused, lengths given once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from clearsight.recipe.schema import AugmentConfig, Recipe, SplitConfig, TrainerConfig


def _recipe(**changes: Any) -> Recipe:
    plain = {
        "name": "x",
        "task": "detection",
        "data": {"root": "somewhere"},
        "model": {"name": "light"},
        "trainer": {"epochs": 1},
    }
    return Recipe.model_validate({**plain, **changes})


def test_a_short_recipe_is_filled_in_and_survives_a_round_trip() -> None:
    recipe = _recipe()
    assert recipe.optimizer.name == "adamw"
    assert recipe.model.name == "light"
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _recipe().trainer.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize("section", ["data", "model", "augment", "loader", "optimizer", "schedule", "trainer", "eval"])
def test_no_section_takes_an_unknown_key(section: str) -> None:
    given = {"data": {"root": "x"}, "model": {"name": "light"}, "trainer": {"epochs": 1}}.get(section, {})
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        _recipe(**{section: {**given, "no_such_key": 1}})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "found none"),
        ({"epochs": 1, "steps": 2}, "found epochs and steps"),
        ({"epochs": 1, "minutes": 2.0}, "found epochs and minutes"),
    ],
)
def test_a_run_has_exactly_one_length(given: dict[str, Any], found: str) -> None:
    with pytest.raises(ValidationError, match=found):
        TrainerConfig.model_validate(given)


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": True},
        {"epochs": 0},
        {"epochs": 1.5},
        {"minutes": float("inf")},
        {"minutes": float("nan")},
        {"minutes": 0.0},
        {"epochs": 1, "ema": 1.0},
        {"epochs": 1, "precision": "64-true"},
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainerConfig.model_validate(given)


def test_shares_of_a_split_add_up() -> None:
    assert SplitConfig(fractions=(0.7, 0.2, 0.1)).fractions == (0.7, 0.2, 0.1)
    with pytest.raises(ValidationError, match=r"they add up to 0\.9"):
        SplitConfig(fractions=(0.7, 0.1, 0.1))


def test_a_model_must_serve_the_task() -> None:
    with pytest.raises(ValidationError, match="does task 'detection', not 'classification'"):
        _recipe(task="classification")
    with pytest.raises(ValidationError, match="does task 'classification', not 'detection'"):
        _recipe(model={"name": "classifier"})


def test_a_zoom_is_two_positive_numbers() -> None:
    assert AugmentConfig(zoom=(0.5, 2.0)).zoom == (0.5, 2.0)
    with pytest.raises(ValidationError):
        AugmentConfig(zoom=(0.0, 2.0))


def test_the_json_schema_is_closed_too() -> None:
    schema = Recipe.model_json_schema()
    assert schema["additionalProperties"] is False
    assert all(part.get("additionalProperties") is False for part in schema["$defs"].values() if "properties" in part)
