"""Five families of backbones from scratch on two real sets, the same budget of images for each, with intervals.

`mnist_t10k`: 10,000 handwritten digits, every tenth tested, the others trained on. `sign_digits`: photos of ten hand
signs, the last twelve of each folder tested. Each run is one `cs.train` in a process of its own; what is scored is the
test split after the last epoch, with no look at it before.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import Options, Row, arguments, compare, need, report, run_child

FAMILIES = ("resnet18", "googlenet", "mobilenet_v3_small", "vit_ti_16", "fnet_ti_16")
SETS: dict[str, dict[str, Any]] = {
    "mnist_t10k": {"size": 32, "epochs": 4, "batch": 64, "bar": 0.985},
    "sign_digits": {"size": 64, "epochs": 20, "batch": 16, "bar": 0.90},
}


def _extra(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), help="names of `clearsight models`")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # the child's own request, as JSON


def lay_out(options: Options, name: str, folder: Path) -> Path:
    """The set as folders `train` and `test` of a folder a class."""
    root = folder / name
    if name == "sign_digits":
        for number, files in enumerate(sorted((need(options, name)).glob("[0-9]"))):
            photos = sorted(file for file in files.iterdir() if file.is_file())
            for k, photo in enumerate(photos):
                part = root / ("test" if k >= len(photos) - 12 else "train") / str(number)
                part.mkdir(parents=True, exist_ok=True)
                shutil.copy(photo, part)
        return root
    import numpy as np
    from PIL import Image

    source = need(options, name)
    read = {
        key: gzip.decompress((source / f"t10k-{key}-ubyte.gz").read_bytes()) for key in ("images-idx3", "labels-idx1")
    }
    pixels = np.frombuffer(read["images-idx3"], np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer(read["labels-idx1"], np.uint8, offset=8)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        part = root / ("test" if number % 10 == 9 else "train") / str(label)
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(part / f"{number:05}.png")
    return root


def train(request: dict[str, Any]) -> dict[str, Any]:
    """One run: train, then score the test split."""
    import torch

    import clearsight as cs

    if request["threads"]:
        torch.set_num_threads(request["threads"])
    chosen = request["set"]
    run = cs.train(
        "digits",
        f"data.root={request['root']}",
        "data.format=image_folder",
        "data.val=null",
        f"data.size=[{chosen['size']}, {chosen['size']}]",
        f"model.backbone={request['family']}",
        "model.small_input=false",
        f"loader.batch_size={chosen['batch']}",
        f"trainer.epochs={chosen['epochs']}",
        f"trainer.seed={request['seed']}",
        f"trainer.accelerator={request['accelerator']}",
        "eval.bootstrap=0",
        out=Path(request["out"]),
        quiet=True,
    )
    return {
        "accuracy": run.scores["test"].summary["accuracy"],
        "parameters": sum(p.numel() for p in run.model.parameters()),
    }


def main() -> int:
    """Train all and compare."""
    options = arguments((__doc__ or "").splitlines()[0], extra=_extra)
    extra = options.extra
    if extra.train is not None:
        print(json.dumps(train(json.loads(extra.train.read_text()))))
        return 0
    seeds = extra.seeds[:1] if options.quick else extra.seeds
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in extra.sets:
            chosen = SETS[name] | ({"epochs": 1} if options.quick else {})
            root = lay_out(options, name, folder)
            for family in extra.families:
                told = []
                for seed in seeds:
                    asked = folder / f"{name}-{family}-{seed}.json"
                    request = {
                        "root": str(root), "set": chosen, "family": family, "seed": seed, "threads": extra.threads,
                        "accelerator": "cpu" if options.device == "cpu" else "auto", "out": str(asked.with_suffix("")),
                    }  # fmt: skip
                    asked.write_text(json.dumps(request))
                    child = run_child([sys.executable, __file__, "--train", asked])
                    told.append(child.result | {"seconds": child.seconds})
                    print(name, family, seed, told[-1], flush=True)
                rows.append(_row(name, family, told, chosen))
    return report("backbones_trained", rows, options)


def _row(name: str, family: str, told: list[dict[str, Any]], chosen: dict[str, Any]) -> Row:
    seconds = statistics.median(one["seconds"] for one in told)
    return compare(
        f"{family} on {name}",
        [one["accuracy"] for one in told],
        unit="accuracy",
        better="higher",
        bar=chosen["bar"] if family == "resnet18" else None,
        note=f"{told[0]['parameters'] / 1e6:.1f} M parameters, {chosen['epochs']} epochs, {seconds:.0f} s a run",
    )


if __name__ == "__main__":
    sys.exit(main())
