"""The same picture twice: in two splits, where it makes scores too good, or inside one, where it counts double."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clearsight.data.splits import find_leaks
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.file_names import file_names
from clearsight.doctor.data.picture_pairs import PicturePairs, find_picture_pairs, varied_rows
from clearsight.doctor.data.split_rows import distinct_rows, split_rows
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["Leaks", "NearDuplicates", "NearDuplicatesAcrossSplits"]

_SHOWN = 20


class Leaks(Rule[DataEvidence]):
    """D3: the same bytes, or the same group, in several splits; what was found already is not said again."""

    id = "leak"
    source = "cleanvision; fastdup"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """As `data.splits.find_leaks`."""
        known = evidence.dataset.findings
        return [finding for finding in find_leaks(evidence.dataset) if finding not in known]


class NearDuplicatesAcrossSplits(Rule[DataEvidence]):
    """D3: nearly the same picture in two splits; files with the same bytes are `Leaks`'s.

    Args:
        distance: bits of a 64-bit perceptual hash that may differ.
        similarity: correlation of the thumbnails above which two pictures may be the same; see `find_picture_pairs`.
        share: of the smaller split's images from which it is a warning.
    """

    id = "near-duplicate-across-splits"
    source = "cleanvision; fastdup"

    def __init__(self, *, distance: int = 4, similarity: float = 0.98, share: float = 0.001) -> None:
        self.distance, self.similarity, self.share = distance, similarity, share

    def lacks(self, evidence: DataEvidence) -> str:
        """At least two splits."""
        return "" if len(_splits(evidence)) > 1 else "a second split"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for each pair of splits."""
        splits = _splits(evidence)
        pairs, owner = _pairs(evidence, splits, distance=self.distance, similarity=self.similarity)
        for (a, name_a), (b, name_b) in combinations(enumerate(splits), 2):
            between = (np.sort(owner[pairs.rows], axis=1) == (a, b)).all(axis=1)
            if between.any():
                small = min((name_a, name_b), key=lambda name: len(splits[name]))
                yield self._finding(evidence, (name_a, name_b), small, pairs.select(between))

    def _finding(self, evidence: DataEvidence, names: tuple[str, str], small: str, pairs: PicturePairs) -> Finding:
        rows = _splits(evidence)[small]
        other = names[0] if small == names[1] else names[1]
        count = int(np.isin(rows, pairs.rows).sum())
        share = count / len(rows)
        return Finding(
            id=self.id,
            severity="warning" if share > self.share else "info",
            where=f"{evidence.dataset.root} ({names[0]}, {names[1]})",
            explanation=(
                f"{count} of {len(rows)} images of {small} ({share:.1%}) are nearly the same as one of {other}: "
                f"hashes differ in at most {self.distance} of 64 bits and thumbnails correlate above "
                f"{pairs.needed:g}. What was trained on is then scored, and the score is too good; put copies of a "
                "picture into one split (by a group), or drop them."
            ),
            action="kept",
            evidence={
                "row": "D3",
                "splits": list(names),
                "images": count,
                "share": share,
                "threshold": self.share,
                "correlation": round(pairs.needed, 4),
                "pairs": _files(evidence, pairs.rows),
                "similarity": pairs.similarity[:_SHOWN].round(4).tolist(),
            },
            source=self.source,
        )


class NearDuplicates(Rule[DataEvidence]):
    """D4: the same picture, exactly or nearly, more than once inside a split.

    Args:
        distance: as in `NearDuplicatesAcrossSplits`.
        similarity: likewise.
        share: of the split's images that could be left out, from which it is a warning.
    """

    id = "near-duplicate"
    source = "cleanvision; fastdup"

    def __init__(self, *, distance: int = 4, similarity: float = 0.98, share: float = 0.05) -> None:
        self.distance, self.similarity, self.share = distance, similarity, share

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for each split that has any; pictures that show nothing are another rule's."""
        scan, md5, splits = evidence.scan, np.array(evidence.scan.md5), _splits(evidence)
        pairs, owner = _pairs(evidence, splits, distance=self.distance, similarity=self.similarity)
        for number, (name, split) in enumerate(splits.items()):
            inside = pairs.rows[(owner[pairs.rows] == number).all(axis=1)]
            equal = _equal_pairs(varied_rows(scan, split), md5)
            near = _redundant(inside, len(scan))
            if len(equal) + near:
                yield self._finding(evidence, name, len(split), (len(equal), near), np.concatenate((equal, inside)))

    def _finding(
        self, evidence: DataEvidence, name: str, images: int, found: tuple[int, int], twins: np.ndarray
    ) -> Finding:
        (copies, near), share = found, sum(found) / images
        return Finding(
            id=self.id,
            severity="warning" if share >= self.share else "info",
            where=f"{evidence.dataset.root} ({name})",
            explanation=(
                f"{copies + near} of {images} images of {name} ({share:.1%}) repeat another one: {copies} are the same "
                f"file, {near} nearly the same picture. They count more than once, in training and in scores; keep one "
                "of each."
            ),
            action="kept",
            evidence={
                "row": "D4",
                "split": name,
                "images": copies + near,
                "exact": copies,
                "near": near,
                "share": share,
                "threshold": self.share,
                "pairs": _files(evidence, twins),
            },
            source=self.source,
        )


def _splits(evidence: DataEvidence) -> dict[str, np.ndarray]:
    """Readable rows of the splits that are used; all of them as one where there are no splits."""
    found = {name: split_rows(evidence, part) for name, part in evidence.splits.items() if part is not None}
    if not found:
        found = {"the data": split_rows(evidence, evidence.dataset)}
    return {name: rows for name, rows in found.items() if len(rows)}


def _pairs(
    evidence: DataEvidence, splits: dict[str, np.ndarray], *, distance: int, similarity: float
) -> tuple[PicturePairs, np.ndarray]:
    """Near pairs among all splits, and the number of the split that each row lies in."""
    scan = evidence.scan
    owner = np.full(len(scan), -1)
    for number, rows in enumerate(splits.values()):
        owner[rows] = number
    # A file that lies in two splits stands in each for its copies there.
    rows = np.concatenate([distinct_rows(evidence, varied_rows(scan, rows)) for rows in splits.values()])
    return find_picture_pairs(scan, np.unique(rows), distance=distance, similarity=similarity), owner


def _equal_pairs(rows: np.ndarray, md5: np.ndarray) -> np.ndarray:
    """Each file that repeats another, beside the first of them, `(p, 2)`."""
    _, first, which = np.unique(md5[rows], return_index=True, return_inverse=True)
    pairs = np.stack((rows[first[which]], rows), axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _redundant(pairs: np.ndarray, n: int) -> int:
    """How many pictures could go so that none of the pairs is left: of each connected set all but one."""
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    sets, _ = connected_components(links, directed=False)
    return n - sets


def _files(evidence: DataEvidence, pairs: np.ndarray) -> list[list[str]]:
    return [file_names(evidence.dataset, pair) for pair in pairs[:_SHOWN].tolist()]
