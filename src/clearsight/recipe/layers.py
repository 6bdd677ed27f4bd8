"""Layers of a recipe, each over the one below: a base, a file, overrides; what they say together, and who said it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clearsight.errors import ConfigError
from clearsight.recipe.yaml_text import Plain, Text, parse_value

__all__ = ["Layer", "Merged", "file_layer", "merge_layers", "override_layer"]

Path = tuple[str | int, ...]

# Sections that are one of several kinds: another kind starts from its own defaults, not from the old kind's values.
KINDS: frozenset[Path] = frozenset({("model",), ("model", "assigner")})
# Keys of which one at most may be given: a layer that gives one puts those of the layers below aside.
ONE_OF: dict[Path, frozenset[str]] = {("trainer",): frozenset({"epochs", "steps", "minutes"})}


@dataclass
class Layer:
    """One source of values.

    Args:
        value: nested mappings of plain values.
        origin: where each part was said (`my.yaml:12`, `optimizer.lr=2`), by path.
        written: scalars as they were written, by path.
    """

    value: dict[str, Any]
    origin: dict[Path, str] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)


@dataclass
class Merged(Layer):
    """What all layers say together; `name` is what messages call it."""

    name: str = "recipe"

    def where(self, path: Path) -> str:
        """Who said the value at `path`, or its nearest ancestor that somebody said."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origin:
                return self.origin[path[:end]]
        return self.name

    def at(self, path: Path) -> Plain:
        """The value at `path`; None where there is none."""
        value: Plain = self.value
        for key in path:
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(key, int):
                value = value[key] if key < len(value) else None
            else:
                return None
        return value


def file_layer(text: Text, name: str) -> Layer:
    """A layer from a parsed file.

    Raises:
        ConfigError: the file holds no mapping.
    """
    if text.value is None:
        raise ConfigError(f"{name}: the recipe is empty; start it with `base: NAME`, see `clearsight recipes`")
    if not isinstance(text.value, dict):
        raise ConfigError(f"{name}:1: expected `key: value` lines, found {_kind(text.value)}")
    return Layer(text.value, {path: f"{name}:{line}" for path, line in text.lines.items() if path}, text.written)


def _kind(value: object) -> str:
    return {list: "a list", str: f"the text {value!r:.60}"}.get(type(value), f"{value!r:.60}")


def override_layer(overrides: Sequence[str]) -> Layer:
    """One layer from `a.b.c=VALUE` texts; a later one wins over an earlier one of the same key.

    Raises:
        ConfigError: a text has no `=` or an empty key.
    """
    layer = Layer({})
    for text in overrides:
        key, equals, written = text.partition("=")
        path = tuple(part.strip() for part in key.strip().lstrip("-").split("."))
        if not equals or not all(path):
            raise ConfigError(
                f"override {text!r}: expected key=value without spaces around '=', for example trainer.epochs=30"
            )
        parsed = parse_value(written)
        target = layer.value
        for index, part in enumerate(path[:-1]):
            if not isinstance(target.get(part), dict):
                target[part] = {}
                layer.origin[path[: index + 1]] = f"override {text}"
            target = target[part]
        target[path[-1]] = parsed.value
        _forget(layer, path)
        layer.origin[path] = f"override {text}"
        layer.written.update({(*path, *inner): text for inner, text in parsed.written.items()})
    return layer


def _forget(layer: Layer, path: Path) -> None:
    for table in (layer.origin, layer.written):
        for known in [known for known in table if known[: len(path)] == path]:
            del table[known]


def merge_layers(layers: Sequence[Layer], name: str) -> Merged:
    """Each layer over the ones before: mappings are merged key by key, everything else is replaced."""
    merged = Merged({}, name=name)
    for layer in layers:
        _merge(merged, layer, (), merged.value, layer.value)
    return merged


def _merge(merged: Merged, layer: Layer, path: Path, below: dict[str, Any], above: dict[str, Any]) -> None:
    if path in KINDS and "name" in above and above["name"] != below.get("name", above["name"]):
        below.clear()
        _forget_below(merged, path)
    one_of = ONE_OF.get(path, frozenset())
    if any(above.get(key) is not None for key in one_of):
        for key in one_of & below.keys():
            del below[key]
    for key, value in above.items():
        here = (*path, key)
        if isinstance(value, dict):
            if not isinstance(below.get(key), dict):
                below[key] = {}
                _forget(merged, here)
            if here in layer.origin:
                merged.origin[here] = layer.origin[here]
            _merge(merged, layer, here, below[key], value)
        else:
            below[key] = value
            _forget(merged, here)
            for mine, theirs in ((merged.origin, layer.origin), (merged.written, layer.written)):
                mine.update({known: said for known, said in theirs.items() if known[: len(here)] == here})


def _forget_below(merged: Merged, path: Path) -> None:
    kept = merged.origin.get(path)
    _forget(merged, path)
    if kept is not None:
        merged.origin[path] = kept
