"""What `Watch` costs: steps of a training loop with it beside the same steps without it, and the peak memory.

Two loops: a small classifier of digits, whose steps take milliseconds, and RetinaNet-R18-FPN at 240×320 with four
generated images, by SGD. Both sides have the same weights and take turns in blocks of steps. The watch has all rules
and measures layers every 50 steps, as by default; it is well beyond its first 32 steps, in which it measures more
often. A last row has the steps in which layers are measured alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Options, Row, alternate, arguments, compare, report, run_child

if TYPE_CHECKING:
    from torch import Tensor, nn

    from clearsight.doctor.watch import Watch

SIZE = (240, 320)
BEGUN = 32  # steps done when the measurement begins
EVERY = 50
PLAIN = "the same loop without"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loop to measure.

    Args:
        block: steps between turns.
        rounds: blocks of each side.
        quick: blocks of each side in a smoke run.
        build: device → model and loss of a step.
    """

    block: int
    rounds: int
    quick: int
    build: Callable[[str], tuple[nn.Module, Callable[[nn.Module], Tensor]]]


def build_digits(device: str) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """Two convolutions on 64 images of 8×8."""
    import torch
    import torch.nn.functional as F
    from sklearn.datasets import load_digits
    from torch import nn

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels[:64]).float().reshape(-1, 1, 8, 8).to(device) / 16
    classes = torch.from_numpy(labels[:64]).long().to(device)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )
    return model.to(device), lambda model: F.cross_entropy(model(images), classes)


def build_detector(device: str) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """RetinaNet-R18-FPN on four images with ten boxes each."""
    import torch

    from clearsight.models import create_model
    from clearsight.types import Targets

    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, *SIZE), dtype=torch.uint8, generator=draws)
    corners = torch.rand(40, 2, generator=draws) * torch.tensor([SIZE[1] - 80, SIZE[0] - 80])
    boxes = torch.cat([corners, corners + 20 + 50 * torch.rand(40, 2, generator=draws)], 1)
    labels, owner = torch.randint(0, 3, (40,), generator=draws), torch.arange(4).repeat_interleave(10)
    targets = Targets(boxes=boxes, labels=labels, image=owner).to(device)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    model: Any = create_model("retinanet", backbone="resnet18", num_classes=3).to(device)
    model = model.to(memory_format=torch.channels_last)
    return model, lambda model: torch.stack(list(model.loss(images, targets).values())).sum()  # pyright: ignore


CASES = {
    "digits": Case(block=50, rounds=16, quick=2, build=build_digits),
    "retinanet": Case(block=10, rounds=10, quick=1, build=build_detector),
}


@dataclass(eq=False)
class Loop:
    """A training that goes on, and the seconds of its steps so far.

    Args:
        case: what is trained.
        device: where.
        watched: with a watch, or without.

    Attributes:
        seconds: of each step.
        tails: 95th percentile of each block of steps, which a busy moment of the machine does not decide alone.
        measured: seconds of the steps that measure layers.
    """

    case: Case
    device: str
    watched: bool
    seconds: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    step: int = BEGUN

    def __post_init__(self) -> None:
        import torch

        torch.manual_seed(0)
        self.model, self.loss = self.case.build(self.device)
        self.model.train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.watch: Watch | None = None
        if self.watched:
            from clearsight.doctor.watch import Watch

            self.watch = Watch(budget=10_000, every=EVERY, on_finding=lambda finding: None)
            self.watch.attach(self.model, self.optimizer, step=self.step)

    def run(self, steps: int) -> float:
        """Train on; returns the median of the steps' seconds."""
        import torch

        taken = []
        for _ in range(steps):
            start = time.perf_counter()
            self.optimizer.zero_grad()
            loss = self.loss(self.model)
            loss.backward()
            self.optimizer.step()
            if self.watch is not None:
                self.watch.step(loss)
            if self.device.startswith("cuda"):
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
            self.step += 1
            if self.step % EVERY == 0:
                self.measured.append(taken[-1])
        self.seconds += taken
        self.tails.append(p95(taken))
        return statistics.median(taken)


def p95(values: list[float]) -> float:
    """The 95th of a hundred."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def time_rows(name: str, options: Options) -> list[Row]:
    """Median, 95th percentile, and the measured steps alone."""
    case = CASES[name]
    loops = {side: Loop(case, options.device, side == "watched") for side in ("watched", "plain")}
    for loop in loops.values():
        loop.run(3)
        loop.seconds.clear()
        loop.tails.clear()
    rounds = case.quick if options.quick else options.extra.rounds or case.rounds
    alternate({side: lambda loop=loop: loop.run(case.block) for side, loop in loops.items()}, rounds=rounds, warmup=0)
    ours, theirs = ([1e3 * value for value in loops[side].seconds] for side in ("watched", "plain"))
    tails = {side: [1e3 * value for value in loop.tails] for side, loop in loops.items()}
    shared: dict[str, Any] = {"unit": "ms", "better": "lower", "peer": PLAIN}
    rows = [
        compare(f"{name}: step, median", ours, theirs=theirs, bar=1 / 1.03, **shared),
        compare(f"{name}: step, 95th percentile", tails["watched"], theirs=tails["plain"], bar=1 / 1.05, **shared),
        compare(f"{name}: step, mean", statistics.mean(ours), theirs=statistics.mean(theirs), **shared),
    ]
    measured = [1e3 * value for value in loops["watched"].measured]
    if measured:
        rows.append(compare(f"{name}: a step that measures layers", measured, theirs=theirs, **shared))
    return rows


def memory_row(name: str, options: Options) -> Row:
    """Peak resident memory of a process of its own."""
    steps = 3 if options.quick else 20
    script = [sys.executable, Path(__file__), "--case", name, "--steps", str(steps), "--device", options.device]
    peaks = {side: run_child([*script, "--child", side]).peak_mb for side in ("watched", "plain")}
    shared: dict[str, Any] = {"unit": "MiB", "better": "lower", "peer": PLAIN}
    return compare(f"{name}: peak memory", peaks["watched"], theirs=peaks["plain"], bar=1 / 1.02, **shared)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark can be told besides."""
    parser.add_argument("--case", choices=[*CASES], help="only this loop")
    parser.add_argument("--rounds", type=int, help="blocks of each side (default: 16 of 50 steps, 10 of 10)")
    parser.add_argument("--child", choices=["watched", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=20, help=argparse.SUPPRESS)


def main() -> int:
    options = arguments((__doc__ or "").splitlines()[0], extra=add_arguments)
    if options.extra.child:
        loop = Loop(CASES[options.extra.case], options.device, options.extra.child == "watched")
        loop.run(options.extra.steps)
        print(json.dumps({"steps": loop.step}))
        return 0
    rows: list[Row] = []
    for name in [options.extra.case] if options.extra.case else CASES:
        rows += [*time_rows(name, options), memory_row(name, options)]
    return report("watch_overhead", rows, options)


if __name__ == "__main__":
    sys.exit(main())
