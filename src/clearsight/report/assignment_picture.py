"""Draws which points each object got: one panel a method, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points
from clearsight.report.overlay import display_image
from clearsight.report.palette import class_color, edge_of
from clearsight.types import Targets

__all__ = ["draw_assignments"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_WIDTH = 560  # pixels of a panel's picture, at least
_GROUND = (250, 250, 248)
_INK = (28, 31, 35)
_FAINT = (96, 102, 110)
_SIDES = (0, 4, 3, 6, 5, 8, 7)  # corners of the mark of each level; 0 is a disc


class _Mark(NamedTuple):
    """One place of an object: where, how much, on which level."""

    x: float
    y: float
    weight: float
    level: int


def draw_assignments(
    image: NDArray[np.generic],
    points: Points,
    targets: Targets,
    found: Mapping[str, Assignment | str],
    *,
    title: str,
    notes: Mapping[str, str] | None = None,
    columns: int = 3,
) -> Image.Image:
    """A panel for each method: boxes of the objects, and in an object's colour the points that answer for it.

    Args:
        image: `(h, w, c)` or `(h, w)`, the first of the batch.
        points: of the head.
        targets: of the batch; objects of other images are left out.
        found: by name of the method the assignment, or why there is none.
        title: of the whole.
        notes: by name, a second line beneath the panel's heading.
        columns: panels in a row.

    Returns:
        An RGB picture. The larger a mark, the larger the sum of the weights of the points there (anchors of one place
        are drawn as one); its shape says the level. Dashed boxes are ignored objects; grey dots are points that are
        neither an object's nor background.
    """
    ground = display_image(image)
    factor = max(1, math.ceil(_WIDTH / ground.width))
    ground = ground.resize((ground.width * factor, ground.height * factor), Image.Resampling.BICUBIC)
    ground = Image.blend(ground, Image.new("RGB", ground.size, (255, 255, 255)), 0.35)
    font, small = ImageFont.load_default(size=20), ImageFont.load_default(size=14)
    margin, head, top, foot = 16, 54, 52, 40
    columns = max(1, min(columns, len(found)))
    rows = math.ceil(len(found) / columns)
    width = columns * (ground.width + margin) + margin
    sheet = Image.new("RGB", (width, top + rows * (ground.height + head + margin) + foot), _GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((margin, margin), title, font=ImageFont.load_default(size=24), fill=_INK)
    for number, (name, one) in enumerate(found.items()):
        left = margin + (number % columns) * (ground.width + margin)
        upper = top + (number // columns) * (ground.height + head + margin)
        pen.text((left, upper), name, font=font, fill=_INK)
        line = one if isinstance(one, str) else _summary(one, targets)
        note = (notes or {}).get(name, "")
        pen.text((left, upper + 26), _shortened(f"{line}{note}", small, ground.width), font=small, fill=_FAINT)
        panel = ground.copy() if isinstance(one, str) else _panel(ground, factor, points, targets, one)
        sheet.paste(panel, (left, upper + head - 6))
    _legend(pen, points, (margin, sheet.height - foot + 8), small)
    return sheet


def _summary(one: Assignment, targets: Targets) -> str:
    first = (targets.image == 0).nonzero().flatten()
    mine = torch.isin(one.object, first) & (one.weight > 0)
    counts = torch.bincount(one.object[mine], minlength=len(targets.labels))[first]
    if targets.ignore is not None:
        counts = counts[~targets.ignore[first]]
    if not len(counts):
        return "no objects"
    middle = float(counts.float().median())
    none = int((counts == 0).sum())
    alone = f"; {none} of {len(counts)} objects have none" if none else ""
    spread = f"{int(counts.min())} to {int(counts.max())}, median {middle:g}"
    return f"{int(counts.sum())} points; an object has {spread}{alone}"


def _panel(ground: Image.Image, factor: int, points: Points, targets: Targets, one: Assignment) -> Image.Image:
    picture = ground.copy()
    pen = ImageDraw.Draw(picture)
    first = (targets.image == 0).nonzero().flatten().tolist()
    neither = (one.background[0] == 0).clone()
    neither[one.point[(targets.image[one.object] == 0) & (one.weight > 0)]] = False
    for x, y in points.xy[neither].unique(dim=0).mul(factor).tolist():
        pen.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(130, 134, 140))
    for number, index in enumerate(first):
        box = [value * factor for value in targets.boxes[index].tolist()]
        if all(math.isfinite(value) for value in box) and box[2] > box[0] and box[3] > box[1]:
            ignored = targets.ignore is not None and bool(targets.ignore[index])
            pen.rectangle(tuple(box), outline=(130, 134, 140) if ignored else class_color(number), width=2)
    for number, index in enumerate(first):
        color = class_color(number)
        marks = _marks(points, one, index)
        largest = max((mark.weight for mark in marks), default=1.0)
        for mark in marks:
            radius = 3 + 5 * math.sqrt(mark.weight / largest)
            _shape(pen, (mark.x * factor, mark.y * factor), radius, mark.level, color)
    return picture


def _marks(points: Points, one: Assignment, index: int) -> list[_Mark]:
    """The places of an object, the anchors of each added up, the heaviest last."""
    mine = ((one.object == index) & (one.weight > 0)).nonzero().flatten()
    point, weight = one.point[mine], one.weight[mine].float()
    where: Tensor = torch.stack((points.level[point].to(points.xy.dtype), *points.xy[point].unbind(1)), dim=1)
    places, group = where.unique(dim=0, return_inverse=True)
    total = torch.zeros(len(places)).index_add_(0, group, weight)
    marks = [_Mark(x, y, w, int(level)) for (level, x, y), w in zip(places.tolist(), total.tolist(), strict=True)]
    return sorted(marks, key=lambda mark: mark.weight)


def _shape(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], radius: float, level: int, color: tuple[int, int, int]
) -> None:
    corners = _SIDES[level % len(_SIDES)]
    if corners == 0:
        x, y = place
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=edge_of(color))
    else:
        pen.regular_polygon((*place, radius * 1.15), corners, fill=color, outline=edge_of(color))


def _legend(pen: ImageDraw.ImageDraw, points: Points, place: tuple[int, int], font: Font) -> None:
    """Which mark stands for which level, by its stride."""
    x, y = place
    levels = points.level.unique().tolist()
    for level in levels:
        stride = float(points.stride[points.level == level][0])
        _shape(pen, (x + 8, y + 8), 7, level, (90, 96, 104))
        text = f"stride {stride:g}"
        pen.text((x + 22, y), text, font=font, fill=_INK)
        x += int(pen.textlength(text, font=font)) + 46
    pen.text((x, y), "colour: the object; size: weight; grey: neither object nor background", font=font, fill=_FAINT)


def _shortened(text: str, font: Font, width: int) -> str:
    while text and font.getbbox(text)[2] > width:
        text = text[:-2] + "…"
    return text
