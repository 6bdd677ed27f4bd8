"""Six real data sets of small pictures with a class each, for trainings of seconds; kept as one file each."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
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


def _cells(data: Path) -> Read:
    """Crops of annotated cells: at most 360 of each of the three classes, two of a photo."""
    from PIL import Image

    from clearsight.data.read import read_dataset

    dataset = read_dataset(data / "bccd")
    images, labels, groups, taken = [], [], [], [0] * len(dataset.classes)
    for number, record in enumerate(dataset.records):
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


def _spoken(data: Path) -> Read:
    """Log spectrograms of spoken digits, time across and frequency up."""
    from PIL import Image
    from scipy import signal
    from scipy.io import wavfile

    images, labels = [], []
    for file in sorted((data / "spoken_digits").glob("*.wav")):
        rate, wave = wavfile.read(file)
        _, _, power = signal.spectrogram(wave.astype(np.float64), rate, nperseg=128, noverlap=64)
        level = np.log(power[:48] + 1.0)
        level = (255 * (level - level.min()) / max(float(np.ptp(level)), 1e-9)).astype(np.uint8)
        images.append(_small(Image.fromarray(level[::-1].copy()), 1))
        labels.append(int(file.name[0]))
    return _alone(np.stack(images), np.array(labels))


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


SETS: dict[str, Callable[[Path], Read]] = {
    "digits": _digits,
    "signs": _signs,
    "cells": _cells,
    "mnist": _mnist,
    "spoken": _spoken,
    "membrane": _membrane,
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
