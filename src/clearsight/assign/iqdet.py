"""IQDet: where in each object the predictions are good is a distribution, and its best points are positive."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight, rank_in_group, resolve_conflicts
from clearsight.assign.held import pairs_held
from clearsight.assign.quality_mixture import fit_mixtures, log_density
from clearsight.errors import ConfigError
from clearsight.ops.boxes import paired_iou
from clearsight.types import Targets

__all__ = ["Iqdet"]

LEAST_QUALITY = 1e-6  # so that an object of which nothing is predicted yet has a distribution, too


class Iqdet:
    """Assignment by each object's distribution of quality.

    The quality of a point inside an object is `score^(1 - alpha) · IoU^alpha` of its prediction, score the probability
    of the object's class. To the positions of an object's points, relative to its centre and half its sides, a mixture
    of Gaussians is fitted, each point weighing its quality: this smooths what single predictions say. A point's value
    is its quality times the mixture's density, which is 1 at the densest point of the object. An object takes its
    `samples` points of the highest value; a point that several objects of an image take goes to the one where its value
    is highest. The value is the target of the class score.

    Method: after Ma et al. 2021, arXiv:2104.06936. Differs from the paper, which learns the mixtures: there a subnet
    predicts them for each object and level from features inside the object, and they are trained to give the quality;
    here one for each object over all levels is fitted to the quality itself, which leaves the model as it is. The paper
    draws 12 real-valued places an object from the mixtures and interpolates predictions there; here the points of the
    grid are ranked, so that equal input gives equal pairs. An object that holds no point, being smaller than a stride,
    has those within a stride of its centre.

    Args:
        samples: points an object.
        components: Gaussians of a mixture.
        alpha: 1 for the overlap alone, as in the paper's best result, 0 for the score alone.
        steps: of the fit.

    Raises:
        ConfigError: an argument is out of range.
    """

    needs_predictions = True

    def __init__(self, *, samples: int = 12, components: int = 2, alpha: float = 1.0, steps: int = 10) -> None:
        for name, value in {"samples": samples, "components": components, "steps": steps}.items():
            if value < 1:
                raise ConfigError(f"iqdet: {name} must be at least 1, got {value}")
        if not 0 <= alpha <= 1:
            raise ConfigError(f"iqdet: alpha must be in [0, 1], got {alpha}")
        self.samples = samples
        self.components = components
        self.alpha = alpha
        self.steps = steps

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. The pairs' `quality` is the value described above."""
        if predictions is None:
            raise ConfigError("iqdet: assigns by what the model predicts, so predictions must be given, not None")
        usable = assigned_objects(targets)
        boxes = targets.boxes[usable]
        row, point = pairs_held(points, boxes)
        object_ = usable[row]
        image = targets.image[object_]
        exact = torch.float32 if row.device.type == "mps" else torch.float64  # there is no float64 there
        quality = self._quality(predictions, targets, object_, point).to(exact).clamp(min=LEAST_QUALITY)
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        # The points around an object that is smaller than a stride may lie many of its sides away from it.
        half = torch.maximum(half, half.new_tensor(torch.finfo(half.dtype).tiny))[row]
        position = ((points.xy[point] - centre[row]) / half).clamp(-1, 1).to(exact)
        mixtures = fit_mixtures(position, quality, row, groups=len(boxes), components=self.components, steps=self.steps)
        value = quality * log_density(mixtures, position, row).exp()
        taken = (rank_in_group(row, -value) < self.samples).nonzero().squeeze(1)
        place = image[taken] * len(points.xy) + point[taken]
        kept = taken[resolve_conflicts(place, -value[taken])]
        return Assignment(
            object=object_[kept],
            point=point[kept],
            weight=torch.ones(len(kept), device=kept.device),
            background=background_weight(points, targets, image[kept] * len(points.xy) + point[kept], images=images),
            quality=value[kept].float().clamp(max=1.0),
        )

    def _quality(self, predictions: Predictions, targets: Targets, object_: Tensor, point: Tensor) -> Tensor:
        """Quality of each pair, 0 where the prediction is no number."""
        image = targets.image[object_]
        overlap = paired_iou(predictions.boxes[image, point].float(), targets.boxes[object_])
        score = predictions.logits[image, point, targets.labels[object_]].float().sigmoid()
        return (score ** (1 - self.alpha) * overlap**self.alpha).nan_to_num(nan=0.0)
