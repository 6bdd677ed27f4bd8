"""Pictures with what was found drawn on them: solid lines are predictions, dashed lines the truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clearsight.errors import ShapeError
from clearsight.ops.outlines import polygons_to_mask
from clearsight.report.palette import class_color, edge_of, readable_on
from clearsight.types import Instances

__all__ = ["display_image", "draw_instances", "draw_label"]

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

_LEGIBLE = 480  # pixels of the longer side below which a picture is enlarged
_NAMED = 20  # objects of the only class up to which each is named
_DARK: Color = (16, 18, 20)


class _Pen(NamedTuple):
    """Sizes that suit a picture, pixels."""

    line: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    pad: int


def display_image(image: NDArray[np.generic]) -> Image.Image:
    """An image of any channels and depth as 8-bit RGB, to look at.

    Args:
        image: `(h, w)` or `(h, w, c)`. uint8 is shown as it is; other types are stretched from their 1st to their 99th
            percentile. Of four and more channels the first three are shown, of two the first.

    Raises:
        ShapeError: not two or three axes, or an axis of length 0.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or not array.size:
        raise ShapeError(f"image: expected (h, w) or (h, w, c), got {tuple(np.asarray(image).shape)}")
    array = array[:, :, :3] if array.shape[2] >= 3 else array[:, :, :1].repeat(3, axis=2)
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        values = np.nan_to_num(array.astype(np.float64))
        low, high = np.percentile(values, [1, 99])
        array = ((values - low) / max(high - low, 1e-12) * 255).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def draw_instances(
    image: NDArray[np.generic],
    instances: Instances,
    classes: Sequence[str],
    *,
    truth: Instances | None = None,
    enlarge: bool = True,
    names: bool | None = None,
) -> Image.Image:
    """Draw boxes, masks and contours with class names and scores.

    Args:
        image: `(h, w, c)` or `(h, w)`, any depth (see `display_image`).
        instances: what to draw solid; labels with scores where there are any. Boxes in pixels of `image`.
        classes: class names in label order; a label outside them is drawn as its number.
        truth: what to draw dashed, below the rest: where a dashed line shows, nothing covers it. Ignored objects are
            dotted.
        enlarge: pictures below 480 pixels are enlarged by a whole factor, so that text can be read.
        names: write class and score beside each object; None does unless there are many objects of one class, whose
            names would say little and hide much.

    Returns:
        An RGB picture, of the image's size or a whole multiple of it.
    """
    picture = display_image(image)
    factor = max(1, math.ceil(_LEGIBLE / max(picture.size))) if enlarge else 1
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    pen = _pen(picture)
    for objects in (truth, instances):
        if objects is not None and len(objects) and not (objects.masks is None and objects.contours is None):
            picture = _paint_masks(picture, objects, factor, alpha=0.4 if objects is instances else 0.15)
    draw = ImageDraw.Draw(picture)
    if truth is not None:
        for index in range(len(truth)):
            ignored = truth.ignore is not None and bool(truth.ignore[index])
            _outline(draw, truth, index, factor, pen, dash=(1, 2) if ignored else (4, 3))
    order = range(len(instances)) if instances.scores is None else instances.scores.argsort().tolist()
    for index in order:  # the surest on top
        _outline(draw, instances, index, factor, pen, dash=None)
    if names if names is not None else len(classes) > 1 or len(instances) <= _NAMED:
        _labels(draw, picture.size, instances, classes, factor, pen, list(order)[::-1])
    return picture


def draw_label(image: NDArray[np.generic], text: str, *, good: bool | None = None) -> Image.Image:
    """A picture with a line of text on a band below it, for image-level answers.

    Args:
        image: as `draw_instances` takes it.
        text: what to write; shortened to fit.
        good: True puts a tick before the text, False a cross, None neither.
    """
    picture = display_image(image)
    factor = max(1, math.ceil(_LEGIBLE / 2 / max(picture.size)))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    pen = _pen(picture)._replace(font=ImageFont.load_default(size=max(12, round(picture.width / 17))))
    height = int(_text_size(pen, "Ag")[1] + 4 * pen.pad)
    band = Image.new("RGB", (picture.width, picture.height + height), _DARK)
    band.paste(picture, (0, 0))
    draw = ImageDraw.Draw(band)
    left = 2 * pen.pad
    if good is not None:
        left += _mark(draw, (left, picture.height + height / 2), height * 0.4, good=good) + 2 * pen.pad
    while text and left + draw.textlength(text, font=pen.font) > picture.width - pen.pad:
        text = text[:-2] + "…" if len(text) > 2 else ""
    draw.text((left, picture.height + height / 2), text, font=pen.font, fill=(255, 255, 255), anchor="lm")
    return band


def _mark(draw: ImageDraw.ImageDraw, place: tuple[float, float], size: float, *, good: bool) -> float:
    """A tick or a cross of a width that is returned: shapes, because colour alone does not tell."""
    x, y, half = place[0], place[1], size / 2
    width = max(2, round(size / 6))
    if good:
        draw.line([(x, y), (x + half * 0.7, y + half), (x + size, y - half)], fill=(120, 220, 170), width=width)
    else:
        draw.line([(x, y - half), (x + size, y + half)], fill=(255, 150, 110), width=width)
        draw.line([(x, y + half), (x + size, y - half)], fill=(255, 150, 110), width=width)
    return size


