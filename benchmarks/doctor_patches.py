"""Data sets of small pictures that are cut out of large photos; those of one photo are a group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Read", "cells", "fruits", "membrane", "nuclei", "photos_of", "places", "small"]

SIDE = 16
ALIKE = 0.9  # correlation of two photos in small, from which on one is a copy of the other

Read = tuple[np.ndarray, np.ndarray, np.ndarray]  # images, labels, groups
Box = tuple[float, float, float, float]  # left, top, right, bottom


def small(picture: Image.Image, channels: int) -> np.ndarray:
    """A picture in 16 x 16 pixels, `(channels, 16, 16)` in [0, 1].

    Args:
        picture: of any size.
        channels: 3 for colours, 1 for grey.
    """
    from PIL import Image

    reduced = picture.convert("RGB" if channels == 3 else "L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(reduced, dtype=np.float32) / 255
    return values.transpose(2, 0, 1) if channels == 3 else values[None]


def photos_of(files: Sequence[Path]) -> list[int]:
    """The group of each photo: a number of its own, but copies of one photo, or nearly, share theirs."""
    from PIL import Image

    reduced = [
        np.asarray(Image.open(file).convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float32).ravel()
        for file in files
    ]
    level = np.stack([(one - one.mean()) / max(float(one.std()), 1e-6) for one in reduced])
    alike = level @ level.T / level.shape[1] > ALIKE
    groups = list(range(len(files)))
    for first, second in np.argwhere(np.triu(alike, 1)).tolist():
        old, new = groups[second], groups[first]
        groups = [new if group == old else group for group in groups]
    return groups


def cells(data: Path) -> Read:
    """Crops of annotated cells: at most 360 of each of the three classes, two of a photo."""
    from PIL import Image

    from clearsight.data.read import read_dataset

    dataset = read_dataset(data / "bccd")
    images, labels, groups, taken = [], [], [], [0] * len(dataset.classes)
    photos = photos_of([record.image for record in dataset.records])
    for number, record in zip(photos, dataset.records, strict=True):
        photo = Image.open(record.image)
        here = [0] * len(dataset.classes)
        for item in record.objects:
            left, top, right, bottom = item.box
            if taken[item.label] >= 360 or here[item.label] >= 2 or right - left < 4 or bottom - top < 4:
                continue
            taken[item.label] += 1
            here[item.label] += 1
            images.append(small(photo.crop((int(left), int(top), int(right), int(bottom))), 3))
            labels.append(item.label)
            groups.append(number)
    return np.stack(images), np.array(labels), np.array(groups)


def membrane(data: Path) -> Read:
    """Patches of slices: whether there is much membrane at their centre, or none at all."""
    from PIL import Image

    images, labels, groups = [], [], []
    for number in range(30):
        folder = data / "membrane"
        slice_ = np.asarray(Image.open(folder / "image" / f"{number}.png").convert("L"))
        cell = np.asarray(Image.open(folder / "label" / f"{number}.png").convert("L")) > 127
        of_slice = 0
        for top in range(0, 480, 32):
            for left in range(0, 480, 32):
                share = 1 - cell[top + 10 : top + 22, left + 10 : left + 22].mean()
                if (share > 0.35 or share == 0) and of_slice < 48:
                    patch = Image.fromarray(slice_[top : top + 32, left : left + 32])
                    images.append(small(patch, 1))
                    labels.append(int(share > 0))
                    groups.append(number)
                    of_slice += 1
    return np.stack(images), np.array(labels), np.array(groups)


def _microscope(data: Path) -> Iterator[tuple[int, Image.Image, np.ndarray]]:
    """Group, photo and numbers of nuclei of each image."""
    from PIL import Image

    files = sorted((data / "nuclei" / "images").glob("*.png"))
    for number, file in zip(photos_of(files), files, strict=True):
        yield number, Image.open(file).convert("L"), np.asarray(Image.open(data / "nuclei" / "instances" / file.name))


def nuclei(data: Path) -> Read:
    """Patches around a nucleus, and as many without any; the contrast of each is stretched, as most photos are dark."""
    images, labels, groups = [], [], []
    for number, photo, numbers in _microscope(data):
        sides = [_stretched(photo, spots) for spots in (_empty_spots(numbers), _nucleus_spots(numbers))]
        count = min(20, *map(len, sides))
        for label, patches in enumerate(sides):
            images += patches[:count]
            labels += [label] * count
            groups += [number] * count
    return np.stack(images), np.array(labels), np.array(groups)


def places(data: Path) -> Read:
    """In which of nine places of a patch the one nucleus lies that has its centre there; each nucleus once."""
    images, labels, groups = [], [], []
    draws = np.random.default_rng(0)
    for number, photo, numbers in _microscope(data):
        centres = _centres(numbers)
        found = [one for centre in centres if (one := _placed(photo, centre, centres, draws)) is not None][:40]
        images += [patch for patch, _ in found]
        labels += [label for _, label in found]
        groups += [number] * len(found)
    return np.stack(images), np.array(labels), np.array(groups)


def _placed(
    photo: Image.Image,
    centre: tuple[float, float],
    centres: Sequence[tuple[float, float]],
    draws: np.random.Generator,
) -> tuple[np.ndarray, int] | None:
    """A patch of 40 pixels around a nucleus, and where that is in it; None where others' centres are in each."""
    for place in draws.permutation(9).tolist():
        aims = centre[0] - 12 * (place % 3 - 1), centre[1] - 12 * (place // 3 - 1)
        left, top = (round(aim - 20 + draws.uniform(-2.5, 2.5)) for aim in aims)
        inside = 0 <= left <= photo.width - 40 and 0 <= top <= photo.height - 40
        alone = sum(left <= x < left + 40 and top <= y < top + 40 for x, y in centres) == 1
        patch = _stretched(photo, [(left, top)], side=40) if inside and alone else []
        if patch:
            return patch[0], place
    return None


def _stretched(photo: Image.Image, corners: Sequence[tuple[int, int]], *, side: int = 32) -> list[np.ndarray]:
    """Patches from their corners in small, from 0 to 1 each; those that hold nothing are left out."""
    patches = [small(photo.crop((left, top, left + side, top + side)), 1) for left, top in corners]
    return [(one - one.min()) / np.ptp(one) for one in patches if np.ptp(one) > 3 / 255]


def _empty_spots(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Corners of patches without any nucleus, in no order; they do not overlap."""
    height, width = numbers.shape
    spots = [
        (left, top)
        for top in range(0, height - 31, 32)
        for left in range(0, width - 31, 32)
        if not numbers[top : top + 32, left : left + 32].any()
    ]
    return [spots[place] for place in np.random.default_rng(0).permutation(len(spots))]


def _centres(numbers: np.ndarray) -> list[tuple[float, float]]:
    """Column and row of the middle of each nucleus."""
    pixels = [np.nonzero(numbers == number) for number in range(1, int(numbers.max()) + 1)]
    return [(float(columns.mean()), float(rows.mean())) for rows, columns in pixels if len(rows)]


def _nucleus_spots(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Corners of patches around nuclei whose centres are 16 pixels apart, inside the photo."""
    height, width = numbers.shape
    spots: list[tuple[int, int]] = []
    for column, row in _centres(numbers):
        left, top = round(column) - 16, round(row) - 16
        inside = 0 <= left <= width - 32 and 0 <= top <= height - 32
        if inside and all(max(abs(left - x), abs(top - y)) >= 16 for x, y in spots):
            spots.append((left, top))
    return spots


def fruits(data: Path) -> Read:
    """Of each of three kinds of fruit the whole and its quarters, and patches of background; 1,000 in 18 photos."""
    from PIL import Image

    from clearsight.data.read import read_dataset

    dataset = read_dataset(data / "fruits")
    images, labels, groups = [], [], []
    photos = photos_of([record.image for record in dataset.records])
    for number, record in zip(photos, dataset.records, strict=True):
        photo = Image.open(record.image)
        found: list[tuple[Box, int]] = []
        for item in record.objects:
            left, top, right, bottom = item.box
            x, y = (left + right) / 2, (top + bottom) / 2
            found += [(box, item.label) for box in ((left, top, right, bottom), (left, top, x, y), (x, top, right, y))]
            found += [(box, item.label) for box in ((left, y, x, bottom), (x, y, right, bottom))]
        found += [(box, len(dataset.classes)) for box in _free([item.box for item in record.objects], photo.size)]
        for box, label in found:
            images.append(small(photo.crop(box), 3))
            labels.append(label)
            groups.append(number)
    return np.stack(images), np.array(labels), np.array(groups)


def _free(taken: Sequence[Box], size: tuple[int, int]) -> list[Box]:
    """At most 14 boxes of 80 pixels that touch none of those that are taken."""
    boxes = [(x, y, x + 80, y + 80) for y in range(0, size[1] - 79, 80) for x in range(0, size[0] - 79, 80)]
    free = [
        box
        for box in boxes
        if all(box[2] < one[0] or one[2] < box[0] or box[3] < one[1] or one[3] < box[1] for one in taken)
    ]
    return [free[place] for place in np.random.default_rng(0).permutation(len(free))[:14]]
