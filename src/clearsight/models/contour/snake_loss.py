"""Deep Snake's two loss terms beside those of its detector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clearsight.errors import RangeError
from clearsight.losses.checks import trace_nan
from clearsight.losses.regress import huber_loss
from clearsight.models.contour.snake_targets import SnakeTargets
from clearsight.nn.parallel import mean_over_processes

__all__ = ["SnakeLoss"]


class SnakeLoss(nn.Module):
    """Smooth L1 of the extreme points, in cells, and of the contours after each round, in pixels.

    Both are means over the coordinates of an object, over the rounds, and over the objects of the batch (averaged over
    processes, so that two processes at half the batch each equal one).

    Method: Peng et al. 2020 (Deep Snake), arXiv:2001.01629, equations 4 and 5. Every round counts, as in the paper;
    the authors' code counts the last alone.

    Args:
        extreme_weight: factor of the extreme points' term.
        contour_weight: factor of the contours' term.

    Raises:
        RangeError: a factor is out of range.
    """

    def __init__(self, *, extreme_weight: float = 1.0, contour_weight: float = 1.0) -> None:
        super().__init__()
        for name, weight in (("extreme_weight", extreme_weight), ("contour_weight", contour_weight)):
            if not 0 <= weight < float("inf"):
                raise RangeError(f"{name}: must be at least 0, got {weight}")
        self.extreme_weight, self.contour_weight = extreme_weight, contour_weight

    def forward(
        self, extremes: Tensor, contours: Sequence[Tensor], truth: SnakeTargets, *, stride: float
    ) -> dict[str, Tensor]:
        """Both terms.

        Args:
            extremes: `(m', 4, 2)` pixels.
            contours: `(m', points, 2)` pixels a round.
            truth: what they should be.
            stride: pixels from cell to cell.

        Returns:
            `extreme` and `contour`, scalars in float32.
        """
        count = torch.tensor(float(len(truth.image)), device=extremes.device)
        share = 1 / mean_over_processes(count).clamp(min=1)
        extreme = huber_loss(extremes / stride, truth.extremes / stride, reduction="sum") / 8
        wanted = truth.contours
        rounds = [huber_loss(each, wanted, reduction="sum") / (2 * wanted.shape[1]) for each in contours]
        contour = sum(rounds, torch.zeros_like(extreme)) / len(rounds)
        return {
            "extreme": trace_nan(extreme * (share * self.extreme_weight), boxes=truth.boxes),
            "contour": trace_nan(contour * (share * self.contour_weight), boxes=truth.boxes),
        }
