"""Rules on data, and the peers for data, on the images of a small training: written as files, as a user has them."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clearsight.data.dataset import Dataset
from clearsight.data.read import read_dataset
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.rules import RULES
from clearsight.doctor.data.scan import scan_dataset
from clearsight.doctor.rule import examine
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe
from clearsight.types import Finding
from doctor_data import Split
from doctor_setup import Setup
from doctor_training import augmented

__all__ = ["check_data", "peers_on_data"]

# Random changes of the benchmark → keys of a recipe's `augment`.
_AUGMENT = {"turn": "augment.rotate90=1.0", "flip": "augment.flip_vertical=0.5"}
_OFF = (
    "augment.flip_horizontal=0", "augment.flip_vertical=0", "augment.rotate90=0", "augment.rotate=0",
    "augment.zoom=null", "augment.brightness=0", "augment.contrast=0", "augment.cutout=0",
)  # fmt: skip


def check_data(split: Split, folder: Path, setup: Setup) -> list[Finding]:
    """What all rules on data find in a split.

    Args:
        split: as it is trained on, with its faults.
        folder: where its images are written; left for `peers_on_data`.
        setup: whose random changes are looked at.
    """
    dataset = _written(split, folder)
    evidence = DataEvidence(
        dataset=dataset,
        train=dataset.split("train"),
        val=dataset.split("val"),
        test=None,
        recipe=_recipe(folder, split, setup),
        changes=_changes(split, setup),
    )
    vars(evidence)["scan"] = scan_dataset(dataset, workers=1, cache=folder / "scan")
    return examine(RULES, evidence).findings


def _recipe(folder: Path, split: Split, setup: Setup) -> Recipe:
    height, width = split.images.shape[2:]
    changes = [_AUGMENT[name] for name in setup.augment if name in _AUGMENT]
    size = [f"data.root={folder}", f"data.size=[{height},{width}]"]
    return load_recipe("digits", [*size, *_OFF, *changes])


def _changes(split: Split, setup: Setup) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Random changes that no key of a recipe stands for, all in one, as the loop makes them of normalised images."""
    names = tuple(name for name in setup.augment if name not in _AUGMENT)
    mean, std = (
        torch.from_numpy(measure(split.images, axis=(0, 2, 3), keepdims=True)) for measure in (np.mean, np.std)
    )
    draws = np.random.default_rng(0)

    def change(pixels: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
        changed = augmented((image - mean) / std, names, draws) * std + mean
        return (255 * changed[0]).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()

    return {" and ".join(names): change} if names else {}


def _written(split: Split, folder: Path) -> Dataset:
    from PIL import Image

    shutil.rmtree(folder, ignore_errors=True)
    parts = {"train": (split.images, split.labels), "val": (split.val_images, split.val_labels)}
    for part, (images, labels) in parts.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / part / f"class{label:02d}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(np.round(255 * image), 0, 255).astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(place / f"{number:05d}.png")
    return read_dataset(folder)


# ------------------------------------------------------------------------------------------------ peers
def peers_on_data(split: Split, folder: Path) -> dict[str, Any]:
    """What cleanlab and cleanvision say of the same files; they are removed.

    cleanlab is given out-of-sample probabilities of a logistic regression on pixels, as in its tutorials, and alarms
    where its estimate of wrong labels exceeds 3 %; cleanvision alarms where one of its default issues is found.

    Args:
        split: as it is trained on.
        folder: as `check_data` left it.
    """
    try:
        return {"cleanlab": _cleanlab(split), "cleanvision": _cleanvision(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cleanlab(split: Split) -> dict[str, Any]:
    from cleanlab.count import estimate_joint
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    classes, labels = np.unique(split.labels, return_inverse=True)
    if len(classes) < 2 or np.bincount(labels).min() < 5:
        return {"alarm": False, "ids": [], "note": "fewer than five examples of a class"}
    model = LogisticRegression(max_iter=100)
    given = cross_val_predict(model, split.images.reshape(len(labels), -1), labels, cv=5, method="predict_proba")
    wrong = 1 - float(np.trace(estimate_joint(labels, np.asarray(given))))
    return {"alarm": wrong > 0.03, "ids": ["label-error"] if wrong > 0.03 else [], "value": round(wrong, 4)}


_VISION = {
    "exact_duplicates": "near-duplicate",
    "near_duplicates": "near-duplicate",
    "low_information": "constant-image",
    "dark": "odd-image",
    "light": "odd-image",
    "blurry": "odd-image",
    "odd_size": "odd-image",
    "odd_aspect_ratio": "odd-image",
    "grayscale": "odd-image",
}


def _cleanvision(folder: Path) -> dict[str, Any]:
    from cleanvision import Imagelab  # pyright: ignore[reportMissingImports]

    with _quiet():
        lab = Imagelab(data_path=str(folder))
        lab.find_issues(n_jobs=1)
    counts = dict(zip(lab.issue_summary["issue_type"], lab.issue_summary["num_images"], strict=True))
    found = sorted(name for name, count in counts.items() if count)
    return {"alarm": bool(found), "ids": sorted({_VISION.get(name, name) for name in map(str, found)}), "value": found}


@contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
