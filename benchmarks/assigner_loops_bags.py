"""Assignment of bags, and by distributions of quality, image by image and object by object: what the tests compare.

Each is written from the paper, with our rule where the assigner's class names a difference.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.types import Targets

__all__ = ["auto_assign_loop", "background_of", "free_anchor_loop", "iqdet_loop", "mixture_loop"]

Pair = tuple[int, int]


def background_of(found: Assignment, targets: Targets, classes: int) -> Tensor:
    """The weight of the background for each image, point and class that an assignment of bags stands for."""
    left: dict[tuple[int, int, int], float] = {}
    assert found.class_background is not None  # noqa: S101 - bags have it
    for row, point, share in zip(
        found.object.tolist(), found.point.tolist(), found.class_background.tolist(), strict=True
    ):
        place = (int(targets.image[row]), point, int(targets.labels[row]))
        left[place] = min(share, left.get(place, 1.0))
    weight = found.background[..., None].repeat(1, 1, classes)
    for place, share in left.items():
        weight[place] *= share
    return weight


def objects_in(targets: Targets, image: int) -> list[int]:
    ignored = torch.zeros(len(targets.labels), dtype=torch.bool) if targets.ignore is None else targets.ignore
    return [row for row in range(len(targets.labels)) if targets.image[row] == image and not ignored[row]]


def ignored_points(points: Points, targets: Targets, image: int) -> list[int]:
    """Points inside ignored objects of an image."""
    if targets.ignore is None:
        return []
    boxes = [
        targets.boxes[row] for row in range(len(targets.labels)) if targets.ignore[row] and targets.image[row] == image
    ]
    return [p for p in range(len(points.xy)) if any(is_inside(points.xy[p].tolist(), box.tolist()) for box in boxes)]


def is_inside(xy: list[float], box: list[float]) -> bool:
    return box[0] < xy[0] < box[2] and box[1] < xy[1] < box[3]


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union > 0 else 0.0


def held_points(points: Points, box: list[float]) -> list[int]:
    """Points inside a box, or within a stride of its centre where there is none."""
    xy = points.xy.tolist()
    found = [p for p in range(len(xy)) if is_inside(xy[p], box)]
    if found:
        return found
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return [p for p in range(len(xy)) if max(abs(xy[p][0] - x), abs(xy[p][1] - y)) < float(points.stride[p])]


# ------------------------------------------------------------------------------------------------ bags
def free_anchor_loop(
    points: Points, targets: Targets, predictions: Predictions, *, bag: int, threshold: float
) -> tuple[set[Pair], Tensor]:
    """The pairs of all bags, and the weight of the background for each image, point and class."""
    from torchvision.ops import box_iou

    images, count, classes = predictions.logits.shape
    bags: set[Pair] = set()
    weight = torch.ones(images, count, classes)
    for image in range(images):
        best_of_class = torch.zeros(count, classes)
        for row in objects_in(targets, image):
            box, label = targets.boxes[row : row + 1], int(targets.labels[row])
            overlap = box_iou(box, points.boxes)[0]
            order = overlap.argsort(descending=True, stable=True)[:bag].tolist()
            bags |= {(row, point) for point in order if overlap[point] > 0}
            found = box_iou(box, predictions.boxes[image])[0]
            best = max(float(found.max()), threshold + 1e-12)
            saturated = ((found - threshold) / (best - threshold)).clamp(0, 1)
            best_of_class[:, label] = torch.maximum(best_of_class[:, label], saturated)
        weight[image] = 1 - best_of_class
        weight[image, ignored_points(points, targets, image)] = 0
    return bags, weight


def auto_assign_loop(
    points: Points, targets: Targets, predictions: Predictions, *, mean: Tensor, sigma: Tensor
) -> tuple[dict[Pair, float], Tensor]:
    """The centre prior of each pair, and the weight of the background for each image, point and class."""
    images, count, classes = predictions.logits.shape
    prior: dict[Pair, float] = {}
    mean, sigma = mean.detach(), sigma.detach()
    weight = torch.ones(images, count, classes)
    for image in range(images):
        for row in objects_in(targets, image):
            box, label = targets.boxes[row].tolist(), int(targets.labels[row])
            held = held_points(points, box)
            strength = []
            for point in held:
                exponent = 0.0
                for axis in (0, 1):
                    d = (float(points.xy[point, axis]) - (box[axis] + box[axis + 2]) / 2) / float(points.stride[point])
                    exponent -= (d - float(mean[label, axis])) ** 2 / (2 * float(sigma[label, axis]) ** 2)
                prior[row, point] = math.exp(max(exponent, -60.0))
                strength.append(1 / max(1 - iou(predictions.boxes[image, point].tolist(), box), 1e-12))
            for point, value in zip(held, strength, strict=True):
                spread = max(strength) - min(strength)
                share = (value - min(strength)) / spread if spread > 0 else 1.0
                weight[image, point, label] = min(float(weight[image, point, label]), 1 - share)
        weight[image, ignored_points(points, targets, image)] = 0
    return prior, weight


# ------------------------------------------------------------------------------------------------ quality
def mixture_loop(
    position: np.ndarray, weight: np.ndarray, *, components: int, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares `(c,)`, means and variances `(c, 2)` of one mixture."""
    centre = (weight[:, None] * position).sum(0) / weight.sum()
    spread = np.maximum((weight[:, None] * (position - centre) ** 2).sum(0) / weight.sum(), 0.01)
    turns = [2 * math.pi * c / components for c in range(components)]
    means = [centre + np.sqrt(spread) * np.array([math.cos(turn), math.sin(turn)]) for turn in turns]
    variances, shares = [spread] * components, [1 / components] * components
    for _ in range(steps):
        density = np.stack(
            [share * gaussian(position, m, v) for share, m, v in zip(shares, means, variances, strict=True)]
        )
        member = weight * density / density.sum(0)
        for c in range(components):
            held = member[c].sum()
            shares[c] = held / weight.sum()
            means[c] = (member[c][:, None] * position).sum(0) / held
            variances[c] = np.maximum((member[c][:, None] * (position - means[c]) ** 2).sum(0) / held, 0.01)
    return np.array(shares), np.stack(means), np.stack(variances)


