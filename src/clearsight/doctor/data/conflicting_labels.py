"""The same thing with two labels: copies of an image in two classes, one box in two classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.labelled import place
from clearsight.doctor.rule import Rule
from clearsight.ops.boxes import box_iou
from clearsight.types import Finding

__all__ = ["ConflictingLabels"]

_LISTED = 20


class ConflictingLabels(Rule[DataEvidence]):
    """Images with the same bytes, or boxes of one image that cover each other, whose classes differ.

    Args:
        iou: of two boxes from which on they are taken for one object.
        share: of images (objects) that contradict another from which on it is a warning.
    """

    id = "conflicting-labels"
    source = "Northcutt et al. 2021, Pervasive label errors in test sets, arXiv:2103.14749; cleanlab"

    def __init__(self, *, iou: float = 0.9, share: float = 0.001) -> None:
        self.iou, self.share = iou, share

    def lacks(self, evidence: DataEvidence) -> str:
        """Classes."""
        task, classes = evidence.dataset.task, evidence.dataset.classes
        return "classes of images or objects" if task == "semantic" or len(classes) < 2 else ""

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding that lists the contradictions."""
        dataset = evidence.dataset
        images = dataset.task == "classification"
        groups = _copies(dataset, evidence.scan.md5) if images else _same_boxes(dataset, self.iou)
        if not groups:
            return
        total = len(dataset) if images else sum(len(record.objects) for record in dataset.records)
        count = sum(len(group["where"]) for group in groups)
        what = "images have the same bytes as another" if images else f"boxes overlap another by more than {self.iou:g}"
        yield Finding(
            id=self.id,
            severity="warning" if count >= self.share * total else "info",
            where=groups[0]["where"][0],
            explanation=(
                f"{count} of {total} {what} and are labelled as another class: no model can learn both; keep the label "
                "that is right"
            ),
            action="kept",
            evidence={
                "row": "D2",
                "contradicting": count,
                "total": total,
                "threshold": self.share,
                "groups": len(groups),
                "first": groups[:_LISTED],
            },
            source=self.source,
        )


def _copies(dataset: Dataset, digests: Sequence[str]) -> list[dict[str, Any]]:
    """Images that share their bytes and not their class, together."""
    same: defaultdict[str, list[int]] = defaultdict(list)
    for position, digest in enumerate(digests):
        if digest and dataset.records[position].label is not None:
            same[digest].append(position)
    found = []
    for members in same.values():
        names = [dataset.classes[dataset.records[member].label or 0] for member in members]
        if len(set(names)) > 1:
            found.append({"where": [place(dataset, member, -1) for member in members], "classes": names})
    return found


def _same_boxes(dataset: Dataset, iou: float) -> list[dict[str, Any]]:
    """Pairs of boxes that are one object by their overlap and two by their class."""
    found = []
    for position, record in enumerate(dataset.records):
        counted = [index for index, item in enumerate(record.objects) if not item.crowd]
        if len({record.objects[index].label for index in counted}) < 2:
            continue
        boxes = torch.tensor([record.objects[index].box for index in counted], dtype=torch.float64)
        labels = torch.tensor([record.objects[index].label for index in counted])
        one = (box_iou(boxes, boxes) > iou) & (labels[:, None] != labels)
        for first, second in one.triu().nonzero().tolist():
            pair = (counted[first], counted[second])
            found.append(
                {
                    "where": [place(dataset, position, index) for index in pair],
                    "classes": [dataset.classes[record.objects[index].label] for index in pair],
                }
            )
    return found
