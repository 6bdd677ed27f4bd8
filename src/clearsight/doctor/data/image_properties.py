"""What can be said of an image without knowing what it shows: how bright, how sharp, how large, of which tint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clearsight.doctor.data.scan import Scan

__all__ = ["PROPERTIES", "image_properties"]

PROPERTIES = (
    "brightness",
    "contrast",
    "sharpness",
    "detail",
    "size",
    "aspect",
    "redness",
    "blueness",
    "border brightness",
    "border contrast",
)
"""`detail` is the entropy of the grey levels; `redness` is red less green, `blueness` blue less the mean of both. The
border is the outermost ring of the thumbnail, its brightness the median, which an object that reaches it hardly moves.
"""


def image_properties(scan: Scan, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The properties of some images.

    Args:
        scan: of the set.
        rows: `(r,)` positions in it; those of unreadable images give numbers without meaning.

    Returns:
        `(r, 10)` finite, in the order of `PROPERTIES`; sharpness, size and aspect as logarithms.
    """
    red, green, blue = scan.mean[rows].T
    height, width = np.maximum(scan.size[rows], 1).astype(np.float64).T
    grey = scan.thumbnails[rows]
    ring = np.concatenate([grey[:, 0], grey[:, -1], grey[:, 1:-1, 0], grey[:, 1:-1, -1]], axis=1) / 255
    columns = (
        scan.mean[rows].mean(axis=1),
        scan.std[rows].mean(axis=1),
        np.log1p(scan.sharpness[rows]),
        scan.entropy[rows],
        np.log(height * width),
        np.log(width / height),
        red - green,
        blue - (red + green) / 2,
        np.median(ring, axis=1),
        ring.std(axis=1),
    )
    return np.nan_to_num(np.stack(columns, axis=1))
