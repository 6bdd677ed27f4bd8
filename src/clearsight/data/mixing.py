"""New samples from several: mosaic, mixup, CutMix, cutout, and copies of small objects.

Plain functions of samples and numbers: what is drawn, and when, is decided in `clearsight.data.augmenting`. Only
`copy_paste` draws by itself (where to put what), from torch's CPU generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision import tv_tensors

from clearsight.data.geometry import IGNORED, MIN_VISIBLE, Rect, mean_colour, place, plain, wrap_instances
from clearsight.data.joining import join_instances, soft_label
from clearsight.errors import ShapeError
from clearsight.types import Instances, Sample

__all__ = ["cutmix", "cutout", "mixup", "mosaic"]


def mosaic(
    samples: Sequence[Sample], *, size: tuple[int, int], centre: tuple[int, int], scales: Sequence[float]
) -> Sample:
    """Four images around a point, each cut to its quadrant.

    Method: Bochkovskiy et al. 2020, arXiv:2004.10934. Each image touches the centre with one corner; what is left of
    the canvas has the first image's mean colour.

    Args:
        samples: four, with the same channels and kinds of targets: above left, above right, below left, below right.
        size: `(height, width)` of the result.
        centre: `(y, x)` of the common corner, inside the canvas.
        scales: four factors on the images' sizes.

    Returns:
        A sample with the first one's meta; image labels are not combined (None).

    Raises:
        ShapeError: not four samples, or a centre outside the canvas.
    """
    (height, width), (y, x) = size, centre
    if len(samples) != 4 or not (0 < y < height and 0 < x < width):
        raise ShapeError(
            f"mosaic: {len(samples)} samples around {centre} on {size}; expected 4 around a point inside the canvas"
        )
    first = plain(samples[0].image)
    image = torch.empty((height, width, first.shape[0]), dtype=first.dtype)
    image[:] = mean_colour(first)
    image = image.permute(2, 0, 1)
    semantic = None
    if samples[0].semantic is not None:
        semantic = torch.full(size, IGNORED, dtype=torch.int64)
    parts: list[Instances] = []
    for number, (sample, scale) in enumerate(zip(samples, scales, strict=True)):
        part, (top, left) = _quadrant(sample, scale, size, centre, below=number >= 2, right=number % 2 == 1)
        rows, columns = slice(top, top + part.image.shape[-2]), slice(left, left + part.image.shape[-1])
        image[:, rows, columns] = plain(part.image)
        if semantic is not None and part.semantic is not None:
            semantic[rows, columns] = plain(part.semantic)
        if part.instances is not None:
            parts.append(_shift(part.instances, top, left, size))
    return replace(
        samples[0],
        image=tv_tensors.Image(image),
        instances=join_instances(parts, size) if parts else None,
        semantic=None if semantic is None else tv_tensors.Mask(semantic),
        label=None,
    )


def _quadrant(
    sample: Sample, scale: float, size: tuple[int, int], centre: tuple[int, int], *, below: bool, right: bool
) -> tuple[Sample, tuple[int, int]]:
    """What one quadrant shows of a sample, and where on the canvas its top left corner lies."""
    room = (size[0] - centre[0] if below else centre[0], size[1] - centre[1] if right else centre[1])
    sides = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    shown = [min(room[i], max(1, round(sides[i] * scale))) for i in (0, 1)]
    used = [min(sides[i], max(1, round(shown[i] / scale))) for i in (0, 1)]
    top = 0 if below else sides[0] - used[0]
    left = 0 if right else sides[1] - used[1]
    source = Rect(top, left, top + used[0], left + used[1])
    part = place(sample, source, Rect(0, 0, *shown), (shown[0], shown[1]))
    return part, (centre[0] - (0 if below else shown[0]), centre[1] - (0 if right else shown[1]))


def _shift(instances: Instances, top: int, left: int, canvas: tuple[int, int]) -> Instances:
    """The same objects further down and to the right, on a larger canvas."""
    offset = torch.tensor((left, top), dtype=torch.float32)
    masks = instances.masks
    if masks is not None:
        masks = _pad(plain(masks), top, left, canvas, 0)
    contours = None if instances.contours is None else plain(instances.contours) + offset
    boxes = plain(instances.boxes) + offset.repeat(2)
    return wrap_instances(replace(instances, boxes=boxes, masks=masks, contours=contours), canvas)


def _pad(maps: Tensor, top: int, left: int, canvas: tuple[int, int], fill: int) -> Tensor:
    """`(n, h, w)` at a place on a larger canvas."""
    padded = maps.new_full((len(maps), *canvas), fill)
    padded[:, top : top + maps.shape[1], left : left + maps.shape[2]] = maps
    return padded


# ------------------------------------------------------------------------------------------------ blends
def mixup(a: Sample, b: Sample, lam: float, *, classes: int | None = None) -> Sample:
    """The weighted mean of two images: `lam` of `a` and `1 - lam` of `b`.

    Method: Zhang et al. 2018, arXiv:1710.09412. Image labels become probabilities; objects of both are kept (Zhang et
    al. 2019, arXiv:1902.04103), except those of an image that counts for less than `MIN_VISIBLE`.

    Args:
        a: gives meta, type and channels.
        b: of any size; both are laid on a canvas that holds both, in their own mean colours.
        lam: weight of `a`, in [0, 1].
        classes: number of classes, needed where labels are class indices.

    Returns:
        The blend; a semantic map cannot be blended and is that of the image that weighs more.

    Raises:
        ShapeError: class indices without `classes`, or channels that differ.
    """
    canvas = _common_canvas(a, b)
    a, b = _on_canvas(a, canvas), _on_canvas(b, canvas)
    first, second = plain(a.image), plain(b.image)
    mixed = torch.lerp(second.to(torch.float32), first.to(torch.float32), lam)
    parts = [
        sample.instances if weight >= MIN_VISIBLE else sample.instances.select(torch.zeros(0, dtype=torch.int64))
        for sample, weight in ((a, lam), (b, 1 - lam))
        if sample.instances is not None
    ]
    return replace(
        a,
        image=tv_tensors.Image(mixed.round_().to(torch.int32).to(first.dtype)),
        instances=join_instances(parts, canvas) if parts else None,
        semantic=a.semantic if lam >= 0.5 else b.semantic,
        label=_mix_labels(a, b, lam, classes),
    )


def cutmix(a: Sample, b: Sample, window: Rect, *, classes: int | None = None) -> Sample:
    """`a` with a window of `b`, for classification; labels are mixed by the areas that are really shown.

    Method: Yun et al. 2019, arXiv:1905.04899.

    Args:
        a: gives everything outside the window.
        b: gives what the window shows, from the same place; of any size, laid on the common canvas.
        window: clipped to the canvas first, so that the share of the label is the share of the pixels exactly.
        classes: number of classes, needed where labels are class indices.

    Raises:
        ShapeError: as `mixup`.
    """
    canvas = _common_canvas(a, b)
    a, b = _on_canvas(a, canvas), _on_canvas(b, canvas)
    window = _clip(window, canvas)
    image = plain(a.image).clone()
    rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
    image[:, rows, columns] = plain(b.image)[:, rows, columns]
    lam = 1 - window.height * window.width / (canvas[0] * canvas[1])
    return replace(a, image=tv_tensors.Image(image), label=_mix_labels(a, b, lam, classes))


def cutout(sample: Sample, window: Rect) -> Sample:
    """A window filled with the image's mean colour; objects that it hides almost wholly are dropped.

    Method: DeVries and Taylor 2017, arXiv:1708.04552, which clips the square at the image's edge, as here.

    Args:
        sample: any sample; masks, contours and maps keep what lies below the window.
        window: clipped to the image.
    """
    size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    window = _clip(window, size)
    image = plain(sample.image).clone()
    colour = mean_colour(image)
    image[:, window.top : window.bottom, window.left : window.right] = colour[:, None, None]
    instances = sample.instances
    if instances is not None and len(instances):
        boxes = plain(instances.boxes)
        low = torch.maximum(boxes[:, :2], torch.tensor((window.left, window.top)))
        high = torch.minimum(boxes[:, 2:], torch.tensor((window.right, window.bottom)))
        hidden = (high - low).clamp_(min=0).prod(dim=1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        instances = instances.select(hidden <= (1 - MIN_VISIBLE) * area)
    return replace(sample, image=tv_tensors.Image(image), instances=instances)


def _clip(window: Rect, size: tuple[int, int]) -> Rect:
    rows = [min(max(value, 0), size[0]) for value in (window.top, window.bottom)]
    columns = [min(max(value, 0), size[1]) for value in (window.left, window.right)]
    return Rect(rows[0], columns[0], max(rows), max(columns))


def _common_canvas(a: Sample, b: Sample) -> tuple[int, int]:
    if a.image.shape[0] != b.image.shape[0]:
        raise ShapeError(
            f"{b.meta.path}: {b.image.shape[0]} channels, {a.meta.path} has {a.image.shape[0]}; they cannot be mixed"
        )
    sides = zip(a.image.shape[-2:], b.image.shape[-2:], strict=True)
    height, width = (max(pair) for pair in sides)
    return int(height), int(width)


def _on_canvas(sample: Sample, canvas: tuple[int, int]) -> Sample:
    """Padded on the right and below with its own mean colour."""
    size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    return sample if size == canvas else place(sample, Rect(0, 0, *size), Rect(0, 0, *size), canvas)


def _mix_labels(a: Sample, b: Sample, lam: float, classes: int | None) -> Tensor | None:
    if a.label is None or b.label is None:
        return None
    return lam * soft_label(a.label, classes) + (1 - lam) * soft_label(b.label, classes)
