"""Pooling by name: windows, and whole maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError, RangeError, ShapeError, nearest
from clearsight.nn.checks import check_odd, check_positive, check_rank
from clearsight.nn.precision import at_least_float32

__all__ = [
    "POOLS",
    "BlurPool",
    "GeneralisedMean",
    "StochasticPool",
    "pool",
    "probability_weighted_pool",
    "stochastic_pool",
]


class StochasticPool(nn.Module):
    """Training draws one pixel of each window, a large one more often; evaluation takes the mean of that draw.

    Method: Zeiler and Fergus 2013, arXiv:1301.3557, section 3: `stochastic_pool` and `probability_weighted_pool`, where
    negative values and windows without a positive one are treated too. Draws come from PyTorch's global generator.

    Shape: x `(n, c, h, w)` → `(n, c, (h + 2 padding - kernel) // stride + 1, …)`.

    Args:
        kernel: side of a window.
        stride: pixels from one window to the next, the kernel unless given.
        padding: pixels on all sides that are never drawn and weigh nothing, at most half the kernel.

    Raises:
        ConfigError: kernel or stride below 1, or padding beyond half the kernel.
    """

    def __init__(self, kernel: int = 2, *, stride: int | None = None, padding: int = 0) -> None:
        super().__init__()
        stride = kernel if stride is None else stride
        _check_window(kernel, stride, padding)
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Draw, or take the mean."""
        pooling = stochastic_pool if self.training else probability_weighted_pool
        return pooling(x, self.kernel, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        """The window, for `print(model)`."""
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}"


def stochastic_pool(x: Tensor, kernel: int, *, stride: int, padding: int = 0) -> Tensor:
    """One pixel of each window, drawn with a probability proportional to its value; the gradient goes to it alone.

    Method: Zeiler and Fergus 2013, arXiv:1301.3557, equations 4 and 5: `p_j = a_j / Σ a`. Values are meant to come from
    a ReLU. What the paper leaves open: a negative value counts as zero, which is never drawn; a window without a
    positive value gives zero, and no gradient, as a ReLU at zero; each window draws for itself, overlapping ones too. A
    NaN in a window gives NaN.

    Args:
        x: `(n, c, h, w)`.
        kernel: side of a window.
        stride: pixels from one window to the next.
        padding: pixels on all sides that are never drawn.

    Returns:
        `(n, c, rows, columns)`.

    Raises:
        ShapeError: x has another rank, or the window is larger than the padded map.

    Cost: one random number for each window; kernel² passes over the result.
    """
    rows, columns = _counts(x, kernel, stride, padding)
    a = x.relu()
    with torch.no_grad():
        seen = F.pad(at_least_float32(a), [padding] * 4) if padding else at_least_float32(a)
        last = (stride * (rows - 1) + 1, stride * (columns - 1) + 1)
        taps = [
            seen[..., i : i + last[0] : stride, j : j + last[1] : stride] for i in range(kernel) for j in range(kernel)
        ]
        *reached, total = accumulate(taps)
        mark = (1 - torch.rand_like(total)) * total  # in (0, total], so that it lies in no tap of zero
        tap = torch.zeros_like(total, dtype=torch.int64)
        for value in reached:
            tap += value < mark
        # Where nothing is positive the first tap is taken; if it lies in the padding, the first pixel after it.
        row = (torch.arange(rows, device=x.device) * stride - padding).view(-1, 1) + tap // kernel
        column = torch.arange(columns, device=x.device) * stride - padding + tap % kernel
        index = row.clamp(min=0) * x.shape[3] + column.clamp(min=0)
    return torch.where(total.isnan(), float("nan"), _take(a, index))


def probability_weighted_pool(x: Tensor, kernel: int, *, stride: int, padding: int = 0) -> Tensor:
    """The mean of `stochastic_pool`: `Σ a² / Σ a` over each window, 0 where nothing in it is positive.

    Method: Zeiler and Fergus 2013, arXiv:1301.3557, equation 6. Negative values count as zero. A window without a
    positive value has no gradient.

    Args:
        x: `(n, c, h, w)`; half precision is squared in float32.
        kernel: side of a window.
        stride: pixels from one window to the next.
        padding: zeros on all sides.

    Returns:
        `(n, c, rows, columns)`.

    Raises:
        ShapeError: x has another rank, or the window is larger than the padded map.
    """
    _counts(x, kernel, stride, padding)
    a = at_least_float32(x.relu())
    mean = F.avg_pool2d(a, kernel, stride, padding)
    square = F.avg_pool2d(a * a, kernel, stride, padding)
    return (square / torch.where(mean == 0, 1.0, mean)).to(x.dtype)


class GeneralisedMean(nn.Module):
    """One number a map, between its mean (power 1) and its maximum (power → ∞): `(Σ x^p / (h w))^(1/p)`.

    Method: Radenović et al. 2018 (GeM), arXiv:1711.02512, equation 3, with one power for all channels, which learns.
    Computed by logarithms, `exp((log Σ exp(p log x) - log(h w)) / p)`, so that no power overflows.

    Shape: x `(n, c, h, w)` → `(n, c, 1, 1)`.

    Args:
        power: p at the start, above 0.
        learn: whether p learns.
        floor: smaller values, negative ones too, count as this one, above 0; they get no gradient.

    Raises:
        RangeError: power or floor is not above 0.
    """

    def __init__(self, power: float = 3.0, *, learn: bool = True, floor: float = 1e-6) -> None:
        super().__init__()
        if power <= 0 or floor <= 0:
            raise RangeError(f"GeneralisedMean: power and floor must be above 0, got {power} and {floor}")
        self.power = nn.Parameter(torch.tensor(float(power)), requires_grad=learn)
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        check_rank(x, "GeneralisedMean: x", "n c h w")
        power = at_least_float32(self.power)
        logs = at_least_float32(x).clamp(min=self.floor).log()
        count = power.new_full((), x.shape[2] * x.shape[3])  # a tensor, for an exported model takes any size
        mean = (logs * power).logsumexp((2, 3), keepdim=True) - count.log()
        return (mean / power).exp().to(x.dtype)

    def extra_repr(self) -> str:
        """The floor, for `print(model)`; the power is a parameter."""
        return f"floor={self.floor:g}"


