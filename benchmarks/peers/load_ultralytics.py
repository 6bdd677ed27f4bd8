"""Peer: images/s of ultralytics' training loader on a YOLO folder, printed as JSON.

ultralytics is AGPL-3.0 and no dependency of clearsight: this script runs in whatever interpreter has it and imports
nothing of clearsight. Its loader and its transforms are used as they are; mosaic and mixup are off on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")


def main() -> None:
    """Build the loader as ultralytics' trainer does, warm it by one epoch, time whole epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--yaml", type=Path, required=True, help="data.yaml of the YOLO folder")
    parser.add_argument("--images", type=Path, required=True, help="text file: one image a line")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--cache", choices=("none", "ram"), required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()

    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_dataloader, build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    torch.set_num_threads(1)
    config = get_cfg(
        overrides={
            "imgsz": args.size, "cache": "ram" if args.cache == "ram" else False, "mosaic": 0.0, "mixup": 0.0,
            "cutmix": 0.0, "copy_paste": 0.0, "degrees": 0.0, "translate": 0.1, "scale": 0.5, "shear": 0.0,
            "perspective": 0.0, "flipud": 0.5, "fliplr": 0.5, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4,
            "task": "detect", "deterministic": False,
        }
    )  # fmt: skip
    data = check_det_dataset(str(args.yaml), autodownload=False)
    dataset = build_yolo_dataset(config, str(args.images), args.batch, data, mode="train", rect=False, stride=32)
    loader = build_dataloader(dataset, args.batch, args.workers, shuffle=True, rank=-1, drop_last=True)
    for _ in loader:
        pass
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < args.seconds:
        images += sum(len(batch["img"]) for batch in loader)
    print(json.dumps({"images_per_second": images / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
