"""Images and maps of pixels that lie in folders side by side, paired by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from clearsight.data.files import list_images, printable
from clearsight.data.formats.folder_names import SPLIT_FOLDERS, folders_of
from clearsight.types import Finding

__all__ = ["IMAGE_FOLDERS", "Pair", "find_pairs", "has_pairs"]

IMAGE_FOLDERS = frozenset({"image", "images", "img", "imgs", "jpegimages", "photos"})
"""Names, in lower case, of folders with the images themselves."""
_ENDINGS = ("_mask", "_label", "_labels", "_seg", "_gt", "_instances")


class Pair(NamedTuple):
    """An image and its map."""

    image: Path
    map: Path
    split: str | None


def _sides(root: Path, map_folders: Collection[str]) -> list[tuple[str | None, Path, Path]]:
    """Split, folder of images and folder of maps; below the root or below folders named as splits."""
    found = []
    tops: list[tuple[str | None, Path]] = [(None, root)]
    tops += [(SPLIT_FOLDERS[one.name.lower()], one) for one in folders_of(root) if one.name.lower() in SPLIT_FOLDERS]
    for split, top in tops:
        inside = folders_of(top)
        images = [one for one in inside if one.name.lower() in IMAGE_FOLDERS]
        maps = [one for one in inside if one.name.lower() in map_folders]
        if images and maps:
            found.append((split, images[0], maps[0]))
    return found


def has_pairs(root: Path, map_folders: Collection[str]) -> bool:
    """Whether there is a folder of images beside one of maps that holds image files too."""
    return any(list_images(images) and list_images(maps) for _, images, maps in _sides(root, map_folders))


def find_pairs(root: Path, map_folders: Collection[str], findings: list[Finding]) -> list[Pair]:
    """Every image with its map, sorted; what has no partner is told and dropped.

    A map has its image's name, whatever the suffix, or that name with `_mask`, `_label`, `_seg`, `_gt` or `_instances`
    after it. Folders inside both sides must agree; those named as splits are splits.
    """
    pairs = []
    for split, image_folder, map_folder in _sides(root, map_folders):
        maps: dict[str, list[Path]] = defaultdict(list)
        for path in list_images(map_folder):
            maps[_key(path, map_folder)].append(path)
        used: set[str] = set()
        for image in list_images(image_folder):
            key = _key(image, image_folder)
            choices = [key, *(key + ending for ending in _ENDINGS)]
            fitting = next((name for name in choices if name in maps), None)
            if fitting is None or fitting in used or len(maps[fitting]) > 1:
                findings.append(_without_map(image, maps.get(fitting or "", []), map_folder))
                continue
            used.add(fitting)
            inner = image.relative_to(image_folder).parts[0].lower()
            pairs.append(Pair(image, maps[fitting][0], split or SPLIT_FOLDERS.get(inner)))
        findings += [_without_image(path, image_folder) for key in maps.keys() - used for path in maps[key]]
    findings.sort(key=lambda finding: finding.where)
    return pairs


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix().lower()


def _without_map(image: Path, maps: list[Path], folder: Path) -> Finding:
    if len(maps) > 1:
        text = f"several maps could be meant ({', '.join(path.name for path in maps)}); keep one"
    elif maps:
        text = f"its map {maps[0].name} belongs to another image already; give every image a map of its own"
    else:
        text = f"there is no map of this name in {printable(folder)}; an image on which nothing is seen needs one too"
    fault = "duplicate-file-name" if maps else "image-without-label"
    return Finding(id=fault, severity="error", where=printable(image), explanation=text, action="image dropped")


def _without_image(path: Path, folder: Path) -> Finding:
    text = f"there is no image of this name in {printable(folder)}"
    return Finding(id="missing-image", severity="error", where=printable(path), explanation=text, action="map dropped")
