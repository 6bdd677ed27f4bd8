"""Write docs/techniques.md, where each technique is, what tests it and whose it is; and docs/techniques_names.md.

    python docs/hooks/techniques.py

`docs/techniques.toml` says which public names make up a technique. Everything else is read off the source: what a name
does and which papers it follows from its docstring, its tests from the names that they use.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from package_index import Citation, Definition, Package, citations, tests_by_name

DOCS = Path(__file__).resolve().parent.parent

# Every public name below these is in a row, or in the data file's list of those that are in none, with the reason.
COMPLETE = (
    "clearsight.assign",
    "clearsight.losses",
    "clearsight.metrics.distances",
    "clearsight.metrics.information",
    "clearsight.models.backbones",
    "clearsight.models.classify",
    "clearsight.models.detect",
    "clearsight.models.necks",
    "clearsight.nn",
    "clearsight.ops",
    "clearsight.reference",
)


class Row(NamedTuple):
    """One technique."""

    id: str
    title: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Catalogue:
    """What the data file says."""

    intro: str
    names_intro: str
    groups: dict[str, str]
    rows: tuple[Row, ...]
    unlisted: dict[str, str]  # full name → why it is in no row

    @classmethod
    def read(cls, path: Path = DOCS / "techniques.toml") -> Catalogue:
        """Parse the data file; rows in the order of its groups, then by number."""
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        letters = list(data["groups"])
        rows = [Row(key, entry["title"], tuple(entry["names"])) for key, entry in data["rows"].items()]
        rows.sort(key=lambda row: (letters.index(row.id[0]), int(row.id[1:])))
        unlisted = {name: entry["reason"] for entry in data["unlisted"] for name in entry["names"]}
        return cls(data["intro"], data["names_intro"], data["groups"], tuple(rows), unlisted)


# ------------------------------------------------------------------------------------------------ page
def pages(catalogue: Catalogue, package: Package, users: dict[str, list[str]]) -> dict[str, str]:
    """The text of each page, by its name below docs/."""
    return {
        "techniques.md": techniques_page(catalogue, package, users),
        "techniques_names.md": names_page(catalogue, package),
    }


def techniques_page(catalogue: Catalogue, package: Package, users: dict[str, list[str]]) -> str:
    """A table for each group, a line for each technique."""
    jumps = " · ".join(f"[{heading}](#{_anchor(letter, heading)})" for letter, heading in catalogue.groups.items())
    parts = [f"{catalogue.intro}\n{jumps}"]
    for letter, heading in catalogue.groups.items():
        lines = [f"## {letter}. {heading}", "", "| Id | What | Names | Tests | Source |", "| --- " * 5 + "|"]
        parts.append("\n".join([*lines, *(_line(row, package, users) for row in _rows_of(letter, catalogue))]))
    return "\n\n".join(parts) + "\n"


def names_page(catalogue: Catalogue, package: Package) -> str:
    """What each name does, in alphabetical order."""
    lines = [catalogue.names_intro, "| Name | What it does | In | Id |", "| --- | --- | --- | --- |"]
    first_row = {definition(name, package): row.id for row in reversed(catalogue.rows) for name in row.names}
    for what, key in sorted(first_row.items(), key=lambda entry: (entry[0].name.lower(), entry[0].module)):
        link = f"[{key}](techniques.md#{key.lower()})"
        lines.append(f"| `{what.name}` | {in_table(what.summary)} | {_short(what.module)} | {link} |")
    return "\n".join([*lines, ""])


def _anchor(letter: str, heading: str) -> str:
    return re.sub(r"[^\w -]", "", f"{letter} {heading}").lower().replace(" ", "-")


def _line(row: Row, package: Package, users: dict[str, list[str]]) -> str:
    by_module: dict[str, list[str]] = {}
    for name in row.names:
        what = definition(name, package)
        by_module.setdefault(what.module, []).append(f"`{what.name}`")
    names = "<br>".join(
        f"[{_short(module)}](../{package.path(module)}): {', '.join(found)}" for module, found in by_module.items()
    )
    tests = "<br>".join(f"[{file.removeprefix('tests/')}](../{file})" for file in tests_of(row, users))
    sources = ";<br>".join(map(str, sources_of(row, package))) or "–"
    return f'| <a id="{row.id.lower()}"></a>{row.id} | {row.title} | {names} | {tests} | {sources} |'


def _short(module: str) -> str:
    return module.removeprefix("clearsight.")


def in_table(text: str) -> str:
    """Plain text with `code` as Markdown that no table cell breaks on."""
    parts = re.split(r"(`[^`]*`)", text)
    for place, part in enumerate(parts):
        if part.startswith("`"):
            inner = part.strip("`").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            parts[place] = f"<code>{inner.replace('|', '&#124;')}</code>" if "|" in part else part
        else:
            parts[place] = re.sub(r"([\\*_\[\]])", r"\\\1", part.replace("<", "&lt;").replace("|", "&#124;"))
    return "".join(parts)


def tests_of(row: Row, users: dict[str, list[str]]) -> list[str]:
    """Where a row is tested: for each of its names the file closest to its own."""
    return list(dict.fromkeys(users[name][0] for name in row.names if name in users))


def sources_of(row: Row, package: Package) -> list[Citation]:
    """What the docstrings of a row name, once each; where one names nothing, that of its module counts.

    A docstring may leave out an address that another of the row gives, or authors that another of the package names.
    """
    definitions = [definition(name, package) for name in row.names]
    found = [entry for what in definitions for entry in citations(what.doc) or citations(package.doc(what.module))]
    addresses = {entry.text: entry.url for entry in found if entry.url}
    kept: dict[str, Citation] = {}
    for entry in found:
        url = entry.url or addresses.get(entry.text, "")
        kept.setdefault(url or entry.text, Citation(package.authors.get(url, entry.text), url))
    return list(kept.values())


def definition(dotted: str, package: Package) -> Definition:
    """The definition of a full name of the data file.

    Raises:
        LookupError: there is no such name.
    """
    found = package.find(*dotted.rsplit(".", 1))
    if not isinstance(found, Definition):
        raise LookupError(f"{dotted}: there is no such name")
    return found


# ------------------------------------------------------------------------------------------------ faults
def faults(catalogue: Catalogue, package: Package, users: dict[str, list[str]]) -> list[str]:
    """What is wrong with the data file, each with what to do; the page is written from a faultless one only."""
    listed = list(dict.fromkeys(name for row in catalogue.rows for name in row.names))
    found = [f"group {letter}: has no row" for letter in catalogue.groups if not _rows_of(letter, catalogue)]
    found += [f"{name}: in a row and in `unlisted`; keep one" for name in listed if name in catalogue.unlisted]
    found += [fault for name in [*listed, *catalogue.unlisted] for fault in _naming_faults(name, package)]
    found += [f"{name}: no test uses it; write one" for name in listed if name not in users]
    found += [f"{name}: has no docstring; write one" for name in listed if not _summary(name, package)]
    found += [
        f"{name}: is in no row of techniques.toml; add it to one, or to `unlisted` with the reason"
        for name in public_names(package)
        if name not in listed and name not in catalogue.unlisted
    ]
    return found


def _rows_of(letter: str, catalogue: Catalogue) -> list[Row]:
    return [row for row in catalogue.rows if row.id[0] == letter]


def _naming_faults(name: str, package: Package) -> list[str]:
    what = package.find(*name.rsplit(".", 1))
    if not isinstance(what, Definition):
        return [f"{name}: there is no such name; correct techniques.toml"]
    if what.dotted != name:
        return [f"{name}: is defined as {what.dotted}; name it so in techniques.toml"]
    if what.name not in package.public(what.module):
        return [f"{name}: is not in `__all__` of {what.module}"]
    return []


def _summary(name: str, package: Package) -> str:
    what = package.find(*name.rsplit(".", 1))
    return what.doc if isinstance(what, Definition) else "told already"


def public_names(package: Package) -> list[str]:
    """Full names of everything public below `COMPLETE`, where it is defined."""
    names: dict[str, None] = {}
    for module in package.texts:
        below = any(f"{module}.".startswith(f"{room}.") for room in COMPLETE)
        if below and not any(part.startswith("_") for part in module.split(".")):
            found = (package.find(module, name) for name in package.public(module))
            names |= {what.dotted: None for what in found if isinstance(what, Definition)}
    return list(names)


def main() -> int:
    """Write the page; 1 and a list of faults where the data file does not fit the code."""
    catalogue, package = Catalogue.read(), Package(DOCS.parent)
    users = tests_by_name(package)
    wrong = faults(catalogue, package, users)
    if wrong:
        sys.stderr.write("\n".join(["docs/techniques.toml does not fit the code:", *wrong, ""]))
        return 1
    for name, text in pages(catalogue, package, users).items():
        (DOCS / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
