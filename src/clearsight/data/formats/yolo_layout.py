"""Where a YOLO data set keeps its names, images, labels and splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from clearsight.data.files import IMAGE_SUFFIXES, list_images, read_text
from clearsight.types import Finding, Severity

__all__ = ["Layout", "find_layout", "find_yaml", "label_path"]

_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "names.txt")
_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NOT_SPLITS = frozenset({"channels", "download", "flip_idx", "kpt_shape", "names", "nc", "path"})


@dataclass(kw_only=True)
class Layout:
    """What was found before any label is read.

    Args:
        root: folder that the data lies in.
        names: class name by the number that label files use; empty where nothing names them.
        images: the images of each split, in order; the key None for images without one.
        lists: the list files that were read.
        extra: further keys of `data.yaml`.
    """

    root: Path
    names: dict[int, str] = field(default_factory=dict)
    images: dict[str | None, list[Path]] = field(default_factory=dict)
    lists: list[Path] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


def find_yaml(folder: Path) -> Path | None:
    """`data.yaml`, else the first YAML file of the folder that names classes."""
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda file: (file.stem != "data", file.name))
    for file in files:
        with file.open("rb") as opened:
            if b"names" in opened.read(1 << 16):
                return file
    return None


def label_path(image: Path) -> Path:
    """The label file of an image: the last folder `images` on its way becomes `labels`; else it lies beside it."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() == "images":
            parallel = Path(*parts[:place], "labels" if parts[place] == "images" else "Labels", *parts[place + 1 :])
            parallel = parallel.with_suffix(".txt")
            beside = image.with_suffix(".txt")
            return beside if beside.is_file() and not parallel.is_file() else parallel
    return image.with_suffix(".txt")


def find_layout(path: Path, findings: list[Finding]) -> Layout:
    """Read `data.yaml`, or where there is none the files of names and the folders.

    Args:
        path: a YAML file, or the folder of the data set.
        findings: whatever is odd is added here.
    """
    folder = path.parent if path.is_file() else path
    file = path if path.is_file() else find_yaml(path)
    layout = Layout(root=folder)
    content = _load(file, findings) if file is not None else {}
    if file is not None and content:
        layout.root = _base(content.get("path"), file, findings)
        layout.names = _names(content, file, findings)
        _splits_of_yaml(layout, content, file, findings)
    if not layout.names:
        layout.names = _names_of_file(folder, findings)
    if not layout.images:
        _splits_of_folders(layout, findings)
    return layout


def _load(file: Path, findings: list[Finding]) -> dict[str, Any]:
    where, problem = str(file), "the file holds no keys"
    try:
        content = yaml.safe_load(read_text(file, findings))
        if isinstance(content, dict):
            return {str(key): value for key, value in content.items()}
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 1
        where, problem = f"{file}:{line}", f"no valid YAML: {err.problem}"
    except (yaml.YAMLError, OSError, RecursionError, ValueError) as err:
        problem = f"cannot be read: {err}"
    findings.append(_finding("unreadable-annotation", "error", where, problem, "folders and files of names are used"))
    return {}


def _base(said: object, file: Path, findings: list[Finding]) -> Path:
    if said is None or said == "":
        return file.parent
    base = file.parent / str(said)
    if base.is_dir():
        return base
    text = f"path: {said!r} is no folder here"
    findings.append(_finding("missing-folder", "info", str(file), text, "the file's own folder is used"))
    return file.parent


def _names(content: dict[str, Any], file: Path, findings: list[Finding]) -> dict[int, str]:
    said = content.get("names")
    names: dict[int, str] = {}
    if isinstance(said, list):
        names = {number: str(name) for number, name in enumerate(said)}
    elif isinstance(said, dict) and all(str(key).isdigit() for key in said):
        names = {int(key): str(said[key]) for key in sorted(said, key=lambda key: int(key))}
    elif said is not None:
        text = f"names is {said!r:.60}, expected a list, or names by number"
        findings.append(_finding("json-type", "error", str(file), text, "other sources of names are used"))
    count = content.get("nc")
    if not names and isinstance(count, int):
        names = {number: f"class_{number}" for number in range(count)}
    elif isinstance(count, int) and count != len(names) and names:
        text = f"nc is {count}, but {len(names)} classes are named"
        findings.append(_finding("class-count", "warning", str(file), text, "the names are used"))
    gaps = sorted(set(range(max(names, default=0))) - set(names))
    if gaps:
        text = f"class numbers skip {', '.join(map(str, gaps[:12]))}; labels count on from 0"
        findings.append(_finding("id-gap", "info", str(file), text, "renumbered; the numbers come back on writing"))
    return names


