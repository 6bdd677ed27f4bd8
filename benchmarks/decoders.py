"""Which decoder opens image files fastest, and whether all give the same pixels.

Each side goes from the path of a file to a `(h, w, c)` array of bytes, colour as RGB, EXIF turn applied, on one thread.
Ours is `read_image`, which also refuses decompression bombs and names what is wrong with a file. Pillow's draft mode is
shown beside them: it decodes JPEGs at half size, so it gives other pixels and helps only where images are shrunk.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from harness import Options, Row, alternate, arguments, compare, need, report, seconds

Decoder = Callable[[Path], np.ndarray]


def with_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        turned = ImageOps.exif_transpose(image)
        return np.asarray(turned if turned.mode.startswith("I;16") else turned.convert("RGB"))


def with_pillow_draft(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.draft("RGB", (image.width // 2, image.height // 2))
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def with_torchvision(path: Path) -> np.ndarray:
    from torchvision.io import ImageReadMode, decode_image, read_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its decoders are deprecated
        mode = ImageReadMode.UNCHANGED if _is_map(path) else ImageReadMode.RGB
        pixels = decode_image(read_file(str(path)), mode=mode, apply_exif_orientation=True)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def with_opencv(path: Path) -> np.ndarray:
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED if _is_map(path) else cv2.IMREAD_COLOR_RGB)
    return np.asarray(pixels)


def with_simplejpeg(path: Path) -> np.ndarray:
    """The bare decoder: no EXIF turn, no check of anything."""
    import simplejpeg

    return simplejpeg.decode_jpeg(path.read_bytes(), colorspace="RGB")


def with_clearsight(path: Path) -> np.ndarray:
    from clearsight.data.decode import read_image

    return read_image(path, channels=None if _is_map(path) else 3)


def _is_map(path: Path) -> bool:
    return path.parent.name == "instances"


PEERS: dict[str, tuple[str, Decoder]] = {
    "Pillow": ("pillow", with_pillow),
    "torchvision": ("torchvision", with_torchvision),
    "OpenCV": ("opencv-python-headless", with_opencv),
    "simplejpeg, bare": ("simplejpeg", with_simplejpeg),
    "Pillow draft, half size": ("pillow", with_pillow_draft),
}
SETS = {
    "bccd JPEG 640×480": ("bccd", "JPEGImages/*.jpg", 120, ("Pillow draft, half size", "simplejpeg, bare")),
    "sign_digits JPEG 100×100": ("sign_digits", "*/*.JPG", 300, ("simplejpeg, bare",)),
    "exif JPEG 450×300, turned": ("exif", "*.jpg", 9, ()),
    "nuclei PNG": ("nuclei", "images/*.png", 60, ()),
    "nuclei PNG 16-bit": ("nuclei", "instances/*.png", 60, ()),
}
# What the choice of decoder must bring where a second one is kept: 1.25 times Pillow.
BARS = {"bccd JPEG 640×480": 1.25, "sign_digits JPEG 100×100": 1.25}


def installed() -> dict[str, str]:
    """The peers that can be imported here, with their versions."""
    found = {}
    for name, (package, _) in PEERS.items():
        try:
            found[name] = f"{name} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    return found


def measure(name: str, options: Options, peers: dict[str, str]) -> list[Row]:
    folder, pattern, count, extra = SETS[name]
    paths = sorted(need(options, folder).glob(pattern))[: 12 if options.quick else count]
    usable = [peer for peer in peers if peer in ("Pillow", "torchvision", "OpenCV") or peer in extra]
    ours = [with_clearsight(path) for path in paths]
    rows = []
    for peer in usable:
        if peer in ("Pillow", "torchvision", "OpenCV"):
            rows.append(agreement(name, peers[peer], ours, [PEERS[peer][1](path) for path in paths]))
    decoders = {"ours": with_clearsight} | {peer: PEERS[peer][1] for peer in usable}

    def rate(decode: Decoder) -> float:
        return len(paths) / seconds(lambda: [decode(path) for path in paths])

    sides = {side: functools.partial(rate, decode) for side, decode in decoders.items()}
    values = alternate(sides, rounds=9, quick=options.quick)
    for peer in usable:
        bar = BARS.get(name) if peer == "Pillow" else None
        rows.append(
            compare(
                name,
                values["ours"],
                unit="images/s",
                better="higher",
                peer=peers[peer],
                theirs=values[peer],
                bar=bar,
                note="other pixels: half the size" if "draft" in peer else "",
            )
        )
    return rows


def agreement(name: str, peer: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Row:
    """The largest difference of any byte; inverse transforms of JPEG may differ by rounding."""
    largest = 0
    for mine, other in zip(ours, theirs, strict=True):
        same_shape = other.reshape(mine.shape)
        largest = max(largest, int(np.abs(mine.astype(np.int64) - same_shape.astype(np.int64)).max()))
    return compare(f"{name}, largest difference from {peer}", largest, unit="levels", better="lower", bar=2)


def main() -> int:
    options = arguments(__doc__ or "")
    try:
        import torch

        torch.set_num_threads(1)
        import cv2

        cv2.setNumThreads(1)
    except ImportError:
        pass
    peers = installed()
    rows = [row for name in SETS for row in measure(name, options, peers)]
    return report("decoders", rows, options)


if __name__ == "__main__":
    sys.exit(main())
