"""What assigners are told of a dense head, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

__all__ = ["Assignment", "BagOptions", "Points", "Predictions"]


class Points(NamedTuple):
    """The places where a dense head predicts; one grid shared by all images of a batch.

    Args:
        xy: `(l, 2)` centres in pixels.
        stride: `(l,)` pixels between neighbours on the point's level.
        level: `(l,)` int64 index of the pyramid level, ascending.
        boxes: `(l, 4)` the anchor box of each point (a square of 8 strides for anchor-free heads, as in ATSS).
    """

    xy: Tensor
    stride: Tensor
    level: Tensor
    boxes: Tensor


class Predictions(NamedTuple):
    """What a dense head says now, for assigners that look at it.

    Args:
        logits: `(n, l, k)` class logits.
        boxes: `(n, l, 4)` decoded boxes, xyxy pixels.
    """

    logits: Tensor
    boxes: Tensor


class BagOptions(NamedTuple):
    """Numbers of the loss of a method that gives an object a bag of points; see `models.detect.bag_terms`.

    Args:
        box_weight: factor of a pair's box loss in its likelihood, `probability · exp(-box_weight · box loss)`.
        alpha: share of the objects' term, in [0, 1]; that of the background is `1 - alpha`.
        gamma: of the background's focal term, at least 0.
        temperature: of the confidence weighting, above 0.
    """

    box_weight: float = 0.75
    alpha: float = 0.5
    gamma: float = 2.0
    temperature: float = 1 / 3


@dataclass(slots=True, kw_only=True)
class Assignment:
    """Which points answer for which objects, for a whole batch at once, in sparse form.

    Args:
        object: `(p,)` int64 index into `Targets.boxes`; in bags ascending, and a point may stand in several.
        point: `(p,)` int64 index into `Points.xy`; the image is `targets.image[object]`.
        weight: `(p,)` float32 > 0; 1 for hard methods. In a bag it may carry gradient (a learned prior), and a pair of
            weight 0 has no part in its object's loss: it is there for its `class_background` alone.
        background: `(n, l)` float32 weight of "nothing is here"; 0 where a point is ignored or, but for bags, positive.
        quality: `(p,)` float32 in [0, 1], the target of the class score at the pair (an IoU), or None for 1.
        combine: how the likelihoods of one object's pairs become one loss term: `each` pair by itself; FreeAnchor's
            `mean_max` (`losses.bags.mean_max`); AutoAssign's `confidence` weighting (`losses.bags.confidence_mean`).
        class_background: of bags, `(p,)` in [0, 1], without gradient: the weight of "no object of this class is here"
            at the pair's point for its object's class, a factor of `background`; the smallest of several for one place.
            None means 0. Other classes at the point, and points without pairs, have `background` alone.
        bag: the numbers of the bags' loss; None where `combine` is `each`, and for the defaults.
    """

    object: Tensor
    point: Tensor
    weight: Tensor
    background: Tensor
    quality: Tensor | None = None
    combine: Literal["each", "mean_max", "confidence"] = "each"
    class_background: Tensor | None = None
    bag: BagOptions | None = None
