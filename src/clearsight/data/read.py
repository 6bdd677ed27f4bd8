"""One door to every format: what is it, what does it say, what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from clearsight.data.check import check_images, check_records, check_shapes, format_findings
from clearsight.data.dataset import Dataset
from clearsight.data.formats import FORMATS
from clearsight.errors import ConfigError, DataError, NotFound

__all__ = ["detect_format", "read_annotations", "read_dataset", "require_path"]


def read_dataset(
    path: str | Path,
    *,
    format: str = "auto",
    classes: Sequence[str] | None = None,
    strict: bool = False,
    images: Literal["header", "decode", "skip"] = "header",
) -> Dataset:
    """Read a data set and check it in one pass.

    Args:
        path: a folder, or an annotation file.
        format: `auto` looks at the files, else a key of `clearsight.data.formats.FORMATS`.
        classes: class names in label order; None takes them from the files.
        strict: refuse data with any finding of severity `error`; else drop just those items. Everything that was found
            stays in `Dataset.findings`.
        images: `header` opens every image and reads its header; `decode` decodes its pixels too, which finds what is
            cut off behind the header; `skip` believes the annotations.

    Returns:
        The data set, cleaned.

    Raises:
        NotFound: the path does not exist; the message names its nearest sibling.
        ConfigError: no such format.
        DataError: no format fits, nothing usable is left, or strict and there are errors; `findings` has all of them.

    Example:
        >>> data = read_dataset("cells/")  # doctest: +SKIP
        >>> data.split("train").counts()  # doctest: +SKIP
        {'Platelets': 209, 'RBC': 2357, 'WBC': 208}
    """
    dataset = check_records(read_annotations(path, format=format, classes=classes))
    if images != "skip":
        dataset = check_images(dataset, decode=images == "decode")
    dataset = replace(dataset, findings=[*dataset.findings, *check_shapes(dataset)])
    errors = [finding for finding in dataset.findings if finding.severity == "error"]
    if strict and errors:
        text = format_findings(errors)
        raise DataError(f"{path}: {len(errors)} errors in the data, and strict is on:\n{text}", dataset.findings)
    if not dataset.records:
        text = format_findings(dataset.findings)
        what = f"{path}: no usable image was found, read as {dataset.format}"
        raise DataError(f"{what}\n{text}".rstrip(), dataset.findings)
    return dataset


def read_annotations(path: str | Path, *, format: str = "auto", classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set exactly as its files say it: what cannot be understood is dropped, nothing is checked or clipped.

    Args:
        path: as in `read_dataset`.
        format: as in `read_dataset`.
        classes: as in `read_dataset`.

    Raises:
        NotFound: the path does not exist.
        ConfigError: no such format.
        DataError: no format fits, or a file or folder cannot be read at all.
    """
    place = require_path(path)
    try:
        name = detect_format(place) if format == "auto" else format
        if name not in FORMATS:
            known = ", ".join(FORMATS)
            raise ConfigError(f"format: {name!r} is unknown{_nearest(name, list(FORMATS))}; there are auto, {known}")
        return FORMATS[name].read(place, classes=None if classes is None else tuple(classes))
    except OSError as err:
        raise DataError(f"{place}: cannot be read: {err}") from err


def require_path(path: str | Path) -> Path:
    """The path, if it exists.

    Raises:
        NotFound: it does not; the message names the folder's nearest entry.
    """
    place = Path(path).expanduser()
    if place.exists():
        return place
    parent = place.parent
    while not parent.exists():  # the first part that is missing is the one that was mistyped
        place, parent = parent, parent.parent
    missing = "" if place == Path(path).expanduser() else f", since there is no {place}"
    entries = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    raise NotFound(
        f"{path} does not exist{missing}{_nearest(place.name, entries)}; give a folder or an annotation file"
    )


def detect_format(path: Path) -> str:
    """The format that a folder or file is in, by the signs of each in turn, the most particular ones first.

    Raises:
        DataError: none fits; or the folder is empty.
    """
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{path}: the folder is empty; expected images with their annotations")
    for name, one in FORMATS.items():
        if one.sniff(path):
            return name
    raise DataError(
        f"{path}: no known format fits; expected one of {', '.join(FORMATS)}. Name the format (data.format=…), "
        "or see docs/formats.md for how each is laid out"
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    lower = {one.lower(): one for one in known}
    near = get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f" (did you mean {lower[near[0]]!r}?)" if near else ""
