"""Label assignment image by image or object by object, as published code has it, for tests and a benchmark.

Each takes what an assigner takes and returns `(p, 2)` int64 pairs (object, point), in any order. Objects with `ignore`
are left out. Where ours differs from the publication on purpose (each class says so), the loop has our rule.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.assign.assignment import Points, Predictions
from clearsight.types import Targets

__all__ = [
    "atss_loop",
    "fcos_loop",
    "max_iou_loop",
    "multibox_loop",
    "ota_loop",
    "paa_loop",
    "shape_ratio_loop",
    "simota_loop",
    "sinkhorn_dense",
]


def objects_of(targets: Targets, image: int) -> Tensor:
    """Indices of an image's objects that are not ignored."""
    mine = targets.image == image
    return (mine if targets.ignore is None else mine & ~targets.ignore).nonzero().squeeze(1)


def joined(found: list[Tensor]) -> Tensor:
    """All pairs in one tensor."""
    return torch.cat(found) if found else torch.zeros((0, 2), dtype=torch.int64)


def level_slices(points: Points) -> list[slice]:
    """Where each level lies."""
    ends = torch.bincount(points.level).cumsum(0).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


# ------------------------------------------------------------------------------------------------ by position
def multibox_loop(points: Points, targets: Targets, images: int) -> Tensor:
    """SSD's matching, image by image; of objects with one best anchor the one that overlaps it most gets it."""
    from torchvision.ops import box_iou

    found = []
    for image in range(images):
        rows = objects_of(targets, image)
        if not len(rows):
            continue
        quality = box_iou(targets.boxes[rows], points.boxes)
        best, owner = quality.max(dim=0)
        owner[(best < 0.5) | (best <= 0)] = -1
        most, anchor = quality.max(dim=1)
        for row in sorted(range(len(rows)), key=lambda row: (float(most[row]), -row)):
            if most[row] > 0:
                owner[anchor[row]] = row
        point = (owner >= 0).nonzero().squeeze(1)
        found.append(torch.stack((rows[owner[point]], point), dim=1))
    return joined(found)


def max_iou_loop(points: Points, targets: Targets, images: int) -> Tensor:
    """Overlap thresholds with torchvision's matcher, image by image."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    found = []
    for image in range(images):
        rows = objects_of(targets, image)
        if len(rows):
            quality = box_iou(targets.boxes[rows], points.boxes)
            matched = matcher(quality)
            point = (matched >= 0).nonzero().squeeze(1)
            point = point[quality[matched[point], point] > 0]  # where no anchor touches an object, none is its best
            found.append(torch.stack((rows[matched[point]], point), dim=1))
    return joined(found)


def atss_loop(points: Points, targets: Targets, images: int, *, candidates: int = 9) -> Tensor:
    """ATSS on grids of one anchor a location, image by image."""
    found = []
    for image in range(images):
        rows = objects_of(targets, image)
        if not len(rows):
            continue
        boxes = targets.boxes[rows]
        overlap = overlaps(points.boxes, boxes)  # l g
        distance = ((points.xy[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2) ** 2).sum(dim=-1)
        nearest = []
        for part in level_slices(points):
            order = distance[part].argsort(dim=0, stable=True)[:candidates]
            nearest.append(order + part.start)
        candidate = torch.cat(nearest)  # c g
        values = overlap.gather(0, candidate)
        positive = values >= values.mean(dim=0) + values.std(dim=0)
        positive &= within(points, boxes).mT.gather(0, candidate)
        claimed = torch.full_like(overlap, -math.inf)
        number, row = positive.nonzero(as_tuple=True)
        claimed[candidate[number, row], row] = values[number, row]
        best, row = claimed.max(dim=1)
        point = best.isfinite().nonzero().squeeze(1)
        found.append(torch.stack((rows[row[point]], point), dim=1))
    return joined(found)


def fcos_loop(points: Points, targets: Targets, images: int, *, radius: float = 1.5) -> Tensor:
    """FCOS with torchvision's own matching."""
    from torchvision.models.detection.fcos import FCOS

    caught: list[Tensor] = []
    head = SimpleNamespace(compute_loss=lambda targets, outputs, anchors, matched: caught.extend(matched))
    model: Any = SimpleNamespace(center_sampling_radius=radius, head=head)
    half = points.stride[:, None] / 2
    anchors = torch.cat((points.xy - half, points.xy + half), dim=1)
    rows = [objects_of(targets, image) for image in range(images)]
    given = [{"boxes": targets.boxes[row], "labels": targets.labels[row]} for row in rows]
    sizes = [part.stop - part.start for part in level_slices(points)]
    FCOS.compute_loss(model, given, {}, [anchors] * images, sizes)
    found = []
    for row, matched in zip(rows, caught, strict=True):
        point = (matched >= 0).nonzero().squeeze(1)
        found.append(torch.stack((row[matched[point]], point), dim=1))
    return joined(found)


