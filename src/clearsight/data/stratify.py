"""Iterative stratification: parts of given shares in which every class is in proportion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["assign_units", "shares_to_counts"]


def assign_units(
    sizes: np.ndarray, vectors: np.ndarray, fractions: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Give each unit (an image, or a group of images) to one part.

    Method: Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6_10: the rarest class first, each of its units to the
    part that still wants most of it. Differs from the paper: a unit counts as often as it shows a class, units have
    sizes, and a unit goes where it brings the parts nearest to their shares. The part that wants most, which for units
    of one is nearly always the same, would get all the large groups.

    Args:
        sizes: `(n,)` images of each unit.
        vectors: `(n, k)` how often each unit shows each class; k = 0 splits by size alone.
        fractions: shares of the parts, adding up to 1.
        rng: decides among equals.

    Returns:
        `(n,)` int64 part of each unit. Parts with a share above 0 get at least one unit, where there are as many.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    wanted_images = shares_to_counts(int(sizes.sum()), shares).astype(np.float64)
    wanted = shares[:, None] * vectors.sum(axis=0)
    parts = np.full(len(sizes), -1, dtype=np.int64)
    left = vectors.sum(axis=0)
    order = rng.permutation(len(sizes))
    # Large units first: what is left over then fills the parts evenly.
    order = order[np.argsort(-sizes[order], kind="stable")]
    while len(order):
        shown = np.flatnonzero(left > 1e-9)
        rarest = int(shown[np.argmin(left[shown])]) if len(shown) else None
        turn = order if rarest is None else order[vectors[order, rarest] > 0]
        for unit in turn:
            part = _neediest(wanted_images, wanted, shares, rarest, int(sizes[unit]), vectors[unit])
            parts[unit] = part
            wanted_images[part] -= sizes[unit]
            wanted[part] -= vectors[unit]
        left = left - vectors[turn].sum(axis=0)
        order = order[parts[order] < 0]
    return _fill_empty(parts, sizes, shares, rng)


def _neediest(
    wanted_images: np.ndarray,
    wanted: np.ndarray,
    shares: np.ndarray,
    label: int | None,
    size: int,
    vector: np.ndarray,
) -> int:
    """The part where a unit leaves the least lacking of its class, then of images; full parts come last."""
    open_ = (shares > 0) & (wanted_images >= min(size, 1) - 1e-9)
    if not open_.any():
        open_ = shares > 0
    images = _relief(wanted_images, size, shares)
    relief = images if label is None else _relief(wanted[:, label], float(vector[label]), shares)
    best = np.flatnonzero(open_ & (relief >= relief[open_].max() - 1e-9))
    return int(best[np.argmax(images[best])])


def _relief(wanted: np.ndarray, given: float, shares: np.ndarray) -> np.ndarray:
    """By how much `Σ wanted² / share`, the distance of the parts from their shares, falls if a part gets so many."""
    return (2 * wanted - given) * given / np.maximum(shares, 1e-12)


def _fill_empty(parts: np.ndarray, sizes: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move single units, the smallest of the fullest part, to parts that got none."""
    for part in np.flatnonzero(shares > 0):
        counts = np.bincount(parts, minlength=len(shares))
        if counts[part] or not len(parts) or counts.max() < 2:
            continue
        members = rng.permutation(np.flatnonzero(parts == counts.argmax()))
        parts[members[np.argmin(sizes[members])]] = part
    return parts


def shares_to_counts(total: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to shares that add up to the total (largest remainders)."""
    exact = shares / shares.sum() * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    rest = total - int(counts.sum())
    counts[np.argsort(-(exact - counts), kind="stable")[:rest]] += 1
    return counts
