"""YAML in and out, by the rules of YAML 1.2: what is read knows its line, what is written reads back the same.

PyYAML follows YAML 1.1, where `1e-3` is a text, `no` and `off` are false, `010` is eight and `1:30` is ninety. Recipes
hold learning rates and class names, so scalars are resolved by the core schema of YAML 1.2 instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from clearsight.errors import ConfigError

__all__ = ["Plain", "Text", "dump_value", "parse_document", "parse_value"]

Plain = Any  # None, bool, int, float, str, or lists and dicts of them
Path = tuple[str | int, ...]
MAX_NODES = 100_000

_SCALARS = {
    "null": (r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "int": (r"^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$", list("-+0123456789")),
    "float": (
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
        list("-+0123456789."),
    ),
}


class _Loader(yaml.SafeLoader):
    """Composes nodes with the resolvers of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute, filled below


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the texts that `_Loader` would read as something else."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: object) -> bool:
        """Every value is written out, even where two are the same object."""
        return True


for _tag, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


@dataclass
class Text:
    """A document as plain values, with the line and the written form of every part of it.

    Args:
        value: mappings, lists and scalars.
        lines: the line, from 1, of each part, by its path of keys and indices; for a mapping's entry, of its key.
        written: the text of each scalar as it was written.
    """

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)


def parse_document(text: str, name: str) -> Text:
    """Parse one YAML document.

    Args:
        text: the document.
        name: what messages call it, a path.

    Raises:
        ConfigError: it is no YAML, has a key twice or one that is no text, or expands to more than 100,000 parts.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {err.problem or err.context}{_hint(err)}") from err
    except yaml.YAMLError as err:
        raise ConfigError(f"{name}: not valid YAML: {err}") from err
    except RecursionError as err:
        raise ConfigError(f"{name}: lists or mappings are nested too deeply") from err
    parsed = Text(None)
    if node is not None:
        parsed.value = _Builder(parsed, name).build(node, ())
    return parsed


def _hint(err: yaml.MarkedYAMLError) -> str:
    if "\\t" in str(err.problem):
        return "; indent with spaces, YAML allows no tabs"
    if "mapping values are not allowed" in str(err.problem):
        return "; a text with ': ' in it needs quotes, and an entry must not be indented deeper than the one before"
    return ""


def parse_value(text: str) -> Text:
    """The value that follows `=` in an override: YAML where it is some, else the text itself.

    Numbers such as `1e-3`, `null`, `true`, lists `[240, 320]` and mappings `{patience: 5}` are understood; a text that
    only looks like broken YAML (`[1] photos`) stays a text, and `#` starts no comment.
    """
    if "#" in text and text[0] not in "[{'\"":
        return Text(text, written={(): text})
    try:
        return parse_document(text, "override")
    except ConfigError:
        return Text(text, written={(): text})


class _Builder:
    """Turns composed nodes into values; counts, so that aliases of aliases cannot fill the memory."""

    def __init__(self, parsed: Text, name: str) -> None:
        self.parsed = parsed
        self.name = name
        self.count = 0

    def build(self, node: yaml.Node, path: Path) -> Plain:
        self.count += 1
        if self.count > MAX_NODES or len(path) > 50:
            raise ConfigError(f"{self._at(node)}: aliases or nesting expand to too much; write the values out")
        self.parsed.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag.rpartition(":")[2] not in (*_CONSTRUCT, "map", "seq"):
            raise ConfigError(f"{self._at(node)}: tag {node.tag!r} is not understood; a recipe is plain data")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        self.parsed.written[path] = node.value
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{self._at(key_node)}: a key must be a plain word, found a list or a mapping")
            key = key_node.value
            if key in result:
                first = self.parsed.lines[(*path, key)]
                raise ConfigError(f"{self._at(key_node)}: key {key!r} is given twice, first in line {first}; keep one")
            self.parsed.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.Node) -> Plain:
        kind = node.tag.rpartition(":")[2]
        try:
            return _CONSTRUCT[kind](node.value)
        except (KeyError, ValueError) as err:  # a tag that does not fit, or a number of thousands of digits
            raise ConfigError(f"{self._at(node)}: {node.value[:40]!r} is no {kind}") from err

    def _at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"


def _int(text: str) -> int:
    return int(text, 0 if text[:2] in ("0x", "0o") else 10)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_CONSTRUCT: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": _int,
    "float": _float,
    "str": str,
}


def dump_value(value: Plain) -> str:
    """A scalar or a list on one line, so that `parse_value` gives it back."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")
