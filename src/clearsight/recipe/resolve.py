"""From a name or a file, and overrides, to a checked recipe; every mistake of it in one message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clearsight.errors import ConfigError, NotFound
from clearsight.recipe.explain import explain, locate
from clearsight.recipe.layers import Layer, Merged, file_layer, merge_layers, override_layer
from clearsight.recipe.model_sections import MODEL_SECTIONS
from clearsight.recipe.schema import Recipe
from clearsight.recipe.yaml_text import Text, parse_document

__all__ = ["load_recipe", "recipe_names"]

SUFFIXES = (".yaml", ".yml")
# Values that are files: taken relative to the recipe's file, or to the current folder when an override says them.
PATHS = (("data", "root"), ("model", "weights"))


def recipe_names() -> dict[str, str]:
    """The built-in recipes and what each is for, in alphabetical order."""
    found = {}
    for entry in sorted(resources.files("clearsight").joinpath("recipes").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            value = parse_document(entry.read_text("utf-8"), entry.name).value
            found[entry.name.removesuffix(".yaml")] = str(value.get("description", "")).strip()
    return found


def load_recipe(source: str | Path | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Resolve a recipe: its bases, then itself, then the overrides; checked as a whole.

    Mappings are merged key by key; lists and scalars are replaced. Another `model.name` (or `model.assigner.name`)
    starts that section afresh, and one of `trainer.epochs`, `.steps`, `.minutes` puts the others aside. Relative paths
    (`data.root`, `model.weights`) become absolute: those a file says from that file's folder, those an override says
    from the current folder; `~` is the home folder.

    Args:
        source: a built-in name, a YAML file (anything with a `/` or ending in `.yaml`), a run folder, or a recipe.
        overrides: `a.b.c=VALUE` texts; the value is YAML: `lr=1e-3`, `data.size=[240,320]`, `trainer.ema=null`.

    Returns:
        The recipe. One from a file that gives no `name` is named like the file.

    Raises:
        NotFound: there is no such file.
        ConfigError: an unknown name, key or value; the message lists every mistake, each with file and line or
            override, what was found, what is allowed, and the nearest name.

    Example:
        >>> load_recipe("demo", ["optimizer.lr=1e-3"]).optimizer.lr
        0.001
    """
    overrides = [overrides] if isinstance(overrides, str) else overrides
    if isinstance(source, Recipe):
        layers, name = [Layer(source.model_dump(exclude_unset=True))], f"recipe {source.name}"
        _absolute_paths(layers[0], Path.cwd())
    else:
        layers, name = _read(source, ())
    if overrides:
        layers.append(override_layer(overrides))
        _absolute_paths(layers[-1], Path.cwd())
    merged = merge_layers(layers, name)
    _fill_assigner(merged)
    return _check(merged)


# ------------------------------------------------------------------------------------------------ reading
def _read(source: str | Path, seen: tuple[str, ...]) -> tuple[list[Layer], str]:
    """The layers of a recipe, bases first, and what messages call it."""
    text, name, folder = _open(source)
    identity = str(folder / Path(name).name) if folder else name
    if identity in seen:
        circle = " → ".join([*seen[seen.index(identity) :], identity])
        raise ConfigError(f"{name}: base goes round in a circle: {circle}; remove one of them")
    layer = file_layer(text, name)
    base = layer.value.pop("base", None)
    layer.value.setdefault("name", Path(name).stem if folder else name)
    if folder:
        _absolute_paths(layer, folder)
    if base is None:
        return [layer], name
    if not isinstance(base, str):
        raise ConfigError(f"{layer.origin[('base',)]}: base: expected the name or file of a recipe, found {base!r}")
    try:
        below, _ = _read(_base_source(base, folder), (*seen, identity))
    except (NotFound, ConfigError) as err:
        if isinstance(err, ConfigError) and seen:
            raise
        raise type(err)(f"{layer.origin[('base',)]}: base: {err}") from err
    return [*below, layer], name


def _base_source(base: str, folder: Path | None) -> str | Path:
    if not _is_path(base):
        return base
    path = Path(base).expanduser()
    return path if folder is None else folder / path


