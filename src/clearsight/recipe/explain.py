"""Mistakes in a recipe in plain words: where, which key, what was found, what is allowed, what was perhaps meant."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from clearsight.recipe.layers import Merged
from clearsight.recipe.schema import Recipe
from clearsight.recipe.yaml_text import dump_value

__all__ = ["expected_text", "explain", "model_schema"]

Path = tuple[str | int, ...]
Schema = dict[str, Any]


@cache
def model_schema() -> Schema:
    """The JSON schema of `Recipe`, as pydantic writes it; shared, do not change it."""
    return Recipe.model_json_schema()


def explain(error: ValidationError, merged: Merged) -> list[str]:
    """One line a mistake, in the order of the recipe; several errors about one key give one line."""
    lines: dict[Path, str] = {}
    for one in error.errors(include_url=False):
        path, schema = locate(one["loc"], merged)
        if path in lines:
            continue
        lines[path] = _line(one, path, schema, merged)
    return list(lines.values())


def _line(one: ErrorDetails, path: Path, schema: Schema, merged: Merged) -> str:
    where, key = merged.where(path), ".".join(str(part) for part in path)
    sentence = _sentence(one, path, schema, merged)
    if not key or one["type"] == "extra_forbidden" or where.startswith(f"override {key}="):  # it says the key already
        return f"{where}: {sentence}"
    if one["type"].startswith("union_tag"):
        key = f"{key}.name"
    return f"{where}: {key}: {sentence}"


def locate(loc: Path, merged: Merged) -> tuple[Path, Schema]:
    """The recipe's own path for a location of pydantic's, which also names members of unions; and its schema."""
    schema: Schema = model_schema()
    path: Path = ()
    rest = list(loc)
    while rest:
        schema = _deref(schema)
        if "discriminator" in schema:
            schema = _kind_schema(schema, rest.pop(0))
            continue
        if "anyOf" in schema:  # a text or a list: pydantic names the member
            member = str(rest.pop(0))
            arrays = [one for one in schema["anyOf"] if one.get("type") == "array"]
            if not (member.startswith("tuple[") and arrays):
                break
            schema = arrays[0]
            continue
        inner = _step(schema, rest[0])
        if isinstance(rest[0], int) and merged.at((*path, rest[0])) is None:
            break  # a list that is too short is a mistake of the list
        if inner is None:
            if "properties" in schema:  # a key that this section does not have
                path = (*path, rest[0])
            break
        path, schema = (*path, rest.pop(0)), inner
    schema = _deref(schema)
    if "discriminator" in schema and isinstance(section := merged.at(path), dict):
        schema = _kind_schema(schema, section.get("name"))
    return path, schema


def _deref(schema: Schema) -> Schema:
    """Follow references, and the one member of a union that is not null."""
    while True:
        members = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        if "$ref" in schema:
            schema = model_schema()["$defs"][schema["$ref"].rpartition("/")[2]]
        elif len(members) == 1:
            schema = members[0]
        else:
            return schema


def _kind_schema(schema: Schema, tag: object) -> Schema:
    mapping = schema["discriminator"]["mapping"]
    return _deref({"$ref": mapping[tag]}) if tag in mapping else schema


def _step(schema: Schema, key: str | int) -> Schema | None:
    if isinstance(key, str):
        return schema.get("properties", {}).get(key)
    items = schema.get("prefixItems", ())
    return items[key] if key < len(items) else schema.get("items") if isinstance(schema.get("items"), dict) else None


def _sentence(one: ErrorDetails, path: Path, schema: Schema, merged: Merged) -> str:
    found = merged.at(path)
    match one["type"]:
        case "extra_forbidden":
            return _unknown_key(path, schema, merged)
        case "missing":
            if isinstance(found, list):
                return f"found {show(found)}, {_expected_or(schema, 'a list')}"
            return f"missing; {_expected_or(schema, 'a section')}. Give it, or start with `base: NAME`"
        case "value_error":
            return one["msg"].removeprefix("Value error, ")
        case "union_tag_invalid" | "union_tag_not_found":
            names = list(schema["discriminator"]["mapping"])
            given = found.get("name") if isinstance(found, dict) else found
            said = "no name" if given is None else f"found {show(given)}"
            return f"{said}, {_one_of(names)}{_near(given, names)}"
        case "too_short" | "too_long" | "model_type" | "model_attributes_type" | "missing_argument":
            return f"found {show(found)}, {_expected_or(schema, 'a section of `key: value` lines')}"
    choices = [choice for choice in _choices(schema) if isinstance(choice, str)]
    return f"found {show(found)}, {_expected_or(schema, 'something else')}{_near(found, choices)}"


def show(value: object) -> str:
    """A value as a recipe would write it, cut after 80 characters."""
    text = repr(value) if isinstance(value, str) else dump_value(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _near(given: object, names: list[str]) -> str:
    near = get_close_matches(str(given), names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _unknown_key(path: Path, section: Schema, merged: Merged) -> str:
    *parents, key = (str(part) for part in path)
    name = ".".join(parents)
    names = list(section.get("properties", ()))
    near = get_close_matches(key, names, n=1, cutoff=0.6)
    elsewhere = [known for known in _leaves() if known.rpartition(".")[2] == key]
    if near:
        hint = f"did you mean {'.'.join([*parents, near[0]])!r}?"
    elif elsewhere:
        hint = f"did you mean {' or '.join(repr(one) for one in elsewhere[:3])}?"
    else:
        hint = f"there are: {', '.join(names)}"
    kind = merged.at(path[:-1])
    said = f" of name {kind['name']!r}" if name and isinstance(kind, dict) and _is_kind(path[:-1]) else ""
    others = [known for known, schema in _kinds(path[:-1]) if key in schema["properties"]]
    if others:
        listed = " and ".join([", ".join(others[:-1]), others[-1]][len(others) == 1 :])
        hint = f"{listed} {'has' if len(others) == 1 else 'have'} it"
    where = f"section {name!r}{said}" if name else "the recipe"
    return f"unknown key {key!r} in {where}; {hint}"


def _is_kind(path: Path) -> bool:
    return bool(_kinds(path))


@cache
def _kinds(path: Path) -> tuple[tuple[str, Schema], ...]:
    """The kinds of a section that can be of several, with their schemas."""
    schema = model_schema()
    for key in path:
        schema = _deref(schema)
        if "discriminator" in schema:  # an assigner is the same union in every model that has one
            schema = next((kind for _, kind in _members(schema) if key in kind["properties"]), {})
        schema = _step(schema, key) or {}
    schema = _deref(schema)
    return tuple(_members(schema)) if "discriminator" in schema else ()


def _members(schema: Schema) -> Iterator[tuple[str, Schema]]:
    for tag, ref in schema["discriminator"]["mapping"].items():
        yield tag, _deref({"$ref": ref})


@cache
def _leaves() -> tuple[str, ...]:
    """Every dotted key that some recipe may have."""

    def walk(schema: Schema, prefix: str) -> Iterator[str]:
        schema = _deref(schema)
        kinds = [kind for _, kind in _members(schema)] if "discriminator" in schema else [schema]
        for kind in kinds:
            for key, inner in kind.get("properties", {}).items():
                yield f"{prefix}{key}"
                yield from walk(inner, f"{prefix}{key}.")

    return tuple(dict.fromkeys(walk(model_schema(), "")))


def _expected_or(schema: Schema, otherwise: str) -> str:
    return f"expected {expected_text(schema) or otherwise}"


def _one_of(names: list[str]) -> str:
    return f"expected one of {', '.join(names)}"


def _choices(schema: Schema) -> list[Any]:
    schema = _deref(schema)
    if "anyOf" in schema:
        return [choice for one in schema["anyOf"] for choice in _choices(one)]
    return schema.get("enum", [schema["const"]] if "const" in schema else [])


_TYPES = {"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true or false"}


def expected_text(schema: Schema) -> str:
    """What a field allows, in words: `a whole number ≥ 1, or null`; empty for a section."""
    if "anyOf" in schema:
        return ", or ".join(expected_text(one) for one in schema["anyOf"])
    if "$ref" in schema:
        schema = _deref(schema)
    if choices := _choices(schema):
        return f"one of {', '.join(map(str, choices))}" if len(choices) > 1 else repr(choices[0])
    if "discriminator" in schema:
        return f"a section whose name is one of {', '.join(schema['discriminator']['mapping'])}"
    kind = schema.get("type")
    if kind == "null":
        return "null"
    if "pattern" in schema:
        return f"a text that fits {schema['pattern']}"
    if kind == "array":
        return _expected_list(schema)
    return _TYPES.get(str(kind), "a section of `key: value` lines") + _range(schema)


def _expected_list(schema: Schema) -> str:
    items = schema.get("prefixItems")
    inner = expected_text(items[0] if items else schema.get("items", {}))
    plural = inner.removeprefix("a ").replace("number", "numbers", 1).replace("text", "texts", 1)
    return f"a list of {len(items)} {plural}" if items else f"a list of {plural}"


def _range(schema: Schema) -> str:
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    return " and".join(f" {sign} {schema[key]:g}" for key, sign in signs if key in schema)