def gaussian(position: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    apart = np.exp(-((position - mean) ** 2) / (2 * variance)) / np.sqrt(2 * math.pi * variance)
    return apart.prod(axis=1)


def iqdet_loop(
    points: Points,
    targets: Targets,
    predictions: Predictions,
    *,
    samples: int,
    components: int,
    alpha: float,
    steps: int,
) -> dict[Pair, float]:
    """The value of each pair."""
    claims: dict[tuple[int, int], tuple[float, int]] = {}
    for image in range(len(predictions.logits)):
        for row in objects_in(targets, image):
            box, label = targets.boxes[row].tolist(), int(targets.labels[row])
            held = held_points(points, box)
            if not held:
                continue
            quality, position = [], []
            for point in held:
                score = 1 / (1 + math.exp(-float(predictions.logits[image, point, label])))
                overlap = iou(predictions.boxes[image, point].tolist(), box)
                quality.append(max(score ** (1 - alpha) * overlap**alpha, 1e-6))
                offset = [
                    (float(points.xy[point, a]) * 2 - box[a] - box[a + 2]) / (box[a + 2] - box[a]) for a in (0, 1)
                ]
                position.append([min(max(value, -1.0), 1.0) for value in offset])
            where, worth = np.array(position), np.array(quality)
            parts = mixture_loop(where, worth, components=components, steps=steps)
            density = sum(share * gaussian(where, m, v) for share, m, v in zip(*parts, strict=True))
            value = worth * density / np.max(density)
            for index in np.argsort(-value, kind="stable")[:samples].tolist():
                place = (image, held[index])
                if place not in claims or value[index] > claims[place][0]:
                    claims[place] = (float(value[index]), row)
    return {(row, point): value for (_, point), (value, row) in claims.items()}
