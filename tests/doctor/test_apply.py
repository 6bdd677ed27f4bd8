"""A remedy put into a recipe: what changes, and what cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clearsight.doctor.apply import apply_remedy, remedies
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


def test_the_second_remedy_is_the_tables() -> None:
    recipe = load_recipe("demo")
    blown = replace(finding({"optimizer.lr": 1e-5}), id="diverging-loss")
    assert apply_remedy(recipe, blown).recipe.optimizer.lr == 1e-5
    second = apply_remedy(recipe, blown, choice=2).recipe
    assert second.optimizer.lr == pytest.approx(recipe.optimizer.lr / 3, rel=1e-2)
    known = remedies(blown, recipe.model_dump(mode="json"))
    assert len(known) == 4
    with pytest.raises(ConfigError, match="numbered 1 to 4, found 5"):
        apply_remedy(recipe, blown, choice=5)


def test_a_remedy_that_is_there_already() -> None:
    recipe = load_recipe("demo")
    with pytest.raises(ConfigError, match="has its remedy already"):
        apply_remedy(recipe, finding({"optimizer.lr": recipe.optimizer.lr}))
