"""Masks to polygons and back: 500 real nuclei, all at once, beside OpenCV's outlines one by one.

Each nucleus is a mask of the size of its image, cut to 256 by 256. OpenCV's outlines run through the centres of pixels,
ours along their edges, so that ours give the mask back exactly; the smallest IoU over all objects says what each loses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness import Row, alternate, arguments, compare, need, report, seconds

if TYPE_CHECKING:
    import numpy as np

OBJECTS = 500
MILLISECONDS = 200.0
SMALLEST_IOU = 0.99
SIZE = 256


def nuclei(folder: Path, count: int) -> np.ndarray:
    """The first masks of real nuclei, `(count, 256, 256)` bool."""
    import numpy as np
    from PIL import Image

    masks: list[np.ndarray] = []
    for path in sorted((folder / "instances").glob("*.png")):
        with Image.open(path) as file:
            instances = np.array(file)[:SIZE, :SIZE]
        if instances.shape == (SIZE, SIZE):
            masks += [instances == number for number in np.unique(instances[instances > 0])]
        if len(masks) >= count:
            break
    return np.stack(masks[:count])


def ours_at_once(masks: np.ndarray) -> np.ndarray:
    """All objects in one pass each way."""
    from clearsight.ops.outlines import masks_to_polygons, polygons_to_masks

    return polygons_to_masks(masks_to_polygons(masks), (SIZE, SIZE))


def ours_by_object(masks: np.ndarray) -> np.ndarray:
    """The same, one object at a time."""
    import numpy as np

    from clearsight.ops.outlines import mask_to_polygons, polygons_to_mask

    return np.stack([polygons_to_mask(mask_to_polygons(mask), (SIZE, SIZE)) for mask in masks])


def opencv(masks: np.ndarray) -> np.ndarray:
    """Outlines with their holes, drawn again."""
    import cv2
    import numpy as np

    drawn = np.zeros(masks.shape, dtype=np.uint8)
    for mask, canvas in zip(masks.view(np.uint8), drawn, strict=True):
        rings, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, rings, -1, 1, cv2.FILLED)
    return drawn.view(bool)


def smallest_iou(masks: np.ndarray, again: np.ndarray) -> float:
    """Over all objects."""
    return float(((masks & again).sum((1, 2)) / (masks | again).sum((1, 2))).min())


def peer_name() -> str | None:
    """OpenCV with its version, None where it is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    return f"OpenCV {cv2.__version__}"


def measure(masks: np.ndarray, rounds: int, *, quick: bool) -> list[Row]:
    """Time and what is lost, each with its bar, then beside the peer."""
    sides: dict[str, Callable[[np.ndarray], np.ndarray]] = {"ours": ours_at_once, "by object": ours_by_object}
    peer = peer_name()
    if peer is not None:
        sides["theirs"] = opencv
    calls = {name: lambda call=call: seconds(lambda: call(masks)) * 1e3 for name, call in sides.items()}
    found = alternate(calls, rounds=rounds, warmup=2, quick=quick)
    lost = {name: smallest_iou(masks, call(masks)) for name, call in sides.items()}
    what = f"{len(masks)} masks to polygons and back"
    rows = [
        compare(what, found["ours"], unit="ms", better="lower", bar=MILLISECONDS),
        compare("smallest IoU with the mask", lost["ours"], unit="IoU", better="higher", bar=SMALLEST_IOU),
        compare(
            f"{what}, at once beside one by one",
            found["ours"],
            unit="ms",
            better="lower",
            peer="ours, one by one",
            theirs=found["by object"],
        ),
    ]
    if peer is None:
        rows[0] = rows[0].model_copy(update={"note": "OpenCV is not installed here: no row beside it"})
        return rows
    name, kept = f"{what}, beside OpenCV", "smallest IoU, beside OpenCV"
    return [
        *rows,
        compare(name, found["ours"], unit="ms", better="lower", peer=peer, theirs=found["theirs"]),
        compare(kept, lost["ours"], unit="IoU", better="higher", peer=peer, theirs=lost["theirs"]),
    ]


def main() -> int:
    """Measure and report."""

    def extra(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=15, help="measurements of each side (default: 15)")

    options = arguments((__doc__ or "").splitlines()[0], extra=extra)
    masks = nuclei(need(options, "nuclei"), 50 if options.quick else OBJECTS)
    return report("mask_polygons", measure(masks, options.extra.rounds, quick=options.quick), options)


if __name__ == "__main__":
    sys.exit(main())
