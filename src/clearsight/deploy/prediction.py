"""What a model says of images: typed, in the pixels of the image itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearsight.ops.outlines import polygons_to_masks
from clearsight.types import Classification, Finding, Instances

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Prediction", "Predictions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One image's result.

    Args:
        path: the image file; None for an array, tensor or PIL image.
        size: `(height, width)` of the image as it was given; of a file, after its EXIF turn.
        classes: class names in label order.
        instances: what a detector found, boxes in the image's own pixels, scores falling; else None.
            Objects with masks or contours have these as rings, `contours` and `ring_object`; see `polygons`, `masks`.
        classification: what a classifier says; else None.
        semantic: what a segmenter says, `(h, w)` uint8, the class of each pixel; else None.
    """

    path: Path | None
    size: tuple[int, int]
    classes: tuple[str, ...]
    instances: Instances | None = None
    classification: Classification | None = None
    semantic: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of objects found; of classes that a segmenter sees; 1 for a classifier."""
        return len(self.names) if self.instances is None else len(self.instances)

    @property
    def names(self) -> list[str]:
        """The class of each object, the classes of the pixels in label order, or the one class of the image."""
        if self.classification is not None:
            return [self.classes[self.classification.label]]
        if self.semantic is not None:
            return [self.classes[label] for label in np.unique(self.semantic).tolist()]
        return [] if self.instances is None else [self.classes[label] for label in self.instances.labels.tolist()]

    @property
    def scores(self) -> list[float]:
        """The score of each object, or the probability of the image's class."""
        if self.classification is not None:
            return [self.classification.score]
        found = self.instances
        return [] if found is None or found.scores is None else [float(score) for score in found.scores]

    @property
    def boxes(self) -> list[tuple[float, float, float, float]]:
        """The box of each object, xyxy in pixels; empty for a classifier."""
        found = [] if self.instances is None else self.instances.boxes.tolist()
        return [(left, top, right, bottom) for left, top, right, bottom in found]

    @property
    def polygons(self) -> list[list[np.ndarray]]:
        """The rings of each object, `(p, 2)` float64 xy in pixels; a ring within a ring is a hole.

        Empty where the model gives boxes alone.
        """
        found = self.instances
        if found is None or found.contours is None or found.ring_object is None:
            return []
        rings: list[list[np.ndarray]] = [[] for _ in range(len(found))]
        for owner, ring in zip(found.ring_object.tolist(), found.contours.double().numpy(), strict=True):
            rings[owner].append(_without_padding(ring))
        return rings

    @property
    def masks(self) -> np.ndarray:
        """The pixels of each object, `(n, h, w)` bool, drawn from `polygons`; empty where the model gives none."""
        return polygons_to_masks(self.polygons, self.size)

    def rows(self) -> list[dict[str, Any]]:
        """Plain values, a row an object; an image without objects has one row whose class is None.

        A segmenter's rows are classes, with their `pixels` and their `share` of the image.
        """
        head = {"file": "" if self.path is None else str(self.path), "height": self.size[0], "width": self.size[1]}
        if self.classification is not None:
            probs = zip(self.classes, self.classification.probs.tolist(), strict=True)
            return [{**head, "class": self.names[0], "score": self.scores[0], **{f"p_{k}": v for k, v in probs}}]
        if self.semantic is not None:
            labels, pixels = np.unique(self.semantic, return_counts=True)
            return [
                {**head, "class": self.classes[label], "pixels": number, "share": number / self.semantic.size}
                for label, number in zip(labels.tolist(), pixels.tolist(), strict=True)
            ]
        named = zip(self.names, self.scores, self.boxes, strict=True)
        rows = [
            {**head, "class": name, "score": score, **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
            for name, score, box in named
        ]
        return rows or [{**head, **dict.fromkeys(("class", "score", "x1", "y1", "x2", "y2"))}]


def _without_padding(ring: np.ndarray) -> np.ndarray:
    """A ring without the copies of its last vertex that fill its row; see `types.Instances`."""
    same = (ring == ring[-1]).all(axis=1)
    kept = len(ring) - int(np.argmin(same[::-1])) if not same.all() else 0
    return ring[: kept + 1]


class Predictions(list[Prediction]):
    """Results in the order of the images; images that could not be read are among `findings` instead.

    Args:
        items: one an image.
        findings: one an image that was passed over, with its file and the reason.
    """

    def __init__(self, items: Iterable[Prediction] = (), findings: Sequence[Finding] = ()) -> None:
        super().__init__(items)
        self.findings = list(findings)

    def to_frame(self) -> pd.DataFrame:
        """All rows as a table; see `Prediction.rows`."""
        import pandas as pd

        return pd.DataFrame([row for one in self for row in one.rows()])