# ------------------------------------------------------------------------------------------------ by prediction
def focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Focal loss (alpha 0.25, gamma 2) summed over the last axis."""
    p = logits.sigmoid()
    hit = -0.25 * (1 - p) ** 2 * F.logsigmoid(logits)
    miss = -0.75 * p**2 * F.logsigmoid(-logits)
    return (wanted * hit + (1 - wanted) * miss).sum(dim=-1)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """IoU of all pairs, `(n, 4)` and `(m, 4)` → `(n, m)`."""
    from torchvision.ops import box_iou

    return box_iou(a, b).nan_to_num(0.0)


def central(points: Points, boxes: Tensor, radius: float) -> Tensor:
    """Which points lie within a radius of which centres, `(m, l)`."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return (points.xy - centre[:, None]).abs().amax(dim=-1) < radius * points.stride


def within(points: Points, boxes: Tensor) -> Tensor:
    """Which points lie in which boxes, `(m, l)`."""
    sides = torch.cat((points.xy - boxes[:, None, :2], boxes[:, None, 2:] - points.xy), dim=-1)
    return sides.amin(dim=-1) > 0


def simota_loop(
    points: Points, targets: Targets, predictions: Predictions, images: int, *, candidates: int = 10
) -> Tensor:
    """SimOTA, image by image with a matrix of costs, and in it object by object, as YOLOX has it."""
    found = []
    for image in range(images):
        rows = objects_of(targets, image)
        if not len(rows):
            continue
        boxes, label = targets.boxes[rows], targets.labels[rows]
        near, inner = central(points, boxes, 2.5), within(points, boxes)
        point = (near | inner).any(dim=0).nonzero().squeeze(1)
        near, inner = near[:, point], inner[:, point]
        overlap = overlaps(boxes, predictions.boxes[image, point]) * (near | inner)
        logits = predictions.logits[image, point]
        wanted = F.one_hot(label, logits.shape[-1]).to(logits.dtype)
        entropy = torch.stack(
            [
                F.binary_cross_entropy_with_logits(logits, one.expand_as(logits), reduction="none").sum(1)
                for one in wanted
            ]
        )
        cost = entropy - 3 * torch.log(overlap + 1e-8) + 1e4 * ~(near & inner)
        cost.masked_fill_(~(near | inner), math.inf)
        amount = overlap.topk(min(candidates, len(point)), dim=1).values.sum(dim=1).int().clamp(min=1)
        taken = torch.full_like(cost, math.inf)
        for number, count in enumerate(amount.tolist()):
            best = cost[number].topk(min(count, len(point)), largest=False)
            taken[number, best.indices] = best.values
        least, row = taken.min(dim=0)
        kept = least.isfinite().nonzero().squeeze(1)
        found.append(torch.stack((rows[row[kept]], point[kept]), dim=1))
    return joined(found)


def sinkhorn_dense(cost: Tensor, amount: Tensor, *, epsilon: float, steps: int) -> Tensor:
    """Logarithm of the plan that brings `amount` `(s,)` of each supplier to points of one unit: `(s, l)` → `(s, l)`."""
    u, v = torch.zeros_like(cost[:, 0]), torch.zeros_like(cost[0])
    for _ in range(steps):
        v = v - epsilon * torch.logsumexp((u[:, None] + v - cost) / epsilon, dim=0)
        u = u + epsilon * (amount.log() - torch.logsumexp((u[:, None] + v - cost) / epsilon, dim=1))
    return (u[:, None] + v - cost) / epsilon


def ota_loop(
    points: Points, targets: Targets, predictions: Predictions, images: int, *, candidates: int = 20, steps: int = 50
) -> Tensor:
    """OTA, one dense transport an image: all objects and the background times all points."""
    found = []
    for image in range(images):
        rows = objects_of(targets, image)
        boxes, logits = targets.boxes[rows], predictions.logits[image]
        reach = central(points, boxes, 2.5)
        both = reach & within(points, boxes)
        reach = torch.where(both.any(dim=1, keepdim=True), both, reach)
        rows, boxes, reach = rows[reach.any(1)], boxes[reach.any(1)], reach[reach.any(1)]
        if not len(rows):
            continue
        wanted = F.one_hot(targets.labels[rows], logits.shape[-1]).to(logits.dtype)
        overlap = overlaps(boxes, predictions.boxes[image])
        class_cost = torch.stack([focal(logits, one) for one in wanted])
        cost = class_cost - 1.5 * torch.log(overlap + 1e-8)
        cost = cost.double().masked_fill(~reach, math.inf)
        best = (overlap * reach).topk(min(candidates, len(points.xy)), dim=1).values
        amount = best.sum(dim=1).floor().clamp(min=1).double()
        amount = torch.cat((amount, (len(points.xy) - amount.sum()).clamp(min=1)[None]))
        cost = torch.cat((cost, focal(logits, torch.zeros_like(logits)).double()[None]))
        plan = sinkhorn_dense(cost, amount, epsilon=0.1, steps=steps)
        supplier = (plan - plan.amax(dim=1, keepdim=True)).argmax(dim=0)
        point = (supplier < len(rows)).nonzero().squeeze(1)
        found.append(torch.stack((rows[supplier[point]], point), dim=1))
    return joined(found)


