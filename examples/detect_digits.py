"""Train a detector on generated scenes of handwritten digits, score it, and use it on an image of the test split.

With no argument it trains in full, for minutes; a number is one of steps: python examples/detect_digits.py 20
"""

from __future__ import annotations

import sys
from pathlib import Path

import clearsight as cs


def main(out: Path, steps: int | None = None) -> None:
    # A recipe by name, and what to change of it; `clearsight recipe show demo` prints all of it.
    changes = [] if steps is None else [f"trainer.steps={steps}", "trainer.epochs=null"]
    run = cs.train("demo", *changes, out=out)

    scores = run.evaluate("test")
    low, high = scores.intervals["map_50"]
    print(f"AP50 on the test split: {scores.summary['map_50']:.3f} (95% interval {low:.3f} to {high:.3f})")

    worst = scores.worst[0]
    [prediction] = run.predict(worst["path"], out=out / "worst")
    print(f"The hardest image, {Path(worst['path']).name}: found {', '.join(prediction.names) or 'nothing'}")
    print(f"Report: {run.report}")


if __name__ == "__main__":
    main(Path("runs/detect-digits"), int(sys.argv[1]) if len(sys.argv) > 1 else None)
