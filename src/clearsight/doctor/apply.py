"""The remedy of a finding, put into a recipe."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass

from clearsight.errors import ConfigError
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe
from clearsight.recipe.write import recipe_to_yaml
from clearsight.types import Finding

__all__ = ["Applied", "apply_remedy"]


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


def apply_remedy(recipe: Recipe, finding: Finding) -> Applied:
    """A recipe with the remedy of a finding.

    Args:
        recipe: is not changed.
        finding: with a `remedy`.

    Raises:
        ConfigError: no change of a recipe is the finding's remedy, or the recipe has it already, or the two do not fit.
    """
    if not finding.remedy:
        raise ConfigError(
            f"{finding.id}: no change of the recipe does away with it; {finding.explanation} Look at {finding.where}"
        )
    changes = [f"{key}={json.dumps(value)}" for key, value in finding.remedy.items()]
    changed = load_recipe(recipe, changes)
    before, after = recipe_to_yaml(recipe), recipe_to_yaml(changed)
    if before == after:
        raise ConfigError(f"{finding.id}: the recipe has its remedy already ({', '.join(changes)})")
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    shown = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return Applied(recipe=changed, text=after, difference="\n".join(shown))
