"""Which pictures of a data set are nearly the same: candidates by hash, told from mere likeness by their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearsight.doctor.data.perceptual_hash import near_pairs
from clearsight.doctor.data.scan import Scan

__all__ = ["PicturePairs", "find_picture_pairs", "varied_rows"]

_FLAT = 2.0  # grey levels: a thumbnail that deviates less shows nothing that could be compared
_CROWD = 64  # of pictures with one hash so many are compared with all others, the rest with the first
_PARTS = (1.0, 0.75, 0.5, 0.25, 0.1)  # of the distance between the least correlation and 1
_LIKE = 0.9  # correlation from which on pictures are alike
_FEW = 10  # pairs, below which counts say little
_SURE = 0.995  # 95 % of the pictures of four real sets have it saved again, as JPEG of quality 60 or at half their size
_CHUNK = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PicturePairs:
    """Pairs of records whose pictures are nearly the same, without those of equal bytes.

    Args:
        rows: `(p, 2)` int64 positions in the scan, the smaller one first, most alike first.
        similarity: `(p,)` float64 correlation of their thumbnails.
        needed: the correlation above which pictures of this set are copies and not merely alike.
    """

    rows: np.ndarray
    similarity: np.ndarray
    needed: float

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, kept: np.ndarray) -> PicturePairs:
        """Those at `kept`, a mask or positions."""
        return PicturePairs(rows=self.rows[kept], similarity=self.similarity[kept], needed=self.needed)


def varied_rows(scan: Scan, rows: np.ndarray) -> np.ndarray:
    """Those of some records whose pictures show anything: nearly uniform ones cannot be compared."""
    deviation = np.array([scan.thumbnails[row].std() for row in rows], dtype=np.float64)
    return rows[deviation >= _FLAT]


def find_picture_pairs(scan: Scan, rows: np.ndarray, *, distance: int = 4, similarity: float = 0.98) -> PicturePairs:
    """Find pairs whose hashes differ in few bits and whose thumbnails correlate.

    Hashes alone call pictures alike that are not, so the thumbnails decide. How alike is enough depends on the set: of
    10,000 handwritten digits 59 pairs of ones correlate above 0.98 without being copies, and 473 above 0.96; likeness
    thins out towards 1, copies gather there. So the threshold is raised until the pairs above it are at least twice as
    many as those in a band of the same width below; where they never are, the set has no copies that could be told.
    A few pairs among others that are alike, as crops of smooth blobs are, need 0.995.

    Args:
        scan: of the data set.
        rows: `(n,)` which of its records: those of `varied_rows`; of files with equal bytes best one.
        distance: bits of the hash that may differ.
        similarity: correlation of the thumbnails that is needed at least.
    """
    rows = np.sort(rows)
    pairs = rows[_candidates(scan.phash[rows], distance)]
    md5 = np.array(scan.md5)
    pairs = pairs[md5[pairs[:, 0]] != md5[pairs[:, 1]]]
    alike = np.empty(len(pairs))
    for start in range(0, len(pairs), _CHUNK):
        part = pairs[start : start + _CHUNK]
        alike[start : start + _CHUNK] = _correlation(scan.thumbnails[part[:, 0]], scan.thumbnails[part[:, 1]])
    needed = _where_copies_begin(alike, similarity)
    kept = np.flatnonzero(alike > needed)
    kept = kept[np.argsort(-alike[kept], kind="stable")]
    return PicturePairs(rows=pairs[kept], similarity=alike[kept], needed=needed)


def _where_copies_begin(alike: np.ndarray, similarity: float) -> float:
    for part in _PARTS:
        level = 1 - part * (1 - similarity)
        above = int((alike > level).sum())
        band = int((alike > 2 * level - 1).sum()) - above
        likes = int((alike > min(_LIKE, 2 * level - 1)).sum()) - above
        if 2 * band <= above and (above >= _FEW or not likes or level >= _SURE):
            return level
    return 1.0


def _candidates(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Positions of near hashes, `(p, 2)`; a crowd with one hash gives a star instead of all its pairs."""
    _, first, which, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    rank = np.empty(len(hashes), dtype=np.int64)
    rank[order] = np.arange(len(hashes)) - np.repeat(np.cumsum(counts) - counts, counts)
    all_round, rest = np.flatnonzero(rank < _CROWD), np.flatnonzero(rank >= _CROWD)
    star = np.stack((first[which[rest]], rest), axis=1)
    return np.concatenate((all_round[near_pairs(hashes[all_round], distance=distance)], star))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's, of each picture of `a` with that of `b`, both `(p, 32, 32)`."""
    x, y = (part.reshape(len(part), -1).astype(np.float64) for part in (a, b))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    norm = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    return (x * y).sum(axis=1) / np.maximum(norm, 1e-12)
