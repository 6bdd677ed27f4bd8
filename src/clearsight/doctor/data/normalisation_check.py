"""Whether the statistics that images are normalised with are those of the images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clearsight.data.image_header import read_header
from clearsight.data.normalisation import Statistics, fixed_statistics
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.split_rows import split_rows
from clearsight.doctor.rule import Rule
from clearsight.errors import DataError
from clearsight.types import Finding, Record, Severity

__all__ = ["NormalisationMismatch"]

Floats = NDArray[np.float64]
_HEADERS = 20  # files that are asked for their depth
_REMEDY = {"data.normalize": "data"}


class NormalisationMismatch(Rule[DataEvidence]):
    """What a network would be given is far from mean 0 and deviation 1.

    Plain [0, 1] data and ImageNet's statistics on other photos are off as well, and train as well: only what is off by
    far is a warning.

    Args:
        offset: times its deviation that a normalised channel's mean may be off zero; a warning where it is off by as
            many units, too.
        smallest: deviation of a normalised channel below which it is nearly lost.
        largest: deviation above which it drowns the others.
    """

    id = "normalisation-mismatch"
    source = (
        "LeCun et al. 1998, Efficient BackProp, section 4.3; Schoop et al. 2021, UMLAUT, doi:10.1145/3411764.3445538"
    )

    def __init__(self, *, offset: float = 3.0, smallest: float = 0.05, largest: float = 20.0) -> None:
        self.offset, self.smallest, self.largest = offset, smallest, largest

    def lacks(self, evidence: DataEvidence) -> str:
        """Statistics, or a recipe that says which."""
        if evidence.statistics is None and evidence.recipe is None:
            return "a recipe or statistics"
        if _mode(evidence) == "percentile":
            return "statistics of unchanged images: each is stretched by its own percentiles"
        return "" if len(_rows(evidence)) else "an image that can be read"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for statistics that cannot be right; else for channels they do not fit and for constant ones."""
        unfit = self._unfit(evidence)
        if unfit is not None:
            yield unfit
            return
        rows = _rows(evidence)
        mean, std = _measured(evidence.scan.mean[rows], evidence.scan.std[rows])
        channels = min(3, _channels(evidence))
        constant = [channel for channel in range(channels) if std[channel] < 0.5 / 255]
        if constant:
            yield self._constant(constant, mean, std)
        statistics = _planned(evidence)
        if statistics is not None:
            varied = [channel for channel in range(min(channels, len(statistics.mean))) if channel not in constant]
            off = list(self._compare(evidence, statistics, mean, std, varied))
            yield from off or self._grey(evidence)

    def _compare(
        self, evidence: DataEvidence, statistics: Statistics, mean: Floats, std: Floats, channels: Sequence[int]
    ) -> Iterable[Finding]:
        """Channels after normalisation."""
        planned = np.array(statistics.std)[: len(mean)]
        size = len(planned)
        middle = (mean[:size] - np.array(statistics.mean)[:size]) / planned
        spread = std[:size] / planned
        far = [c for c in channels if abs(middle[c]) > self.offset * max(1.0, float(spread[c]))]
        lost = [c for c in channels if not self.smallest <= spread[c] <= self.largest]
        mild = [c for c in channels if abs(middle[c]) > self.offset * spread[c]]
        pretrained = evidence.recipe is not None and evidence.recipe.model.weights is not None
        if not far and not lost and (not mild or pretrained):
            return
        severity: Severity = "warning" if far or lost else "info"
        worst = max(far or lost or mild, key=lambda c: abs(middle[c]) / spread[c] + abs(math.log(spread[c])))
        remedy = _REMEDY if evidence.recipe is not None and _mode(evidence) != "data" else {}
        weights = " Published weights were made for images nearer to these statistics."
        yield Finding(
            id=self.id,
            severity=severity,
            where="data.normalize",
            explanation=(
                f"After normalisation (`{statistics.mode}`) channel {worst} has mean {middle[worst]:.2f} and deviation "
                f"{spread[worst]:.3g}; 0 and 1 are meant, and a mean within {self.offset:g} deviations of 0 and a "
                f"deviation of {self.smallest:g} to {self.largest:g} are near enough.{weights if pretrained else ''}"
            ),
            evidence={
                "row": "P8",
                "mode": statistics.mode,
                "mean": [round(float(value), 4) for value in middle],
                "std": [round(float(value), 4) for value in spread],
                "image_mean": [round(float(value), 4) for value in mean[:size]],
                "image_std": [round(float(value), 4) for value in std[:size]],
                "planned_mean": list(statistics.mean),
                "planned_std": list(statistics.std),
                "channels": sorted({*far, *lost, *mild}),
                "threshold": [self.offset, self.smallest, self.largest],
            },
            remedy=remedy,
            source=self.source,
        )

    def _constant(self, constant: Sequence[int], mean: Floats, std: Floats) -> Finding:
        which = f"Channel {constant[0]} is" if len(constant) == 1 else f"Channels {', '.join(map(str, constant))} are"
        return Finding(
            id=self.id,
            severity="warning" if len(constant) == 3 else "info",
            where="data.channels",
            explanation=(
                f"{which} the same in all images and at every pixel, so nothing can be learned from it: look whether "
                "it was lost when the images were written, or give the model the others alone."
            ),
            evidence={
                "row": "P8",
                "channels": list(constant),
                "image_mean": [round(float(value), 4) for value in mean],
                "image_std": [round(float(value), 4) for value in std],
                "threshold": 0.5 / 255,
            },
            source=self.source,
        )

    def _grey(self, evidence: DataEvidence) -> Iterable[Finding]:
        """ImageNet's statistics on images that are mostly grey, without published weights that would ask for them."""
        rows = _rows(evidence)
        grey = int((evidence.scan.channels[rows] <= 2).sum())
        recipe = evidence.recipe
        if recipe is None or recipe.data.normalize != "imagenet" or recipe.model.weights or grey <= len(rows) / 2:
            return
        yield Finding(
            id=self.id,
            severity="info",
            where="data.normalize",
            explanation=(
                f"{grey:,} of {len(rows):,} images are grey, and ImageNet's mean and deviation are of colour photos: "
                "the three equal channels become different ones. Normalise by the training images."
            ),
            evidence={"row": "P8", "mode": "imagenet", "grey": grey, "images": len(rows)},
            remedy=_REMEDY,
            source=self.source,
        )

    def _unfit(self, evidence: DataEvidence) -> Finding | None:
        """ImageNet's statistics where they cannot apply: other than three channels, 16 bits."""
        recipe = evidence.recipe
        if recipe is None or recipe.data.normalize != "imagenet":
            return None
        rows = _rows(evidence)
        deep = _deep(evidence, rows)
        severity: Severity = "warning"
        if recipe.data.channels != 3:
            severity, found = "error", f"`data.channels` is {recipe.data.channels}, and training refuses to start"
        elif deep:
            found = f"images have 16 bits ({deep.name}), whose values lie elsewhere in their range"
        else:
            return None
        return Finding(
            id=self.id,
            severity=severity,
            where="data.normalize",
            explanation=(
                f"ImageNet's mean and deviation are of colour photos of 8 bits, but {found}. Normalise by the training "
                "images."
            ),
            evidence={
                "row": "P8",
                "mode": "imagenet",
                "channels": recipe.data.channels,
                "bits": 16 if deep else 8,
            },
            remedy=_REMEDY,
            source=self.source,
        )


