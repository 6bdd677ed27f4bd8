"""Objects of several images as one list, rings of unlike length in one tensor, labels of one form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from clearsight.data.geometry import plain, wrap_instances
from clearsight.errors import ShapeError
from clearsight.types import Instances

__all__ = ["join_flags", "join_instances", "join_rings", "soft_label"]


def join_instances(parts: Sequence[Instances], canvas: tuple[int, int]) -> Instances:
    """The objects of several parts of one canvas, in order; masks and contours are kept if every part has them.

    Args:
        parts: at least one; coordinates and masks are those of the canvas already.
        canvas: `(height, width)`.
    """
    joined = Instances(
        boxes=torch.cat([plain(part.boxes) for part in parts]), labels=torch.cat([part.labels for part in parts])
    )
    joined.ignore = join_flags(parts)
    masks = [plain(part.masks) for part in parts if part.masks is not None]
    if len(masks) == len(parts):
        joined.masks = torch.cat(masks)
    joined.contours, joined.ring_object = join_rings(parts)
    return wrap_instances(joined, canvas)


def join_flags(parts: Sequence[Instances]) -> Tensor | None:
    """`ignore` of all objects, False for parts that have none; None if no part has any."""
    if all(part.ignore is None for part in parts):
        return None
    return torch.cat([torch.zeros(len(p), dtype=torch.bool) if p.ignore is None else p.ignore for p in parts])


def join_rings(parts: Sequence[Instances]) -> tuple[Tensor | None, Tensor | None]:
    """Contours `(r, p, 2)` of all parts, padded to the longest ring by repeating the last vertex, and whose they are.

    Returns:
        Contours, and the index of the object that each ring belongs to, counted over all parts; None and None unless
        every part has contours.
    """
    contours = [plain(part.contours) for part in parts if part.contours is not None]
    owners = [part.ring_object for part in parts if part.ring_object is not None]
    if len(contours) != len(parts) or len(owners) != len(parts):
        return None, None
    longest = max(rings.shape[1] for rings in contours)
    first = [0]
    for part in parts[:-1]:
        first.append(first[-1] + len(part))
    owner = torch.cat([ring_object + start for ring_object, start in zip(owners, first, strict=True)])
    return torch.cat([_lengthen(rings, longest) for rings in contours]), owner


def _lengthen(rings: Tensor, points: int) -> Tensor:
    if not len(rings):
        return rings.new_zeros((0, points, 2))
    return torch.cat((rings, rings[:, -1:].expand(-1, points - rings.shape[1], -1)), dim=1)


def soft_label(label: int | Tensor, classes: int | None) -> Tensor:
    """Probabilities `(k,)` of a label; those that it already has are kept.

    Raises:
        ShapeError: a class index without the number of classes.
    """
    if isinstance(label, Tensor):
        return label
    if classes is None:
        raise ShapeError(f"label {label}: give `classes`, the number of classes, to turn it into probabilities")
    return one_hot(torch.tensor(label), classes).to(torch.float32)