def _is_path(source: str | Path) -> bool:
    return isinstance(source, Path) or source.lower().endswith(SUFFIXES) or "/" in source or "\\" in source


def _open(source: str | Path) -> tuple[Text, str, Path | None]:
    """The parsed text, what messages call it, and the folder of the file; no folder for a built-in recipe."""
    if not _is_path(source):
        return _open_builtin(str(source))
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "recipe.yaml").is_file():
            raise NotFound(f"{path}: this folder has no recipe.yaml; name a recipe file, or a run's folder")
        path = path / "recipe.yaml"
    if not path.is_file():
        raise NotFound(f"{path}: there is no such recipe file{_near_file(path)}")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: not a text in UTF-8 (byte {err.start}); a recipe is a YAML file") from err
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read: {err.strerror}") from err
    return parse_document(text, str(path)), str(path), path.resolve().parent


def _near_file(path: Path) -> str:
    there = [one.name for one in path.parent.iterdir() if one.suffix in SUFFIXES] if path.parent.is_dir() else []
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    near = get_close_matches(path.name, there, n=1)
    return f"; did you mean {path.with_name(near[0])}?" if near else ""


def _open_builtin(name: str) -> tuple[Text, str, None]:
    file = resources.files("clearsight").joinpath("recipes", f"{name}.yaml")
    if not re.fullmatch(r"[\w-]+", name) or not file.is_file():
        names = list(recipe_names())
        near = get_close_matches(name, names, n=1)
        if near:
            hint = f"did you mean {near[0]!r}?"
        elif Path(name).exists():
            hint = f"for the file or folder of that name write ./{name}"
        else:
            hint = "a file is named with its .yaml"
        raise ConfigError(f"there is no recipe {name!r}; {hint} (built in: {', '.join(names)})")
    return parse_document(file.read_text("utf-8"), f"recipe {name}"), name, None


def _absolute_paths(layer: Layer, folder: Path) -> None:
    for section, key in PATHS:
        values = layer.value.get(section)
        if not isinstance(values, dict) or values.get(key) is None:
            continue
        value = values[key]
        if isinstance(value, bool | int | float):  # a folder called 2024
            value = layer.written.get((section, key), str(value))
        if isinstance(value, str) and "://" not in value:
            values[key] = str((folder / Path(value).expanduser()).resolve())


# ------------------------------------------------------------------------------------------------ checking
def _fill_assigner(merged: Merged) -> None:
    """An assigner without a name is of the model's default kind."""
    model = merged.value.get("model")
    kind = MODEL_SECTIONS.get(str(model.get("name"))) if isinstance(model, dict) else None
    if model and kind and "assigner" in kind.model_fields and isinstance(model.get("assigner"), dict):
        model["assigner"].setdefault("name", kind.model_fields["assigner"].default.name)


def _check(merged: Merged) -> Recipe:
    try:
        return _named(Recipe.model_validate(merged.value), merged)
    except ValidationError as first:
        if not _restore_texts(first, merged):
            raise _refusal(first, merged) from None
    try:
        return _named(Recipe.model_validate(merged.value), merged)
    except ValidationError as err:
        raise _refusal(err, merged) from None


def _restore_texts(error: ValidationError, merged: Merged) -> bool:
    """Where a text was expected and a number found (a class named 7), take it as it was written."""
    restored = False
    for one in error.errors(include_url=False):
        path, _ = locate(one["loc"], merged)
        if one["type"] == "string_type" and path in merged.written and isinstance(merged.at(path), int | float):
            parent: Any = merged.at(path[:-1])
            parent[path[-1]] = merged.written[path]
            restored = True
    return restored


def _refusal(error: ValidationError, merged: Merged) -> ConfigError:
    lines = explain(error, merged)
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError(f"{merged.name}: {len(lines)} mistakes\n" + "\n".join(f"  {line}" for line in lines))


def _named(recipe: Recipe, merged: Merged) -> Recipe:
    if not re.fullmatch(r"[^\\/:*?\"<>|\0-\x1f]+", recipe.name) or recipe.name.strip(". ") == "":
        raise ConfigError(
            f"{merged.where(('name',))}: name: found {recipe.name!r}, expected a text that can be a folder's name"
        )
    return recipe
