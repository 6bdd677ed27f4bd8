"""Objects against a model's steps, fields and anchors: too small to be told apart, too large to be seen whole."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from torch import nn

from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.rule import Rule
from clearsight.errors import DataError
from clearsight.measure.anchor_check import SAMPLE, check_anchors
from clearsight.measure.field_and_objects import compare_with_objects
from clearsight.measure.object_boxes import object_boxes
from clearsight.measure.receptive_field import receptive_field
from clearsight.models.detect.dense import PointGrid
from clearsight.recipe.schema import DataConfig
from clearsight.types import Finding

__all__ = ["AnchorsMissObjects", "ObjectsBelowStride", "ObjectsBeyondField", "finest_stride"]

_ROUND = 32  # sides of images are multiples of it, as the coarsest levels of most models want
_LARGEST = 2.0  # times by which a remedy enlarges images; beyond it time and memory decide


class ObjectsBelowStride(Rule[DataEvidence]):
    """Training objects whose shorter side is below the finest step between the places that a model predicts at.

    Two such objects can share a place, of which only one is learned; and what is seen of one is a fraction of a cell.

    Args:
        share: of the objects from which on it is a warning.
    """

    id = "objects-below-stride"
    source = "Lin et al. 2017, Feature pyramid networks for object detection, arXiv:1612.03144"

    def __init__(self, *, share: float = 0.05) -> None:
        self.share = share

    def lacks(self, evidence: DataEvidence) -> str:
        """A detector, its recipe and objects."""
        lacking = _no_objects(evidence)
        if lacking or evidence.model is None or evidence.recipe is None:
            return lacking
        known = finest_stride(evidence.model, evidence.recipe.data) is not None
        return "" if known else "a model with places to predict at"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding with the image size at which few enough are left."""
        if evidence.model is None or evidence.recipe is None:
            return
        data = evidence.recipe.data
        stride = finest_stride(evidence.model, data)
        sizes = _sizes(evidence, data)
        if stride is None or sizes is None:
            return
        shorter = sizes.min(axis=1)
        below = float((shorter < stride - 1e-3).mean())  # scaling rounds
        if below < self.share:
            return
        edge = float(np.quantile(shorter, self.share))  # what must reach the stride
        wanted = stride / max(edge, 1e-6)
        factor = min(wanted, _LARGEST)
        larger = [max(_ROUND, math.ceil(side * factor / _ROUND) * _ROUND) for side in data.size]
        advice = f"set data.size to {larger[0]}×{larger[1]}"
        if wanted > _LARGEST:
            advice += " or cut images into tiles: that is not enough for all of them"
        yield Finding(
            id=self.id,
            severity="warning",
            where="data.size",
            explanation=(
                f"{100 * below:.0f} % of {len(sizes)} training objects are narrower than {stride:g} pixels at "
                f"{data.size[0]}×{data.size[1]}, the finest step between the places that the model predicts at; "
                f"neighbours then share a place, and only one of them is learned. To keep it below "
                f"{100 * self.share:g} %, {advice}, or take a model with a finer level"
            ),
            action="trains all the same",
            evidence={
                "row": "S8",
                "share": round(below, 4),
                "threshold": self.share,
                "objects": len(sizes),
                "stride": stride,
                "shorter_side": {f"p{q}": round(float(np.percentile(shorter, q)), 2) for q in (5, 25, 50)},
                "factor": round(wanted, 3),
            },
            remedy={"data.size": larger},
            source=self.source,
        )