def _mode(evidence: DataEvidence) -> str:
    if evidence.recipe is not None:
        return evidence.recipe.data.normalize
    return "" if evidence.statistics is None else evidence.statistics.mode


def _channels(evidence: DataEvidence) -> int:
    if evidence.recipe is not None:
        return evidence.recipe.data.channels
    return 3 if evidence.statistics is None else len(evidence.statistics.mean)


def _planned(evidence: DataEvidence) -> Statistics | None:
    """The statistics that will be used; None where they are yet to be measured on these very images."""
    mode = _mode(evidence)
    if evidence.statistics is not None:
        return evidence.statistics
    if mode == "unit" or (mode == "imagenet" and _channels(evidence) == 3):
        return fixed_statistics(mode, channels=_channels(evidence))
    return None


def _rows(evidence: DataEvidence) -> NDArray[np.int64]:
    """Readable training images, or all where nothing is said to be trained on."""
    return split_rows(evidence, evidence.train or evidence.dataset)


def _measured(means: Floats, stds: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of all pixels together, each image counting the same."""
    return means.mean(axis=0), np.sqrt(np.square(stds).mean(axis=0) + means.var(axis=0))


def _deep(evidence: DataEvidence, rows: NDArray[np.int64]) -> Path | None:
    """A file of 16 bits among the first; None where there is none."""
    for row in rows[:_HEADERS]:
        record = evidence.dataset.records[row]
        if _bits(record) == 16:
            return record.image
    return None


def _bits(record: Record) -> int:
    try:
        return read_header(record.image).bits
    except DataError:
        return 8
