"""Pictures of class maps over their image: the answer beside the truth, and where they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clearsight.errors import ShapeError
from clearsight.report.overlay import display_image
from clearsight.report.palette import class_color

__all__ = ["draw_class_map"]

IGNORED = 255
_LEGIBLE = 360  # pixels of the longer side of one panel below which it is enlarged
_ALPHA = 0.45
_WRONG = (220, 40, 40)
_DARK = (16, 18, 20)


def draw_class_map(
    image: NDArray[np.generic],
    labels: NDArray[np.integer],
    classes: Sequence[str],
    *,
    truth: NDArray[np.integer] | None = None,
) -> Image.Image:
    """Colour every pixel by its class, with a line of the classes' names below.

    Args:
        image: `(h, w, c)` or `(h, w)`, any depth (see `overlay.display_image`).
        labels: `(h, w)` classes; 255 is left as the image is.
        classes: names in label order.
        truth: `(h, w)` classes, 255 where nothing is known; it is shown to the right, and pixels where `labels` differs
            from it are red in a third panel.

    Returns:
        An RGB picture of one panel, or three in a row, each of the image's size or a whole multiple of it.

    Raises:
        ShapeError: a map has another size than the image.
    """
    picture = np.asarray(display_image(image)).astype(np.float32)
    for name, given in (("labels", labels), ("truth", truth)):
        if given is not None and given.shape != picture.shape[:2]:
            raise ShapeError(f"{name}: expected the image's size {picture.shape[:2]}, got {given.shape}")
    panels = [("", _coloured(picture, labels))]
    present = set(np.unique(labels).tolist())
    if truth is not None:
        wrong = (labels != truth) & (truth != IGNORED)
        shown = picture.copy()
        shown[wrong] = shown[wrong] * 0.25 + np.array(_WRONG, np.float32) * 0.75
        share = wrong.sum() / max(1, (truth != IGNORED).sum())
        panels = [
            ("predicted", panels[0][1]),
            ("truth", _coloured(picture, truth)),
            (f"wrong: {share:.1%} of pixels", shown),
        ]
        present |= set(np.unique(truth).tolist())
    return _framed(panels, sorted(present - {IGNORED}), classes)


def _coloured(picture: NDArray[np.float32], labels: NDArray[np.integer]) -> NDArray[np.float32]:
    colors = np.zeros((256, 3), np.float32)
    for label in np.unique(labels).tolist():
        colors[label] = class_color(label)
    known = (labels != IGNORED)[..., None]
    return np.where(known, picture * (1 - _ALPHA) + colors[labels] * _ALPHA, picture)


def _framed(
    panels: Sequence[tuple[str, NDArray[np.float32]]], present: Sequence[int], classes: Sequence[str]
) -> Image.Image:
    """Panels in a row, a title above each, names of the classes in their colours below."""
    height, width = panels[0][1].shape[:2]
    factor = max(1, math.ceil(_LEGIBLE / max(height, width)))
    height, width = height * factor, width * factor
    font = ImageFont.load_default(size=max(12, round(math.sqrt(height * width) / 26)))
    line = round(font.size * 1.6) if isinstance(font, ImageFont.FreeTypeFont) else 18
    top, gap = (line if len(panels) > 1 else 0), 4
    whole = Image.new("RGB", (len(panels) * width + (len(panels) - 1) * gap, top + height + line), _DARK)
    draw = ImageDraw.Draw(whole)
    for index, (title, panel) in enumerate(panels):
        left = index * (width + gap)
        drawn = Image.fromarray(panel.round().astype(np.uint8))
        whole.paste(drawn.resize((width, height), Image.Resampling.NEAREST), (left, top))
        draw.text((left + line / 3, top / 2), title, font=font, fill=(255, 255, 255), anchor="lm")
    left = line / 3
    for label in present:
        name = classes[label] if label < len(classes) else str(label)
        needed = line + draw.textlength(name, font=font)
        if left + needed > whole.width:
            draw.text((left, top + height + line / 2), "…", font=font, fill=(255, 255, 255), anchor="lm")
            break
        middle = top + height + line / 2
        draw.rectangle((left, middle - line / 4, left + line / 2, middle + line / 4), fill=class_color(label))
        draw.text((left + line * 0.7, middle), name, font=font, fill=(255, 255, 255), anchor="lm")
        left += needed + line / 2
    return whole