class ObjectsBeyondField(Rule[DataEvidence]):
    """Training objects that are larger than what the level that sees most can depend on.

    Method: the theoretical receptive field (Araujo et al. 2019, doi:10.23915/distill.00021) without means over the
    whole image; see `measure.receptive_field`. What counts in practice is smaller still.

    Args:
        share: of the objects from which on it is a warning: with a tenth, the ninth decile lies beyond the field.
    """

    id = "objects-beyond-field"
    source = "Araujo et al. 2019, Computing receptive fields of convolutional neural networks, Distill"

    def __init__(self, *, share: float = 0.1) -> None:
        self.share = share

    def lacks(self, evidence: DataEvidence) -> str:
        """A detector, its recipe and objects."""
        return _no_objects(evidence)

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for the level that sees most."""
        if evidence.model is None or evidence.recipe is None:
            return
        data = evidence.recipe.data
        sizes = _sizes(evidence, data)
        fields = receptive_field(evidence.model, size=data.size, channels=data.channels).main
        # A field that goes beyond all that was tried, or after an operation without a rule, is larger than it says.
        if sizes is None or not fields or any(one.at_least or not one.known for one in fields):
            return
        rows = compare_with_objects(fields, sizes, name=type(evidence.model).__name__).rows
        best = min(rows, key=lambda row: row.larger)
        if best.size is None or best.larger < self.share:
            return
        large = float(np.percentile(sizes.max(axis=1), 90))
        yield Finding(
            id=self.id,
            severity="warning",
            where="model",
            explanation=(
                f"{best.sentence}; no other level sees more. At {data.size[0]}×{data.size[1]} one object in ten is "
                f"longer than {large:.0f} pixels: take a deeper backbone, a coarser level, dilation or smaller images"
            ),
            action="trains all the same",
            evidence={
                "row": "S8",
                "share": round(best.larger, 4),
                "threshold": self.share,
                "objects": len(sizes),
                "level": best.level,
                "field": list(best.size),
                "longer_side_p90": round(large, 2),
            },
            source=self.source,
        )


class AnchorsMissObjects(Rule[DataEvidence]):
    """Objects that no anchor fits, as `measure.anchor_check` finds them when a training starts.

    Most assigners give an object that no anchor fits the one that fits best, and published models live with that: a
    warning means that many get none, or none that comes near.
    """

    id = "objects-without-anchor"
    source = "Redmon and Farhadi 2017, YOLO9000, arXiv:1612.08242, section 2 (dimension clusters)"

    def lacks(self, evidence: DataEvidence) -> str:
        """A detector, its recipe and objects."""
        return _no_objects(evidence)

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """That finding; none for models without anchors."""
        if evidence.model is None or evidence.recipe is None or evidence.train is None:
            return
        data = evidence.recipe.data
        try:
            found = check_anchors(evidence.model, evidence.train, data.size, fit=data.fit, most=SAMPLE)
        except DataError:
            return  # no object has an area
        finding = None if found is None else found.finding()
        if finding is not None:
            yield replace(finding, evidence={"row": "S8", **finding.evidence}, source=self.source)


def finest_stride(model: nn.Module, data: DataConfig) -> float | None:
    """Pixels between neighbouring places that a detector predicts at, on its finest level; None where it has none.

    Args:
        model: a detector.
        data: size and channels of its images.
    """
    for part in (model, getattr(model, "rpn", None)):
        grid = getattr(part, "points", None)
        if isinstance(grid, PointGrid):
            return float(min(grid.strides))
    for holder, name in ((model, "stride"), (getattr(model, "neck", None), "strides")):
        own = getattr(holder, name, None)
        if isinstance(own, int | float):
            return float(own)
        if isinstance(own, dict) and own:
            return float(min(own.values()))
    levels = receptive_field(model, size=data.size, channels=data.channels).levels
    return min((min(level.stride) for level in levels if level.stride is not None), default=None)


def _no_objects(evidence: DataEvidence) -> str:
    if evidence.dataset.task not in ("detection", "instance"):
        return "objects with boxes"
    if evidence.train is None or not any(record.objects for record in evidence.train.records):
        return "training objects"
    if evidence.recipe is None or evidence.model is None:
        return "a recipe and its model"
    return "" if evidence.recipe.task in ("detection", "instance") else "a recipe for objects"


def _sizes(evidence: DataEvidence, data: DataConfig) -> np.ndarray | None:
    """`(n, 2)` height and width of training objects as the model sees them; None where no object has an area."""
    if evidence.train is None:
        return None
    try:
        return object_boxes(evidence.train, data.size, data.fit).sides.numpy()[:, ::-1]
    except DataError:
        return None
