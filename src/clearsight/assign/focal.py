"""What a class score costs by the focal loss, for assigners that weigh predictions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["finite", "focal_of_no", "focal_of_yes"]

ALPHA = 0.25
LARGEST = 1e6


def focal_of_yes(logits: Tensor) -> Tensor:
    """Focal loss of each score where the truth is "yes" (Lin et al. 2017, arXiv:1708.02002; alpha 0.25, gamma 2)."""
    return torch.sigmoid(-logits).square_().mul_(F.softplus(-logits)).mul_(ALPHA)


def focal_of_no(logits: Tensor) -> Tensor:
    """Focal loss of each score where the truth is "no"."""
    return torch.sigmoid(logits).square_().mul_(F.softplus(logits)).mul_(1 - ALPHA)


def finite(cost: Tensor) -> Tensor:
    """A cost with 1e6 in place of NaN and of anything larger.

    The assignment is then defined whatever was predicted; that the predictions are no numbers is for the loss to say.
    """
    return cost.nan_to_num(nan=LARGEST, posinf=LARGEST).clamp(max=LARGEST)
