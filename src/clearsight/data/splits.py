"""Splits that keep classes in proportion and groups whole; k folds; a check for leaks between splits."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from clearsight.data.dataset import Dataset
from clearsight.data.seeds import derive
from clearsight.data.stratify import assign_units
from clearsight.errors import ConfigError, DataError
from clearsight.recipe.schema import SplitConfig
from clearsight.types import Finding, Record

__all__ = ["SPLIT_NAMES", "choose_fractions", "find_leaks", "kfold", "name_order", "split_dataset"]

SPLIT_NAMES = ("train", "val", "test")
Method = Literal["auto", "random", "stratified", "grouped", "ordered"]


def split_dataset(dataset: Dataset, config: SplitConfig) -> Dataset:
    """Give every record without a split one of train, val and test; records that have one keep it.

    Args:
        dataset: is not changed.
        config: method, shares and seed.

    Returns:
        The data set with copies of the records. The same records in the same order and the same seed give the same
        splits. Every share above 0 gets at least one image (group), where there are as many.

    Raises:
        ConfigError: `grouped` although no record has a group.
    """
    open_ = [index for index, record in enumerate(dataset.records) if record.split is None]
    if not open_:
        return dataset
    fractions = config.fractions or choose_fractions(len(open_))
    records = list(dataset.records)
    chosen = _assign([records[i] for i in open_], len(dataset.classes), fractions, config.seed, config.method)
    for index, split in zip(open_, chosen, strict=True):
        records[index] = replace(records[index], split=SPLIT_NAMES[split])
    return replace(dataset, records=records)


def choose_fractions(images: int) -> tuple[float, float, float]:
    """Shares of train, val and test by size: 6:2:2 up to 10,000 images, 8:1:1 up to a million, 98:1:1 above.

    What matters is the number of images that are held out, not their share: a percent of a million is plenty.
    """
    if images <= 10_000:
        return (0.6, 0.2, 0.2)
    return (0.8, 0.1, 0.1) if images <= 1_000_000 else (0.98, 0.01, 0.01)


def kfold(dataset: Dataset, k: int, *, seed: int = 0, method: Method = "auto") -> list[Dataset]:
    """K copies of a data set, each with another k-th of the images as `val` and the others as `train`.

    Args:
        dataset: records whose split is `test` stay out of it and keep their split.
        k: number of folds, at least 2.
        seed: decides who is in which fold.
        method: as in `SplitConfig`.

    Raises:
        ConfigError: k below 2, or `grouped` although no record has a group.
        DataError: fewer images (groups) than folds.
    """
    if k < 2:
        raise ConfigError(f"kfold: k is {k}; expected at least 2")
    open_ = [index for index, record in enumerate(dataset.records) if record.split != "test"]
    chosen = _assign([dataset.records[i] for i in open_], len(dataset.classes), (1 / k,) * k, seed, method)
    if len(set(chosen)) < k:
        raise DataError(f"kfold: only {len(set(chosen))} of {k} folds get an image; give fewer folds or more groups")
    folds = []
    for fold in range(k):
        records = list(dataset.records)
        for index, own in zip(open_, chosen, strict=True):
            records[index] = replace(records[index], split="val" if own == fold else "train")
        folds.append(replace(dataset, records=records))
    return folds


def _assign(
    records: Sequence[Record], classes: int, fractions: Sequence[float], seed: int, method: Method
) -> list[int]:
    """The part, 0 to len(fractions) - 1, of each record."""
    if method == "auto":
        method = _best_method(records, classes)
    if method == "ordered":
        return _in_order(records, fractions)
    if method == "grouped" and all(record.group is None for record in records):
        raise ConfigError("data.split.method: grouped, but no record has a group; use auto, stratified or random")
    unit_of = _units(records, grouped=method == "grouped")
    sizes = np.bincount(unit_of)
    vectors = np.zeros((len(sizes), classes if method != "random" else 0))
    if method != "random":
        for unit, record in zip(unit_of, records, strict=True):
            np.add.at(vectors[unit], _labels(record), 1)
    rng = np.random.default_rng(derive(seed, "split"))
    parts = assign_units(sizes, vectors, fractions, rng)
    return parts[unit_of].tolist()


def _in_order(records: Sequence[Record], fractions: Sequence[float]) -> list[int]:
    """Stretches of the records by file name, so that neighbours stay together."""
    order = name_order([record.image.as_posix() for record in records])
    shares = np.asarray(fractions) * len(order)
    counts = np.floor(shares).astype(np.int64)
    counts[np.argsort(counts - shares, kind="stable")[: len(order) - counts.sum()]] += 1
    wanted = np.flatnonzero(shares)
    while len(order) >= len(wanted) and not counts[wanted].all():
        counts[counts.argmax()] -= 1
        counts[wanted[counts[wanted].argmin()]] += 1
    chosen = np.empty(len(order), dtype=np.int64)
    chosen[order] = np.repeat(np.arange(len(counts)), counts)
    return chosen.tolist()


def name_order(names: Sequence[str]) -> list[int]:
    """Positions of names in order; where they differ in numbers alone these count by value, slice 9 before slice 10.

    Names that differ in more, such as hashes, are sorted as text.
    """
    series = len({re.sub(r"\d+", "0", name) for name in names}) == 1
    keys = [[int(part) for part in re.findall(r"\d+", name)] if series else name for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def _best_method(records: Sequence[Record], classes: int) -> Method:
    if any(record.group is not None for record in records):
        return "grouped"
    labelled = classes > 1 and any(_labels(record) for record in records)
    return "stratified" if labelled else "random"


def _units(records: Sequence[Record], *, grouped: bool) -> np.ndarray:
    """What must stay together, by number: a group, or a single record that has none."""
    number: dict[Hashable, int] = {}
    keys = (("group", r.group) if grouped and r.group is not None else i for i, r in enumerate(records))
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def _labels(record: Record) -> list[int]:
    image = [] if record.label is None else [record.label]
    return image + [item.label for item in record.objects]


# ------------------------------------------------------------------------------------------------ leaks
def find_leaks(dataset: Dataset) -> list[Finding]:
    """Images that are in more than one split: the same bytes, the same group, or the same file name.

    Files are compared by size first; only those that share theirs with a file of another split are read.

    Returns:
        Findings `leak`: a warning for each set of files with the same bytes and for each group that is torn apart, and
        one information for each pair of splits that share file names (numbers that start anew in each folder are
        common, so a shared name alone proves nothing).
    """
    placed = [record for record in dataset.records if record.split is not None]
    return [*_same_bytes(placed), *_torn_groups(placed), *_same_names(placed)]


def _same_bytes(records: Sequence[Record]) -> Iterable[Finding]:
    by_size: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        try:
            by_size[record.image.stat().st_size].append(record)
        except OSError:
            continue  # missing files are another check's finding
    for alike in by_size.values():
        if len({record.split for record in alike}) < 2:
            continue
        by_content: dict[str, list[Record]] = defaultdict(list)
        for record in alike:
            by_content[_digest(record.image)].append(record)
        for same in by_content.values():
            if len({record.split for record in same}) > 1:
                places = [f"{record.image} ({record.split})" for record in same]
                yield _leak(
                    "warning", str(same[0].image), f"the same bytes in several splits: {', '.join(places)}", same
                )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


def _torn_groups(records: Sequence[Record]) -> Iterable[Finding]:
    by_group: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.group is not None:
            by_group[record.group].append(record)
    for group, members in by_group.items():
        counts = _split_counts(members)
        if len(counts) > 1:
            said = ", ".join(f"{count} in {split}" for split, count in counts.items())
            yield _leak("warning", f"group {group}", f"group {group!r} is in several splits: {said}", members)


def _same_names(records: Sequence[Record]) -> Iterable[Finding]:
    names: dict[str, set[str]] = defaultdict(set)
    for record in records:
        names[str(record.split)].add(record.image.name.lower())
    for a, b in combinations(names, 2):
        shared = sorted(names[a] & names[b])
        if shared:
            some = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
            members = [r for r in records if r.split in (a, b) and r.image.name.lower() in names[a] & names[b]]
            yield _leak("info", f"{a}, {b}", f"{len(shared)} file names are in {a} and in {b}: {some}", members)


def _split_counts(records: Sequence[Record]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        counts[str(record.split)] += 1
    return dict(counts)


def _leak(severity: Literal["warning", "info"], where: str, explanation: str, members: Sequence[Record]) -> Finding:
    return Finding(
        id="leak",
        severity=severity,
        where=where,
        explanation=explanation,
        action="kept",
        evidence={"images": len(members), "splits": _split_counts(members)},
    )
