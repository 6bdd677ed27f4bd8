"""What went wrong in each image: every false or missing detection gets one kind, as in TIDE (Bolya et al. 2020)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clearsight.metrics.overlaps import Overlap, box_overlap
from clearsight.metrics.results import ImageResult

__all__ = ["KINDS", "ImageMistakes", "confusion_matrix", "explain", "find_mistakes", "rank_worst"]

Floats = NDArray[np.float64]

KINDS = ("missed", "background", "poor box", "wrong class", "duplicate")
"""`missed`: an object without detection; `background`: a detection where nothing is labelled; `poor box`: right class,
overlap between 0.1 and 0.5; `wrong class`: overlap of 0.5 and more with an object of another class; `duplicate`: a
second detection of an object."""

_GOOD, _NEAR = 0.5, 0.1


class ImageMistakes(NamedTuple):
    """What went right and wrong in one image.

    Args:
        pairs: `(truth, predicted)` class of each entry in the confusion matrix; -1 is background.
        mistakes: one dictionary a mistake: `kind`, `truth` and `predicted` (class names or ""), `score`, `iou`, `box`.
        matched: `(position of the prediction, position of the object, overlap)` of each object that was found.
    """

    pairs: list[tuple[int, int]]
    mistakes: list[dict[str, Any]]
    matched: list[tuple[int, int, float]]


class _Image(NamedTuple):
    """One image as arrays; predictions by falling score."""

    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats
    truth: Floats
    truth_labels: NDArray[np.int64]
    origin: NDArray[np.int64]  # positions of the predictions as given
    truth_origin: NDArray[np.int64]
    overlap: Floats  # predictions × objects
    excused: NDArray[np.bool_]  # predictions that lie on an ignored region


def find_mistakes(
    result: ImageResult, classes: Sequence[str], *, threshold: float, overlap: Overlap | None = None
) -> ImageMistakes:
    """Pair the detections of an image, from a score on, with its objects at IoU 0.5, and name what is left.

    Args:
        result: one image; ignored objects are neither missed nor found.
        classes: class names in label order.
        threshold: lowest score that counts.
        overlap: of all predictions and objects as given; None measures the boxes.
    """
    image = _arrays(result, threshold, overlap)
    partner = np.full(len(image.labels), -1)  # object of each prediction, -1 for none
    same = image.labels[:, None] == image.truth_labels[None, :]
    kinds: list[str] = [""] * len(image.labels)
    found: NDArray[np.bool_] = np.zeros(len(image.truth_labels), bool)
    _pair(np.where(same, image.overlap, 0), partner, found, _GOOD, kinds, "right")
    right = found.copy()
    _pair(image.overlap, partner, found, _GOOD, kinds, "wrong class")
    for index in np.flatnonzero(partner < 0):
        if image.excused[index]:
            kinds[index] = "excused"
        elif np.any(same[index] & right & (image.overlap[index] >= _GOOD)):
            kinds[index] = "duplicate"
    free = np.array([kind == "" for kind in kinds], bool)
    near = np.where(same & free[:, None], image.overlap, 0)
    _pair(near, partner, found, _NEAR, kinds, "poor box")
    return _tally(image, kinds, partner, found, classes)


def _arrays(result: ImageResult, threshold: float, overlap: Overlap | None) -> _Image:
    found, truth = result.predicted, result.truth
    scores = np.zeros(len(found)) if found.scores is None else found.scores.double().cpu().numpy()
    keep = np.flatnonzero(scores >= threshold)
    keep = keep[np.argsort(-scores[keep], kind="stable")]
    boxes = found.boxes.reshape(-1, 4).double().cpu().numpy()
    ignored = np.zeros(len(truth), bool) if truth.ignore is None else truth.ignore.cpu().numpy().astype(bool)
    objects = truth.boxes.reshape(-1, 4).double().cpu().numpy()
    overlap = box_overlap(boxes, objects) if overlap is None else overlap
    return _Image(
        boxes=boxes[keep],
        labels=found.labels.cpu().numpy()[keep],
        scores=scores[keep],
        truth=objects[~ignored],
        truth_labels=truth.labels.cpu().numpy()[~ignored],
        origin=keep,
        truth_origin=np.flatnonzero(~ignored),
        overlap=overlap.iou()[keep][:, ~ignored],
        excused=np.any(overlap.covered()[keep][:, ignored] >= _GOOD, axis=1),
    )


def _pair(
    overlap: Floats, partner: NDArray[np.int64], found: NDArray[np.bool_], least: float, kinds: list[str], kind: str
) -> None:
    """Give each free prediction, best score first, the free object that it overlaps most."""
    for index in np.flatnonzero((partner < 0) & (overlap >= least).any(axis=1)):
        reach = np.where(found, 0.0, overlap[index])
        best = int(reach.argmax())
        if reach[best] >= least:
            partner[index], found[best], kinds[index] = best, True, kind


def _tally(
    image: _Image, kinds: list[str], partner: NDArray[np.int64], found: NDArray[np.bool_], classes: Sequence[str]
) -> ImageMistakes:
    pairs: list[tuple[int, int]] = []
    mistakes: list[dict[str, Any]] = []
    matched: list[tuple[int, int, float]] = []
    for index, kind in enumerate(kinds):
        if kind == "excused":
            continue
        label, other = int(image.labels[index]), int(partner[index])
        truth = int(image.truth_labels[other]) if other >= 0 else -1
        if kind == "poor box":  # too far off to count as found: one object missed and one detection of nothing
            pairs += [(truth, -1), (-1, label)]
        else:
            pairs.append((truth, label))
        if kind == "right":
            places = int(image.origin[index]), int(image.truth_origin[other])
            matched.append((*places, float(image.overlap[index, other])))
        else:
            best = float(image.overlap[index].max(initial=0.0)) if other < 0 else float(image.overlap[index, other])
            mistakes.append(
                {
                    "kind": kind or "background",
                    "truth": classes[truth] if truth >= 0 else "",
                    "predicted": classes[label],
                    "score": float(image.scores[index]),
                    "iou": best,
                    "box": [round(float(v), 1) for v in image.boxes[index]],
                }
            )
    for index in np.flatnonzero(~found):
        label = int(image.truth_labels[index])
        pairs.append((label, -1))
        box = [round(float(v), 1) for v in image.truth[index]]
        near = float(image.overlap[:, index].max(initial=0.0))
        mistakes.append(
            {"kind": "missed", "truth": classes[label], "predicted": "", "score": float("nan"), "iou": near, "box": box}
        )
    return ImageMistakes(pairs, mistakes, matched)


def confusion_matrix(images: Sequence[ImageMistakes], classes: int) -> list[list[int]]:
    """`(k + 1, k + 1)` counts: rows are the truth, columns the prediction, the last of each is background."""
    pairs = np.array([pair for image in images for pair in image.pairs], np.int64).reshape(-1, 2) % (classes + 1)
    flat = np.bincount(pairs[:, 0] * (classes + 1) + pairs[:, 1], minlength=(classes + 1) ** 2)
    return flat.reshape(classes + 1, classes + 1).tolist()


def rank_worst(results: Sequence[ImageResult], images: Sequence[ImageMistakes], *, limit: int) -> list[dict[str, Any]]:
    """The images with the most mistakes first; of equal numbers the larger share of mistakes, then the order given."""
    rows: list[tuple[int, float, dict[str, Any]]] = []
    for index, (result, image) in enumerate(zip(results, images, strict=True)):
        count = len(image.mistakes)
        if not count:
            continue
        right = sum(truth == label for truth, label in image.pairs)
        row = {
            "image": index,
            "path": str(result.path),
            "error": float(count),
            "share": count / (count + right),
            "why": explain(image.mistakes),
            "mistakes": image.mistakes,
        }
        rows.append((count, count / (count + right), row))
    rows.sort(key=lambda row: (-row[0], -row[1]))
    return [row for _, _, row in rows[:limit]]


_PHRASES = {
    "missed": "missed",
    "background": "found where nothing is labelled",
    "poor box": "found with a poor box",
    "wrong class": "given the wrong class",
    "duplicate": "found twice",
}


def explain(mistakes: Sequence[dict[str, Any]]) -> str:
    """One line, for example "3 missed (2 RBC, 1 WBC); 1 found twice (RBC)"."""
    parts: list[str] = []
    for kind in KINDS:
        names = Counter(_name(m) for m in mistakes if m["kind"] == kind)
        if not names:
            continue
        inside = ", ".join(name if len(names) == 1 else f"{count} {name}" for name, count in names.most_common())
        parts.append(f"{names.total()} {_PHRASES[kind]} ({inside})")
    return "; ".join(parts)


def _name(mistake: dict[str, Any]) -> str:
    if mistake["kind"] == "wrong class":
        return f"{mistake['truth']} taken for {mistake['predicted']}"
    return mistake["truth"] or mistake["predicted"]
