"""Annotated objects whose size or shape does not fit the rest of their class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["OddObject", "tail_distance"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_LISTED = 20
_BORDER = 2.0  # pixels: what touches the border is cut there, and its size says nothing


class OddObject(Rule[DataEvidence]):
    """Objects far larger, smaller or longer than others of their class, as slips of the mouse are.

    Objects are compared in log space with their own class, by the part of their image that they cover, and only where
    they are far outside the tails that the class has anyway (`tail_distance`). Objects cut by the border are left out.

    Args:
        area: times the median area, up or down, that an odd object has at least.
        aspect: times the median of width / height, likewise.
        distance: smallest `tail_distance`.
        objects: fewest objects of a class that allow a judgement.
    """

    id = "odd-object"
    source = "Iglewicz and Hoaglin 1993, How to detect and handle outliers (median and MAD), in log space"

    def __init__(self, *, area: float = 10.0, aspect: float = 5.0, distance: float = 5.0, objects: int = 30) -> None:
        self.area, self.aspect, self.distance, self.objects = area, aspect, distance, objects

    def lacks(self, evidence: DataEvidence) -> str:
        """Objects."""
        return "" if any(record.objects for record in evidence.dataset.records) else "objects"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for sizes and one for shapes, the worst objects first."""
        boxes = _boxes(evidence)
        if boxes is None:
            return
        yield from self._odd(evidence, boxes, boxes.area, "size", self.area)
        yield from self._odd(evidence, boxes, boxes.aspect, "shape", self.aspect)

    def _odd(self, evidence: DataEvidence, boxes: _Boxes, values: Floats, kind: str, times: float) -> Iterable[Finding]:
        far, ratio = np.zeros(len(values)), np.ones(len(values))
        for label in np.unique(boxes.label):
            own = boxes.label == label
            if own.sum() >= self.objects:
                logs = np.log(values[own])
                far[own], ratio[own] = np.abs(tail_distance(logs)), np.exp(np.abs(logs - np.median(logs)))
        odd = np.flatnonzero((far > self.distance) & (ratio > times))
        if not len(odd):
            return
        odd = odd[np.argsort(-far[odd], kind="stable")]
        worst = odd[0]
        measure = "area" if kind == "size" else "ratio of width to height"
        name = evidence.dataset.classes[boxes.label[worst]]
        yield Finding(
            id=self.id,
            severity="info",
            where=boxes.where[worst],
            explanation=(
                f"{len(odd):,} of {len(values):,} objects {'has' if len(odd) == 1 else 'have'} a {kind} that "
                f"does not fit the class: the {measure} of the worst, a {name!r}, is {ratio[worst]:.1f} times off the "
                f"class's median, {far[worst]:.1f} deviations where the class's own tails end near 2. Look at the "
                "boxes listed; they may be slips of the mouse."
            ),
            evidence={
                "row": "M5",
                "kind": kind,
                "threshold": times,
                "distance": self.distance,
                "objects": [boxes.where[i] for i in odd[:_LISTED]],
                "ratios": [round(float(ratio[i]), 2) for i in odd[:_LISTED]],
                "distances": [round(float(far[i]), 2) for i in odd[:_LISTED]],
                "count": len(odd),
            },
            source=self.source,
        )


def tail_distance(values: Floats) -> Floats:
    """How far each value lies from the median, in deviations of the side that it lies on.

    The deviation of a side is the larger of 1.4826 times the median distance and what a normal distribution would need
    for the side's 90 % quantile (the 95 % quantile of all), so that a heavy tail widens its own measure: about 2 is the
    end of the bulk, and 5 is far from everything else. A side without any spread is given a hundredth.

    Args:
        values: `(n,)`, n at least 1.

    Returns:
        `(n,)`, negative below the median.
    """
    from_middle = values - np.median(values)
    scale = np.empty_like(from_middle)
    for side in (from_middle >= 0, from_middle < 0):
        if side.any():
            off = np.abs(from_middle[side])
            scale[side] = max(1.4826 * float(np.median(off)), float(np.quantile(off, 0.9)) / 1.645, 0.01)
    return from_middle / scale


# ------------------------------------------------------------------------------------------------ what is measured
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Boxes:
    """Objects that can be compared: `label` (m,), `area` (m,) as a part of the image, `aspect` (m,), `where`."""

    label: Ints
    area: Floats
    aspect: Floats
    where: list[str]


def _boxes(evidence: DataEvidence) -> _Boxes | None:
    """Objects with an area that lie inside their images; None where there are none."""
    scan = evidence.scan
    rows: list[tuple[int, float, float]] = []
    places: list[str] = []
    for row, index in zip(scan.object_record.tolist(), scan.object_index.tolist(), strict=True):
        record = evidence.dataset.records[row]
        item, (height, width) = record.objects[index], scan.size[row].tolist()
        left, top, right, bottom = item.box
        inside = min(left, top, width - right, height - bottom) > _BORDER
        if inside and right > left and bottom > top and not item.crowd:
            wide, high = right - left, bottom - top
            rows.append((item.label, wide * high / (width * height), wide / high))
            places.append(item.where or f"{record.image}#{index}")
    if not rows:
        return None
    label, area, aspect = (np.array(column) for column in zip(*rows, strict=True))
    return _Boxes(label=label, area=area, aspect=aspect, where=places)
