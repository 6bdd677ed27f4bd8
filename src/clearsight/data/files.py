"""Files of a data set: finding images whatever the case of their names, reading text, placing results safely."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from clearsight.types import Finding, Record

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageIndex",
    "encodable",
    "list_files",
    "list_images",
    "output_names",
    "place_image",
    "printable",
    "read_text",
    "write_bytes",
    "write_text",
]

IMAGE_SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]  # lower case
)


def list_files(folder: Path, suffixes: Iterable[str], *, recursive: bool = True) -> list[Path]:
    """Files below a folder whose suffix is listed (any case), sorted; hidden files and folders are passed over."""
    wanted = frozenset(suffixes)
    return sorted(path for path in _walk(folder, recursive=recursive) if path.suffix.lower() in wanted)


def list_images(folder: Path, *, recursive: bool = True) -> list[Path]:
    """Image files below a folder, by suffix in any case, sorted; hidden files and folders are passed over."""
    return list_files(folder, IMAGE_SUFFIXES, recursive=recursive)


def _walk(folder: Path, *, recursive: bool) -> Iterator[Path]:
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in names:
            if not name.startswith("."):
                yield Path(where, name)


class ImageIndex:
    """Finds images of a folder by name or stem; exact case first, any case after that.

    Args:
        images: the candidates, as `list_images` gives them.
    """

    def __init__(self, images: Iterable[Path]) -> None:
        self.images = list(images)
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in self.images:
            self._by_name.setdefault(path.name.lower(), []).append(path)
            self._by_stem.setdefault(path.stem.lower(), []).append(path)

    def named(self, name: str) -> list[Path]:
        """Images of this file name, those of exactly this case if there are any."""
        found = self._by_name.get(name.lower(), [])
        return [path for path in found if path.name == name] or found

    def stemmed(self, stem: str) -> list[Path]:
        """Images of this name without its suffix, those of exactly this case if there are any."""
        found = self._by_stem.get(stem.lower(), [])
        return [path for path in found if path.stem == stem] or found


def encodable(path: Path | str) -> bool:
    """Whether a file name is valid UTF-8; others cannot be written into an annotation or a report."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path | str) -> str:
    """A path as text that can always be printed: bytes that are not UTF-8 are shown as escapes."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")


def read_text(path: Path, findings: list[Finding]) -> str:
    """The text of a file: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Bytes that are not valid are read as Latin-1 and reported as `encoding-name`.

    Raises:
        OSError: the file cannot be read.
    """
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        findings.append(
            Finding(
                id="encoding-name",
                severity="warning",
                where=f"{printable(path)}:{line}",
                explanation=f"the text is not UTF-8: byte 0x{raw[err.start]:02x} in line {line}; save it as UTF-8",
                action="read as Latin-1",
            )
        )
        return raw.decode("latin-1")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; makes its folder; UTF-8, Unix line ends."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all (temporary file, then rename); makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def place_image(source: Path, target: Path) -> None:
    """Put an image at `target`: a hard link where the file system can, else a copy; never a half-written file.

    Raises:
        OSError: the source is missing or the target cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        try:
            part.hardlink_to(source.resolve(strict=True))
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def output_names(records: Iterable[Record], root: Path) -> list[str]:
    """File names for images that are written into one folder: each one's own, as long as no two would collide.

    Labels are named by stem, so `a.jpg` and `a.png` collide, as do `A.jpg` and `a.jpg` on many file systems. Those that
    collide get the folders below `root` in front, joined by `_`, and a number where that is not enough.
    """
    images = [record.image for record in records]
    seen: dict[str, int] = {}
    for path in images:
        seen[path.stem.lower()] = seen.get(path.stem.lower(), 0) + 1
    taken = {stem for stem, count in seen.items() if count == 1}
    names = []
    for path in images:
        name = path.name
        if seen[path.stem.lower()] > 1:
            name = _free_name(path, root, taken)
            taken.add(Path(name).stem.lower())
        names.append(name)
    return names


def _free_name(path: Path, root: Path, taken: set[str]) -> str:
    parts = path.relative_to(root).parent.parts if path.is_relative_to(root) else path.parent.parts[-1:]
    stem = "_".join([*parts, path.stem])
    free, number = stem, 1
    while free.lower() in taken:
        number += 1
        free = f"{stem}_{number}"
    return free + path.suffix
