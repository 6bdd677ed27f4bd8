"""Crop, scale and shift an image with its boxes, masks, contours and semantic map in step, in one resampling.

Coordinates name pixel corners: an image of width w spans 0 to w.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors

from clearsight.types import Instances, Sample

__all__ = [
    "IGNORED",
    "MIN_SIDE",
    "MIN_VISIBLE",
    "Rect",
    "drop_hidden",
    "fitted_size",
    "mask_boxes",
    "mean_colour",
    "place",
    "plain",
    "resize_image",
    "resize_map",
    "wrap_instances",
]

MIN_VISIBLE = 0.15
"""Share of an object's box that must stay inside the image for the object to be kept."""
MIN_SIDE = 2.0
"""Shorter side, in pixels, below which what is left of a cut object is dropped."""
IGNORED = 255
"""Value of a semantic map where nothing is known."""


class Rect(NamedTuple):
    """A rectangle of whole pixels, half-open."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left


def plain(tensor: Tensor) -> Tensor:
    """The same memory without its tv_tensor type: each operation on a tv_tensor costs several microseconds."""
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def wrap_instances(instances: Instances, size: tuple[int, int]) -> Instances:
    """The same objects with tensors of the tv_tensor types, on a canvas of `size` (height, width)."""
    box_type = tv_tensors.BoundingBoxes
    return replace(
        instances,
        boxes=box_type(plain(instances.boxes), format="XYXY", canvas_size=size),  # pyright: ignore[reportCallIssue]
        masks=None if instances.masks is None else tv_tensors.Mask(plain(instances.masks)),
        contours=None
        if instances.contours is None
        else tv_tensors.KeyPoints(plain(instances.contours), canvas_size=size),  # pyright: ignore[reportCallIssue]
    )


# ------------------------------------------------------------------------------------------------ crop and scale
def fitted_size(size: tuple[int, int], into: tuple[int, int], fit: Literal["letterbox", "stretch"]) -> tuple[int, int]:
    """The size that an image of `size` is scaled to: `into` itself, or as large as fits with the aspect ratio kept.

    Example:
        >>> fitted_size((480, 640), (320, 320), "letterbox")
        (240, 320)
    """
    if fit == "stretch":
        return into
    factor = min(into[0] / size[0], into[1] / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with antialiasing; `(c, h, w)` uint8 or uint16 to `(c, *size)`, channels innermost in memory.

    torch's kernel on channels-last bytes is the fastest found that antialiases (640×480 to 320×240 in 0.27 ms on one
    core; Pillow 1.8 ms), so images keep that layout all the way to the model.
    """
    image = plain(image)
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    # Unsqueezing the (h, w, c) view gives strides that torch recognises as channels-last; image[None] would not.
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    # The byte kernel of torch 2.15 is wrong, or fails an assertion of its own, where a side is a single pixel.
    if image.dtype == torch.uint8 and min(*image.shape[-2:], *size) > 1:
        return functional.interpolate(batch, size=size, mode="bilinear", antialias=True)[0]
    # torch has no arithmetic on uint16.
    scaled = functional.interpolate(batch.float().contiguous(), size=size, mode="bilinear", antialias=True)[0]
    top = 255 if image.dtype == torch.uint8 else 65535
    scaled = scaled.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return scaled.round_().clamp_(0, top).to(torch.int32).to(image.dtype)


def mean_colour(image: Tensor) -> Tensor:
    """The mean of each channel over every eighth row and column, `(c,)` of the image's type."""
    sample = plain(image)[:, ::8, ::8].to(torch.float32)
    return sample.mean(dim=(1, 2)).round_().to(torch.int32).to(image.dtype)


def place(sample: Sample, source: Rect, target: Rect, canvas: tuple[int, int]) -> Sample:
    """Show the part `source` of a sample at `target` on a canvas, everything in step, in one resampling.

    The rest of the canvas has the image's mean colour, no objects, and 255 in the semantic map. Objects are clipped to
    `target`; those of which too little is left are dropped (`MIN_VISIBLE`, `MIN_SIDE`).

    Args:
        sample: any sample.
        source: part of the image, inside it.
        target: where that part goes, inside the canvas.
        canvas: `(height, width)` of the result.
    """
    whole = target == (0, 0, *canvas)
    image = plain(sample.image)
    part = image[:, source.top : source.bottom, source.left : source.right]
    part = resize_image(part, (target.height, target.width))
    if not whole:
        part = _paste(part, target, canvas, mean_colour(image))
    semantic = sample.semantic
    if semantic is not None:
        semantic = _place_map(plain(semantic)[None], source, target, canvas, fill=IGNORED)[0]
        semantic = tv_tensors.Mask(semantic)
    instances = sample.instances
    if instances is not None:
        instances = _place_instances(instances, source, target, canvas)
    return replace(sample, image=tv_tensors.Image(part), instances=instances, semantic=semantic)


