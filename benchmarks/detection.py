"""Every detector from scratch on real photos of blood cells: same backbone, same wall-clock budget, with intervals.

Each run is one `cs.train` in a process of its own, kept below `--runs`: a run that is finished is not trained again,
one that was stopped goes on. Scores have 95 % intervals over the images; a class is missed where its AP50 is below 0.5.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from harness import Options, Row, arguments, compare, need, report, seconds
from kept_runs import budget, epochs, images_a_second, in_child, kept_folder, peak_mib, run_arguments, trained

SIZE = (240, 320)
BAR = 0.5  # AP50 of red and white cells, below which a detector is not working
CLASSES = ("RBC", "WBC")
ANCHORS = "model.anchor_sizes=[16.0, 32.0, 64.0, 128.0, 256.0]"  # the defaults are for images of 800 pixels
PYRAMID = ("model.fpn_channels=128",)
DENSE = (*PYRAMID, "model.head_convs=2")
DETECTORS: dict[str, tuple[str, ...]] = {
    "cells": (),  # the light detector
    "retinanet": (*DENSE, ANCHORS),
    "fcos": DENSE,
    "ssd": (),
    "yolov3": (
        "model.backbone=resnet18",
        "model.neck_width=0.5",
        "model.anchors=[[14,14],[22,22],[36,36],[44,44],[52,46],[50,56],[64,64],[96,88],[120,120]]",
    ),
    "efficientdet": (ANCHORS,),
    "reppoints": (*DENSE,),
    "densebox": (),
    "centernet": (),
    "cornernet": (),
    "faster_rcnn": (*PYRAMID, ANCHORS, "model.box_width=256", "model.proposals=300", "model.train_proposals=500"),
    "cascade_rcnn": (*PYRAMID, ANCHORS, "model.box_width=256", "model.proposals=300", "model.train_proposals=500"),
}
COMMON = (
    "data.format=voc",
    "data.train=train",
    "data.val=val",
    "data.test=test",
    f"data.size=[{SIZE[0]}, {SIZE[1]}]",
    "augment.flip_horizontal=0.5",
    "augment.flip_vertical=0.5",
    "augment.zoom=[0.85, 1.4]",
    "loader.batch_size=16",
    "loader.cache=ram",
    "optimizer.weight_decay=0.05",
    "trainer.ema=0.998",
    "trainer.hold_norm_at=0.5",
    "trainer.epochs=null",
    "trainer.eval_every=1000",
)
RATES = {"cells": 3e-3}  # of the optimizer; others 1e-3


HEAD = "fcos"  # what assigners are compared on


def _extra(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detectors", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    parser.add_argument("--assigners", nargs="*", metavar="NAME", help=f"compare these, or all, on {HEAD} instead")
    parser.add_argument("--plot", type=Path, help="page with mAP against latency of the forward pass")
    run_arguments(parser, minutes=15.0)


def train(request: dict[str, Any]) -> dict[str, Any]:
    """One run: trained as long as it may, scored and timed."""
    import torch

    import clearsight as cs

    out = Path(request["out"])
    run = trained(request)
    scores = run.scores["test"]
    found = cs.profile(run, runs=20, fields=False)
    (out / "profile.json").write_text(found.to_json(), encoding="utf-8")
    photo, sizes = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8), torch.tensor([SIZE])
    model: Any = run.model.eval()
    with torch.inference_mode():
        times = [seconds(lambda: model.predict(photo, sizes)) for _ in range(12)][2:]
    return {
        "map": scores.summary["map"],
        "interval": scores.intervals["map"],
        "ap_50": {row["class"]: row["ap_50"] for row in scores.per_class},
        "images_a_second": images_a_second(out),
        "epochs": epochs(out),
        "predict_ms": statistics.median(times) * 1e3,
        "parameters": found.total.parameters,
        "gflops": found.total.flops / 1e9,
        "peak_mib": peak_mib(out),
    }


def asked(options: Options) -> dict[str, tuple[str, tuple[str, ...]]]:
    """By name of the row the recipe and its changes."""
    extra = options.extra
    if extra.assigners is None:
        return {name: (name, DETECTORS[name]) for name in extra.detectors}
    from clearsight.assign import ASSIGNERS

    names = extra.assigners or [name for name in ASSIGNERS if name != "multibox"]  # the same as max_iou here
    return {name: (HEAD, (*DETECTORS[HEAD], f"model.assigner={{name: {name}}}")) for name in names}


def main() -> int:
    """Train all and compare."""
    options = arguments((__doc__ or "").splitlines()[0], extra=_extra)
    extra = options.extra
    if extra.train is not None:
        print(json.dumps(train(extra.train)))
        return 0
    minutes = 0.2 if options.quick else extra.minutes
    data = need(options, "bccd")
    rows: list[Row] = []
    with kept_folder(extra.runs) as folder:
        for name, (recipe, own) in asked(options).items():
            told = []
            for seed in extra.seeds:
                out = folder / f"{name}-{seed}"
                changes = [
                    f"data.root={data.resolve()}", *COMMON, f"optimizer.lr={RATES.get(recipe, 1e-3)}",
                    *budget(options, minutes=minutes, seed=seed), *own,
                ]  # fmt: skip
                request = {"recipe": recipe, "changes": changes, "out": str(out)}
                told.append(in_child(__file__, request, minutes=minutes))
                print(name, seed, told[-1], flush=True)
            rows += _rows(name, told)
        if extra.plot is not None:
            _plot(folder, [f"{name}-{extra.seeds[0]}" for name in asked(options)], extra.plot)
    return report("detection", rows, options)


def _rows(name: str, told: list[dict[str, Any]]) -> list[Row]:
    first = told[0]
    low, high = first["interval"]
    each = ", ".join(f"{key} {value:.3f}" for key, value in first["ap_50"].items())
    note = f"interval over images {low:.3f} to {high:.3f}; AP50 {each}; {first['epochs']} epochs"
    cost = f"{first['parameters'] / 1e6:.1f} M parameters, {first['gflops']:.1f} GFLOPs"
    least = [min(one["ap_50"][key] for key in CLASSES) for one in told]
    classes = " and ".join(CLASSES)
    rows = [
        compare(f"{name}: mAP", [one["map"] for one in told], unit="mAP", better="higher", note=note),
        compare(f"{name}: worse of {classes}", least, unit="AP50", better="higher", bar=BAR),
        compare(f"{name}: training", [one["images_a_second"] for one in told], unit="images/s", better="higher"),
        compare(f"{name}: prediction", [one["predict_ms"] for one in told], unit="ms", better="lower", note=cost),
        compare(f"{name}: peak memory", [one["peak_mib"] for one in told], unit="MiB", better="lower"),
    ]
    return [row for row in rows if math.isfinite(row.value)]  # a run of before this script kept it has no peak


def _plot(folder: Path, names: list[str], out: Path) -> None:
    from clearsight.measure.profile import Profile
    from clearsight.report.comparison import write_comparison

    kept = [(folder / name / "profile.json").read_text(encoding="utf-8") for name in names]
    print(f"drawn: {write_comparison([Profile.from_json(text) for text in kept], out)}")


if __name__ == "__main__":
    sys.exit(main())
