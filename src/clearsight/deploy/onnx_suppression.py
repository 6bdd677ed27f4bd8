"""Suppression and the choice of the best boxes in tensors of fixed shapes, as a graph can hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.errors import ConfigError
from clearsight.ops.boxes import clip_boxes
from clearsight.ops.selection import Selection
from clearsight.ops.voting import SIGMA, VOTES
from clearsight.types import Instances

__all__ = ["Detections", "best_boxes", "check_selection", "pair_boxes"]

NEAR = 0.02  # pixels, and a hundredth of that in score: two boxes that are one


class Detections(NamedTuple):
    """What an exported detector gives, as many places an image as it may keep boxes.

    Args:
        boxes: `(n, d, 4)` xyxy pixels; 0 where there is none.
        labels: `(n, d)` int64; -1 where there is none.
        scores: `(n, d)` falling; 0 where there is none.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


def check_selection(selection: Selection) -> None:
    """See that a graph can choose so.

    Raises:
        ConfigError: the selection is soft, which no ONNX operator does.
    """
    if selection.nms == "soft":
        raise ConfigError("export: soft suppression has no ONNX operator; set eval.nms to class or agnostic")


def best_boxes(
    boxes: Tensor, score: Tensor, label: Tensor, *, size: tuple[int, int], selection: Selection
) -> Detections:
    """Clip, suppress and keep the best: what `dense.suppress` gives, but for the order of equal scores.

    Boxes of different classes and images are moved apart in two directions, so that offsets stay small in float32.

    Args:
        boxes: `(n, p, 4)` xyxy pixels.
        score: `(n, p)`; 0 for what is no candidate.
        label: `(n, p)` int64.
        size: `(height, width)` of the images.
        selection: what is kept; its `candidates` have been chosen already.
    """
    boxes = clip_boxes(boxes, size)
    score = torch.where(boxes.isfinite().all(dim=-1), score, 0.0)
    boxes = boxes.nan_to_num(0.0)
    kept = _unsuppressed(boxes, score, label, size, selection)
    best, place = torch.where(kept, score, 0.0).topk(min(selection.max_detections, score.shape[1]), dim=1)
    found = boxes.gather(1, place[..., None].expand(-1, -1, 4))
    classes = label.gather(1, place)
    if selection.box_voting:
        found = _voted(found, classes, boxes, score, label)
    there = best > selection.score_threshold
    return Detections(
        torch.where(there[..., None], found, 0.0), torch.where(there, classes, -1), torch.where(there, best, 0.0)
    )


def _unsuppressed(boxes: Tensor, score: Tensor, label: Tensor, size: tuple[int, int], selection: Selection) -> Tensor:
    """Which candidates stay, `(n, p)` bool."""
    from torchvision.ops import nms

    if selection.nms_iou == 1:
        return score > 0
    image = torch.arange(score.shape[0], device=score.device)[:, None].expand_as(label)
    across = label * (size[1] + 1) if selection.nms == "class" else torch.zeros_like(label)
    apart = torch.stack((across, image * (size[0] + 1)), dim=-1).to(boxes.dtype)
    moved, flat = (boxes + torch.cat((apart, apart), dim=-1)).flatten(0, 1), score.flatten()
    there = (flat > 0).nonzero().squeeze(1)
    index = there[nms(moved[there], flat[there], selection.nms_iou)]
    return torch.zeros_like(flat).index_fill(0, index, 1.0).view_as(score) > 0


def _voted(found: Tensor, classes: Tensor, boxes: Tensor, score: Tensor, label: Tensor) -> Tensor:
    """`ops.voting.vote_boxes` of all images at once."""
    low = torch.maximum(found[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(found[:, :, None, 2:], boxes[:, None, :, 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(one[..., 2:] - one[..., :2]).clamp(min=0).prod(dim=-1) for one in (found, boxes)]
    overlap = both / (areas[0][:, :, None] + areas[1][:, None] - both).clamp(min=1e-9)
    votes = (overlap >= VOTES) & (classes[:, :, None] == label[:, None])
    weight = torch.where(votes, score[:, None] * torch.exp(-((1 - overlap) ** 2) / SIGMA), 0.0)
    total = weight.sum(dim=2, keepdim=True)
    return torch.where(total > 0, weight @ boxes / total.clamp(min=1e-9), found)


def pair_boxes(found: Sequence[Tensor], expected: Sequence[Instances]) -> list[tuple[Tensor, Tensor]]:
    """Which rows of an answer are which of the expected instances, whatever the order of equal scores.

    Args:
        found: boxes, labels and scores as in `Detections`.
        expected: of each image.

    Returns:
        Of each image the rows of the answer and of the instances, int64 of one length.

    Raises:
        ConfigError: more than one in a hundred has no counterpart (a pair at the very edge of suppression may fall
            either way).
    """
    pairs, alone, whole = [], 0, 0
    for boxes, labels, scores, truth in zip(*found, expected, strict=True):
        count = int((scores > 0).sum())
        known = scores.new_zeros(0) if truth.scores is None else truth.scores
        mine = torch.cat((boxes[:count], 100 * scores[:count, None]), dim=1)
        theirs = torch.cat((truth.boxes, 100 * known[:, None]), dim=1)
        near = torch.cdist(mine, theirs, p=float("inf"), compute_mode="donot_use_mm_for_euclid_dist")
        near = near.masked_fill(labels[:count, None] != truth.labels, torch.inf)
        rows = near.argmin(dim=0) if count and len(truth) else labels.new_zeros(0)
        columns = torch.arange(len(rows))
        close = near[rows, columns] <= NEAR
        pairs.append((rows[close], columns[close]))
        alone += max(count, len(truth)) - int(close.sum())
        whole += max(count, len(truth))
    if alone > max(1, whole // 100):
        raise ConfigError(
            f"export: of {whole} detections {alone} differ between ONNX Runtime and the model; no file was written"
        )
    return pairs
