"""digit-scenes: data for every task that needs no download, made of scikit-learn's real handwritten digits.

Layout of the folder: `images/`, `annotations/instances_{train,val,test}.json` (COCO, boxes tight to the visible ink,
polygons, run lengths where a digit has holes), `instances/` (0 is background, i + 1 is object i), `semantic/` (0 is
background, digit + 1) and `scenes.json`, which says how they were made.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from clearsight.data.dataset import Dataset
from clearsight.data.digit_rendering import Scene, digit_images, draw_scene
from clearsight.data.files import write_text
from clearsight.data.formats import coco
from clearsight.data.seeds import derive
from clearsight.errors import DataError, RangeError
from clearsight.ops.contours import polygon_area
from clearsight.ops.masks import mask_to_box, mask_to_rle
from clearsight.ops.outlines import mask_to_polygons
from clearsight.types import Object, Record

__all__ = ["CLASSES", "SPLITS", "cache_folder", "read_digit_scenes", "write_digit_scenes"]

CLASSES = tuple("0123456789")
SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}
"""Shares of the scenes and, separately, of each class's handwritten digits."""
_VERSION = 1  # raise it whenever other pixels come out, so that folders made before are not taken for these
_SMALLEST = 48


def read_digit_scenes(
    root: str | Path | None = None, *, scenes: int = 600, seed: int = 0, size: tuple[int, int] = (128, 128)
) -> Dataset:
    """The data set, written first where it is not there yet.

    Args:
        root: folder that holds generated data; None takes `cache_folder()`.
        scenes: number of images, at least 3.
        seed: another seed gives other scenes and other splits of the digits.
        size: `(height, width)`.

    Returns:
        A data set of task `instance` with splits train, val and test; records also have `semantic` and `instance_map`.

    Raises:
        RangeError: as `write_digit_scenes`.
        DataError: as `write_digit_scenes`.
    """
    parent = cache_folder() if root is None else Path(root)
    folder = write_digit_scenes(parent / _name(scenes, seed, size), scenes=scenes, seed=seed, size=size)
    dataset = coco.read(folder, classes=CLASSES)
    for record in dataset.records:
        record.semantic = folder / "semantic" / record.image.name
        record.instance_map = folder / "instances" / record.image.name
    dataset.format = "digit_scenes"
    return dataset


