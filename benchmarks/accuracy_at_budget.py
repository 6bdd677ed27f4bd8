"""Accuracy from scratch within a wall-clock budget, on blood-cell photos (bccd), beside two peers.

Each side trains on `trainval` in a process of its own, alone on the cores, and is scored on the official test split by
one and the same scorer. ultralytics is looked for in this interpreter, then where `harness.peer_python` says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Options, Row, arguments, compare, need, peer_python, report, run_child

SIZE = (240, 320)
THREADS = 2
HERE = Path(__file__).resolve().parent


def _extra(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=10.0, help="wall clock of each training (default: 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peer-seeds", type=int, nargs="*", default=[0], help="empty: no peers")
    parser.add_argument("--keep", type=Path, help="folder for runs and detections (default: a temporary one)")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)  # the child's own request, as JSON


def child_ours(request: dict[str, Any]) -> dict[str, Any]:
    """Train the built-in recipe `cells` for the budget and detect on the test images."""
    import clearsight as cs

    run_folder = Path(request["out"])
    start = time.perf_counter()
    run = cs.train(
        "cells",
        f"data.root={request['root']}",
        "data.train=trainval",
        "data.val=null",
        f"trainer.minutes={request['minutes']}",
        "trainer.epochs=null",
        f"trainer.seed={request['seed']}",
        f"trainer.accelerator={request['accelerator']}",
        "eval.bootstrap=0",
        out=run_folder,
        quiet=True,
    )
    seconds = time.perf_counter() - start
    found = run.predict(request["images"], threshold=0.01)
    timing = (run_folder / "timing.csv").read_text().splitlines()
    detections = [
        {
            "file": str(one.path),
            "boxes": one.boxes,
            "scores": one.scores,
            "labels": [] if one.instances is None else one.instances.labels.tolist(),
        }
        for one in found
    ]
    out = run_folder / "detections.json"
    out.write_text(json.dumps({"detections": detections}))
    return {
        "seconds": seconds,
        "file": str(out),
        "timing_head": timing[:1],
        "parameters": sum(p.numel() for p in run.model.parameters()),
    }


def score(file: Path, test: Any) -> dict[str, float]:  # noqa: ANN401 - a Dataset; the import is the function's
    """COCO mAP and AP50 of the detections in `file` on the records of `test`."""
    import torch

    from clearsight.metrics.detect import ImageResult, score_detection
    from clearsight.types import Instances

    found = {row["file"]: row for row in json.loads(file.read_text())["detections"]}
    results = []
    for record in test.records:
        row = found[str(record.image)]
        predicted = Instances(
            boxes=torch.tensor(row["boxes"]).reshape(-1, 4),
            labels=torch.tensor(row["labels"], dtype=torch.int64),
            scores=torch.tensor(row["scores"]),
        )
        truth = Instances(
            boxes=torch.tensor([o.box for o in record.objects]).reshape(-1, 4),
            labels=torch.tensor([o.label for o in record.objects], dtype=torch.int64),
        )
        results.append(ImageResult(path=record.image, size=record.size, predicted=predicted, truth=truth))
    scores = score_detection(results, test.classes, bootstrap=0)
    per_class = {f"ap_{row['class']}": row["ap"] for row in scores.per_class}
    return {"map": scores.summary["map"], "map_50": scores.summary["map_50"], **per_class}


def _peers(options: Options, folder: Path, data: Any, lists: Path) -> dict[str, list[dict[str, float]]]:  # noqa: ANN401
    """Scores of each peer and seed."""
    from clearsight.data.convert import convert

    extra, outcomes = options.extra, {}
    train = data.split("trainval")
    rows = [
        {"file": str(r.image), "boxes": [o.box for o in r.objects], "labels": [o.label for o in r.objects]}
        for r in train.records
    ]
    (folder / "train.json").write_text(json.dumps(rows))
    yolo = folder / "yolo"
    if not yolo.exists():
        convert(data.root, source="voc", to="yolo", out=yolo, allow_loss=True)
    listing = f"path: {yolo}\ntrain: [images/train, images/val]\nval: images/test\nnames: {list(data.classes)}\n"
    (folder / "bccd.yaml").write_text(listing)
    minutes, device = str(extra.minutes), options.device
    same = ["--images", lists, "--minutes", minutes, "--device", device]
    python = peer_python("ultralytics")
    commands: dict[str, list[Any]] = {
        "torchvision RetinaNet-R18": [
            sys.executable, HERE / "peers" / "train_torchvision.py", "--train", folder / "train.json",
            "--classes", str(len(data.classes)), *same,
        ],
    }  # fmt: skip
    if python is not None:
        commands["ultralytics YOLOv8n"] = [
            python, HERE / "peers" / "train_ultralytics.py", "--yaml", folder / "bccd.yaml", *same,
        ]  # fmt: skip
    for name, command in commands.items():
        for seed in extra.peer_seeds:
            out = folder / f"{name.split()[0]}-{seed}.json"
            run_child([*command, "--seed", str(seed), "--out", out], threads=THREADS)
            told = json.loads(out.read_text())
            outcome = score(out, data.split("test")) | {"images_per_second": told["images_per_second"]}
            outcomes.setdefault(name, []).append(outcome)
            print(name, seed, {k: round(v, 4) for k, v in outcome.items()}, flush=True)
    return outcomes


def main() -> int:
    """Train all sides in turn and compare."""
    options = arguments(__doc__ or "", extra=_extra)
    extra = options.extra
    if extra.ours is not None:
        print(json.dumps(child_ours(json.loads(extra.ours.read_text()))))
        return 0
    from clearsight.data.read import read_dataset

    if options.quick:
        extra.minutes, extra.seeds = min(extra.minutes, 0.5), extra.seeds[:1]
    data = read_dataset(need(options, "bccd"), format="voc")
    with tempfile.TemporaryDirectory() as scratch:
        folder = (extra.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        files = [str(record.image) for record in data.split("test").records]
        lists = folder / "test.txt"
        lists.write_text("\n".join(files) + "\n")
        ours = []
        for seed in extra.seeds:
            accelerator = "cpu" if options.device == "cpu" else "auto"
            request = {
                "root": str(data.root), "minutes": extra.minutes, "seed": seed, "images": files,
                "out": str(folder / f"ours-{seed}"), "accelerator": accelerator,
            }  # fmt: skip
            asked = folder / f"ours-{seed}-request.json"
            asked.write_text(json.dumps(request))
            told = run_child([sys.executable, __file__, "--ours", asked], threads=THREADS).result
            ours.append(score(Path(told["file"]), data.split("test")))
            print("clearsight", seed, {k: round(v, 4) for k, v in ours[-1].items()}, told["parameters"], flush=True)
        peers = _peers(options, folder, data, lists) if extra.peer_seeds else {}
    return report("accuracy_at_budget", _rows(ours, peers), options)


def _rows(ours: list[dict[str, float]], peers: dict[str, list[dict[str, float]]]) -> list[Row]:
    rows = []
    for key, title, bar in (("map", "COCO mAP", 0.58), ("map_50", "AP50", 0.90)):
        mine = [outcome[key] for outcome in ours]
        rows.append(compare(f"{title} after the budget", mine, unit=title, better="higher", bar=bar))
        medians = {name: statistics.median(o[key] for o in all_) for name, all_ in peers.items()}
        best = max(medians, key=lambda name: medians[name]) if medians else None
        for name, outcomes in peers.items():
            theirs = [outcome[key] for outcome in outcomes]
            wanted = 1.45 if key == "map" and name == best else None
            rows.append(
                compare(
                    f"{title} against {name}", mine, unit=title, better="higher", peer=name, theirs=theirs, bar=wanted
                )
            )
    for name in [key for key in ours[0] if key.startswith("ap_")]:
        rows.append(compare(name, [outcome[name] for outcome in ours], unit="COCO AP", better="higher"))
    return rows


if __name__ == "__main__":
    sys.exit(main())
