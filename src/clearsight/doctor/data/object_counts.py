"""How many objects images have: far more or fewer than others, none at all, more than can be found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.object_statistics import OddObject, tail_distance
from clearsight.doctor.rule import Rule
from clearsight.types import Finding, Object

__all__ = ["ImagesWithoutObjects", "OddObjectCount", "TooManyObjects"]

_LISTED = 20


class OddObjectCount(Rule[DataEvidence]):
    """Images with far more or far fewer objects than the others: often half annotated.

    Args:
        times: the median number, up or down, that an odd image has at least.
        distance: smallest `tail_distance` of the logarithm.
        images: fewest images with objects that allow a judgement.
    """

    id = "odd-object-count"
    source = OddObject.source

    def __init__(self, *, times: float = 5.0, distance: float = 4.0, images: int = 30) -> None:
        self.times, self.distance, self.images = times, distance, images

    def lacks(self, evidence: DataEvidence) -> str:
        """Enough images with objects."""
        few = int((_counts(evidence) > 0).sum()) < self.images
        return _no_objects(evidence) or (f"{self.images} images with objects" if few else "")

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for the set, the worst images first."""
        counts = _counts(evidence)
        there = np.flatnonzero(counts)
        logs = np.log(counts[there])
        middle = float(np.median(counts[there]))
        far = np.abs(tail_distance(logs))
        odd = there[(far > self.distance) & (np.abs(logs - math.log(middle)) > math.log(self.times))]
        if not len(odd):
            return
        distance = dict(zip(there.tolist(), far.tolist(), strict=True))
        odd = np.array(sorted(odd.tolist(), key=lambda row: -distance[row]))
        files = [str(evidence.dataset.records[row].image) for row in odd[:_LISTED]]
        yield Finding(
            id=self.id,
            severity="info",
            where=files[0],
            explanation=(
                f"{_some(len(odd), 'image')} of {len(there):,} with objects {'has' if len(odd) == 1 else 'have'} more "
                f"than {self.times:g} times as many, or as few, as the median of {middle:g}: the first has "
                f"{counts[odd[0]]}. Look whether all of their objects are annotated, and none twice."
            ),
            evidence={
                "row": "M5",
                "median": middle,
                "threshold": self.times,
                "distance": self.distance,
                "files": files,
                "counts": counts[odd[:_LISTED]].tolist(),
                "count": len(odd),
            },
            source=self.source,
        )


class ImagesWithoutObjects(Rule[DataEvidence]):
    """A large share of the images has no object: background on purpose, or annotations that are missing.

    Args:
        share: of the images, from which it is worth saying.
    """

    id = "images-without-objects"
    source = "Oksuz et al. 2020, Imbalance problems in object detection, arXiv:1909.00169"

    def __init__(self, *, share: float = 0.3) -> None:
        self.share = share

    def lacks(self, evidence: DataEvidence) -> str:
        """Objects."""
        return _no_objects(evidence)

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for the set."""
        records = evidence.dataset.records
        empty = [record for record in records if not record.objects]
        share = len(empty) / len(records)
        if share < self.share:
            return
        yield Finding(
            id=self.id,
            severity="info",
            where=str(evidence.dataset.root),
            explanation=(
                f"{share:.0%} of the images ({len(empty):,} of {len(records):,}) have no annotated object. As "
                "background that is fine, and keeps false alarms down; if objects are to be seen on them, they teach "
                "the model not to find any."
            ),
            evidence={
                "row": "M5",
                "share": share,
                "threshold": self.share,
                "files": [str(record.image) for record in empty[:_LISTED]],
                "count": len(empty),
            },
        )


class TooManyObjects(Rule[DataEvidence]):
    """Images have more objects than detections are kept: the rest cannot be found, whatever the model does.

    Args:
        lost: share of all objects that cannot be found, above which it is a warning.
    """

    id = "more-objects-than-detections"
    source = "Lin et al. 2014, arXiv:1405.0312 (a limit of 100 detections an image)"

    def __init__(self, *, lost: float = 0.01) -> None:
        self.lost = lost

    def lacks(self, evidence: DataEvidence) -> str:
        """A recipe, and objects."""
        if evidence.recipe is None:
            return "a recipe"
        if evidence.recipe.task not in ("detection", "instance"):
            return "a model that finds objects"
        return _no_objects(evidence)

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for the set."""
        recipe = evidence.recipe
        if recipe is None:
            return
        counts, limit = _counts(evidence), recipe.eval.max_detections
        above = np.flatnonzero(counts > limit)
        if not len(above):
            return
        above = above[np.argsort(-counts[above], kind="stable")]
        missed, largest = int((counts[above] - limit).sum()), int(counts[above[0]])
        share = missed / int(counts.sum())
        yield Finding(
            id=self.id,
            severity="warning" if share > self.lost else "info",
            where="eval.max_detections",
            explanation=(
                f"{_some(len(above), 'image')} {'has' if len(above) == 1 else 'have'} more objects than the "
                f"{limit} detections that are kept of each, up to {largest}: {missed:,} objects ({share:.1%} of all) "
                "cannot be found, whatever the model does."
            ),
            evidence={
                "row": "M5",
                "limit": limit,
                "largest": largest,
                "lost": missed,
                "share": share,
                "threshold": self.lost,
                "files": [str(evidence.dataset.records[row].image) for row in above[:_LISTED]],
                "counts": counts[above[:_LISTED]].tolist(),
                "count": len(above),
            },
            remedy={"eval.max_detections": -(-largest * 3 // 100) * 50},  # half as many again, in fifties
            source=self.source,
        )


def _counts(evidence: DataEvidence) -> NDArray[np.int64]:
    """Objects of each image that can be found or missed."""
    return np.array([_counted(record.objects) for record in evidence.dataset.records], np.int64)


def _counted(objects: Sequence[Object]) -> int:
    return sum(not (item.crowd or item.difficult) for item in objects)


def _no_objects(evidence: DataEvidence) -> str:
    return "" if any(record.objects for record in evidence.dataset.records) else "objects"


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
