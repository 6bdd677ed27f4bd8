"""Peer: train ultralytics YOLOv8n from scratch on a YOLO folder for a wall-clock budget; write detections as JSON.

ultralytics is AGPL-3.0 and no dependency of clearsight: this script runs in whatever interpreter has it and imports
nothing of clearsight. Its defaults are kept; only what the comparison fixes (data, size, budget, device) is set.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")


def main() -> None:
    """Train, detect on the images of `--images`, write `[{file, boxes, scores, labels}]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--yaml", type=Path, required=True, help="data.yaml of the YOLO folder")
    parser.add_argument("--images", type=Path, required=True, help="text file: one test image a line")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    import torch
    from ultralytics import YOLO

    model = YOLO("yolov8n.yaml")
    batches: list[int] = []
    model.add_callback("on_train_batch_end", lambda trainer: batches.append(trainer.batch_size))
    start = time.perf_counter()
    model.train(
        data=str(args.yaml),
        imgsz=args.size,
        time=args.minutes / 60,
        epochs=1000,
        batch=16,
        workers=2,
        seed=args.seed,
        device=args.device,
        pretrained=False,
        val=False,
        plots=False,
        project=str(args.out.parent / "ultralytics"),
        name=f"seed{args.seed}",
        exist_ok=True,
        verbose=False,
    )
    seconds = time.perf_counter() - start
    # The exponential average that ultralytics itself ships is in last.pt; with val=False it is the one to score.
    trained = YOLO(str(args.out.parent / "ultralytics" / f"seed{args.seed}" / "weights" / "last.pt"))
    detections = []
    for line in args.images.read_text().split("\n"):
        if not line.strip():
            continue
        result = trained.predict(line.strip(), imgsz=args.size, conf=0.001, iou=0.6, max_det=100, verbose=False)[
            0
        ].boxes
        detections.append(
            {
                "file": line.strip(),
                "boxes": result.xyxy.tolist(),
                "scores": result.conf.tolist(),
                "labels": result.cls.int().tolist(),
            }
        )
    args.out.write_text(
        json.dumps(
            {
                "seconds": seconds,
                "images_per_second": sum(batches) / seconds,
                "parameters": sum(p.numel() for p in trained.model.parameters()),
                "versions": {"torch": torch.__version__, "ultralytics": sys.modules["ultralytics"].__version__},
                "detections": detections,
            }
        )
    )
    print(json.dumps({"written": args.out.name}))  # the harness reads the last line


if __name__ == "__main__":
    main()
