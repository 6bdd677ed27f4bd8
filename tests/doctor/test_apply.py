"""A remedy put into a recipe: what changes, and what cannot."""

from __future__ import annotations

from typing import Any

import pytest

from clearsight.doctor.apply import apply_remedy
from clearsight.errors import ConfigError
from clearsight.recipe.resolve import load_recipe
from clearsight.types import Finding


def finding(remedy: dict[str, Any]) -> Finding:
    return Finding(id="some-fault", severity="warning", where="run", explanation="It is there.", remedy=remedy)


def test_only_the_keys_of_the_remedy_change() -> None:
    recipe = load_recipe("demo")
    applied = apply_remedy(recipe, finding({"optimizer.lr": 1e-4, "data.size": [128, 96], "trainer.clip_norm": None}))
    assert applied.recipe.optimizer.lr == 1e-4
    assert applied.recipe.data.size == (128, 96)
    assert applied.recipe.trainer.clip_norm is None
    assert len(applied.difference.splitlines()) == 6
    same = applied.recipe.model_copy(
        update={
            "optimizer": recipe.optimizer,
            "data": recipe.data,
            "trainer": recipe.trainer,
        }
    )
    assert same == recipe


@pytest.mark.parametrize(
    ("remedy", "says"),
    [
        ({}, "no change of the recipe does away with it"),
        ({"optimizer.lr": "high"}, "optimizer.lr"),
        ({"optimizer.rate": 1.0}, "unknown key 'rate'"),
    ],
)
def test_what_cannot_be_applied(remedy: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        apply_remedy(load_recipe("demo"), finding(remedy))


def test_a_remedy_that_is_there_already() -> None:
    recipe = load_recipe("demo")
    with pytest.raises(ConfigError, match="has its remedy already"):
        apply_remedy(recipe, finding({"optimizer.lr": recipe.optimizer.lr}))
