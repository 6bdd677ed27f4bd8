"""Pascal VOC's lists of names: splits, and lists that overlap them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clearsight.data.files import IMAGE_SUFFIXES, ImageIndex, read_text
from clearsight.types import Finding, Record, Severity

__all__ = ["NameList", "apply_lists", "read_lists"]

_USUAL = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class NameList:
    """One file of `ImageSets/Main`: stems in file order, each with its line."""

    name: str
    path: Path
    lines: tuple[tuple[str, int], ...]

    @property
    def names(self) -> list[str]:
        """The stems."""
        return [name for name, _ in self.lines]


def read_lists(root: Path, findings: list[Finding]) -> list[NameList]:
    """All lists of `ImageSets/Main`; those of the presence of one class (`cat_train.txt`) are passed over."""
    folder = root / "ImageSets" / "Main"
    lists = []
    for path in sorted(folder.glob("*.txt")):
        lines = [(line.strip(), number) for number, line in enumerate(read_text(path, findings).splitlines(), 1)]
        lines = [(line, number) for line, number in lines if line]
        if lines and all(_tells_presence(line) for line, _ in lines):
            text = "it lists in which images one class is; the annotations say so too"
            findings.append(_finding("unsupported-file", "info", str(path), text, "not read"))
            continue
        if not lines:
            text = f"the list of split {path.stem!r} is empty"
            findings.append(_finding("empty-split", "warning", str(path), text, "no such split"))
        entries = tuple((_stem(line), number) for line, number in lines)
        lists.append(NameList(name=path.stem, path=path, lines=entries))
    return lists


def _tells_presence(line: str) -> bool:
    columns = line.split()
    return len(columns) == 2 and columns[1] in ("-1", "0", "1")


def _stem(line: str) -> str:
    name = Path(line.replace("\\", "/")).name
    return Path(name).stem if Path(name).suffix.lower() in IMAGE_SUFFIXES | {".xml"} else name


def apply_lists(
    records: list[Record], lists: list[NameList], index: ImageIndex, known: set[str], findings: list[Finding]
) -> None:
    """Give each record its split, and the names of the further lists that it is in.

    The split is `train`, `val` or `test` where one of these lists has the image, else the shortest list that has it;
    `trainval` beside `train` and `val` thus stays a list of its own.

    Args:
        records: changed in place.
        lists: as `read_lists` gives them.
        index: the images there are.
        known: stems, lower case, that have an annotation file, readable or not.
        findings: listed names without image or annotation, and images in two splits, are added here.
    """
    by_stem = {Path(record.where).stem.lower(): record for record in records}
    ranked = sorted(lists, key=lambda one: (_rank(one.name), len(one.lines), one.name))
    member: dict[int, list[str]] = {}
    for one in ranked:
        seen: set[str] = set()
        for name, line in one.lines:
            key, where = name.lower(), f"{one.path}:{line}"
            if key in seen:
                text = f"{name!r} is listed twice"
                findings.append(_finding("duplicate-file-name", "warning", where, text, "counted once"))
            elif (record := by_stem.get(key)) is not None:
                member.setdefault(id(record), []).append(one.name)
            else:
                findings.extend(_not_there(name, where, index, known))
            seen.add(key)
    for record in records:
        names = member.get(id(record), [])
        if not names:
            continue
        record.split, *others = names
        if others:
            record.attributes["lists"] = others
        if len(set(names).intersection(_USUAL)) > 1:
            text = f"the image is in {' and '.join(n for n in names if n in _USUAL)}: what is trained on is also scored"
            findings.append(_finding("leak", "warning", str(record.image), text, "kept in both"))


def _rank(name: str) -> int:
    return _USUAL.index(name) if name in _USUAL else len(_USUAL)


def _not_there(name: str, where: str, index: ImageIndex, known: set[str]) -> Iterator[Finding]:
    if name.lower() in known:
        return  # its annotation cannot be used, which is a finding already
    if index.stemmed(name):
        text = f"{name!r} has an image but no {name}.xml; an image without objects needs a file without <object>"
        yield _finding("image-without-label", "error", where, text, "dropped")
    else:
        text = f"{name!r} is listed, but there is neither an image nor an annotation of this name"
        yield _finding("missing-image", "error", where, text, "dropped")


def _finding(id_: str, severity: Severity, where: str, text: str, action: str) -> Finding:
    return Finding(id=id_, severity=severity, where=where, explanation=text, action=action)