def _pen(picture: Image.Image) -> _Pen:
    side = math.sqrt(picture.width * picture.height)
    return _Pen(
        line=max(2, round(side / 200)),
        font=ImageFont.load_default(size=max(11, round(side / 38))),
        pad=max(2, round(side / 320)),
    )


def _paint_masks(picture: Image.Image, objects: Instances, factor: int, *, alpha: float) -> Image.Image:
    """The pixels of each object in its class's colour; of its masks, or of what its contours enclose."""
    canvas = np.asarray(picture).astype(np.float32)
    for index, label in enumerate(objects.labels.tolist()):
        if objects.masks is not None:
            mask = objects.masks[index].cpu().numpy().astype(bool)
            area = mask.repeat(factor, axis=0).repeat(factor, axis=1)[: canvas.shape[0], : canvas.shape[1]]
        else:
            rings = [np.asarray(ring) for ring in _own_rings(objects, index, factor)]
            if not all(np.isfinite(ring).all() for ring in rings):
                continue
            area = polygons_to_mask(rings, canvas.shape[:2])
        view = canvas[: area.shape[0], : area.shape[1]]
        view[area] = view[area] * (1 - alpha) + np.array(class_color(label), np.float32) * alpha
    return Image.fromarray(canvas.round().astype(np.uint8))


def _outline(
    draw: ImageDraw.ImageDraw, objects: Instances, index: int, factor: int, pen: _Pen, *, dash: tuple[int, int] | None
) -> None:
    """The contours of an object where it has any, else its box."""
    color = class_color(int(objects.labels[index]))
    pattern = None if dash is None else (dash[0] * pen.line, dash[1] * pen.line)
    for ring in _rings(objects, index, factor):
        # An edge keeps every colour visible on every ground.
        _stroke(draw, ring, edge_of(color), pen.line + 2, pattern)
        _stroke(draw, ring, color, pen.line, pattern)


def _own_rings(objects: Instances, index: int, factor: int) -> list[list[tuple[float, float]]]:
    """The contours of an object in pixels of the picture; empty where it has none."""
    if objects.contours is None or objects.ring_object is None:
        return []
    mine = objects.contours[objects.ring_object == index]
    return [[(float(x) * factor, float(y) * factor) for x, y in ring] for ring in mine.tolist()]


def _rings(objects: Instances, index: int, factor: int) -> list[list[tuple[float, float]]]:
    if rings := _own_rings(objects, index, factor):
        return rings
    x0, y0, x1, y1 = _corners(objects, index, factor)
    return [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]]


def _corners(objects: Instances, index: int, factor: int) -> Box:
    x0, y0, x1, y1 = (float(v) * factor for v in objects.boxes[index].tolist())
    return x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)  # half-open: the last pixel is inside


def _stroke(
    draw: ImageDraw.ImageDraw,
    ring: list[tuple[float, float]],
    color: Color,
    width: int,
    dash: tuple[int, int] | None,
) -> None:
    closed = [*ring, ring[0]]
    if not all(math.isfinite(v) for point in closed for v in point):
        return
    if dash is None:
        draw.line([*closed, closed[min(1, len(closed) - 1)]], fill=color, width=width, joint="curve")
        return
    for start, stop in itertools.pairwise(closed):
        length = math.dist(start, stop)
        for place in np.arange(0.0, length, sum(dash)):
            ends = (place / length, min(place + dash[0], length) / length)
            draw.line([_between(start, stop, end) for end in ends], fill=color, width=width)


def _between(start: tuple[float, float], stop: tuple[float, float], share: float) -> tuple[float, float]:
    return start[0] + (stop[0] - start[0]) * share, start[1] + (stop[1] - start[1]) * share


def _labels(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    objects: Instances,
    classes: Sequence[str],
    factor: int,
    pen: _Pen,
    order: Sequence[int],
) -> None:
    """Names, the surest first; a name that finds no free place is left out rather than laid over another."""
    taken: list[Box] = []
    for index in order:
        label = int(objects.labels[index])
        text = classes[label] if label < len(classes) else str(label)
        if objects.scores is not None:
            text = f"{text} {float(objects.scores[index]):.2f}"
        corners = _corners(objects, index, factor)
        if not all(math.isfinite(v) for v in corners):
            continue
        width, height = _text_size(pen, text)
        width, height = width + 2 * pen.pad, height + 2 * pen.pad
        place = _free_place(corners, (width, height), size, taken)
        if place is None:
            continue
        taken.append(place)
        color = class_color(label)
        draw.rectangle(place, fill=color)
        middle = (place[0] + pen.pad, (place[1] + place[3]) / 2)
        draw.text(middle, text, font=pen.font, fill=readable_on(color), anchor="lm")


def _text_size(pen: _Pen, text: str) -> tuple[float, float]:
    # Height of a fixed sample, so that all labels of a picture are equally high.
    left, _, right, _ = pen.font.getbbox(text)
    _, top, _, bottom = pen.font.getbbox("Ag")
    return right - left, bottom - top


def _free_place(corners: Box, label: tuple[float, float], size: tuple[int, int], taken: Sequence[Box]) -> Box | None:
    """Above the box, else inside its top, else below it; kept inside the picture."""
    width, height = label
    left = min(max(corners[0], 0.0), max(size[0] - width - 1, 0.0))
    for top in (corners[1] - height, corners[1], corners[3]):
        if top < 0 or top + height > size[1]:
            continue
        place = (left, top, left + width, top + height)
        if not any(
            place[0] < other[2] and other[0] < place[2] and place[1] < other[3] and other[1] < place[3]
            for other in taken
        ):
            return place
    return None
