"""MultiBox matching: the rule of SSD."""

from __future__ import annotations

import torch

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight, resolve_conflicts
from clearsight.assign.overlap import overlapping_pairs
from clearsight.errors import ConfigError
from clearsight.types import Targets

__all__ = ["MultiBox"]


class MultiBox:
    """Each object takes the anchor that overlaps it most; every other anchor the object that it overlaps enough.

    An anchor is positive for the object of its image that it overlaps most, from an overlap of `positive` on. Besides,
    the first of the anchors that overlap an object most answers for that object, whatever the overlap and whatever
    other object the anchor overlaps more (here the rule differs from `MaxIou`). All others are background.

    Method: Liu et al. 2016 (SSD), arXiv:1512.02325, section 2.2, "matching strategy". As torchvision's matcher, but an
    anchor that is the best of several objects goes to the one that it overlaps most, the first of equals (there to the
    last), and an object that no anchor touches gets none (there the first anchor).

    Args:
        positive: in [0, 1].

    Raises:
        ConfigError: `positive` lies outside [0, 1].
    """

    needs_predictions = False

    def __init__(self, *, positive: float = 0.5) -> None:
        if not 0 <= positive <= 1:
            raise ConfigError(f"multibox: positive must be an overlap in [0, 1], got {positive}")
        self.positive = positive

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. Predictions are not looked at; the pairs have no `quality`."""
        usable = assigned_objects(targets)
        image = targets.image[usable]
        boxes, least = (
            targets.boxes[usable].to(points.boxes.dtype),
            max(self.positive, torch.finfo(targets.boxes.dtype).tiny),
        )
        row, point, overlap = overlapping_pairs(points, boxes, least, best=True)
        taken = image[row] * len(points.xy) + point
        near = (overlap >= least).nonzero().squeeze(1)
        near = near[resolve_conflicts(taken[near], -overlap[near])]
        owner = torch.full((images * len(points.xy),), -1, device=taken.device)
        owner[taken[near]] = row[near]
        most = overlap.new_zeros(len(boxes)).scatter_reduce(0, row, overlap, "amax")
        best = (overlap == most[row]).nonzero().squeeze(1)
        best = best[resolve_conflicts(row[best], point[best])]  # the first of the best of each object
        best = best[resolve_conflicts(taken[best], -overlap[best])]
        owner[taken[best]] = row[best]
        place = (owner >= 0).nonzero().squeeze(1)
        return Assignment(
            object=usable[owner[place]],
            point=place % len(points.xy),
            weight=torch.ones(len(place), device=place.device),
            background=background_weight(points, targets, place, images=images),
        )
