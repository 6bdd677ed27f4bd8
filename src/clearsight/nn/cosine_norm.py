"""Layers whose responses are cosines between weight and input."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import RangeError, ShapeError
from clearsight.nn.checks import check_divides, check_positive, check_rank

__all__ = ["CosineConv2d", "CosineLinear"]


class _Cosine(nn.Module):
    """A weight, and an optional learned scale of the cosines."""

    def __init__(self, weight: Tensor, scale: float | None, eps: float) -> None:
        super().__init__()
        if not eps > 0:
            raise RangeError(f"eps: must be above 0, got {eps:g}")
        self.eps = eps
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(weight, a=math.sqrt(5)))
        self.scale = None if scale is None else nn.Parameter(torch.tensor(float(scale)))

    def _scaled(self, cosine: Tensor) -> Tensor:
        return cosine if self.scale is None else cosine * self.scale

    def _least(self, dtype: torch.dtype) -> float:
        """The least length; in float16 more than eps, for its reciprocal comes back as a gradient in that type."""
        return max(self.eps, torch.finfo(dtype).tiny ** 0.5)

    def _unit_weight(self) -> Tensor:
        """Every output's weight at length 1, in single precision at least."""
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        return F.normalize(weight.flatten(1), dim=1, eps=self.eps).view_as(weight)


class CosineLinear(_Cosine):
    """A linear layer whose outputs are cosines, in [-1, 1]: `y = w · x / (‖w‖ ‖x‖)`.

    Method: Luo et al. 2017, arXiv:1702.05870, equation 2. Differs: lengths below eps count as eps, so that a zero input
    gives 0 and finite gradients.

    Shape: x `(…, in_features)` → `(…, out_features)`.

    Args:
        in_features: of the input.
        out_features: number of outputs.
        scale: where a learned factor of all outputs starts, for a softmax behind; None for none.
        eps: least length that is divided by; gradients of a zero input are `1 / eps` times as large as those behind.

    Raises:
        RangeError: eps is not above 0.
    """

    def __init__(self, in_features: int, out_features: int, *, scale: float | None = None, eps: float = 1e-6) -> None:
        check_positive(in_features, "in_features")
        check_positive(out_features, "out_features")
        super().__init__(torch.empty(out_features, in_features), scale, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Cosines between the input and every row of the weight."""
        if not torch.compiler.is_compiling() and (x.ndim == 0 or x.shape[-1] != self.weight.shape[1]):
            raise ShapeError(f"CosineLinear: x: expected (…, {self.weight.shape[1]}), got {tuple(x.shape)}")
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=_exact(x)).clamp(min=self._least(x.dtype))
        return self._scaled(F.linear((x / length).to(x.dtype), self._unit_weight().to(x.dtype)))

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


class CosineConv2d(_Cosine):
    """A convolution whose responses are cosines between the kernel and each patch, in [-1, 1].

    Method: Luo et al. 2017, arXiv:1702.05870, equation 2, with the patch for x; the length of a patch is that of the
    channels of its group. Lengths below eps count as eps, so that a patch of zeros gives 0 and finite gradients.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, ceil(h / stride), ceil(w / stride))` for odd kernels.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of the kernel.
        stride: step.
        padding: zeros on each side; None for `dilation * (kernel - 1) // 2`.
        dilation: distance between neighbours of the kernel.
        groups: channel groups.
        scale: where a learned factor of all outputs starts; None for none.
        eps: least length that is divided by; gradients of zero patches are `1 / eps` times as large as those behind.

    Raises:
        ConfigError: groups do not divide the channels, or a size is below 1.
        RangeError: eps is not above 0.
    """

    def __init__(  # noqa: PLR0913 - those of a convolution
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        scale: float | None = None,
        eps: float = 1e-6,
    ) -> None:
        for name, number in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
            check_positive(number, name)
        check_divides(in_channels, groups, "groups")
        check_divides(out_channels, groups, "groups")
        super().__init__(torch.empty(out_channels, in_channels // groups, kernel, kernel), scale, eps)
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.padding = dilation * (kernel - 1) // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        """Cosines at each place."""
        check_rank(x, "CosineConv2d: x", "n c h w")
        response = F.conv2d(
            x, self._unit_weight().to(x.dtype), None, self.stride, self.padding, self.dilation, self.groups
        )
        length = self._patch_length(x, self._least(response.dtype))  # n groups h w
        if self.groups > 1:
            length = length.repeat_interleave(len(self.weight) // self.groups, dim=1)
        return self._scaled((response / length).to(response.dtype))

    def _patch_length(self, x: Tensor, least: float) -> Tensor:
        """Of each group's part of each patch; sums of squares are those of one channel a group."""
        squares = x.to(_exact(x)).square()
        squares = squares.unflatten(1, (self.groups, -1)).sum(dim=2)  # n groups h w
        kernel = self.weight.shape[2:]
        with torch.autocast(x.device.type, enabled=False):
            sums = F.conv2d(
                squares,
                squares.new_ones(self.groups, 1, *kernel),
                None,
                self.stride,
                self.padding,
                self.dilation,
                self.groups,
            )
        return sums.clamp(min=least**2).sqrt()

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        out_channels, part, kernel, _ = self.weight.shape
        return f"{part * self.groups}, {out_channels}, kernel={kernel}, stride={self.stride}, groups={self.groups}"


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
