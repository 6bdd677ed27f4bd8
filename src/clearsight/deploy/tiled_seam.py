"""Weighted windows added up, row by row of windows; only what later windows still add to is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from clearsight.deploy.tiles import Span

__all__ = ["Seam"]


class Seam:
    """One row of windows: what the rows above left over goes in, finished pixels come out, the rest is `below`.

    Attributes:
        below: sums of the rows that the next row of windows still adds to, `(k, rows, width)`; after the last piece.

    Args:
        above: `below` of the row before, from this row's first pixel on; None for the first row.
        finished: how many of this row's pixel rows nobody adds to any more.
        width: of the image.
    """

    def __init__(self, above: Tensor | None, *, finished: int, width: int) -> None:
        self.below: Tensor | None = None
        self._above = above
        self._finished = finished
        self._width = width

    def pieces(self, windows: Iterable[Tensor], row: Span, columns: Sequence[Span]) -> Iterator[Tensor]:
        """Finished sums `(k, finished, …)`, from left to right, that together are as wide as the image.

        Args:
            windows: the net's output `(k, h, w)` for each column.
            row: of the windows.
            columns: one a window.
        """
        down = torch.from_numpy(row.weight)[:, None]
        begun = None  # sums of the columns that the next window still adds to
        ends = [*(column.first for column in columns[1:]), self._width]
        for window, column, end in zip(windows, columns, ends, strict=True):
            total = window[:, row.kept, column.kept] * (down * torch.from_numpy(column.weight))
            if begun is not None:
                total[:, :, : begun.shape[2]] += begun
            done, begun = total[:, :, : end - column.first], total[:, :, end - column.first :]
            if self._above is not None:
                done[:, : self._above.shape[1]] += self._above[:, :, column.first : end]
            if self.below is None:
                self.below = total.new_empty((total.shape[0], total.shape[1] - self._finished, self._width))
            self.below[:, :, column.first : end] = done[:, self._finished :]
            yield done[:, : self._finished]
