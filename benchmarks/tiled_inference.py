"""Peak memory and speed of tiled inference on a 20,000 × 20,000 tiled TIFF, from file to file, in fresh processes.

A U-Net of width 8 segments 400 megapixels of RGB: with padding by blended tiles, without padding by exact ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness import Options, Row, arguments, compare, report, run_child

SIDE = 20_000
TILE = 256
BAR = 2048  # MiB
# One that is padded inside, and what the paper reads, 572, which gives 388.
CASES = {"blend": {"padding": "same", "tile": 512}, "exact": {"padding": "valid", "tile": 572}}


def _extra(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--side", type=int, help=f"of the square image (default: {SIDE}, quick: 4000)")
    parser.add_argument("--mode", choices=sorted(CASES), action="append", help="only this one (default: both)")
    parser.add_argument("--width", type=int, default=8, help="channels of the net's finest level (default: 8)")
    parser.add_argument("--ours", type=json.loads, help=argparse.SUPPRESS)  # the child's own request


def _tiles(side: int) -> Iterator[np.ndarray]:
    """Textures of a small stock, turned and shaded, so that neither time nor memory goes into making them."""
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 200, (16, TILE // 8, TILE // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    stock = (smooth + rng.integers(0, 50, smooth.shape)).astype(np.uint8)
    across = -(-side // TILE)
    for index in range(across**2):
        yield np.ascontiguousarray(np.rot90(stock[index * 7 % 16], index // 16 % 4))


def write_image(path: Path, side: int) -> None:
    """A BigTIFF in deflated tiles, tile after tile."""
    import tifffile

    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(
            _tiles(side),
            shape=(side, side, 3),
            dtype=np.uint8,
            tile=(TILE, TILE),
            photometric="rgb",
            compression="zlib",
            compressionargs={"level": 1},
            metadata=None,
            maxworkers=1,
        )


def child_ours(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds and windows of one image."""
    import torch

    from clearsight.data.normalisation import fixed_statistics
    from clearsight.deploy.tiled_run import Tiling, predict_tiled
    from clearsight.models.segment.segmenter import Segmenter
    from clearsight.models.segment.semantic_loss import SemanticLoss
    from clearsight.models.segment.unet import UNet

    torch.manual_seed(0)
    net = UNet(3, 2, width=request["width"], padding=request["padding"])
    statistics = fixed_statistics("imagenet", channels=3)
    model = Segmenter(net, statistics=statistics, loss=SemanticLoss(2))
    model = model.to(request["device"], memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    start = time.perf_counter()
    made = predict_tiled(
        model,
        request["image"],
        tiling=Tiling(tile=(request["tile"], request["tile"]), mode=request["mode"]),
        out=request["out"],
    )
    return {"seconds": time.perf_counter() - start, "windows": made.windows, "size": made.size}


def measure(options: Options, folder: Path) -> list[Row]:
    """Each mode in a process of its own."""
    side = options.extra.side or (4000 if options.quick else SIDE)
    image = folder / "image.tif"
    write_image(image, side)
    rows = []
    for mode in options.extra.mode or CASES:
        request = {"image": str(image), "out": str(folder / f"{mode}.tif"), "mode": mode, **CASES[mode]}
        request |= {"width": options.extra.width, "device": options.device}
        child = run_child([sys.executable, __file__, "--ours", json.dumps(request)], timeout=4 * 3600)
        took = child.result["seconds"]
        name = f"{mode}, {side} × {side}, {child.result['windows']} windows of {CASES[mode]['tile']}"
        rows += [
            compare(f"{name}: peak memory", child.peak_mb, unit="MiB", better="lower", bar=BAR),
            compare(f"{name}: time", took, unit="s", better="lower"),
            compare(f"{name}: speed", side**2 / took / 1e6, unit="megapixels/s", better="higher"),
        ]
    return rows


def main() -> int:
    """Measure and report."""
    options = arguments(__doc__ or "", extra=_extra)
    if options.extra.ours is not None:
        print(json.dumps(child_ours(options.extra.ours)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return report("tiled_inference", measure(options, Path(folder).resolve()), options)


if __name__ == "__main__":
    sys.exit(main())
