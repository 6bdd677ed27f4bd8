"""Learned positions of a grid of patches, for grids of any size."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["PositionResize", "cubic_weights"]

Pair = tuple[int, int]


def cubic_weights(old: int, new: int, *, device: torch.device | None = None) -> Tensor:
    """Bicubic interpolation with antialiasing along one axis, as a matrix: row i says what new place i takes of old.

    Method: Keys 1981 with a = -0.5, the kernel stretched by the ratio of sizes where the new grid is the coarser, and
    rows that sum to one: what `F.interpolate(mode="bicubic", antialias=True)` does, whose operator runtimes of exported
    graphs lack.

    Args:
        old: places there are.
        new: places wanted; it may be a symbol while a graph is exported.
        device: of the matrix.

    Returns:
        `(new, old)` float64; the identity where both are equal.
    """
    to = torch.arange(new, device=device, dtype=torch.float64)[:, None] + 0.5
    at = torch.arange(old, device=device, dtype=torch.float64) + 0.5
    ratio = old / (to[-1] + 0.5)  # old / new, as a tensor: compilers are poor at symbols that are no whole numbers
    away = ((at - to * ratio) / ratio.clamp(min=1)).abs()
    near = (1.5 * away - 2.5) * away.square() + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    weights = near.where(away <= 1, far.where(away < 2, 0.0))
    return weights / weights.sum(1, keepdim=True)


class PositionResize:
    """Positions of a grid for a grid of another size.

    Bicubic with antialiasing, as timm's `resample_abs_pos_embed`, by two products with matrices, which are kept for the
    last size.

    Args:
        grid: rows and columns that positions are learned for.
    """

    def __init__(self, grid: Pair) -> None:
        self.grid = grid
        # The matrices of the last size: (size and device, matrices). One attribute, so that threads may share it.
        self._held: tuple[tuple[Pair, torch.device], tuple[Tensor, Tensor]] | None = None

    def __call__(self, positions: Tensor, size: Pair) -> Tensor:
        """Resize.

        Args:
            positions: `(1, rows · columns, c)`.
            size: rows and columns wanted.

        Returns:
            `(1, size[0] · size[1], c)`; the positions themselves where the size is theirs.
        """
        if all(isinstance(side, int) for side in size) and size == self.grid:  # symbols are not compared
            return positions
        down, across = self._weights(size, positions.device)
        table = positions.view(*self.grid, -1)  # rows columns c
        # In float32 under autocast too: positions of half precision would be coarser than the steps between them.
        with torch.autocast(positions.device.type, enabled=False):
            table = torch.matmul(across.to(table.dtype), table)  # rows across c
            table = torch.matmul(down.to(table.dtype), table.flatten(1))  # down across·c
        return table.view(1, size[0] * size[1], -1)

    def _weights(self, size: Pair, device: torch.device) -> tuple[Tensor, Tensor]:
        """The matrices for this size, made when the size changes."""
        if torch.compiler.is_compiling():
            return self._made(size, device)
        held = self._held
        if held is None or held[0] != (size, device):
            with torch.inference_mode(mode=False):  # what a prediction made must serve the next training step
                held = self._held = ((size, device), self._made(size, device))
        return held[1]

    def _made(self, size: Pair, device: torch.device) -> tuple[Tensor, Tensor]:
        down, across = (cubic_weights(old, new, device=device) for old, new in zip(self.grid, size, strict=True))
        return down, across
