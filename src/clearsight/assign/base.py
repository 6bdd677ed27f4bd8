"""The contract of label assignment, and what all methods share."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.types import Targets

__all__ = ["Assigner", "assigned_objects", "background_weight", "inside", "rank_in_group", "resolve_conflicts"]


class Assigner(Protocol):
    """Says for a whole batch which points answer for which objects.

    The predictions are never differentiated through. An assigner may be an `nn.Module` with parameters of its own, a
    learned prior; then the pairs' weights carry gradient, and the model that holds it trains and saves it.

    Attributes:
        needs_predictions: whether `predictions` must be given.
    """

    needs_predictions: bool

    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign.

        Args:
            points: where the head predicts, shared by all images; l points.
            targets: m objects of the batch. Objects with `ignore` are never assigned, and points inside them are no
                background either.
            predictions: what the head says now, detached by the assigner; None where the method does not look.
            images: n, the number of images of the batch (some may have no objects).

        Returns:
            The assignment. Hard methods give a point one object at most, and their pairs are sorted by image and point;
            bag methods (`combine` is not `each`) may give it to several, and their pairs are sorted by object.
        """
        ...


def assigned_objects(targets: Targets) -> Tensor:
    """Indices `(m',)` of the objects that may be assigned: those not ignored."""
    if targets.ignore is None:
        return torch.arange(len(targets.labels), device=targets.boxes.device)
    return (~targets.ignore).nonzero().squeeze(1)


def inside(xy: Tensor, boxes: Tensor) -> Tensor:
    """Which points lie strictly inside which boxes.

    Args:
        xy: `(l, 2)` pixels.
        boxes: `(m, 4)` xyxy pixels.

    Returns:
        `(m, l)` bool.
    """
    x, y = xy.unbind(-1)
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def background_weight(points: Points, targets: Targets, positive: Tensor, *, images: int) -> Tensor:
    """Weight of "nothing is here": 1, but 0 at positive points and inside ignored objects.

    Args:
        points: l points.
        targets: objects of the batch.
        positive: `(p,)` int64 `image * l + point` of positive pairs.
        images: n.

    Returns:
        `(n, l)` float32.
    """
    count = len(points.xy)
    weight = torch.ones(images * count, device=points.xy.device)
    weight[positive] = 0.0
    if targets.ignore is not None and bool(targets.ignore.any()):
        ignored = targets.ignore.nonzero().squeeze(1)
        which, point = inside(points.xy, targets.boxes[ignored]).nonzero(as_tuple=True)
        weight[targets.image[ignored][which] * count + point] = 0.0
    return weight.view(images, count)


def resolve_conflicts(place: Tensor, cost: Tensor) -> Tensor:
    """Where several pairs claim one place, keep the cheapest (the first of equals).

    Two stable sorts instead of a scatter: the same bits on every device.

    Args:
        place: `(p,)` int64 what is claimed (image and point in one number).
        cost: `(p,)` float.

    Returns:
        `(q,)` int64 indices of the kept pairs, by rising place.
    """
    order = _sort_by_group(place, cost)
    ordered = place[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def rank_in_group(group: Tensor, cost: Tensor) -> Tensor:
    """Position of each element among those of its group, by rising cost; equals in their given order.

    Args:
        group: `(p,)` int64.
        cost: `(p,)` float.

    Returns:
        `(p,)` int64 from 0.
    """
    order = _sort_by_group(group, cost)
    ordered = group[order]
    place = torch.arange(len(group), device=group.device)
    start = torch.searchsorted(ordered, ordered)  # first position of the group
    rank = torch.empty_like(place)
    rank[order] = place - start
    return rank


def _sort_by_group(group: Tensor, cost: Tensor) -> Tensor:
    """Order by group, within a group by cost, within equals as given."""
    by_cost = torch.argsort(cost, stable=True)
    return by_cost[torch.argsort(group[by_cost], stable=True)]
