"""Pictures inside the page: small enough together that the page can be sent by mail."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from clearsight.report.content import Picture

__all__ = ["Embedded", "embed"]

_SIDES = (960, 800, 640, 480, 360, 240)
_QUALITY = 80


class Embedded(NamedTuple):
    """A picture as the page holds it.

    Args:
        uri: `data:image/webp;base64,…`.
        width: pixels.
        height: pixels.
        caption: plain text.
    """

    uri: str
    width: int
    height: int
    caption: str


def embed(pictures: Sequence[Picture], *, budget: int) -> list[Embedded]:
    """Encode as WebP, as large as the budget allows.

    Args:
        pictures: with captions.
        budget: characters of all data URIs together. The longer side goes down from 960 in steps until they fit; at
            the last step (240) they are taken as they are.
    """
    if not pictures:
        return []
    out: list[Embedded] = []
    for side in _SIDES:
        out = [_encode(image, caption, side) for image, caption in pictures]
        if sum(len(one.uri) for one in out) <= budget:
            break
    return out


def _encode(image: Image.Image, caption: str, side: int) -> Embedded:
    picture = image.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_QUALITY, method=4)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Embedded(f"data:image/webp;base64,{data}", picture.width, picture.height, caption)