def paa_loop(points: Points, targets: Targets, predictions: Predictions, images: int, *, candidates: int = 9) -> Tensor:
    """PAA, object by object, with scikit-learn's mixture."""
    import warnings

    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import generalized_box_iou_loss

    matcher = Matcher(0.1, 0.1, allow_low_quality_matches=True)
    found = []
    for image in range(images):
        rows = objects_of(targets, image)
        if not len(rows):
            continue
        quality = overlaps(targets.boxes[rows], points.boxes)
        matched = matcher(quality)
        for number, row in enumerate(rows.tolist()):
            mine = ((matched == number) & (quality[number] > 0)).nonzero().squeeze(1)
            logits = predictions.logits[image, mine]
            wanted = torch.zeros_like(logits)
            wanted[:, targets.labels[row]] = 1
            truth = targets.boxes[row].expand(len(mine), 4)
            loss = focal(logits, wanted) + generalized_box_iou_loss(predictions.boxes[image, mine], truth)
            kept = []
            for part in level_slices(points):
                here = ((mine >= part.start) & (mine < part.stop)).nonzero().squeeze(1)
                kept.append(here[loss[here].argsort(stable=True)[:candidates]])
            here = torch.cat(kept)
            here = here[loss[here].argsort(stable=True)]
            if len(here) > 1:
                values = loss[here].double().numpy()[:, None]
                mixture = GaussianMixture(
                    2,
                    weights_init=np.array([0.5, 0.5]),
                    means_init=np.array([values[0], values[-1]]),
                    precisions_init=np.ones((2, 1, 1)),
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    good = mixture.fit(values).predict(values) == 0
                if good.any():
                    scores = np.where(good, mixture.score_samples(values), -np.inf)
                    here = here[: int(scores.argmax()) + 1]
            found.append(torch.stack((torch.full_like(here, row), mine[here]), dim=1))
    return joined(found)


def cells_around(x: float, y: float, width: int, height: int) -> list[tuple[int, int]]:
    """The cell that holds a place, in cells, and the nearest beside it in x and in y, as far as there are any."""
    column, line = min(max(int(x // 1), 0), width - 1), min(max(int(y // 1), 0), height - 1)
    cells = [(column, line)]
    if x % 1 != 0.5:
        cells.append((column + (1 if x % 1 > 0.5 else -1), line))
    if y % 1 != 0.5:
        cells.append((column, line + (1 if y % 1 > 0.5 else -1)))
    return [(i, j) for i, j in cells if 0 <= i < width and 0 <= j < height]


def unlikeness(box: list[float], anchor: list[float]) -> float:
    """The largest factor between two boxes' sides, infinite for a box without a side."""
    factors = [(box[2 + axis] - box[axis]) / (anchor[2 + axis] - anchor[axis]) for axis in (0, 1)]
    return max(max(factor, 1 / factor) if factor > 0 else math.inf for factor in factors)


def shape_ratio_loop(points: Points, targets: Targets, images: int, *, ratio: float = 4.0) -> Tensor:
    """Shape matching on grids of half-cell offset, object by object and anchor by anchor, with indices of cells."""
    found = []
    for image in range(images):
        best: dict[int, tuple[float, int]] = {}
        for row in objects_of(targets, image).tolist():
            box = targets.boxes[row].tolist()
            for part in level_slices(points):
                xy, stride = points.xy[part], float(points.stride[part.start])
                width, height = (1 + round(float(side) / stride) for side in xy.amax(0) - xy.amin(0))
                anchors = len(xy) // (width * height)
                for i, j in cells_around((box[0] + box[2]) / 2 / stride, (box[1] + box[3]) / 2 / stride, width, height):
                    first = part.start + (j * width + i) * anchors
                    for p, anchor in enumerate(points.boxes[first : first + anchors].tolist(), start=first):
                        unlike = unlikeness(box, anchor)
                        if unlike < ratio and (p not in best or unlike < best[p][0]):
                            best[p] = (unlike, row)
        found.append(torch.tensor([[row, p] for p, (_, row) in best.items()], dtype=torch.int64).view(-1, 2))
    return joined(found)
