"""Every random draw of the data path is a function of (seed, epoch, index): hashed seeds, and a fenced generator.

Nothing here keeps state. A draw never depends on which worker makes it or on what ran before, which is what makes
batches equal for any number of workers and after a resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["derive", "draws"]


def derive(seed: int, *parts: int | str) -> int:
    """A seed for one purpose, from the run's seed and what names the purpose.

    The value is a BLAKE2b hash: the same on every platform, Python version and process, and unrelated for
    neighbouring parts, which counters such as `seed + epoch` are not.

    Args:
        seed: the run's seed, any integer.
        *parts: integers and texts, for example `("order", epoch)`; `1` and `"1"` are different parts.

    Returns:
        An integer in [0, 2**64).

    Example:
        >>> derive(0, "order", 3) == derive(0, "order", 3), derive(0, "order", 3) == derive(0, "order", 4)
        (True, False)
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        text = part.encode() if isinstance(part, str) else str(int(part)).encode()
        # Kind and length first, so that no two lists of parts read the same.
        digest.update(b"%c%d:" % (b"s" if isinstance(part, str) else b"i", len(text)) + text)
    return int.from_bytes(digest.digest(), "little")


@contextmanager
def draws(seed: int, *parts: int | str) -> Iterator[None]:
    """Inside, torch's CPU generator gives the draws of `derive(seed, *parts)`; outside, it is as if nothing was drawn.

    Only torch's CPU generator is seeded: transforms v2 and this package draw from nothing else. The outer state
    comes back exactly, also after an exception; blocks may be nested. The engine behind the generator uses 32 bits of
    the seed, so among 100,000 blocks about one pair shares its draws, which does no harm.

    Args:
        seed: the run's seed.
        *parts: as in `derive`.
    """
    generator = torch.default_generator
    outer = generator.get_state()
    generator.manual_seed(derive(seed, *parts))
    try:
        yield
    finally:
        generator.set_state(outer)
