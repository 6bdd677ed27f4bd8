"""Batches: ragged targets collated, worker processes kept, the same batches for any number of workers."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from clearsight.data.collate import collate
from clearsight.data.samples import SampleSet
from clearsight.data.sampling import EpochBatches
from clearsight.data.seeds import derive, draws
from clearsight.data.turning import rotate90
from clearsight.errors import ClearsightError, DataError
from clearsight.types import Batch, ImageMeta, Sample, Targets

__all__ = ["Loader", "collate"]

_SHARED_FROM = 1 << 16  # bytes from which a tensor travels in shared memory


class Loader:
    """Batches of one data set, epoch by epoch.

    Every draw belongs to (seed, epoch, index), so 0, 1 and 4 workers give the same bits, and so does starting at any
    batch of an epoch. Nothing is drawn from torch's, NumPy's or Python's global generators. Workers start with the
    first epoch, live until `close`, and fill a shared cache. Use one epoch's iterator at a time.

    Args:
        samples: what to load.
        batch_size: images of one batch, over all processes together.
        workers: worker processes of this process; 0 loads in this one.
        seed: the run's seed, for the order.
        shuffle: a new order each epoch.
        drop_last: drop a last, shorter batch; kept all the same where it is the only one (`EpochBatches`).
        rank: this process.
        world: number of processes.
        pin_memory: page-lock batches for faster copies to a GPU; without one it does nothing.
        read_ahead: workers go on with the next epoch while this one ends, as training asks for epochs one after the
            other; else they wait, as before an evaluation that may never come again.

    Raises:
        RangeError: batch size or rank do not fit (`EpochBatches`).
    """

    def __init__(  # noqa: PLR0913 - each is a plain value that the recipe or the launcher gives
        self,
        samples: SampleSet,
        *,
        batch_size: int,
        workers: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
        pin_memory: bool = False,
        read_ahead: bool = False,
    ) -> None:
        self.samples, self.workers = samples, workers
        self._batches = EpochBatches(
            n=len(samples),
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            rank=rank,
            world=world,
        )
        self._plan = _Plan(self._batches, endless=read_ahead and workers > 0)
        self._running: Iterator[Batch | _Failure] | None = None
        self._next = (-1, -1)  # epoch and number of the batch that `_running` gives next
        with _accepted_warnings():
            self._loader: torch_data.DataLoader | None = torch_data.DataLoader(
                _Batches(samples),
                batch_size=None,  # an item is a batch
                sampler=self._plan,
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=pin_memory and torch.cuda.is_available(),
                worker_init_fn=_start_worker,
                multiprocessing_context=_start_method() if workers else None,
                generator=torch.Generator().manual_seed(derive(seed, "loader")),
                persistent_workers=workers > 0,
            )

    def __len__(self) -> int:
        return self._batches.total

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch.

        Args:
            epoch: from 0.
            start: batches to leave out at the beginning; they are not loaded.

        Raises:
            RangeError: `start` lies beyond the epoch.
            DataError: a sample cannot be loaded (the message names its file and index), or a worker died.
        """
        return self._run(replace(self._batches, epoch=epoch, start=start))

    def _run(self, batches: EpochBatches) -> Iterator[Batch]:
        if self._loader is None:
            raise DataError("the loader is closed; make a new one")
        wanted = (batches.epoch, batches.start)
        if self._running is None or self._next != wanted or not self._plan.endless:
            self._plan.batches = batches
            self._running, self._next = _iterate(self._loader), wanted
        for number in range(batches.start, batches.total):
            self._next = (batches.epoch, number + 1) if number + 1 < batches.total else (batches.epoch + 1, 0)
            batch = next(self._running)
            if isinstance(batch, _Failure):
                raise batch.error()
            yield batch

    def close(self) -> None:
        """Stop the workers; the loader cannot be used afterwards."""
        loader, self._loader, self._running = self._loader, None, None
        iterator = getattr(loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()


class _Request(NamedTuple):
    """What a worker is asked for: the keys of one batch, and its number in the epoch, the same on every process."""

    epoch: int
    number: int
    keys: list[tuple[int, int]]


class _Plan(torch_data.Sampler[_Request]):
    """Hands workers another epoch: the DataLoader asks it anew for each or, endless, for one after the other."""

    def __init__(self, batches: EpochBatches, *, endless: bool) -> None:
        self.batches, self.endless = batches, endless

    def __iter__(self) -> Iterator[_Request]:
        batches = self.batches
        while True:
            for number, keys in enumerate(batches, start=batches.start):
                yield _Request(batches.epoch, number, keys)
            if not self.endless:
                return
            batches = replace(batches, epoch=batches.epoch + 1, start=0)

    def __len__(self) -> int:
        return len(self.batches)


@dataclass(frozen=True)
class _Failure:
    """What went wrong with a sample, as a value: a raised error would reach the parent as the text of a traceback."""

    message: str
    details: str | None

    def error(self) -> DataError:
        error = DataError(self.message)
        if self.details:
            error.add_note(self.details)
        return error


class _Parcel:
    """A batch on its way from a worker; it arrives as the batch itself.

    Small tensors travel as bytes: each one in shared memory costs a file, a mapping and a message of its own.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[object, ...]]:
        batch, targets = self.batch, self.batch.targets
        given = {name: _light(value) for name in targets.__slots__ if (value := getattr(targets, name)) is not None}
        return _unpack, (batch.images, _light(batch.sizes), given, batch.meta)


def _light(tensor: Tensor) -> Tensor | np.ndarray:
    return tensor.numpy() if tensor.nbytes < _SHARED_FROM else tensor


def _unpack(
    images: Tensor, sizes: Tensor | np.ndarray, targets: dict[str, Tensor | np.ndarray], meta: list[ImageMeta]
) -> Batch:
    given = {name: torch.as_tensor(value) for name, value in targets.items()}
    return Batch(images=images, sizes=torch.as_tensor(sizes), targets=Targets(**given), meta=meta)


class _Batches(torch_data.Dataset[Batch | _Parcel | _Failure]):
    """Batches by request, or the first failure among their samples."""

    def __init__(self, samples: SampleSet) -> None:
        self.samples = samples

    def __getitem__(self, request: _Request) -> Batch | _Parcel | _Failure:
        found = []
        for epoch, index in request.keys:
            try:
                found.append(self.samples[epoch, index])
            except Exception as err:  # noqa: BLE001 - whatever it is, the file and index must be named
                where = f"{self.samples.records[index].image} (sample {index}, epoch {epoch})"
                known = isinstance(err, ClearsightError)
                message = f"{where}: {err}" if known else f"{where}: {type(err).__name__}: {err}"
                return _Failure(message, None if known else traceback.format_exc())
        batch = self._collate(found, request)
        return batch if torch_data.get_worker_info() is None else _Parcel(batch)

    def _collate(self, samples: list[Sample], request: _Request) -> Batch:
        height, width = self.samples.size
        if self._turns(request):
            return collate([rotate90(sample, 1) for sample in samples], size=(width, height))
        return collate(samples, size=(height, width))

    def _turns(self, request: _Request) -> bool:
        """A batch shares one shape, so images that are not square can only turn together (`augment.turn_batches`)."""
        if not self.samples.turn_batches:
            return False
        with draws(self.samples.seed, "turn", request.epoch, request.number):
            return float(torch.rand(())) < self.samples.turn_batches


def _as_it_is(batch: object) -> object:
    return batch


def _iterate(loader: torch_data.DataLoader) -> Iterator[Batch | _Failure]:
    try:
        with _accepted_warnings():
            iterator = iter(loader)
        yield from iterator
    except (RuntimeError, OSError, EOFError) as err:
        # What goes wrong with a sample comes as a value; an operating system's error is a connection that broke.
        if isinstance(err, RuntimeError) and "DataLoader worker" not in str(err):
            raise
        raise DataError(
            f"a worker process of the loader died: {err}. Often memory or /dev/shm is full: lower loader.workers or "
            "loader.batch_size, or set loader.workers=0 to see the cause"
        ) from err


@contextmanager
def _accepted_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # Forking beside other threads is what a DataLoader does; workers touch none of their locks.
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        # More workers than cores is the caller's choice.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # An interrupt is for the parent, which stops its workers; they must not each print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _start_method() -> str:
    """Fork where it is safe: workers then start at once and inherit the cache."""
    forks = sys.platform.startswith("linux") and "fork" in multiprocessing.get_all_start_methods()
    return "fork" if forks else "spawn"
