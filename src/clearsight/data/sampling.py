"""Which samples make which batch: a pure function of (seed, epoch), cut into equal slices for several processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from clearsight.data.seeds import derive
from clearsight.errors import RangeError

__all__ = ["EpochBatches"]


@dataclass(frozen=True, kw_only=True)
class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The batches of one epoch as lists of keys `(epoch, index)`.

    `drop_last` drops the last, shorter batch only if at least one full batch exists: a data set smaller than a batch
    still gives its one short batch, so that training on few images works.

    With several processes, each global batch of `batch_size` keys is cut into `world` contiguous slices, so that
    together the processes see what one process would see. A short last batch is cut as evenly as possible; where it has
    fewer keys than processes, keys are repeated so that every process has one (read `meta.index` to tell).

    Args:
        n: number of samples.
        batch_size: keys a batch, over all processes together.
        seed: the run's seed.
        epoch: from 0.
        start: batches to leave out at the beginning, for a resume within the epoch.
        rank: this process, in [0, world).
        world: number of processes; at most `batch_size`.
        shuffle: a new order each epoch; else the order of the data.
        drop_last: see above.

    Raises:
        RangeError: a value is out of its range.
    """

    n: int
    batch_size: int
    seed: int = 0
    epoch: int = 0
    start: int = 0
    rank: int = 0
    world: int = 1
    shuffle: bool = True
    drop_last: bool = True

    def __post_init__(self) -> None:
        if self.n < 1:
            raise RangeError(f"EpochBatches: n is {self.n}; expected at least one sample")
        if self.batch_size < 1:
            raise RangeError(f"EpochBatches: batch_size is {self.batch_size}; expected at least 1")
        if not 0 <= self.rank < self.world:
            raise RangeError(f"EpochBatches: rank is {self.rank}; expected 0 to {self.world - 1} (world - 1)")
        if self.batch_size < self.world:
            raise RangeError(
                f"EpochBatches: batch_size is {self.batch_size} for {self.world} processes; expected at least one "
                "image a process; raise loader.batch_size"
            )
        if not 0 <= self.start <= self.total:
            raise RangeError(f"EpochBatches: start is {self.start}; expected 0 to {self.total} (batches an epoch)")

    @property
    def total(self) -> int:
        """Batches of the whole epoch, whatever `start` is."""
        full = self.n // self.batch_size
        return full if self.drop_last and full else -(-self.n // self.batch_size)

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self._order()
        for batch in range(self.start, self.total):
            keys = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            keys += [keys[i % len(keys)] for i in range(self.world - len(keys))]
            first, last = (len(keys) * r // self.world for r in (self.rank, self.rank + 1))
            yield [(self.epoch, index) for index in keys[first:last]]

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.n))
        generator = torch.Generator().manual_seed(derive(self.seed, "order", self.epoch))
        return torch.randperm(self.n, generator=generator).tolist()
