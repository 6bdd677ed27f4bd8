"""Twelve real data sets of small pictures with a class each, for trainings of seconds; kept as one file each."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from doctor_patches import Read, cells, fruits, membrane, nuclei, places, small

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SETS", "Split", "load_set", "split_of"]

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


# ------------------------------------------------------------------------------------------------ reading
def _alone(images: np.ndarray, labels: np.ndarray) -> Read:
    """Each image for itself."""
    return images, labels, np.full(len(labels), -1)


def _digits(_: Path) -> Read:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return _alone(np.asarray(pixels).reshape(-1, 1, 8, 8) / 16, np.asarray(labels))


def _hands(data: Path) -> Iterator[tuple[Image.Image, int]]:
    """Each photo of a hand with the digit that it shows."""
    from PIL import Image

    for folder in sorted(path for path in (data / "sign_digits").iterdir() if path.is_dir()):
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in (".jpg", ".jpeg"):
                yield Image.open(file).convert("RGB"), int(folder.name)


def _signs(data: Path) -> Read:
    photos, digits = zip(*_hands(data), strict=True)
    return _alone(np.stack([small(photo, 3) for photo in photos]), np.array(digits))


def _turns(data: Path) -> Read:
    """By how many quarters a crop of half the height and width of a hand's photo was turned; each photo once."""
    photos = [photo for photo, _ in _hands(data)]
    draws = np.random.default_rng(0)
    quarters = draws.permutation(len(photos)) % 4
    images = []
    for photo, count in zip(photos, quarters, strict=True):
        left, top = draws.integers(0, (photo.width - 49, photo.height - 49))
        images.append(np.rot90(small(photo.crop((left, top, left + 50, top + 50)), 3), count, (1, 2)))
    return _alone(np.stack(images), quarters)


def _handwritten(data: Path, part: slice) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    folder = data / "mnist_t10k"
    pixels, labels = (
        np.frombuffer(gzip.decompress((folder / f"t10k-{kind}-ubyte.gz").read_bytes()), np.uint8)
        for kind in ("images-idx3", "labels-idx1")
    )
    pictures = pixels[16:].reshape(-1, 28, 28)[part]
    return np.stack([small(Image.fromarray(one), 1) for one in pictures]), labels[8:][part].astype(np.int64)


def _mnist(data: Path) -> Read:
    return _alone(*_handwritten(data, slice(MOST)))


def _parity(data: Path) -> Read:
    """Whether a digit is odd; digits that `_mnist` has not."""
    images, digits = _handwritten(data, slice(MOST, 2 * MOST))
    return _alone(images, digits % 2)


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
        yield file.name, small(Image.fromarray(level[::-1].copy()), 1)


def _spoken(data: Path) -> Read:
    """Which digit is said."""
    names, images = zip(*_recordings(data), strict=True)
    return _alone(np.stack(images), np.array([int(name[0]) for name in names]))


def _speakers(data: Path) -> Read:
    """Who says it."""
    names, images = zip(*_recordings(data), strict=True)
    speakers = [name.split("_")[1] for name in names]
    return _alone(np.stack(images), np.unique(speakers, return_inverse=True)[1])


SETS: dict[str, Callable[[Path], Read]] = {
    "digits": _digits,
    "signs": _signs,
    "cells": cells,
    "mnist": _mnist,
    "spoken": _spoken,
    "membrane": membrane,
    "nuclei": nuclei,
    "speakers": _speakers,
    "fruits": fruits,
    "turns": _turns,
    "parity": _parity,
    "places": places,
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
