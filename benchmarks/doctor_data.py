"""Nine real data sets of small pictures with a class each, for trainings of seconds; kept as one file each."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SETS", "Split", "load_set", "split_of"]

SIDE = 16
MOST = 1_200  # images of a set
VALIDATED = 0.3
ALIKE = 0.9  # correlation of two photos in small, from which on one is a copy of the other


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images to learn from and to be scored on.

    Args:
        images: `(n, c, h, w)` float32 in [0, 1].
        labels: `(n,)` int64.
        val_images: `(m, c, h, w)`.
        val_labels: `(m,)`.
        classes: how many there are.
    """

    images: np.ndarray
    labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray
    classes: int

    def select(self, kept: np.ndarray) -> Split:
        """With these training images only."""
        return replace(self, images=self.images[kept], labels=self.labels[kept])


Read = tuple[np.ndarray, np.ndarray, np.ndarray]  # images, labels, groups
Box = tuple[float, float, float, float]  # left, top, right, bottom


# ------------------------------------------------------------------------------------------------ reading
def _alone(images: np.ndarray, labels: np.ndarray) -> Read:
    """Each image for itself."""
    return images, labels, np.full(len(labels), -1)


def _digits(_: Path) -> Read:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return _alone(np.asarray(pixels).reshape(-1, 1, 8, 8) / 16, np.asarray(labels))


