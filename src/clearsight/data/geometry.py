"""Crop, scale and shift an image with its boxes, masks, contours and semantic map in step, in one resampling.

Coordinates name pixel corners: an image of width w spans 0 to w.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors

from clearsight.types import Instances, Sample

__all__ = [
    "IGNORED",
    "MIN_SIDE",
    "MIN_VISIBLE",
    "NO_FLIPS",
    "Flips",
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


class Flips(NamedTuple):
    """Which way an image is mirrored."""

    horizontal: bool = False
    vertical: bool = False


NO_FLIPS = Flips()


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


def place(
    sample: Sample,
    source: Rect,
    target: Rect,
    canvas: tuple[int, int],
    *,
    flips: Flips = NO_FLIPS,
    recolour: Callable[[Tensor], Tensor] | None = None,
) -> Sample:
    """Show the part `source` of a sample at `target` on a canvas, everything in step, in one resampling.

    The rest of the canvas has the part's mean colour, no objects, and 255 in the semantic map. Objects are clipped to
    `target`; those of which too little is left are dropped (`MIN_VISIBLE`, `MIN_SIDE`); where nothing moves, all stay.

    Args:
        sample: any sample.
        source: part of the image, inside it.
        target: where that part goes, inside the canvas.
        canvas: `(height, width)` of the result.
        flips: mirror the part on the way.
        recolour: change of its colours, `(c, h, w)` to the same; made where there are fewer pixels.
    """
    part = _place_image(plain(sample.image), source, target, flips=flips, recolour=recolour)
    if target != (0, 0, *canvas):
        part = _paste(part, target, canvas, mean_colour(part))
    semantic = sample.semantic
    if semantic is not None:
        maps = _place_map(plain(semantic)[None], source, target, canvas, flips=flips, fill=IGNORED)
        semantic = tv_tensors.Mask(maps[0])
    instances = sample.instances
    if instances is not None:
        moved = _place_instances(instances, source, target, canvas, flips=flips)
        old = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
        kept = source == target == (0, 0, *old) and canvas == old
        instances = wrap_instances(moved, canvas) if kept else drop_hidden(moved, target, canvas)
    return replace(sample, image=tv_tensors.Image(part), instances=instances, semantic=semantic)


def _place_image(
    image: Tensor,
    source: Rect,
    target: Rect,
    *,
    flips: Flips,
    recolour: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    part = image[:, source.top : source.bottom, source.left : source.right]
    size = (target.height, target.width)
    grows = target.height * target.width > source.height * source.width
    if not grows:
        part = resize_image(part, size)
    part = _flip(part, flips)
    if recolour is not None:
        part = recolour(part)
    return resize_image(part, size) if grows else part


def _flip(pixels: Tensor, flips: Flips) -> Tensor:
    """`(n, h, w)` mirrored."""
    axes = [axis for axis, wanted in ((2, flips.horizontal), (1, flips.vertical)) if wanted]
    if not axes:
        return pixels
    # torch moves int16, but hardly anything of uint16.
    bits = pixels.view(torch.int16) if pixels.dtype == torch.uint16 else pixels
    return bits.flip(axes).view(pixels.dtype)


def _paste(part: Tensor, target: Rect, canvas: tuple[int, int], colour: Tensor) -> Tensor:
    """`part` (c, h, w) at `target` on a canvas of one colour, channels innermost."""
    channels = part.shape[0]
    # Whole rows of bytes: copying (h, w, 3) with its tiny last axis is twenty times as slow.
    rows = torch.empty((canvas[0], canvas[1] * channels), dtype=part.dtype)
    rows[:] = colour.expand(canvas[1], channels).flatten()
    columns = slice(target.left * channels, target.right * channels)
    rows[target.top : target.bottom, columns] = part.permute(1, 2, 0).reshape(target.height, -1)
    return rows.view(*canvas, channels).permute(2, 0, 1)


def _place_map(maps: Tensor, source: Rect, target: Rect, canvas: tuple[int, int], *, flips: Flips, fill: int) -> Tensor:
    """`(n, h, w)` maps, nearest pixel."""
    part = maps[:, source.top : source.bottom, source.left : source.right]
    part = _flip(resize_map(part, (target.height, target.width)), flips)
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


def _place_instances(
    instances: Instances, source: Rect, target: Rect, canvas: tuple[int, int], *, flips: Flips
) -> Instances:
    """Boxes and contours by one scale and shift, masks by `_place_map`; nothing is clipped yet."""
    factor = np.array((target.width / source.width, target.height / source.height))
    start = np.array((source.left, source.top), dtype=np.float64)
    if flips.horizontal:
        factor[0], start[0] = -factor[0], source.right
    if flips.vertical:
        factor[1], start[1] = -factor[1], source.bottom
    shift = (np.array((target.left, target.top)) - start * factor).astype(np.float32)
    factor = factor.astype(np.float32)
    # NumPy for what is as small as boxes: a call of torch's costs several times as much.
    ends = plain(instances.boxes).numpy().reshape(-1, 2, 2) * factor + shift
    boxes = np.concatenate((ends.min(axis=1), ends.max(axis=1)), axis=1)
    masks, contours = instances.masks, instances.contours
    if masks is not None:
        masks = _place_map(plain(masks), source, target, canvas, flips=flips, fill=0)
    if contours is not None:
        contours = torch.from_numpy(plain(contours).numpy() * factor + shift)
    return replace(instances, boxes=torch.from_numpy(boxes), masks=masks, contours=contours)


def drop_hidden(instances: Instances, window: Rect, canvas: tuple[int, int]) -> Instances:
    """Clip objects to a window and drop those of which too little is left.

    Objects that the window cuts get the box of what is left of their mask, where there are masks. Contours are clamped
    to the window.

    Args:
        instances: objects whose boxes may reach out of the window; masks are already cut.
        window: what is visible.
        canvas: `(height, width)` of the image that the objects belong to.
    """
    boxes = plain(instances.boxes).numpy()
    low = np.array((window.left, window.top), dtype=boxes.dtype)
    high = np.array((window.right, window.bottom), dtype=boxes.dtype)
    clipped = np.minimum(np.maximum(boxes.reshape(-1, 2, 2), low), high).reshape(-1, 4)
    sides, full = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    keep = sides[:, 0] * sides[:, 1] >= MIN_VISIBLE * full[:, 0] * full[:, 1]
    keep &= np.minimum(sides[:, 0], sides[:, 1]) >= MIN_SIDE
    contours = instances.contours
    if contours is not None:
        contours = torch.from_numpy(np.minimum(np.maximum(plain(contours).numpy(), low), high))
    if instances.masks is not None:
        tight = mask_boxes(plain(instances.masks)).numpy()
        keep &= tight[:, 2] > tight[:, 0]
        clipped = np.where((clipped != boxes).any(axis=1, keepdims=True), tight, clipped)
    result = replace(instances, boxes=torch.from_numpy(clipped), contours=contours)
    return wrap_instances(result if keep.all() else result.select(torch.from_numpy(keep)), canvas)


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
