"""Objects of one image that share pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clearsight.data.object_strips import Strip

__all__ = ["find_overlaps"]

_ROWS_OF_PAIRS = 4_000_000


def find_overlaps(strips: Sequence[Strip]) -> list[tuple[int, int, float]]:
    """Pairs of objects that have pixels in common.

    Args:
        strips: of one image.

    Returns:
        Positions `one < other` and the IoU of their masks, in order.

    Cost: one comparison for each pair of windows that overlap, and that only where they do.
    """
    if not strips:
        return []
    windows = np.concatenate([strip.windows for strip in strips])
    objects = np.concatenate([strip.objects for strip in strips])
    masks = [strip.mask(number) for strip in strips for number in range(len(strip.objects))]
    areas = [int(np.count_nonzero(mask)) for mask in masks]
    found = []
    for one, other in _touching(windows):
        left, top = np.maximum(windows[one, :2], windows[other, :2]).tolist()
        right, bottom = np.minimum(windows[one, 2:], windows[other, 2:]).tolist()
        parts = []
        for number in (one, other):
            x, y = windows[number, :2].tolist()
            parts.append(masks[number][top - y : bottom - y, left - x : right - x])
        shared = int(np.count_nonzero(parts[0] & parts[1]))
        if shared:
            iou = shared / (areas[one] + areas[other] - shared)
            found.append((int(objects[one]), int(objects[other]), iou))
    return found


def _touching(windows: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of windows with a common area, some rows of the table of pairs at a time."""
    pairs: list[tuple[int, int]] = []
    step = max(1, _ROWS_OF_PAIRS // max(1, len(windows)))
    for first in range(0, len(windows), step):
        part = windows[first : first + step, None]
        meet = (np.maximum(part[..., :2], windows[:, :2]) < np.minimum(part[..., 2:], windows[:, 2:])).all(axis=2)
        one, other = np.nonzero(meet)
        later = other > one + first
        pairs += zip((one[later] + first).tolist(), other[later].tolist(), strict=True)
    return pairs
