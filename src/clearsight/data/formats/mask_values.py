"""What the values of semantic masks mean: class numbers, or black and white; and which of them cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clearsight.data.class_map import IGNORED, THRESHOLD
from clearsight.data.files import printable
from clearsight.types import Finding, Severity

__all__ = ["MaskLook", "are_binary", "class_pixels", "default_names", "empty_classes", "judge_mask"]

SHARP = 0.99
"""Share of 0 and 255 from which a mask with soft edges is plainly black and white."""
_GREY, _BRIGHT = 0.5, 0.1


class MaskLook(NamedTuple):
    """What a mask holds: its values ascending, how often each, and whether they are palette indices."""

    values: np.ndarray
    counts: np.ndarray
    palette: bool


def are_binary(looks: Sequence[MaskLook], named: int) -> bool:
    """Whether the grey masks of a data set are black and white, soft edges included.

    They are where 255 occurs and all else is 0. Where there are other values, and not more than two classes are named,
    they are if 0 and 255 make up half of all pixels or more and at least a tenth of the others lies from 128 up, which
    is so around soft edges and not with class numbers. Where two classes are named, they also are if 99 % are 0 or 255
    and there is no 1.

    Args:
        looks: of all masks.
        named: classes that have names; 0 where nothing names them.
    """
    total = _total([look for look in looks if not look.palette])
    found = np.flatnonzero(total)
    others = found[(found != 0) & (found != IGNORED)]
    if len(total) <= IGNORED or not total[IGNORED]:
        return False
    if not len(others):
        return True
    if named not in (0, 2) or not total[0] or others[-1] > IGNORED:
        return False
    between = int(total[1:IGNORED].sum())
    share = 1 - between / int(total.sum())
    if total[THRESHOLD:IGNORED].sum() >= _BRIGHT * between:
        return share >= _GREY
    return named == 2 and share >= SHARP and not total[1]


def default_names(looks: Sequence[MaskLook], *, binary: bool) -> tuple[str, ...]:
    """Names of classes that nothing names."""
    if binary:
        return ("background", "foreground")
    highest = max((int(look.values[look.values < IGNORED].max(initial=0)) for look in looks), default=0)
    return tuple(f"class {number}" for number in range(highest + 1))


def judge_mask(look: MaskLook, path: Path, names: Sequence[str], *, binary: bool, named: bool) -> list[Finding]:
    """What is wrong with one mask, or worth knowing; after an error it cannot be used.

    Args:
        look: the mask.
        path: for messages.
        names: of the classes.
        binary: as `are_binary` says.
        named: whether something names the classes: then grey values of a black and white mask can be no class numbers.
    """
    soft = binary and not look.palette
    faults = _soft(look, path, named=named) if soft else _unknown_values(look, path, names)
    if any(finding.severity == "error" for finding in faults):
        return faults
    return faults + _uniform(class_pixels(look, len(names), binary=binary), int(look.counts.sum()), path, names)


def class_pixels(look: MaskLook, count: int, *, binary: bool) -> np.ndarray:
    """Pixels of each class in a mask, `(count,)`; ignored ones are left out."""
    if binary and not look.palette:
        white = int(look.counts[look.values >= THRESHOLD].sum())
        return np.array([int(look.counts.sum()) - white, white])
    known = look.values < min(count, IGNORED)
    return np.bincount(look.values[known], weights=look.counts[known], minlength=count).astype(np.int64)


def empty_classes(
    pixels: Sequence[np.ndarray], splits: Sequence[str | None], names: Sequence[str], root: Path, *, named: bool
) -> list[Finding]:
    """Classes that no mask has, in all or in one split.

    Args:
        pixels: of each class, a mask each.
        splits: of each mask.
        names: of the classes.
        root: for messages.
        named: whether something names the classes; else those that are missing are told together.
    """
    if not pixels:
        return []
    table = np.stack(pixels) > 0
    there = table.any(axis=0)
    missing = np.flatnonzero(~there).tolist()
    findings = []
    if missing and not named:
        numbers = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
        text = (
            f"no mask has the values {numbers}, but there are higher ones, and nothing names the classes; name them "
            "(classes.txt, data.classes), or number them from 0 on without gaps"
        )
        findings.append(_finding("empty-class", "warning", str(root), text, "kept", classes=missing))
    elif missing:
        findings += [_empty(names[label], str(root), "in any mask") for label in missing]
    for split in dict.fromkeys(name for name in splits if name is not None):
        gone = np.flatnonzero(there & ~table[[one == split for one in splits]].any(axis=0)).tolist()
        where = f"{root} (split {split})"
        findings += [_empty(names[label], where, f"in split {split!r}") for label in gone]
    return findings


def _finding(fault: str, severity: Severity, where: str, text: str, action: str, **evidence: Any) -> Finding:
    return Finding(id=fault, severity=severity, where=where, explanation=text, action=action, evidence=evidence)


def _empty(name: str, where: str, place: str) -> Finding:
    text = f"class {name!r} has no pixel {place}: nothing can be learned or measured; add some, or remove the class"
    return _finding("empty-class", "warning", where, text, "kept", **{"class": name})


def _total(looks: Sequence[MaskLook]) -> np.ndarray:
    """How often each value occurs in all masks."""
    total = np.zeros(max((int(look.values[-1]) + 1 for look in looks if len(look.values)), default=0), np.int64)
    for look in looks:
        total[look.values] += look.counts
    return total


def _unknown_values(look: MaskLook, path: Path, names: Sequence[str]) -> list[Finding]:
    unknown = (look.values >= len(names)) & (look.values != IGNORED)
    if not unknown.any():
        return []
    values, counts = look.values[unknown].tolist(), look.counts[unknown].tolist()
    shown = ", ".join(f"{value} ({count})" for value, count in zip(values[:5], counts, strict=False))
    text = (
        f"{sum(counts)} pixels have values without a class, {shown}{', …' if len(values) > 5 else ''}; there are "
        f"classes 0 to {len(names) - 1}, and 255 for ignored; name all classes, or correct the mask"
    )
    evidence = {"values": values[:50], "counts": counts[:50], "pixels": sum(counts)}
    return [_finding("unknown-class", "error", printable(path), text, "image dropped", **evidence)]


def _soft(look: MaskLook, path: Path, *, named: bool) -> list[Finding]:
    between = (look.values != 0) & (look.values != IGNORED)
    pixels = int(look.counts[between].sum())
    if not pixels:
        return []
    share = pixels / int(look.counts.sum())
    low, high = look.values[between][[0, -1]].tolist()
    what = f"{pixels} pixels ({share:.2%}) of a black and white mask have grey values, {low} to {high}"
    evidence = {"pixels": pixels, "share": round(share, 6), "lowest": low, "highest": high}
    if named or share <= 1 - SHARP:
        text = f"{what}: its edges are soft, as after resizing or lossy compression; save it with 0 and 255 alone"
        action = f"{THRESHOLD} and more read as 255, the rest as 0"
        return [_finding("soft-mask", "warning", printable(path), text, action, **evidence)]
    text = (
        f"{what}, too many to be sure that these are soft edges and not class numbers; name two classes (classes.txt, "
        f"data.classes) to have {THRESHOLD} and more read as 255, or save it with 0 and 255 alone"
    )
    finding = _finding("soft-mask", "error", printable(path), text, "image dropped", **evidence)
    return [replace(finding, remedy={"data.classes": ["background", "foreground"]})]


def _uniform(pixels: np.ndarray, total: int, path: Path, names: Sequence[str]) -> list[Finding]:
    there = np.flatnonzero(pixels)
    if len(there) > 1 or len(names) < 2 or not total:
        return []
    if not len(there):
        text = "every pixel is ignored (255), so nothing can be learned or measured here; remove the image, or label it"
        return [_finding("uniform-mask", "warning", printable(path), text, "kept")]
    name, ignored = names[int(there[0])], total - int(pixels.sum())
    rest = f", and {ignored / total:.1%} are ignored" if ignored else ""
    text = f"every counted pixel is {name!r}{rest}; right if there is nothing else to be seen"
    return [_finding("uniform-mask", "info", printable(path), text, "kept", **{"class": name, "ignored": ignored})]
