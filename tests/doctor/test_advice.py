"""The table of remedies: faults that exist, changes that load, and nothing that is so already."""

from __future__ import annotations

import json

import pytest

from clearsight.doctor.advice import ADVICE, advise, longer, put, scale
from clearsight.doctor.data.rules import RULES as DATA
from clearsight.doctor.model.rules import PROBES
from clearsight.doctor.model.rules import RULES as MODEL
from clearsight.doctor.run.rules import RULES as RUN
from clearsight.recipe.resolve import load_recipe

RECIPES = ["demo", "digits", "cells", "membrane-unet", "nuclei-snake", "nuclei-maskrcnn"]


def test_every_verdict_is_a_fault_that_is_looked_for() -> None:
    known = {rule.id for rule in (*DATA, *MODEL, *PROBES, *RUN)}
    assert set(ADVICE) <= known


@pytest.mark.parametrize("name", RECIPES)
def test_every_change_gives_a_recipe_that_loads_and_differs(name: str) -> None:
    recipe = load_recipe(name)
    plain = recipe.model_dump(mode="json")
    tried = 0
    for fault in ADVICE:
        for advice in advise(fault, plain):
            if advice.changes:
                changed = load_recipe(recipe, [f"{key}={json.dumps(value)}" for key, value in advice.changes.items()])
                assert changed != recipe, (fault, advice.what)
                tried += 1
    assert tried > 20


def test_what_is_so_already_is_not_advised() -> None:
    recipe = load_recipe("demo", ["trainer.clip_norm=1.0"]).model_dump(mode="json")
    assert all("trainer.clip_norm" not in advice.changes for advice in advise("exploding-gradient", recipe))
    assert advise("exploding-gradient", recipe)


def test_without_a_recipe_the_words_remain() -> None:
    found = advise("overfitting", {})
    assert len(found) == len(ADVICE["overfitting"])
    assert not any(advice.changes for advice in found)
    assert all(advice.what and advice.effect and advice.source for advice in found)
    assert advise("no-such-fault", {}) == []


def test_changes_of_numbers() -> None:
    recipe = {"optimizer": {"lr": 0.003}, "loader": {"workers": 1, "cache": "ram"}, "trainer": {"minutes": 15.0}}
    assert scale("optimizer.lr", 1 / 3)(recipe) == {"optimizer.lr": 0.001}
    assert scale("loader.workers", 2)(recipe) == {"loader.workers": 2}
    assert scale("loader.cache", 2)(recipe) == {}
    assert scale("optimizer.lr", 10, most=0.003)(recipe) == {}
    assert put("loader.cache", "ram")(recipe) == {}
    assert put("loader.cache", "none")(recipe) == {"loader.cache": "none"}
    assert put("loader.nothing", 1)(recipe) == {}
    assert longer()(recipe) == {"trainer.minutes": 30.0}
