"""Layers that leave something out at random while training."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError, RangeError, nearest
from clearsight.nn.checks import check_dropped, check_rank

__all__ = ["DROPOUTS", "DropBlock", "DropPath", "GaussianDropout", "UniformDropout", "anneal_drop", "dropout"]


class _Dropping(nn.Module):
    """A layer with a rate p, the share that is left out; the identity in evaluation mode and at p = 0."""

    def __init__(self, p: float) -> None:
        super().__init__()
        check_dropped(p, "p")
        self.p = p

    def extra_repr(self) -> str:
        """The rate, for `print(model)`."""
        return f"p={self.p:g}"


class DropPath(_Dropping):
    """Leave out whole samples of a residual branch (stochastic depth), and scale the others by `1 / (1 - p)`.

    Method: Huang et al. 2016, arXiv:1603.09382, with the scale in training rather than in use.

    Shape: x `(n, …)` → the same.

    Args:
        p: share of samples, in [0, 1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """The branch, or zeros, sample by sample."""
        if not self.training or self.p == 0:
            return x
        keep = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.p)
        return x * keep.div_(1 - self.p)


class DropBlock(_Dropping):
    """Leave out square blocks of a feature map, so that neighbours cannot fill in for what is missing.

    Blocks are seeded where they fit wholly, at a rate that makes a share p of the map fall out on average (overlaps are
    not counted); what stays is scaled so that each sample's channel keeps its sum of a constant map.

    Method: Ghiasi et al. 2018, arXiv:1810.12890, Algorithm 1, equation 1; each channel has blocks of its own. The paper
    anneals the keep probability from 1: `anneal_drop`.

    Shape: x `(n, c, h, w)` → the same. A block larger than the map is cut to its smaller side.

    Args:
        p: share of the map, in [0, 1).
        size: side of a block, odd.

    Raises:
        ConfigError: the size is even or below 1.
    """

    def __init__(self, p: float = 0.1, size: int = 7) -> None:
        super().__init__(p)
        if size < 1 or size % 2 == 0:
            raise ConfigError(f"size: a block has a centre, so its side must be odd and at least 1, got {size}")
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """The map without the blocks."""
        check_rank(x, "DropBlock: x", "n c h w")
        if not self.training or self.p == 0 or x.numel() == 0:
            return x
        height, width = x.shape[2:]
        size = min(self.size, height, width)
        size -= 1 - size % 2
        inner = (height - size + 1, width - size + 1)
        rate = self.p * height * width / (size**2 * inner[0] * inner[1])
        keep = _kept(x, (*x.shape[:2], *inner), min(rate, 1.0), size)
        share = keep.mean((2, 3), keepdim=True)
        return x * keep.div_(share.clamp_(min=1 / (height * width))).to(x.dtype)

    def extra_repr(self) -> str:
        """Rate and size, for `print(model)`."""
        return f"p={self.p:g}, size={self.size}"


def _kept(x: Tensor, places: tuple[int, ...], rate: float, size: int) -> Tensor:
    """0 in the blocks whose first corner is a seed and 1 elsewhere, in the shape of x.

    Args:
        x: `(n, c, h, w)`.
        places: shape of where seeds may lie, `(n, c, h - size + 1, w - size + 1)`.
        rate: probability of a seed at each place.
        size: side of a block.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        seeds = x.new_empty(places, dtype=torch.float32).bernoulli_(rate)
        # With padding, the maximum over the window that ends at each place.
        return 1 - F.max_pool2d(F.pad(seeds, [size - 1] * 4), size, stride=1)
    # Seeds are rare: drawing them alone and marking their blocks takes a twentieth of the time.
    keep = torch.ones_like(x, dtype=torch.float32)
    steps = keep.stride()
    sample, channel, row, column = _hits(places, rate)
    first = sample * steps[0] + channel * steps[1] + row * steps[2] + column * steps[3]
    side = torch.arange(size)
    block = (side[:, None] * steps[2] + side * steps[3]).flatten()
    keep.as_strided((keep.numel(),), (1,))[(first[:, None] + block).flatten()] = 0
    return keep


def _hits(places: tuple[int, ...], rate: float) -> tuple[Tensor, ...]:
    """Where independent draws at a rate hit, an index an axis; the gaps between hits are geometric."""
    total = math.prod(places)
    count = math.ceil(total * rate + 12 * math.sqrt(total * rate) + 12)  # too few once in 10³⁰ calls
    hits = (
        torch.empty(count, dtype=torch.float64).geometric_(rate).cumsum(0).sub_(1).long()
        if rate < 1
        else torch.arange(total)
    )
    return torch.unravel_index(hits[hits < total], places)


class GaussianDropout(_Dropping):
    """Multiply by a Gaussian of mean 1 and variance `p / (1 - p)`, that of inverted dropout (Srivastava et al. 2014).

    Shape: any.

    Args:
        p: of the dropout it stands for, in [0, 1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Noise while training."""
        if not self.training or self.p == 0:
            return x
        return x * torch.empty_like(x).normal_(1.0, (self.p / (1 - self.p)) ** 0.5)


class UniformDropout(_Dropping):
    """Multiply by a number drawn evenly from `1 ± √(3 p / (1 - p))`: mean and variance of inverted dropout, bounded.

    Method: Li et al. 2019 (Uout), arXiv:1801.05134, who propose even noise because it shifts the variance that a batch
    norm sees less than dropout does; they give the width itself, here p sets it.

    Shape: any.

    Args:
        p: of the dropout it stands for, in [0, 1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Noise while training."""
        if not self.training or self.p == 0:
            return x
        half = (3 * self.p / (1 - self.p)) ** 0.5
        # Drawn in float32: the 256 steps of bfloat16 begin at the lower end, half a step below their mean.
        return x * torch.empty_like(x, dtype=torch.float32).uniform_(1 - half, 1 + half).to(x.dtype)


DROPOUTS: dict[str, Callable[[float], nn.Module]] = {
    "dropout": nn.Dropout,
    "channel": nn.Dropout2d,
    "path": DropPath,
    "block": DropBlock,
    "gaussian": GaussianDropout,
    "uniform": UniformDropout,
}


def dropout(name: str, p: float) -> nn.Module:
    """A dropout layer by name.

    Args:
        name: a key of `DROPOUTS`.
        p: the share that is *dropped*, in [0, 1); nothing has to be scaled in use.

    Raises:
        ConfigError: the name is unknown.
        RangeError: p is out of range.
    """
    if name not in DROPOUTS:
        raise ConfigError(f"dropout: there is none named {name!r}{nearest(name, DROPOUTS)}")
    check_dropped(p, "p")
    return DROPOUTS[name](p)


def anneal_drop(model: nn.Module, progress: float, *, to: float) -> None:
    """Let the rate of a model's `DropBlock` and `DropPath` layers rise with the training: `p = to · progress`.

    Method: Ghiasi et al. 2018, section 3 (scheduled DropBlock): the keep probability falls linearly from 1.

    Args:
        model: changed in place.
        progress: share of the training that is done, in [0, 1].
        to: rate at the end, in [0, 1).

    Raises:
        RangeError: an argument is out of range.
    """
    if not (0 <= progress <= 1 and 0 <= to < 1):
        raise RangeError(f"anneal_drop: progress must be in [0, 1] and to in [0, 1), got {progress} and {to}")
    for layer in model.modules():
        if isinstance(layer, DropBlock | DropPath):
            layer.p = to * progress
