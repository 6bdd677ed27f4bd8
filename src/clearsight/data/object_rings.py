"""The outline of an object as rings, whichever way its file says it."""

from __future__ import annotations

import math

import numpy as np

from clearsight.ops.contours import polygon_box
from clearsight.ops.masks import rle_to_mask
from clearsight.ops.outlines import mask_to_polygons, polygons_to_mask
from clearsight.types import Object

__all__ = ["is_union", "object_rings"]


def object_rings(item: Object, size: tuple[int, int] | None) -> list[np.ndarray]:
    """Rings that cover, by the even-odd rule, what the object covers: of its run-length mask, else of its polygons.

    Polygons that cover what any of them covers (attribute `fill` is `union`) are drawn first, and their outline runs
    along the pixels.

    Args:
        item: as read.
        size: `(height, width)` of its image, to which such a drawing is cut; None cuts only at the upper left corner.

    Returns:
        `(p, 2)` float64 each, in the file's pixels; empty for an object that is only a box.

    Raises:
        DataError: run lengths do not add up, or a vertex is not finite where rings are drawn.
    """
    if item.rle is not None:
        return mask_to_polygons(rle_to_mask(item.rle))
    rings = [np.asarray(ring, dtype=np.float64) for ring in item.polygons if len(ring)]
    if not is_union(item):
        return rings
    left, top, right, bottom = polygon_box(rings)
    height, width = (math.ceil(bottom), math.ceil(right)) if size is None else size
    low = max(math.floor(left), 0), max(math.floor(top), 0)
    window = min(math.ceil(bottom), height) - low[1], min(math.ceil(right), width) - low[0]
    if min(window) <= 0:
        return []  # outside the image
    drawn = polygons_to_mask([ring - low for ring in rings], window, fill="union")
    return [np.add(ring, low) for ring in mask_to_polygons(drawn)]


def is_union(item: Object) -> bool:
    """Whether several polygons cover what any of them covers, and may overlap."""
    return sum(len(ring) > 0 for ring in item.polygons) > 1 and item.attributes.get("fill") == "union"
