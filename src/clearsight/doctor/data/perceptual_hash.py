"""Hashes that stay the same when a picture is resized or saved again, and all pairs of them that nearly agree."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np

from clearsight.errors import RangeError, ShapeError

__all__ = ["hash_distance", "near_pairs", "perceptual_hashes"]

_SIDE, _BITS, _CHUNK = 32, 64, 8192

# Cosine transform, frequencies 1 to 8 of 32 samples: without the mean, so that brightness does not count.
_COSINES = np.cos(np.pi / _SIDE * np.arange(1, 9)[:, None] * (np.arange(_SIDE) + 0.5)).astype(np.float32)
_ONES = np.array([bin(value).count("1") for value in range(1 << 16)], dtype=np.uint8)


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """64 bits a picture: which of its 8 × 8 lowest frequencies are above their median.

    Method: Zauner 2010, Implementation and benchmarking of perceptual image hash functions, section 3.2.1 (DCT based).
        Differs: the picture is smoothed by the resizing to 32 × 32 instead of by a mean filter.

    Args:
        thumbnails: `(n, 32, 32)` grey.

    Returns:
        `(n,)` uint64. Pictures without any structure have hashes that mean nothing.

    Raises:
        ShapeError: other thumbnails.
    """
    if thumbnails.ndim != 3 or thumbnails.shape[1:] != (_SIDE, _SIDE):
        raise ShapeError(f"thumbnails: expected (n, {_SIDE}, {_SIDE}), got {thumbnails.shape}")
    hashes = np.zeros(len(thumbnails), dtype=np.uint64)
    weight = np.uint64(1) << np.arange(_BITS, dtype=np.uint64)
    for start in range(0, len(thumbnails), _CHUNK):
        part = thumbnails[start : start + _CHUNK].astype(np.float32)
        waves = (_COSINES @ part @ _COSINES.T).reshape(len(part), _BITS)
        above = waves > np.median(waves, axis=1, keepdims=True)
        hashes[start : start + _CHUNK] = (above * weight).sum(axis=1, dtype=np.uint64)
    return hashes


def hash_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number of bits that differ.

    Args:
        a: uint64, of any shape.
        b: uint64, of the same shape.

    Returns:
        int64 of that shape, in [0, 64].
    """
    words = np.ascontiguousarray(a ^ b)[..., None].view(np.uint16)
    return _ONES[words].sum(axis=-1, dtype=np.int64)


def near_pairs(hashes: np.ndarray, *, distance: int = 2) -> np.ndarray:
    """All pairs of hashes that differ in at most `distance` bits; none is missed, and not all are compared.

    Method: Norouzi, Punjani and Fleet 2012, arXiv:1307.2982, section 3 (multi-index hashing). Differs: the bits are cut
        into `distance + 2` bands and hashes are compared that agree in two of them, which two hashes with at most
        `distance` wrong bits must; a key of two bands is far more selective than one of the `distance + 1` wider bands
        of the paper.

    Args:
        hashes: `(n,)` uint64.
        distance: in bits, 0 to 8.

    Returns:
        `(p, 2)` int64 positions, the smaller one first, sorted.

    Raises:
        RangeError: `distance` is outside its range.

    Cost: for distance 2 six sorts of n; pairs that are returned, and few others, are compared.
    """
    if not 0 <= distance <= 8:
        raise RangeError(f"distance: expected 0 to 8 bits, got {distance}")
    edges = np.linspace(0, _BITS, distance + 3).round().astype(np.uint64)
    bands = [_bits(int(low), int(high)) for low, high in pairwise(edges)]
    found = [_agreeing(hashes, first | second, distance) for first, second in combinations(bands, 2)]
    codes = np.unique(np.concatenate(found))
    return np.stack(np.divmod(codes, max(len(hashes), 1)), axis=1)


def _bits(low: int, high: int) -> int:
    return (1 << high) - (1 << low)


def _agreeing(hashes: np.ndarray, mask: int, distance: int) -> np.ndarray:
    """Pairs, as first · n + second, that are equal under the mask and near in all."""
    key = hashes & np.uint64(mask)
    order = np.argsort(key)
    key, sorted_hashes, n = key[order], hashes[order], len(hashes)
    found: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
    at, step = np.arange(n), 0
    while True:  # neighbours in the order, then those two apart, and so on while any still agree
        step += 1
        at = at[at + step < n]
        at = at[key[at] == key[at + step]]
        if not len(at):
            return np.concatenate(found)
        near = at[hash_distance(sorted_hashes[at], sorted_hashes[at + step]) <= distance]
        a, b = order[near], order[near + step]
        found.append(np.minimum(a, b) * n + np.maximum(a, b))