def _paste(part: Tensor, target: Rect, canvas: tuple[int, int], fill: Tensor | int) -> Tensor:
    """`part` (c, h, w) at `target` on a canvas of one colour, channels innermost."""
    result = torch.empty((*canvas, part.shape[0]), dtype=part.dtype)
    result[:] = fill
    result = result.permute(2, 0, 1)
    result[:, target.top : target.bottom, target.left : target.right] = part
    return result


def _place_map(maps: Tensor, source: Rect, target: Rect, canvas: tuple[int, int], *, fill: int) -> Tensor:
    """`(n, h, w)` maps, nearest pixel."""
    part = resize_map(maps[:, source.top : source.bottom, source.left : source.right], (target.height, target.width))
    if target == (0, 0, *canvas):
        return part
    result = part.new_full((len(part), *canvas), fill)
    result[:, target.top : target.bottom, target.left : target.right] = part
    return result


def resize_map(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """`(n, h, w)` maps of any type to `(n, *size)`: each pixel takes the value under its centre."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    rows, columns = _nearest(maps.shape[-2], size[0]), _nearest(maps.shape[-1], size[1])
    return maps[:, rows][:, :, columns]


def _nearest(old: int, new: int) -> Tensor:
    """For each of `new` pixels the old one under its centre."""
    return ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new)).floor_().to(torch.int64).clamp_(max=old - 1)


def _place_instances(instances: Instances, source: Rect, target: Rect, canvas: tuple[int, int]) -> Instances:
    scale = (target.width / source.width, target.height / source.height)
    factor = torch.tensor(scale)
    shift = torch.tensor((target.left - source.left * scale[0], target.top - source.top * scale[1]))
    boxes = torch.addcmul(shift.repeat(2), plain(instances.boxes), factor.repeat(2))
    masks, contours = instances.masks, instances.contours
    if masks is not None:
        masks = _place_map(plain(masks), source, target, canvas, fill=0)
    if contours is not None:
        contours = torch.addcmul(shift, plain(contours), factor)
    moved = replace(instances, boxes=boxes, masks=masks, contours=contours)
    return drop_hidden(moved, target, canvas)


def drop_hidden(instances: Instances, window: Rect, canvas: tuple[int, int]) -> Instances:
    """Clip objects to a window and drop those of which too little is left.

    Objects that the window cuts get the box of what is left of their mask, where there are masks. Contours are clamped
    to the window.

    Args:
        instances: objects whose boxes may reach out of the window; masks are already cut.
        window: what is visible.
        canvas: `(height, width)` of the image that the objects belong to.
    """
    boxes = plain(instances.boxes)
    low = torch.tensor((window.left, window.top), dtype=boxes.dtype)
    high = torch.tensor((window.right, window.bottom), dtype=boxes.dtype)
    clipped = torch.minimum(torch.maximum(boxes.view(-1, 2, 2), low), high).view(-1, 4)
    cut = (clipped != boxes).any(dim=1)
    sides, full = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    keep = (sides.prod(dim=1) >= MIN_VISIBLE * full.prod(dim=1)) & (sides.amin(dim=1) >= MIN_SIDE)
    contours = instances.contours
    if contours is not None:
        contours = torch.minimum(torch.maximum(plain(contours), low), high)
    if instances.masks is not None:
        tight = mask_boxes(plain(instances.masks))
        keep &= tight[:, 2] > tight[:, 0]
        clipped = torch.where(cut[:, None], tight, clipped)
    result = replace(instances, boxes=clipped, contours=contours)
    return wrap_instances(result if bool(keep.all()) else result.select(keep), canvas)


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight half-open boxes `(n, 4)` float32 of `(n, h, w)` masks; zeros for an empty mask."""
    spans = []
    for axis in (1, 2):  # over rows: the x span; over columns: the y span
        hit = masks.any(dim=axis).to(torch.uint8)
        length = hit.shape[1]
        some = hit.any(dim=1)
        first = hit.argmax(dim=1)
        last = length - hit.flip(1).argmax(dim=1)
        spans.append((first * some, last * some))
    (left, right), (top, bottom) = spans
    return torch.stack((left, top, right, bottom), dim=1).to(torch.float32)
