"""What dense detectors share: the grid of points, the targets of the class scores, the way from scores to boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points
from clearsight.assign.base import rank_in_group
from clearsight.ops.boxes import clip_boxes
from clearsight.ops.nms import batched_nms
from clearsight.ops.selection import Selection
from clearsight.ops.soft_nms import soft_nms
from clearsight.ops.voting import vote_boxes
from clearsight.types import Instances, Targets

__all__ = [
    "LEVELS",
    "Candidates",
    "Decode",
    "PointGrid",
    "Scored",
    "class_targets",
    "level_shapes",
    "make_points",
    "most_probable",
    "postprocess",
    "probability",
    "suppress",
]

LEVELS = ("c3", "c4", "c5")  # what dense detectors read of a backbone

Decode = Callable[[Tensor, Tensor], Tensor]


def level_shapes(size: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width of each pyramid level.

    Every halving here is a stride-2 convolution or pool of odd kernel that rounds up, so a level of stride s measures
    `ceil(side / s)`.

    Args:
        size: `(height, width)` of the images.
        strides: of the levels, powers of two.

    Returns:
        `(height, width)` a level.
    """
    return [(math.ceil(size[0] / stride), math.ceil(size[1] / stride)) for stride in strides]


def make_points(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    steps: Sequence[tuple[float, float]] | None = None,
    anchors: Sequence[Tensor] | None = None,
    offset: float = 0.5,
    device: torch.device | str = "cpu",
) -> Points:
    """The grid of points of all levels: level by level, row by row, at each location one point an anchor.

    Args:
        shapes: `(height, width)` of each level.
        strides: nominal pixels between neighbours, one a level.
        steps: actual `(y, x)` pixels between neighbours where they differ from the stride; None for the stride.
        anchors: `(a, 4)` boxes around the origin, one tensor a level; None for a square of 8 strides (as in ATSS).
        offset: where in its cell a point lies, in steps: 0.5 is the middle, 0 the corner.
        device: of the result.

    Returns:
        The points; float32, levels int64.
    """
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for level, ((height, width), stride) in enumerate(zip(shapes, strides, strict=True)):
        step_y, step_x = (stride, stride) if steps is None else steps[level]
        x = (torch.arange(width, device=device) + offset) * step_x
        y = (torch.arange(height, device=device) + offset) * step_y
        grid = torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=1).float()
        half = 4.0 * stride
        cell = torch.tensor([[-half, -half, half, half]]) if anchors is None else anchors[level]
        cell = cell.to(device=device, dtype=torch.float32)
        xy = grid.repeat_interleave(len(cell), dim=0)
        boxes = (grid.repeat(1, 2)[:, None] + cell).view(-1, 4)
        parts.append((xy, xy.new_full((len(xy),), stride), torch.full((len(xy),), level, device=device), boxes))
    return Points(*(torch.cat(column) for column in zip(*parts, strict=True)))


