"""The remedy of a finding, put into a recipe."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearsight.doctor.advice import advise
from clearsight.errors import ConfigError
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe
from clearsight.recipe.write import recipe_to_yaml
from clearsight.types import Finding

__all__ = ["Applied", "apply_remedy", "remedies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A recipe with a remedy in it.

    Args:
        recipe: the new one.
        text: the same as YAML.
        difference: lines that changed, as a unified diff without its context's numbers.
    """

    recipe: Recipe
    text: str
    difference: str


def remedies(finding: Finding, recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Changes of a recipe that may do away with a finding, the best first: its own remedy, then the table's.

    Args:
        finding: of a run with this recipe.
        recipe: nested plain values.
    """
    found = [dict(finding.remedy)] if finding.remedy else []
    for advice in advise(finding.id, recipe):
        if advice.changes and dict(advice.changes) not in found:
            found.append(dict(advice.changes))
    return list(found)


def apply_remedy(recipe: Recipe, finding: Finding, *, choice: int = 1) -> Applied:
    """A recipe with a remedy of a finding.

    Args:
        recipe: is not changed.
        finding: what is to be done away with.
        choice: which of its `remedies`, from 1.

    Raises:
        ConfigError: no change of a recipe is the finding's remedy, or the recipe has it already, or the two do not fit;
            or there are not so many.
    """
    known = remedies(finding, recipe.model_dump(mode="json"))
    if not known:
        raise ConfigError(
            f"{finding.id}: no change of the recipe does away with it; {finding.explanation} Look at {finding.where}"
        )
    if not 1 <= choice <= len(known):
        raise ConfigError(f"{finding.id}: remedies are numbered 1 to {len(known)}, found {choice}")
    changes = [f"{key}={json.dumps(value)}" for key, value in known[choice - 1].items()]
    changed = load_recipe(recipe, changes)
    before, after = recipe_to_yaml(recipe), recipe_to_yaml(changed)
    if before == after:
        raise ConfigError(f"{finding.id}: the recipe has its remedy already ({', '.join(changes)})")
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    shown = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return Applied(recipe=changed, text=after, difference="\n".join(shown))
