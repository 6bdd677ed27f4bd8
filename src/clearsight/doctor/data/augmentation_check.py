"""Whether random changes leave labels true: augmented copies against the images that they were made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from clearsight.data.augmenting import Augmenter
from clearsight.data.decode import read_image
from clearsight.data.geometry import plain
from clearsight.data.samples import SampleSet
from clearsight.data.seeds import draws
from clearsight.doctor.data.accuracy_drop import FOLDS, accuracy_drop, known_classes
from clearsight.doctor.data.class_collisions import class_collisions
from clearsight.doctor.data.crop_features import describe_crop
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.rule import Rule
from clearsight.errors import DataError
from clearsight.recipe.schema import AugmentConfig, Recipe
from clearsight.types import Finding, Sample

__all__ = ["OPERATIONS", "AugmentationBreaksLabel", "only"]

OPERATIONS: dict[str, Any] = {
    "flip_horizontal": 0.0,
    "flip_vertical": 0.0,
    "rotate90": 0.0,
    "rotate": 0.0,
    "zoom": None,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "cutout": 0.0,
}
"""Keys of `augment` that change one image, with the value that switches each off; mixes change the label with it."""

_KNOWN = 0.5  # of what guessing leaves to know; a classifier that knows less of the images says nothing of their copies
_TURNS = ("flip_horizontal", "flip_vertical", "rotate90", "rotate")


class AugmentationBreaksLabel(Rule[DataEvidence]):
    """Random changes after which a label is no longer true of its image: mirrored digits, objects that are cut away.

    Each operation is tried alone. For classification a classifier on features of shape and colour judges. Flips and
    turns break a label where copies look like ordinary members of another class; that a classifier is worse at turned
    images is no fault. Zoom, colour, cutout and changes of one's own (`DataEvidence.changes`) break it where a
    classifier that has learned from copies too does not know them again. For objects, those that are gone or shrunk to
    a tenth of their area are counted.

    Args:
        collide: share of flipped or turned images that pass for another class, above that of the images as they are,
            from which on it is a warning.
        drop: share of what a classifier knows, beyond guessing, that another change takes from it, from which on it is
            a warning. Shifts, noise and erased parts that train well together take up to a fifth.
        sure: lower end of its 95 % interval that is needed.
        slack: by how much the lower end of the interval of `collide` may stay below.
        accuracy: on the images themselves below which a classifier says nothing of flips and turns.
        lost: share of objects gone or shrunk from which on it is a warning.
        images: that are looked at; an eighth as many for objects.
        copies: of each.
    """

    id = "augmentation-breaks-label"
    source = "Ben Braiek and Khomh 2023, Testing feedforward neural networks training programs (DeepChecker)"

    def __init__(
        self,
        *,
        collide: float = 0.12,
        drop: float = 0.33,
        sure: float = 0.2,
        slack: float = 0.05,
        accuracy: float = 0.8,
        lost: float = 0.7,
        images: int = 320,
        copies: int = 2,
    ) -> None:
        self.collide, self.slack, self.accuracy = collide, slack, accuracy
        self.drop, self.sure = drop, sure
        self.lost, self.images, self.copies = lost, images, copies

    def lacks(self, evidence: DataEvidence) -> str:
        """A recipe for classes or objects with random changes, and training images."""
        recipe = evidence.recipe
        if evidence.train is None or not evidence.train.records or (recipe is None and not evidence.changes):
            return "a recipe and training images"
        if evidence.changes and evidence.dataset.task == "classification":
            return ""
        if recipe is None or recipe.task == "semantic" or evidence.dataset.task == "semantic":
            return "labels of images or objects"
        return "" if _active(recipe.augment) else "augmentation"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding an operation that does it alone; for objects also one for all that do it together."""
        recipe, classes = evidence.recipe, len(evidence.dataset.classes)
        if evidence.dataset.task == "classification":
            yield from self._own(evidence)
        if recipe is None or not _active(recipe.augment):
            return
        objects = recipe.task in ("detection", "instance")
        samples = _samples(evidence, recipe, self.images // 8 if objects else self.images)
        yield from self._objects(recipe, samples, classes) if objects else self._classes(recipe, samples, classes)

    # -------------------------------------------------------------------------------------------- classification
    def _classes(self, recipe: Recipe, samples: Sequence[Sample], classes: int) -> Iterable[Finding]:
        labels = np.array([sample.label for sample in samples], dtype=np.int64)
        kept = np.flatnonzero(np.bincount(labels, minlength=classes)[labels] >= FOLDS)
        samples, labels = [samples[at] for at in kept.tolist()], labels[kept]
        if len(np.unique(labels)) < 2:
            return
        raw = np.stack([_describe(sample) for sample in samples])
        accuracy = known_classes(raw, labels).mean()
        for key in _active(recipe.augment):
            if key in _TURNS and accuracy < self.accuracy:
                continue
            alone = only(recipe.augment, key)
            if key in _TURNS and key != "rotate":
                alone = alone.model_copy(update={key: 1.0})  # of those that are turned at all
            changed = [_augmented(recipe, alone, samples, classes, epoch) for epoch in range(self.copies)]
            copies = np.stack([[_describe(sample) for sample in copy] for copy in changed])
            where, remedy = f"augment.{key}", {f"augment.{key}": OPERATIONS[key]}
            judge = self._collided if key in _TURNS else self._lost
            yield from judge(where, raw, copies, labels, remedy)

    def _own(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Changes of one's own, of the images as they are in their files."""
        images, labels = _read(evidence, self.images) if evidence.changes else ([], np.empty(0, np.int64))
        if len(np.unique(labels)) < 2:
            return
        raw = np.stack([_shape_and_colour(image) for image in images])
        for name, change in evidence.changes.items():
            copies = [[_shape_and_colour(change(image.copy())) for image in images] for _ in range(self.copies)]
            yield from self._lost(f"changes.{name}", raw, np.stack([np.stack(copy) for copy in copies]), labels, {})

    def _collided(
        self, where: str, raw: np.ndarray, copies: np.ndarray, labels: np.ndarray, remedy: dict[str, Any]
    ) -> Iterable[Finding]:
        found = class_collisions(raw, copies, labels)
        if found.excess < self.collide or found.least < self.collide - self.slack:
            return
        text = (
            f"{100 * found.copies:.0f} % of the images that {where} changes look like ordinary images of another "
            f"class, of the images as they are {100 * found.raw:.0f} %: their label is then wrong; switch it off"
        )
        numbers = {"accuracy": found.accuracy, "copies": found.copies, "raw": found.raw, "least": found.least}
        yield self._finding(where, text, {**numbers, "threshold": self.collide}, len(labels), remedy)

    def _lost(
        self, where: str, raw: np.ndarray, copies: np.ndarray, labels: np.ndarray, remedy: dict[str, Any]
    ) -> Iterable[Finding]:
        found = accuracy_drop(raw, copies, labels)
        if found.known < _KNOWN or found.lost < self.drop or found.least < self.sure:
            return
        text = (
            f"After {where} alone a classifier knows the class of {100 * found.augmented:.0f} % of the copies, "
            f"though it has learned from such copies too; of the images as they are it knows {100 * found.raw:.0f} %. "
            "Little of the label is left to see: make the change weaker or switch it off"
        )
        numbers = {
            "accuracy": found.raw,
            "accuracy_of_copies": found.augmented,
            "guessing": found.chance,
            "lost": found.lost,
            "least": found.least,
        }
        yield self._finding(where, text, {**numbers, "threshold": self.drop}, len(labels), remedy)

    def _finding(
        self, where: str, text: str, numbers: dict[str, float], images: int, remedy: dict[str, Any]
    ) -> Finding:
        return Finding(
            id=self.id,
            severity="warning",
            where=where,
            explanation=text,
            action="trains all the same",
            evidence={"row": "D10", **{name: round(value, 4) for name, value in numbers.items()}, "images": images},
            remedy=remedy,
            source=self.source,
        )

    # -------------------------------------------------------------------------------------------- objects
    def _objects(self, recipe: Recipe, samples: Sequence[Sample], classes: int) -> list[Finding]:
        def of(augment: AugmentConfig) -> tuple[float, float]:
            shares = [
                _hidden(samples, _augmented(recipe, augment, samples, classes, epoch)) for epoch in range(self.copies)
            ]
            lost, shrunk = np.mean(shares, axis=0).tolist()
            return lost, shrunk

        if not sum(len(sample.instances or ()) for sample in samples):
            return []
        whole = of(only(recipe.augment, *OPERATIONS))
        if sum(whole) < self.lost:
            return []
        alone = {key: of(only(recipe.augment, key)) for key in _active(recipe.augment)}
        worst = max(alone, key=lambda key: sum(alone[key]))
        single = sum(alone[worst]) >= self.lost
        lost, shrunk = alone[worst] if single else whole
        return [
            Finding(
                id=self.id,
                severity="warning",
                where=f"augment.{worst}" if single else "augment",
                explanation=(
                    f"{'This change alone takes' if single else 'All random changes together take'} "
                    f"{100 * lost:.0f} % of the objects out of the image and leave {100 * shrunk:.0f} % of them less "
                    "than a tenth of their area: little is left to learn from; make it weaker or switch it off"
                ),
                action="trains all the same",
                evidence={
                    "row": "D10",
                    "lost": round(lost, 4),
                    "shrunk": round(shrunk, 4),
                    "threshold": self.lost,
                    "images": len(samples),
                    "alone": {key: round(sum(shares), 4) for key, shares in alone.items()},
                },
                remedy={f"augment.{worst}": OPERATIONS[worst]},
                source=self.source,
            )
        ]


def only(augment: AugmentConfig, *keys: str) -> AugmentConfig:
    """The same with no other operation than these, and no mixes.

    Args:
        augment: of a recipe.
        *keys: of `OPERATIONS`.
    """
    off = {key: value for key, value in OPERATIONS.items() if key not in keys}
    return augment.model_copy(update={**off, "mosaic": 0.0, "mixup": 0.0, "cutmix": 0.0, "copy_paste": 0.0})


def _active(augment: AugmentConfig) -> list[str]:
    return [key for key, off in OPERATIONS.items() if getattr(augment, key) not in (off, 0.0)]


def _samples(evidence: DataEvidence, recipe: Recipe, most: int) -> list[Sample]:
    """Training images before any random change, drawn evenly; those that cannot be read are left out."""
    if evidence.train is None:
        return []
    wanted = recipe.task == "classification"
    records = [record for record in evidence.train.records if (record.label is not None) == wanted]
    if not records:
        return []
    order = np.sort(np.random.default_rng(0).permutation(len(records))[:most])
    chosen = replace(evidence.train, records=[records[at] for at in order.tolist()])
    samples = SampleSet(chosen, data=recipe.data, task=recipe.task)
    found = []
    for index in range(len(samples)):
        try:
            found.append(samples.base(index))
        except DataError:
            continue  # damaged files are another rule's finding
    return found


def _read(evidence: DataEvidence, most: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Training images `(h, w, c)` uint8 as their files have them, drawn evenly, of classes with enough; and labels."""
    records = [record for record in (evidence.train.records if evidence.train else []) if record.label is not None]
    images, labels = [], []
    for at in np.sort(np.random.default_rng(0).permutation(len(records))[:most]).tolist():
        try:
            image = read_image(records[at].image)
        except DataError:
            continue  # damaged files are another rule's finding
        images.append((image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image)
        labels.append(records[at].label)
    found = np.array(labels, np.int64)
    kept = np.flatnonzero(np.bincount(found, minlength=1)[found] >= FOLDS) if len(found) else found
    return [images[position] for position in kept], found[kept]


def _augmented(
    recipe: Recipe, augment: AugmentConfig, samples: Sequence[Sample], classes: int, seed: int
) -> list[Sample]:
    """A changed copy of each; objects have their number in the place of their label, by which they are known again."""
    numbered = [
        sample
        if sample.instances is None
        else replace(sample, instances=replace(sample.instances, labels=torch.arange(len(sample.instances))))
        for sample in samples
    ]
    augmenter = Augmenter(augment, recipe.data, task=recipe.task, classes=classes)
    copies = []
    for index in range(len(samples)):
        with draws(seed, "augmentation-check", index):
            copies.append(augmenter(numbered.__getitem__, index, len(samples), mosaic=False))
    return copies


def _describe(sample: Sample) -> np.ndarray:
    """Shape and colour of the whole image, without its size."""
    return _shape_and_colour(plain(sample.image).permute(1, 2, 0).numpy())


def _shape_and_colour(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return describe_crop(pixels[..., :1] if pixels.shape[2] == 2 else pixels)[:-3]


def _hidden(samples: Sequence[Sample], copies: Sequence[Sample]) -> tuple[float, float]:
    """Share of the objects that are gone, and of those that are there with less than a tenth of their area."""
    total = gone = shrunk = 0
    for sample, copy in zip(samples, copies, strict=True):
        if sample.instances is None or copy.instances is None:
            continue
        before, after = (_areas(one.boxes) for one in (sample.instances, copy.instances))
        total, gone = total + len(before), gone + len(before) - len(after)
        shrunk += int((after < 0.1 * before[copy.instances.labels.numpy()]).sum())
    return gone / max(total, 1), shrunk / max(total, 1)


def _areas(boxes: torch.Tensor) -> np.ndarray:
    corners = plain(boxes).numpy().astype(np.float64).reshape(-1, 2, 2)
    return (corners[:, 1] - corners[:, 0]).prod(axis=1)
