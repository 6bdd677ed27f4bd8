"""From proposals to boxes: what detectors of regions have in common once regions are proposed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.models.detect.box_head import RegionHead, RegionOutputs, detections
from clearsight.models.detect.rpn import Proposals
from clearsight.nn.precision import at_least_float32
from clearsight.ops.boxes import clip_boxes
from clearsight.ops.selection import Selection
from clearsight.types import Instances

__all__ = [
    "Read",
    "RegionDetections",
    "detect_regions",
    "image_of_rows",
    "probabilities",
    "score_regions",
    "size_of",
]

Read = Callable[[Tensor, Tensor], RegionOutputs]
"""What a head says of regions: boxes `(s, 4)` and image `(s,)` → outputs."""


class RegionDetections(NamedTuple):
    """What a detector of proposals says of each image, before suppression; p regions, the same number for each.

    Args:
        scores: `(n, p, k)` probabilities of the classes, background left out; 0 where there was no proposal.
        boxes: `(n, p, k, 4)` xyxy pixels, clipped to the image, or `(n, p, 1, 4)` where the classes share them.
    """

    scores: Tensor
    boxes: Tensor


def score_regions(head: RegionHead, read: Read, found: Proposals, size: tuple[int, int]) -> RegionDetections:
    """Scores and boxes of every proposal, the padding among them.

    Args:
        head: decodes the boxes.
        read: what it says of regions.
        found: of n images.
        size: `(height, width)` of the images.
    """
    shape = found.scores.shape
    image = torch.arange(shape[0], device=found.scores.device)[:, None].expand(shape)
    flat = found.boxes.flatten(0, 1)
    logits, deltas = read(flat, image.flatten())
    scores = probabilities(logits).unflatten(0, shape) * (found.scores > 0)[..., None]
    boxes = head.decode(deltas[:, 1:], flat[:, None]).unflatten(0, shape)
    return RegionDetections(scores, clip_boxes(boxes, size))


def detect_regions(
    head: RegionHead, read: Read, found: Proposals, sizes: Tensor, selection: Selection
) -> list[Instances]:
    """The boxes of each image; see `box_head.detections`.

    Args:
        head: decodes the boxes.
        read: what it says of regions.
        found: of n images.
        sizes: `(n, 2)` `(height, width)` that boxes are clipped to.
        selection: what is kept.
    """
    flat, image = image_of_rows(found)
    logits, deltas = read(flat, image)
    return detections(probabilities(logits), head.decode(deltas[:, 1:], flat[:, None]), image, sizes, selection)


def size_of(images: Tensor) -> tuple[int, int]:
    """Height and width of `(n, c, h, w)`."""
    return images.shape[-2], images.shape[-1]


def probabilities(logits: Tensor) -> Tensor:
    """Of the classes `(s, k)`, from logits `(s, k + 1)` whose first is the background's."""
    return at_least_float32(logits).softmax(-1)[:, 1:]


def image_of_rows(found: Proposals) -> tuple[Tensor, Tensor]:
    """The proposals that there are, without the padding: boxes `(s, 4)`, image `(s,)`."""
    image, place = (found.scores > 0).nonzero(as_tuple=True)
    return found.boxes[image, place], image
