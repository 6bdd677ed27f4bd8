"""Train a detector on generated handwriting, score it, and look at the image it did worst on.

python examples/train_and_predict.py [KEY=VALUE]...
"""

from __future__ import annotations

import sys

import clearsight as cs


def main(*overrides: str) -> None:
    run = cs.train("demo", *overrides, out="runs/example", quiet=True)
    scores = run.scores["test"]
    print(f"AP50 {scores.summary['map_50']:.3f} on {scores.images} test images")

    worst = scores.worst[0]
    print(f"worst image: {worst['path']}, {worst['why']}")
    (found,) = run.predict(worst["path"], out=run.folder / "predictions")
    for name, score, box in zip(found.names, found.scores, found.boxes, strict=True):
        print(f"{name} {score:.2f} at {[round(side) for side in box]}")
    print(f"report: {run.report}")


if __name__ == "__main__":
    main(*sys.argv[1:])