class PointGrid:
    """`make_points`, remembered for the last few image sizes and devices: training sees the same one again and again.

    Args:
        strides: one a level.
        anchors: see `make_points`.
        offset: see `make_points`.
        whole_steps: points stand at multiples of `image side // level side` (torchvision's rule) instead of the stride;
            the two differ on levels whose stride does not divide the image.
        remember: number of grids kept.
    """

    def __init__(
        self,
        strides: Sequence[int],
        *,
        anchors: Sequence[Tensor] | None = None,
        offset: float = 0.5,
        whole_steps: bool = False,
        remember: int = 4,
    ) -> None:
        self.strides = tuple(strides)
        self.anchors = anchors
        self.offset = offset
        self.whole_steps = whole_steps
        self.remember = remember
        self._known: dict[tuple[int, int, torch.device], Points] = {}

    def __call__(self, size: Sequence[int], device: torch.device) -> Points:
        """The points for images of `(height, width)`."""
        key = (int(size[0]), int(size[1]), device)
        if key not in self._known:
            if len(self._known) >= self.remember:
                self._known.pop(next(iter(self._known)))
            self._known[key] = self.make(key[:2], device)
        return self._known[key]

    def make(self, size: tuple[int, int], device: torch.device) -> Points:
        """The points for images of `(height, width)`, made anew."""
        shapes = level_shapes(size, self.strides)
        steps = [(size[0] // height, size[1] // width) for height, width in shapes] if self.whole_steps else None
        return make_points(shapes, self.strides, steps=steps, anchors=self.anchors, offset=self.offset, device=device)


def class_targets(assignment: Assignment, targets: Targets, *, classes: int) -> tuple[Tensor, Tensor]:
    """What the class scores should be, and how much each point counts.

    Args:
        assignment: of a hard method: a point has one object at most.
        targets: the batch's objects.
        classes: k.

    Returns:
        `(n, l, k)` float32: the pair's quality (1 where it has none) at its class, else 0; `(n, l)` float32 weight of
        each point: the pair's where positive, else that of background.
    """
    images, count = assignment.background.shape
    image, label = targets.image[assignment.object], targets.labels[assignment.object]
    wanted = assignment.background.new_zeros((images, count, classes))
    quality = torch.ones_like(assignment.weight) if assignment.quality is None else assignment.quality
    wanted[image, assignment.point, label] = quality
    weight = assignment.background.clone()
    weight[image, assignment.point] = assignment.weight
    return wanted, weight


class Candidates(NamedTuple):
    """What may become a detection, over all images of a batch: a score, and of which class, where.

    Args:
        score: `(p,)` float32 in [0, 1].
        label: `(p,)` int64.
        image: `(p,)` int64.
        point: `(p,)` int64 index of the point.
    """

    score: Tensor
    label: Tensor
    image: Tensor
    point: Tensor


class Scored(NamedTuple):
    """What a dense detector says of a batch, before anything is selected.

    Args:
        logits: `(n, l, k)` class logits.
        decode: gives the boxes `(p, 4)` xyxy pixels at image indices `(p,)` and point indices `(p,)`.
        level: `(l,)` int64 level of each point, ascending.
        factor: `(n, l)` in [0, 1], such as a centreness: the score is the geometric mean of the class's probability and
            the factor, `sqrt(p · factor)`. None for the probability alone.
    """

    logits: Tensor
    decode: Decode
    level: Tensor
    factor: Tensor | None = None


def probability(scored: Scored) -> Tensor:
    """The scores of all points and classes, `(n, l, k)` float32."""
    found = scored.logits.float().sigmoid()
    return found if scored.factor is None else (found * scored.factor.float()[..., None]).sqrt()


@torch.no_grad()
def postprocess(scored: Scored, sizes: Tensor, selection: Selection) -> list[Instances]:
    """From the scores of a dense head to the boxes of each image, for the whole batch at once.

    Scores above the threshold → the best candidates of each image and level → decoded and clipped → non-maximum
    suppression within image and class → the best of each image.

    Args:
        scored: of n images.
        sizes: `(n, 2)` `(height, width)` that boxes are clipped to.
        selection: what is kept.

    Returns:
        One `Instances` an image, scores falling; float32.
    """
    logits, decode, level, factor = scored
    count, classes = logits.shape[1:]
    # the threshold is applied to logits, so that only what passes is ever turned into a probability
    if factor is None:
        passed = logits.reshape(-1) > _logit(selection.score_threshold)
    else:
        least = (
            selection.score_threshold**2 / factor.float()
        )  # of the probability; above 1 where the factor alone is too low
        passed = (logits > torch.logit(least.clamp(max=1))[..., None]).reshape(-1)
    place = passed.nonzero().squeeze(1)
    score = logits.reshape(-1)[place].float().sigmoid()
    label, place = place % classes, place // classes
    if factor is not None:
        score = (score * factor.reshape(-1)[place].float()).sqrt()
    found = Candidates(score, label, place // count, place % count)
    found = most_probable(found, found.image * (int(level[-1]) + 1) + level[found.point], most=selection.candidates)
    return suppress(found, sizes, selection, decode=decode, classes=classes)


def most_probable(found: Candidates, group: Tensor, *, most: int) -> Candidates:
    """The candidates with the highest scores of each group, the first of equals; all where no group has too many.

    Args:
        found: p candidates.
        group: `(p,)` int64, at least 0.
        most: kept of each group.
    """
    if len(group) <= most or int(torch.bincount(group).max()) <= most:
        return found
    kept = rank_in_group(group, -found.score) < most
    return Candidates(*(column[kept] for column in found))


def suppress(
    found: Candidates, sizes: Tensor, selection: Selection, *, decode: Decode, classes: int
) -> list[Instances]:
    """Decode, clip, suppress within image and class, and keep the best of each image; see `postprocess`.

    A box that is no number is no detection. With `soft` suppression (the paper's Gaussian rule) the results have the
    lowered scores, and these must exceed the threshold; votes count by the scores from before.

    Args:
        found: of all images.
        sizes: `(n, 2)`.
        selection: what is kept.
        decode: see `postprocess`.
        classes: k.
    """
    score, label, image, point = found
    images = len(sizes)
    boxes = clip_boxes(decode(image, point), sizes.to(image.device)[image])
    sound = boxes.isfinite().all(dim=1)
    if not bool(sound.all()):
        score, label, image, boxes = score[sound], label[sound], image[sound], boxes[sound]
    group = image if selection.nms == "agnostic" else image * classes + label
    if selection.nms == "soft":  # by falling score, as the others
        most, threshold = selection.max_detections, selection.score_threshold
        best, kept_score = soft_nms(boxes, score, group, score_threshold=threshold, most=most)
    else:
        best = batched_nms(boxes, score, group, iou=selection.nms_iou)
        kept_score = score[best]
    order = torch.argsort(image[best], stable=True)
    best, kept_score = best[order], kept_score[order]
    counts = torch.bincount(image[best], minlength=images)
    rank = torch.arange(len(best), device=best.device) - (counts.cumsum(0) - counts)[image[best]]
    best, kept_score = best[rank < selection.max_detections], kept_score[rank < selection.max_detections]
    shares = counts.clamp(max=selection.max_detections).tolist()
    kept_boxes, kept_labels = boxes[best].split(shares), label[best].split(shares)
    if selection.box_voting:
        all_of = [(image == number).nonzero().squeeze(1) for number in range(images)]
        kept_boxes = [
            vote_boxes(box, one, boxes[mine], score[mine], label[mine])
            for box, one, mine in zip(kept_boxes, kept_labels, all_of, strict=True)
        ]
    parts = zip(kept_boxes, kept_labels, kept_score.split(shares), strict=True)
    return [Instances(boxes=b, labels=c, scores=s) for b, c, s in parts]


def _logit(p: float) -> float:
    """Inverse of the sigmoid, infinite at 0 and 1."""
    if p <= 0:
        return -math.inf
    return math.inf if p >= 1 else math.log(p / (1 - p))
