"""Some images' share of the targets of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clearsight.types import Targets

__all__ = ["take_images"]


def take_images(targets: Targets, indices: Sequence[int]) -> Targets:
    """Targets of some images of a batch, in the order asked for.

    Args:
        targets: of `n` images.
        indices: of images; none twice.
    """
    chosen = torch.as_tensor(list(indices), dtype=torch.int64, device=targets.image.device)
    objects = [torch.nonzero(targets.image == index).flatten() for index in chosen]
    kept = torch.cat([*objects, chosen.new_zeros(0)])
    place = torch.cat([torch.full_like(some, number) for number, some in enumerate(objects)] + [chosen.new_zeros(0)])
    contours, rings = targets.contours, targets.ring_object
    if contours is not None and rings is not None:
        new = torch.full((len(targets.labels),), -1, dtype=torch.int64, device=rings.device)
        new[kept] = torch.arange(len(kept), device=rings.device)
        inside = torch.nonzero(new[rings] >= 0).flatten()
        order = torch.argsort(new[rings[inside]], stable=True)
        contours, rings = contours[inside[order]], new[rings[inside[order]]]
    return Targets(
        boxes=targets.boxes[kept],
        labels=targets.labels[kept],
        image=place,
        ignore=None if targets.ignore is None else targets.ignore[kept],
        masks=None if targets.masks is None else targets.masks[kept],
        contours=contours,
        ring_object=rings,
        semantic=None if targets.semantic is None else targets.semantic[chosen],
        label=None if targets.label is None else targets.label[chosen],
    )
