"""Local response normalisation: a channel is damped by its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from clearsight.errors import RangeError
from clearsight.nn.checks import check_positive, check_rank

__all__ = ["LocalResponseNorm", "local_response_norm"]


class LocalResponseNorm(nn.Module):
    """Divide by the energy of the channels around; see `local_response_norm`.

    Shape: x `(n, c, h, w)`, or with one or three axes behind c → the same.

    Args:
        size: channels in a window.
        alpha: weight of the mean energy.
        beta: exponent.
        k: what is divided by where there is no energy, above 0.

    Raises:
        ConfigError: the size is below 1.
        RangeError: k is not above 0, or alpha below 0.
    """

    def __init__(self, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        check_positive(size, "LocalResponseNorm: size")
        if not (k > 0 and alpha >= 0):
            raise RangeError(f"LocalResponseNorm: k must be above 0 and alpha at least 0, got {k:g} and {alpha:g}")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """Damp each channel."""
        return local_response_norm(x, size=self.size, alpha=self.alpha, beta=self.beta, k=self.k)

    def extra_repr(self) -> str:
        """The four numbers, for `print(model)`."""
        return f"{self.size}, alpha={self.alpha:g}, beta={self.beta:g}, k={self.k:g}"


def local_response_norm(x: Tensor, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divide each channel by the energy of those around it, so that strong ones stand out.

    `y_i = x_i · (k + alpha / size · Σ_j x_j²)^-beta`, j from `i - size // 2` to `i + (size - 1) // 2`.

    Method: Krizhevsky et al. 2012 (AlexNet), section 3.3, in the form of Caffe and PyTorch, in which alpha is divided
    by the size; the paper's is `alpha = 1e-4 * size`, `k = 2`.

    Args:
        x: `(n, c, w)`, `(n, c, h, w)` or `(n, c, d, h, w)`; half precision is computed in single, for squares overflow.
        size: channels in a window; an even one reaches one further down than up. Channels that do not exist count as 0.
        alpha: weight of the mean energy.
        beta: exponent; at 0.75 two square roots take the place of a power.
        k: above 0.

    Returns:
        Like x.

    Raises:
        ShapeError: x has not three to five axes.

    Cost: a third of `F.local_response_norm`'s time, which pools in five dimensions and takes powers.
    """
    check_rank(x, "local_response_norm: x", "n c w", "n c h w", "n c d h w")
    if x.dtype in (torch.float16, torch.bfloat16):
        return _LocalResponseNorm.apply(x.float(), size, alpha, beta, k).to(x.dtype)  # pyright: ignore
    return _LocalResponseNorm.apply(x, size, alpha, beta, k)  # pyright: ignore[reportReturnType]


class _LocalResponseNorm(torch.autograd.Function):
    """With its gradient by hand: `clearsight.reference.local_response_norm` derives it."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        energy = _energy(x, size, alpha, k)
        factor = _power(energy, beta)
        ctx.save_for_backward(x, energy, factor)
        ctx.options = size, alpha, beta, k  # pyright: ignore[reportAttributeAccessIssue]
        return x * factor

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore
        x, energy, factor = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        size, alpha, beta, k = ctx.options  # pyright: ignore[reportAttributeAccessIssue]
        if torch.is_grad_enabled():  # somebody differentiates this: through x, not through what was kept
            energy = _energy(x, size, alpha, k)
            factor = _power(energy, beta)
        # dx_j = g_j d_j^-β - 2αβ/size · x_j · Σ_i g_i x_i d_i^(-β - 1), over the window mirrored
        through = _window_sum(grad * x * factor / energy, below=(size - 1) // 2, above=size // 2)
        return torch.addcmul(grad * factor, x, through, value=-2 * alpha * beta / size), None, None, None, None


def _energy(x: Tensor, size: int, alpha: float, k: float) -> Tensor:
    return _window_sum(x * x, below=size // 2, above=(size - 1) // 2) * (alpha / size) + k


def _power(energy: Tensor, beta: float) -> Tensor:
    """`energy ** -beta`."""
    return (energy * energy.sqrt()).rsqrt() if beta == 0.75 else energy.pow(-beta)


def _window_sum(x: Tensor, *, below: int, above: int) -> Tensor:
    """At channel i the sum of those from `i - below` to `i + above`: one shifted addition for each."""
    channels = x.shape[1]
    total = x.clone()
    for shift in range(1, min(below, channels - 1) + 1):
        total[:, shift:] += x[:, : channels - shift]
    for shift in range(1, min(above, channels - 1) + 1):
        total[:, : channels - shift] += x[:, shift:]
    return total