class BlurPool(nn.Module):
    """A binomial filter, then every `stride`-th pixel: shrinks without aliasing, so that small shifts change little.

    Method: Zhang 2019, arXiv:1904.11486, section 3.2: a max pooling or convolution of stride 1 and then this, in place
    of a strided one. The border is reflected.

    Shape: x `(n, c, h, w)` → `(n, c, ceil(h / stride), ceil(w / stride))`; h and w above `kernel // 2`.

    Args:
        kernel: side of the filter, odd: 3 is 1-2-1, 5 is 1-4-6-4-1.
        stride: pixels from one to the next.

    Raises:
        ConfigError: the kernel is even, or the stride below 1.
    """

    weight: Tensor

    def __init__(self, kernel: int = 3, *, stride: int = 2) -> None:
        super().__init__()
        check_odd(kernel, "kernel")
        check_positive(stride, "stride")
        self.kernel, self.stride = kernel, stride
        row = torch.tensor([math.comb(kernel - 1, i) / 2 ** (kernel - 1) for i in range(kernel)])
        self.register_buffer("weight", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Blur, then leave out."""
        check_rank(x, "BlurPool: x", "n c h w")
        channels = x.shape[1]
        x = F.pad(x, [self.kernel // 2] * 4, mode="reflect")
        return F.conv2d(x, self.weight.to(x.dtype).expand(channels, -1, -1, -1), stride=self.stride, groups=channels)

    def extra_repr(self) -> str:
        """The filter, for `print(model)`."""
        return f"kernel={self.kernel}, stride={self.stride}"


POOLS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "max": nn.MaxPool2d,
    "average": nn.AvgPool2d,
    "stochastic": lambda kernel, stride, padding: StochasticPool(kernel, stride=stride, padding=padding),
    "blur": lambda kernel, stride, _: BlurPool(kernel, stride=stride),
    "global_average": lambda *_: nn.AdaptiveAvgPool2d(1),
    "global_max": lambda *_: nn.AdaptiveMaxPool2d(1),
    "gem": lambda *_: GeneralisedMean(),
}
_GLOBAL = ("global_average", "global_max", "gem")


def pool(name: str, kernel: int | None = None, *, stride: int | None = None, padding: int = 0) -> nn.Module:
    """A pooling layer over `(n, c, h, w)` by name.

    Args:
        name: a key of `POOLS`; `global_average`, `global_max` and `gem` give `(n, c, 1, 1)`.
        kernel: side of a window, 2 unless given (for `blur` of the filter, 3).
        stride: pixels from one window to the next, the kernel unless given (for `blur` 2).
        padding: pixels on all sides, at most half the kernel: never the maximum, never drawn, and zeros that count in
            the average.

    Raises:
        ConfigError: the name is unknown, a number does not fit, or is given to a pooling that has no use for it.
    """
    if name not in POOLS:
        raise ConfigError(f"pool: there is none named {name!r}{nearest(name, POOLS)}")
    if name in _GLOBAL and (kernel is not None or stride is not None or padding):
        raise ConfigError(f"pool: {name} takes whole maps, so it has no kernel, stride or padding")
    if name == "blur" and padding:
        raise ConfigError("padding: blur reflects the border by itself, and takes none")
    if kernel is None:
        kernel = 3 if name == "blur" else 2
    if stride is None:
        stride = 2 if name == "blur" else kernel
    _check_window(kernel, stride, padding)
    return POOLS[name](kernel, stride, padding)


def _check_window(kernel: int, stride: int, padding: int) -> None:
    check_positive(kernel, "kernel")
    check_positive(stride, "stride")
    if not 0 <= 2 * padding <= kernel:
        raise ConfigError(f"padding: must be from 0 to half the kernel of {kernel}, got {padding}")


def _counts(x: Tensor, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Windows down and across."""
    check_rank(x, "pool: x", "n c h w")
    height, width = x.shape[2] + 2 * padding, x.shape[3] + 2 * padding
    if not torch.compiler.is_compiling() and min(height, width) < kernel:
        raise ShapeError(f"pool: a window of {kernel}×{kernel} is larger than the padded map of {height}×{width}")
    return (height - kernel) // stride + 1, (width - kernel) // stride + 1


def _take(x: Tensor, index: Tensor) -> Tensor:
    """The pixels of each map that an index names, row by row; without a copy in channels-last memory too."""
    if x.is_contiguous(memory_format=torch.channels_last):
        planes, index = x.permute(0, 2, 3, 1), index.permute(0, 2, 3, 1)
        return planes.flatten(1, 2).gather(1, index.flatten(1, 2)).view(index.shape).permute(0, 3, 1, 2)
    return x.flatten(2).gather(2, index.flatten(2)).view(index.shape)
