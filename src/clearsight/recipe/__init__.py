"""Recipes: everything that decides a run, as plain data that is checked before anything starts.

- `schema` says what a recipe may hold,
- `resolve` reads one: built-in name or file, its bases, overrides,
- `write` gives its YAML and the JSON schema.
"""

from __future__ import annotations

from clearsight.recipe.resolve import load_recipe, recipe_names
from clearsight.recipe.schema import Recipe
from clearsight.recipe.write import recipe_schema, recipe_to_yaml

__all__ = ["Recipe", "load_recipe", "recipe_names", "recipe_schema", "recipe_to_yaml"]
