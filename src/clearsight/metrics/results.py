"""What was found in an image, beside what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clearsight.types import Instances

__all__ = ["ImageResult"]


@dataclass(slots=True, kw_only=True)
class ImageResult:
    """What was found in one image beside what is there, both in the file's own pixels.

    Args:
        path: the image file.
        size: `(height, width)` of the image.
        predicted: instances with scores.
        truth: instances without; `ignore` marks crowds and VOC's difficult objects.

    Masks are kept as contours, in both: a tenth of a megabyte an image in place of tens.
    """

    path: Path
    size: tuple[int, int]
    predicted: Instances
    truth: Instances
