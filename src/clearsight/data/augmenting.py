"""Which samples are mixed and changed, and how: every decision is drawn here, in one fixed order."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from clearsight.data.copy_paste import copy_paste
from clearsight.data.geometry import Rect
from clearsight.data.joining import soft_label
from clearsight.data.mixing import cutmix, cutout, mixup, mosaic
from clearsight.data.transforms import build_transforms
from clearsight.recipe.schema import AugmentConfig, DataConfig
from clearsight.types import Sample, Task

__all__ = ["Augmenter"]

Base = Callable[[int], Sample]


class Augmenter:
    """Random changes of training samples as a recipe asks for them; draws from torch's CPU generator only.

    Order: copies of small objects, mosaic, turns, flips with zoom and colour; then mixup or CutMix with another image
    that was changed likewise; then cutout. Mosaic and copies are for tasks with objects, CutMix is for classification.

    Args:
        augment: what to do and how often.
        data: size and channels.
        task: decides which mixes apply.
        classes: number of classes, for mixed image labels.
    """

    def __init__(self, augment: AugmentConfig, data: DataConfig, *, task: Task, classes: int) -> None:
        self.augment, self.size, self.classes = augment, data.size, classes
        self.has_objects = task in ("detection", "instance")
        self.has_label = task == "classification"
        self._transform = build_transforms(augment, data, train=True)

    def __call__(self, base: Base, index: int, n: int, *, mosaic: bool) -> Sample:
        """One augmented sample.

        Args:
            base: gives the unchanged sample of an index.
            index: which sample.
            n: number of samples, from which partners are drawn.
            mosaic: whether mosaic and mixup may happen (`close_mosaic`).
        """
        augment = self.augment
        sample = self._single(base, index, n, mosaic=mosaic)
        if mosaic and _hit(augment.mixup) and not sample_is_map(sample):
            other = self._single(base, _partner(n), n, mosaic=mosaic)
            sample = mixup(sample, other, _beta(augment.mixup_alpha), classes=self.classes)
        elif self.has_label and _hit(augment.cutmix):
            other = self._single(base, _partner(n), n, mosaic=False)
            window = _window(sample, math.sqrt(1 - _beta(augment.cutmix_alpha)))
            sample = cutmix(sample, other, window, classes=self.classes)
        if _hit(augment.cutout):
            sample = cutout(sample, _square(sample, augment.cutout_size))
        if self.has_label and (augment.mixup or augment.cutmix) and sample.label is not None:
            # All labels of a run have one form, whether this one was mixed or not.
            sample = sample.with_(label=soft_label(sample.label, self.classes))
        return sample

    def _single(self, base: Base, index: int, n: int, *, mosaic: bool) -> Sample:
        sample = self._with_copies(base(index))
        if mosaic and self.has_objects and _hit(self.augment.mosaic):
            sample = self._mosaic([sample, *(self._with_copies(base(_partner(n))) for _ in range(3))])
        return self._transform(sample)

    def _with_copies(self, sample: Sample) -> Sample:
        return copy_paste(sample) if self.has_objects and _hit(self.augment.copy_paste) else sample

    def _mosaic(self, samples: list[Sample]) -> Sample:
        height, width = self.size
        down, right, *sizes = torch.rand(6).tolist()
        centre = round((0.3 + 0.4 * down) * height), round((0.3 + 0.4 * right) * width)
        # Between half, where four images just fill the canvas, and full size, where a quarter of each is seen.
        scales = [0.5 * 2**value for value in sizes]
        return mosaic(samples, size=self.size, centre=centre, scales=scales)


def sample_is_map(sample: Sample) -> bool:
    """Whether the target is a semantic map alone, which cannot be blended."""
    return sample.semantic is not None and sample.instances is None


def _hit(probability: float) -> bool:
    """A draw that is made only where the change is on, so that switching one off does not move the others' draws."""
    return probability > 0 and float(torch.rand(())) < probability


def _partner(n: int) -> int:
    return int(torch.randint(n, ()))


def _beta(alpha: float) -> float:
    two = torch.distributions.Gamma(torch.full((2,), alpha), torch.ones(2)).sample()
    total = float(two.sum())
    return float(two[0]) / total if total > 0 else 0.5


def _window(sample: Sample, side: float) -> Rect:
    """A window of the image's shape, its sides `side` of the image's, about a random point; it may reach out."""
    height, width = sample.image.shape[-2:]
    return _about(sample, round(height * side), round(width * side))


def _square(sample: Sample, share: float) -> Rect:
    side = round(min(sample.image.shape[-2:]) * share)
    return _about(sample, side, side)


def _about(sample: Sample, height: int, width: int) -> Rect:
    down, right = torch.rand(2).tolist()
    top = int(down * sample.image.shape[-2]) - height // 2
    left = int(right * sample.image.shape[-1]) - width // 2
    return Rect(top, left, top + height, left + width)
