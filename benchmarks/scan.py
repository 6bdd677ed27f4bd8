"""One look at every image: images a second on one core; all near pairs among a million hashes: time and memory."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np

from harness import Options, Row, alternate, arguments, compare, need, report, run_child, seconds

IMAGES_BAR = 200.0
SEEDS = (0, 1, 2)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--near-pairs", nargs=3, type=int, metavar=("N", "BITS", "SEED"), help=argparse.SUPPRESS)


# ------------------------------------------------------------------------------------------------ images
def scan_rows(options: Options) -> list[Row]:
    """One thread; no cache. Decoding every file in full by Pillow, which is the least a scan could do, is beside it."""
    from PIL import Image

    from clearsight.data.read import read_dataset
    from clearsight.doctor.data.scan import scan_dataset

    dataset = read_dataset(need(options, "bccd"))
    dataset.records = dataset.records[: 40 if options.quick else None]

    def scan(folder: Path) -> float:
        taken = seconds(lambda: scan_dataset(dataset, workers=1, cache=folder))
        for file in folder.iterdir():
            file.unlink()
        return len(dataset) / taken

    def decode() -> float:
        def all_of_them() -> None:
            for record in dataset.records:
                with Image.open(record.image) as image:
                    image.load()

        return len(dataset) / seconds(all_of_them)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rates = alternate({"ours": lambda: scan(folder), "decode": decode}, rounds=7, quick=options.quick)
        scan_dataset(dataset, workers=1, cache=folder)
        again = [seconds(lambda: scan_dataset(dataset, cache=folder)) for _ in range(5)]
    objects = sum(len(record.objects) for record in dataset.records)
    note = f"{len(dataset)} photos 640×480 with {objects} objects, hashed, measured and described"
    return [
        compare("scan, one core", rates["ours"], unit="images/s", better="higher", bar=IMAGES_BAR, note=note),
        compare(
            "scan beside mere decoding",
            rates["ours"],
            unit="images/s",
            better="higher",
            peer=f"Pillow {metadata.version('pillow')}, decoding alone",
            theirs=rates["decode"],
        ),
        compare("scan from the cache", again, unit="s", better="lower"),
    ]


# ------------------------------------------------------------------------------------------------ hashes
def hashes_with_copies(n: int, seed: int) -> tuple[np.ndarray, int]:
    """Random hashes; one in a thousand is another one with two bits changed."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    planted = n // 1000
    for row in range(planted):
        first, second = rng.choice(64, 2, replace=False).astype(np.uint64)
        hashes[n - 1 - row] = hashes[row] ^ (np.uint64(1) << first) ^ (np.uint64(1) << second)
    return hashes, planted


def near_pairs_once(n: int, distance: int, seed: int) -> int:
    """In a process of its own: prints what the parent reads."""
    from clearsight.doctor.data.perceptual_hash import near_pairs

    hashes, planted = hashes_with_copies(n, seed)
    found: list[np.ndarray] = []
    taken = seconds(lambda: found.append(near_pairs(hashes, distance=distance)))
    print(json.dumps({"seconds": taken, "found": len(found[0]), "planted": planted}))
    return 0


def hash_rows(options: Options, distance: int) -> list[Row]:
    n = 50_000 if options.quick else 1_000_000
    script = [sys.executable, __file__, "--near-pairs", str(n), str(distance)]
    runs = [run_child([*script, str(seed)], threads=1) for seed in SEEDS[: 1 if options.quick else None]]
    lost = max(run.result["planted"] - run.result["found"] for run in runs)
    name = f"pairs within {distance} bits of {n:,} hashes"
    return [
        compare(name, [run.result["seconds"] for run in runs], unit="s", better="lower", bar=10.0),
        compare(f"{name}, whole process", [run.peak_mb for run in runs], unit="MiB", better="lower", bar=1000.0),
        compare(f"{name}, planted ones missed", float(lost), unit="pairs", better="lower", bar=0.0),
    ]


def main() -> int:
    options = arguments(__doc__ or "", extra=add_options)
    if options.extra.near_pairs:
        return near_pairs_once(*options.extra.near_pairs)
    return report("scan", [*scan_rows(options), *hash_rows(options, 2), *hash_rows(options, 4)], options)


if __name__ == "__main__":
    sys.exit(main())
