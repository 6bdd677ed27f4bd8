"""A fair sample of what was found: as many positives as wanted, background for the rest, drawn image by image."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.errors import ConfigError

__all__ = ["check_sampling", "sample_balanced"]


def sample_balanced(positive: Tensor, background: Tensor, *, count: int, share: float) -> Tensor:
    """Draw at most `count` of each image: at most `share` of them positives, and background for the others.

    Method: Girshick 2015 (Fast R-CNN), arXiv:1504.08083, section 2.3, and Ren et al. 2015, arXiv:1506.01497, section
    3.1.3. Every element gets a number of `torch.rand`, one call for the batch, and those with the smallest are taken.
    The numbers come of PyTorch's global stream on the CPU, whatever the device: checkpoints keep that stream, so a
    resumed run draws as an unbroken one, and a seed gives the same sample on every device.

    Args:
        positive: `(n, l)` bool.
        background: `(n, l)` bool; what is neither is never drawn.
        count: of each image.
        share: in [0, 1].

    Returns:
        `(n, l)` bool, true where drawn; where there are too few of both, all of them.
    """
    draws = torch.rand(positive.shape).to(positive.device)
    most = int(count * share)
    wanted = positive.sum(dim=1).clamp(max=most)
    drawn = _smallest(draws, positive, wanted, most=most)
    return drawn | _smallest(draws, background & ~positive, count - wanted, most=count)


def check_sampling(name: str, *, count: int, share: float) -> None:
    """Refuse a sample that cannot be drawn.

    Raises:
        ConfigError: `count` is below 1 or `share` outside [0, 1].
    """
    if count < 1 or not 0 <= share <= 1:
        raise ConfigError(f"{name}: the sample must be at least 1 with a share in [0, 1], got {count} and {share}")


def _smallest(draws: Tensor, among: Tensor, wanted: Tensor, *, most: int) -> Tensor:
    """The `wanted` (at most `most`) elements of each row with the smallest numbers."""
    place = draws.masked_fill(~among, torch.inf).topk(min(most, draws.shape[1]), dim=1, largest=False).indices
    taken = torch.arange(place.shape[1], device=place.device) < wanted[:, None]
    return torch.zeros_like(among).scatter_(1, place, taken) & among
