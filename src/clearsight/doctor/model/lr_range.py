"""Which learning rates train a model at all: a short sweep from far too small to far too large."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.probing import loss_of, plain_loss, subset, trained_parameters, untouched
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["LearningRateOutOfBand", "RateBand", "lr_range_test"]

Batches = Sequence[tuple[Tensor, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateBand:
    """What a sweep of learning rates says.

    Args:
        low: where the loss starts to fall.
        suggested: in the band, well below divergence.
        high: largest rate that is safe, a quarter of the one that diverges; or of the largest that was tried.
        diverges: where the loss rises again, of the most careful repetition; None where none did.
        rates: `(s,)` that were tried.
        losses: `(r, s)` of each repetition, smoothed; NaN where it had ended.
    """

    low: float
    suggested: float
    high: float
    diverges: float | None
    rates: np.ndarray
    losses: np.ndarray


class LearningRateOutOfBand(Rule[ModelEvidence]):
    """The learning rate lies where the loss diverges, or far below where it starts to fall.

    The rate is the largest of the optimiser's groups after warm-up (`max_lr` or `initial_lr` where a schedule says so).
    The sweep runs on the evidence's batch alone, so it speaks of orders of magnitude.

    Args:
        steps: of a sweep.
        repetitions: of the sweep, each with other random numbers.
        seconds: for all sweeps; images are left out where it is short, and the rule is silent where even two are slow.
        below: part of the suggested rate from which the rate is too low.
    """

    id = "learning-rate-out-of-band"
    source = "Smith 2017, arXiv:1506.01186, section 3.3"

    def __init__(self, *, steps: int = 80, repetitions: int = 3, seconds: float = 20.0, below: float = 0.01) -> None:
        self.steps, self.repetitions, self.seconds, self.below = steps, repetitions, seconds, below

    def lacks(self, evidence: ModelEvidence) -> str:
        """An optimiser with a rate, and a step that is fast enough."""
        if evidence.optimizer is None or not trained_parameters(evidence.model):
            return "an optimiser"
        if isinstance(evidence.optimizer, LBFGS):
            return "an optimiser that makes one evaluation a step"
        if not self._images(evidence):
            return f"a model whose sweep takes less than {self.seconds:g} s"
        return ""

    def _images(self, evidence: ModelEvidence) -> int:
        """How many images a step may have, 0 where none fit."""
        number, limit = len(evidence.images), 0.6 * self.seconds / (self.steps * self.repetitions)
        while True:
            took = _step_time(evidence, number)
            if took <= limit:
                return number
            if number <= 2:
                return 0
            number = max(2, min(number // 2, int(number * limit / took)))

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        optimizer = evidence.optimizer
        if optimizer is None:
            return
        batches = _batches(evidence, self._images(evidence))
        band = lr_range_test(
            evidence, optimizer, batches, steps=self.steps, repetitions=self.repetitions, seconds=self.seconds
        )
        rate = peak_rate(optimizer)
        if band is None:
            return
        facts = {
            "row": "P10",
            "rate": rate,
            "low": band.low,
            "suggested": band.suggested,
            "high": band.high,
            "diverges": band.diverges,
        }
        said = f"a sweep suggests {band.low:.1g} to {band.high:.1g}"
        if band.diverges is not None and rate >= band.diverges / 2:
            severity = "warning" if rate >= band.diverges else "info"
            text = f"The learning rate is {rate:.2g}, and the loss diverges from {band.diverges:.2g}; {said}."
        elif rate <= self.below * band.suggested:
            severity, text = "warning", f"The learning rate is {rate:.2g}, at which the loss hardly moves; {said}."
        else:
            return
        yield Finding(
            id=self.id,
            severity=severity,
            where="optimizer.lr",
            explanation=text,
            evidence=facts,
            remedy={"optimizer.lr": float(f"{band.suggested:.1e}")} if "optimizer" in evidence.recipe else {},
            source=self.source,
        )


def _step_time(evidence: ModelEvidence, number: int) -> float:
    """Seconds that the loss of some images and its gradients take; infinite without gradients."""
    images, targets = subset(evidence, range(number))
    took = math.inf
    with untouched(evidence.model):
        for _ in range(2):  # the first call may prepare things
            begun = time.perf_counter()
            loss = loss_of(evidence, images, targets)
            if not loss.requires_grad:
                return math.inf
            loss.backward()
            took = time.perf_counter() - begun
    return took


def peak_rate(optimizer: Optimizer) -> float:
    """The largest rate of the groups, as it is after warm-up."""
    return max(float(group.get("max_lr", group.get("initial_lr", group["lr"]))) for group in optimizer.param_groups)


def _batches(evidence: ModelEvidence, number: int) -> list[tuple[Tensor, Any]]:
    """The batch in parts of `number` images; what is left over is dropped."""
    number = max(1, number)
    starts = range(0, len(evidence.images) - number + 1, number)
    return [subset(evidence, range(start, start + number)) for start in starts]


def lr_range_test(
    evidence: ModelEvidence,
    optimizer: Optimizer,
    batches: Batches,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    repetitions: int = 3,
    seconds: float = math.inf,
) -> RateBand | None:
    """Train a few steps with a rate that grows from step to step, several times, and read off which rates train.

    Method: Smith 2017, arXiv:1506.01186, section 3.3, with a rate that grows by a factor, smoothed losses, and the
    careful one of two usual readings: a tenth of the rate of the least loss, or the rate of the steepest fall. Model,
    optimiser and random streams are bit by bit as before. Groups keep their ratios.

    Args:
        evidence: gives model and loss.
        optimizer: of the model; a copy of it trains.
        batches: of images and targets, in turn.
        lowest: first rate.
        highest: last rate.
        steps: of a repetition; it ends before where the loss diverges.
        repetitions: with other random numbers, and batches in another order.
        seconds: no repetition starts that would not end within them, and one that exceeds them does not count.

    Returns:
        The band, or None where the loss fell in no repetition, or none was in time.
    """
    rates = np.geomspace(lowest, highest, steps)
    losses: list[np.ndarray] = []
    begun = time.perf_counter()
    for number in range(repetitions):
        used = time.perf_counter() - begun
        if losses and used * (1 + 1 / len(losses)) > seconds:
            break
        with untouched(evidence.model):
            torch.manual_seed(number)
            order = torch.randperm(len(batches)).tolist()
            row = _sweep(evidence, optimizer, [batches[i] for i in order], rates, begun + seconds)
        if row is None:
            break
        losses.append(row)
    return _read(rates, np.stack(losses)) if losses else None


def _sweep(
    evidence: ModelEvidence, optimizer: Optimizer, batches: Batches, rates: np.ndarray, until: float
) -> np.ndarray | None:
    """Raw losses, before the step at each rate; NaN from where it was given up, None where time ran out."""
    shared = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    own = copy.deepcopy(optimizer, shared)  # the same parameters, another state
    peak = peak_rate(optimizer)
    ratios = [group.get("max_lr", group.get("initial_lr", group["lr"])) / peak for group in own.param_groups]
    losses = np.full(len(rates), np.nan)
    for step, rate in enumerate(rates):
        if time.perf_counter() > until:
            return None
        for group, ratio in zip(own.param_groups, ratios, strict=True):
            value = float(rate * ratio)
            group["lr"] = torch.full_like(group["lr"], value) if isinstance(group["lr"], Tensor) else value
        own.zero_grad()
        loss = plain_loss(evidence, *batches[step % len(batches)])
        losses[step] = float(loss.detach())
        if not math.isfinite(losses[step]) or losses[step] > 20 * max(losses[0], 1e-3):
            losses[step] = math.inf
            break
        loss.backward()
        own.step()
    return losses


def _read(rates: np.ndarray, losses: np.ndarray) -> RateBand | None:
    """The band of several sweeps: the middle of what they suggest, the least at which one diverged."""
    smooth = np.stack([_smoothed(row) for row in losses])
    low, suggested, diverges = [], [], []
    for row in smooth:
        start, least = float(np.nanmedian(row[:5])), int(np.nanargmin(row))
        fall = start - row[least]
        still = float(np.nanstd(row[: max(5, len(row) // 5)]))  # rates that do nothing: how batches differ
        if not fall > max(0.02 * abs(start), 4 * still):
            continue
        begins = int(np.flatnonzero(row <= start - 0.1 * fall)[0])
        slope = np.diff(row[: least + 1])
        steepest = int(np.argmin(slope)) if len(slope) else least
        low.append(rates[begins])
        suggested.append(min(rates[least] / 10, rates[steepest]))
        after = np.flatnonzero(row[least:] > start)
        if len(after):
            diverges.append(rates[least + int(after[0])])
    if not suggested:
        return None
    edge = float(min(diverges)) if diverges else None
    high = (float(rates[-1]) if edge is None else edge) / 4
    middle = min(float(np.exp(np.median(np.log(suggested)))), high)
    first = min(float(np.exp(np.median(np.log(low)))), middle)
    return RateBand(low=first, suggested=middle, high=high, diverges=edge, rates=rates, losses=smooth)


def _smoothed(row: np.ndarray, *, reach: int = 2) -> np.ndarray:
    """Median of each value and its neighbours; what was not measured stays NaN, and divergence infinite."""
    known = int(np.isfinite(row).sum())
    out = row.copy()
    for at in range(known):
        out[at] = np.median(row[max(0, at - reach) : min(known, at + reach + 1)])
    return out