def _names_of_file(folder: Path, findings: list[Finding]) -> dict[int, str]:
    usual = [folder / name for name in (*_NAME_FILES, "labels/classes.txt")]
    for file in [*usual, *sorted(folder.glob("*.names"))]:
        if file.is_file():
            lines = [line.strip() for line in read_text(file, findings).splitlines()]
            return dict(enumerate(line for line in lines if line))
    return {}


def _splits_of_yaml(layout: Layout, content: dict[str, Any], file: Path, findings: list[Finding]) -> None:
    for key, value in content.items():
        entries = value if isinstance(value, list) else [value]
        texts = [entry for entry in entries if isinstance(entry, str) and entry]
        known = key in _SPLIT_NAMES
        places = [_resolve(entry, layout.root, file.parent) for entry in texts]
        if key in _NOT_SPLITS or not (known or any(places)):
            if key not in ("path", "names", "nc"):
                layout.extra[key] = value
            continue
        if value is None:
            continue
        images: list[Path] = []
        for entry, place in zip(texts, places, strict=True):
            if place is None:
                text = f"{key}: {entry!r} is neither a folder nor a list file"
                findings.append(_finding("missing-folder", "error", f"{file}#{key}", text, "left out"))
            else:
                images += _images_of(place, layout, findings)
        if not images:
            text = f"split {key!r} has no images"
            findings.append(_finding("empty-split", "warning", f"{file}#{key}", text, "no such split"))
        layout.images[_SPLIT_NAMES.get(key, key)] = images


def _resolve(entry: str, root: Path, beside: Path) -> Path | None:
    """A path of `data.yaml`; leading `../` that lead nowhere are passed over, as exports with them are common."""
    inner = entry
    while inner.startswith("../"):
        inner = inner[3:]
    for candidate in (root / entry, beside / entry, root / inner, beside / inner):
        if candidate.is_dir() or (candidate.is_file() and candidate.suffix.lower() == ".txt"):
            return candidate
    return None


def _images_of(place: Path, layout: Layout, findings: list[Finding]) -> list[Path]:
    if place.is_dir():
        return list_images(place)
    layout.lists.append(place)
    return list(_images_of_list(place, layout.root, findings))


def _images_of_list(file: Path, root: Path, findings: list[Finding]) -> Iterator[Path]:
    seen: set[str] = set()
    for number, line in enumerate(read_text(file, findings).splitlines(), 1):
        said = line.strip().replace("\\", "/")
        if not said:
            continue
        where = f"{file}:{number}"
        if said in seen:
            findings.append(_finding("duplicate-file-name", "warning", where, f"{said!r} is listed twice", "used once"))
            continue
        seen.add(said)
        image = _listed(said, file.parent, root)
        if image is None:
            text = f"the image {said!r} was not found"
            findings.append(_finding("missing-image", "error", where, text, "dropped"))
        else:
            yield image


def _listed(said: str, beside: Path, root: Path) -> Path | None:
    parts = PurePosixPath(said).parts
    inner = "/".join(parts[parts.index("images") :]) if "images" in parts else parts[-1]  # a path of another machine
    for candidate in (beside / said, root / said, root / inner, root / "images" / inner):
        if candidate.is_file():
            return candidate
        for suffix in {candidate.suffix.lower(), candidate.suffix.upper()}:
            if candidate.with_suffix(suffix).is_file():
                return candidate.with_suffix(suffix)
    return None


def _splits_of_folders(layout: Layout, findings: list[Finding]) -> None:
    """Without `data.yaml`: list files at the root, else folders `images/train` or `train/images`, else no splits."""
    for name, split in _SPLIT_NAMES.items():
        file = layout.root / f"{name}.txt"
        if file.is_file() and _lists_images(file):
            layout.images.setdefault(split, []).extend(_images_of(file, layout, findings))
    if layout.images:
        return
    for image in list_images(layout.root):
        parts = [part.lower() for part in image.relative_to(layout.root).parts[:-1]]
        split = next((_SPLIT_NAMES[part] for part in parts if part in _SPLIT_NAMES), None)
        layout.images.setdefault(split, []).append(image)


def _lists_images(file: Path) -> bool:
    with file.open("rb") as opened:
        lines = opened.read(4096).decode("utf-8", "replace").split("\n")
    return any(Path(line.strip()).suffix.lower() in IMAGE_SUFFIXES for line in lines)


def _finding(id_: str, severity: Severity, where: str, text: str, action: str) -> Finding:
    return Finding(id=id_, severity=severity, where=where, explanation=text, action=action)
