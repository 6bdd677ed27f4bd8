"""All random streams a run can draw from: read, put back, kept unchanged by what only looks on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["kept_random_state", "random_state", "seed_streams", "set_random_state"]


def random_state() -> dict[str, Any]:
    """States of torch's (CPU and this process's CUDA device), NumPy's and Python's global streams, as plain values."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - user code may draw from it
    version, internal, gauss = random.getstate()
    # Of this process's device only: asking for all would open a context on every GPU in every process.
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [
            kind,
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, list(internal), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all streams back to what `random_state` gave; CUDA's is left out where there is no CUDA."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002 - see above
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def seed_streams(seed: int, *, rank: int) -> None:
    """Start all streams from one seed, other ones in each process, so that processes drop other units."""
    torch_seed, python_seed, numpy_seed = (int(word) for word in np.random.SeedSequence([seed, rank]).generate_state(3))
    torch.manual_seed(torch_seed)
    random.seed(python_seed)
    np.random.seed(numpy_seed)  # noqa: NPY002 - see above


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Whatever is drawn inside, the streams go on outside as if nothing had been."""
    # As `random_state`, without turning them into plain values: this runs at every step.
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - see above
    cuda_state = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 - see above
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state)