def write_digit_scenes(out: str | Path, *, scenes: int, seed: int, size: tuple[int, int] = (128, 128)) -> Path:
    """Write the scenes of a seed; a folder that holds just these is left as it is.

    No handwritten digit appears in two splits. The folder is made under another name and renamed when complete, so that
    a stopped run leaves nothing half done.

    Args:
        out: the folder to make.
        scenes: number of images, at least 3 (one a split).
        seed: decides everything.
        size: `(height, width)` of the images, each at least 48.

    Returns:
        `out` as a path.

    Raises:
        RangeError: too few scenes, or too small.
        DataError: the folder holds something else, or cannot be written.
    """
    if scenes < len(SPLITS) or min(size) < _SMALLEST:
        raise RangeError(
            f"digit-scenes: {scenes} scenes of {size[0]}×{size[1]} pixels; expected at least {len(SPLITS)} scenes of "
            f"{_SMALLEST}×{_SMALLEST}"
        )
    out = Path(out)
    settings = {"version": _VERSION, "scenes": scenes, "seed": seed, "size": list(size)}
    if _is_complete(out, settings):
        return out
    _refuse_foreign(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as err:
        raise DataError(
            f"{out}: cannot be written ({err}); set CLEARSIGHT_CACHE or data.root to another folder"
        ) from err
    try:
        _write_all(part, scenes=scenes, seed=seed, size=size)
        write_text(part / "scenes.json", json.dumps(settings, indent=1) + "\n")
        _swap(part, out, settings)
    except OSError as err:
        raise DataError(f"{out}: could not be written: {err}; free some space or choose another folder") from err
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def cache_folder() -> Path:
    """Where generated data lives: `$CLEARSIGHT_CACHE`, else the platform's cache folder."""
    given = os.environ.get("CLEARSIGHT_CACHE")
    if given:
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "clearsight" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "clearsight"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearsight"


def _name(scenes: int, seed: int, size: tuple[int, int]) -> str:
    return f"digit-scenes-{scenes}-{size[0]}x{size[1]}-seed{seed}"


# ------------------------------------------------------------------------------------------------ the folder
def _is_complete(folder: Path, settings: dict[str, object]) -> bool:
    try:
        found = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
        images = sum(1 for _ in (folder / "images").iterdir())
    except (OSError, ValueError):
        return False
    return found == settings and images == settings["scenes"]


def _refuse_foreign(folder: Path) -> None:
    """Only a folder that this module made may be replaced."""
    if not folder.exists() or (folder.is_dir() and ((folder / "scenes.json").is_file() or not any(folder.iterdir()))):
        return
    raise DataError(f"{folder}: exists and does not hold digit-scenes; choose a folder that is empty or new")


def _swap(part: Path, out: Path, settings: dict[str, object]) -> None:
    """Put the finished folder in place; another process that was faster with the same settings wins."""
    part.chmod(0o755)  # mkdtemp makes folders private
    if out.exists() and not _is_complete(out, settings):
        shutil.rmtree(out)
    try:
        part.rename(out)
    except OSError:
        if not _is_complete(out, settings):
            raise


def _write_all(folder: Path, *, scenes: int, seed: int, size: tuple[int, int]) -> None:
    for name in ("images", "instances", "semantic"):
        (folder / name).mkdir()
    counts = _scene_counts(scenes)
    pools = digit_pools(seed)
    records: list[Record] = []
    for split, count in counts.items():
        for number in range(count):
            rng = np.random.default_rng(derive(seed, "scene", split, number))
            scene = draw_scene(pools[split], size, rng)
            records.append(_write_scene(folder, f"{split}_{number:05d}.png", scene, split))
    dataset = Dataset(records=records, classes=CLASSES, task="instance", root=folder, format="digit_scenes")
    coco.write(dataset, folder)
    for file in sorted((folder / "annotations").iterdir()):
        _name_folder(file)


def _name_folder(file: Path) -> None:
    """Say `images/NAME` in a COCO file: the maps beside the images have the same names."""
    content = json.loads(file.read_text(encoding="utf-8"))
    for image in content["images"]:
        image["file_name"] = f"images/{image['file_name']}"
    write_text(file, json.dumps(content))


def _scene_counts(scenes: int) -> dict[str, int]:
    held = {split: max(1, round(scenes * share)) for split, share in SPLITS.items() if split != "train"}
    return {"train": scenes - sum(held.values()), **held}


def digit_pools(seed: int) -> dict[str, np.ndarray]:
    """Which of scikit-learn's digits each split may use: disjoint, and each class is cut in the shares of `SPLITS`."""
    labels = digit_images()[1]
    pools: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in range(len(CLASSES)):
        members = np.flatnonzero(labels == label)
        np.random.default_rng(derive(seed, "digits", label)).shuffle(members)
        ends = np.rint(np.cumsum(list(SPLITS.values())) * len(members)).astype(int)
        for split, some in zip(SPLITS, np.split(members, ends[:-1]), strict=True):
            pools[split].append(some)
    return {split: np.sort(np.concatenate(parts)) for split, parts in pools.items()}


def _write_scene(folder: Path, name: str, scene: Scene, split: str) -> Record:
    lookup = np.array([0, *(label + 1 for label in scene.labels)], dtype=np.uint8)
    for kind, pixels in (
        ("images", scene.image),
        ("instances", scene.instances),
        ("semantic", lookup[scene.instances]),
    ):
        Image.fromarray(pixels).save(folder / kind / name, compress_level=3)
    objects = []
    for number, (label, source) in enumerate(zip(scene.labels, scene.sources, strict=True)):
        mask = scene.instances == number + 1
        box = mask_to_box(mask)
        if box is None:
            raise DataError(f"{name}: digit {number} is wholly hidden")
        rings = mask_to_polygons(mask)
        holes = _has_holes(rings)
        objects.append(
            Object(
                label=label,
                box=box,
                polygons=[] if holes else rings,
                rle=mask_to_rle(mask) if holes else None,
                attributes={"digit": source},
            )
        )
    size = (scene.image.shape[0], scene.image.shape[1])
    return Record(image=folder / "images" / name, size=size, objects=objects, split=split)


def _has_holes(rings: list[np.ndarray]) -> bool:
    """Whether a ring runs the other way: COCO's polygons are united, so only run lengths can say "not here"."""
    return any(polygon_area(ring, signed=True) < 0 for ring in rings)