def _small(picture: Image.Image, channels: int) -> np.ndarray:
    from PIL import Image

    small = picture.convert("RGB" if channels == 3 else "L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32) / 255
    return values.transpose(2, 0, 1) if channels == 3 else values[None]


def _signs(data: Path) -> Read:
    from PIL import Image

    images, labels = [], []
    for folder in sorted(path for path in (data / "sign_digits").iterdir() if path.is_dir()):
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in (".jpg", ".jpeg"):
                images.append(_small(Image.open(file), 3))
                labels.append(int(folder.name))
    return _alone(np.stack(images), np.array(labels))


def _mnist(data: Path) -> Read:
    from PIL import Image

    folder = data / "mnist_t10k"
    pixels, labels = (
        np.frombuffer(gzip.decompress((folder / f"t10k-{kind}-ubyte.gz").read_bytes()), np.uint8)
        for kind in ("images-idx3", "labels-idx1")
    )
    pictures = pixels[16:].reshape(-1, 28, 28)[:MOST]
    small = np.stack([_small(Image.fromarray(one), 1) for one in pictures])
    return _alone(small, labels[8 : 8 + MOST].astype(np.int64))


def _photos(files: Sequence[Path]) -> list[int]:
    """The group of each photo: a number of its own, but copies of one photo, or nearly, share theirs."""
    from PIL import Image

    small = [
        np.asarray(Image.open(file).convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float32).ravel()
        for file in files
    ]
    level = np.stack([(one - one.mean()) / max(float(one.std()), 1e-6) for one in small])
    alike = level @ level.T / level.shape[1] > ALIKE
    groups = list(range(len(files)))
    for first, second in np.argwhere(np.triu(alike, 1)).tolist():
        old, new = groups[second], groups[first]
        groups = [new if group == old else group for group in groups]
    return groups


def _cells(data: Path) -> Read:
    """Crops of annotated cells: at most 360 of each of the three classes, two of a photo."""
    from PIL import Image

    from clearsight.data.read import read_dataset

    dataset = read_dataset(data / "bccd")
    images, labels, groups, taken = [], [], [], [0] * len(dataset.classes)
    photos = _photos([record.image for record in dataset.records])
    for number, record in zip(photos, dataset.records, strict=True):
        photo = Image.open(record.image)
        here = [0] * len(dataset.classes)
        for item in record.objects:
            left, top, right, bottom = item.box
            if taken[item.label] >= 360 or here[item.label] >= 2 or right - left < 4 or bottom - top < 4:
                continue
            taken[item.label] += 1
            here[item.label] += 1
            images.append(_small(photo.crop((int(left), int(top), int(right), int(bottom))), 3))
            labels.append(item.label)
            groups.append(number)
    return np.stack(images), np.array(labels), np.array(groups)


def _recordings(data: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and log spectrogram of each recording, time across and frequency up."""
    from PIL import Image
    from scipy import signal
    from scipy.io import wavfile

    for file in sorted((data / "spoken_digits").glob("*.wav")):
        rate, wave = wavfile.read(file)
        _, _, power = signal.spectrogram(wave.astype(np.float64), rate, nperseg=128, noverlap=64)
        level = np.log(power[:48] + 1.0)
        level = (255 * (level - level.min()) / max(float(np.ptp(level)), 1e-9)).astype(np.uint8)
        yield file.name, _small(Image.fromarray(level[::-1].copy()), 1)


def _spoken(data: Path) -> Read:
    """Which digit is said."""
    names, images = zip(*_recordings(data), strict=True)
    return _alone(np.stack(images), np.array([int(name[0]) for name in names]))


def _speakers(data: Path) -> Read:
    """Who says it."""
    names, images = zip(*_recordings(data), strict=True)
    speakers = [name.split("_")[1] for name in names]
    return _alone(np.stack(images), np.unique(speakers, return_inverse=True)[1])


def _membrane(data: Path) -> Read:
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
                    images.append(_small(patch, 1))
                    labels.append(int(share > 0))
                    groups.append(number)
                    of_slice += 1
    return np.stack(images), np.array(labels), np.array(groups)


def _nuclei(data: Path) -> Read:
    """Patches around a nucleus, and as many without any; the contrast of each is stretched, as most photos are dark."""
    from PIL import Image

    images, labels, groups = [], [], []
    files = sorted((data / "nuclei" / "images").glob("*.png"))
    for number, file in zip(_photos(files), files, strict=True):
        photo = Image.open(file).convert("L")
        numbers = np.asarray(Image.open(data / "nuclei" / "instances" / file.name))
        sides = [_stretched(photo, spots) for spots in (_empty_spots(numbers), _nucleus_spots(numbers))]
        count = min(20, *map(len, sides))
        for label, patches in enumerate(sides):
            images += patches[:count]
            labels += [label] * count
            groups += [number] * count
    return np.stack(images), np.array(labels), np.array(groups)


def _stretched(photo: Image.Image, corners: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Patches of 32 pixels from their corners in small, from 0 to 1 each; those that hold nothing are left out."""
    small = [_small(photo.crop((left, top, left + 32, top + 32)), 1) for left, top in corners]
    return [(one - one.min()) / np.ptp(one) for one in small if np.ptp(one) > 3 / 255]


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


def _nucleus_spots(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Corners of patches around nuclei whose centres are 16 pixels apart, inside the photo."""
    height, width = numbers.shape
    spots: list[tuple[int, int]] = []
    for number in range(1, int(numbers.max()) + 1):
        rows, columns = np.nonzero(numbers == number)
        if not len(rows):
            continue
        left, top = round(columns.mean()) - 16, round(rows.mean()) - 16
        inside = 0 <= left <= width - 32 and 0 <= top <= height - 32
        if inside and all(max(abs(left - x), abs(top - y)) >= 16 for x, y in spots):
            spots.append((left, top))
    return spots


def _fruits(data: Path) -> Read:
    """Of each of three kinds of fruit the whole and its quarters, and patches of background; 1,000 in 18 photos."""
    from PIL import Image

    from clearsight.data.read import read_dataset

    dataset = read_dataset(data / "fruits")
    images, labels, groups = [], [], []
    photos = _photos([record.image for record in dataset.records])
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
            images.append(_small(photo.crop(box), 3))
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


SETS: dict[str, Callable[[Path], Read]] = {
    "digits": _digits,
    "signs": _signs,
    "cells": _cells,
    "mnist": _mnist,
    "spoken": _spoken,
    "membrane": _membrane,
    "nuclei": _nuclei,
    "speakers": _speakers,
    "fruits": _fruits,
}


def load_set(name: str, data: Path, cache: Path) -> Read:
    """Images `(n, c, h, w)` float32 in [0, 1], labels and groups `(n,)`; read once, then from `cache`.

    Args:
        name: key of `SETS`.
        data: folder of the real data sets.
        cache: folder for the file.
    """
    file = cache / f"{name}.npz"
    if not file.is_file():
        images, labels, groups = SETS[name](data)
        order = np.random.default_rng(0).permutation(len(images))[:MOST]
        cache.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.npz")
        pixels, numbers = images[order].astype(np.float32), labels[order].astype(np.int64)
        np.savez(part, images=pixels, labels=numbers, groups=groups[order])
        part.replace(file)
    with np.load(file) as kept:
        return kept["images"], kept["labels"], kept["groups"]


def split_of(images: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> Split:
    """Seven of ten images of each class to learn from, the others to be scored on; or of each photo, all or none.

    Args:
        images: `(n, c, h, w)`.
        labels: `(n,)`.
        groups: `(n,)` what must not be torn apart; −1 for an image of its own.
        seed: of the split.
    """
    draws = np.random.default_rng(100 + seed)
    held_out = np.zeros(len(labels), dtype=bool)
    if groups.max() >= 0:
        order = draws.permutation(np.unique(groups))
        held_out = np.isin(groups, order[: round(VALIDATED * len(order))])
    else:
        for label in np.unique(labels):
            members = draws.permutation(np.flatnonzero(labels == label))
            held_out[members[: round(VALIDATED * len(members))]] = True
    order = draws.permutation(np.flatnonzero(~held_out))
    return Split(
        images=images[order],
        labels=labels[order],
        val_images=images[held_out],
        val_labels=labels[held_out],
        classes=int(labels.max()) + 1,
    )
