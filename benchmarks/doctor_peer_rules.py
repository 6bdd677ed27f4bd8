"""Default rules of other tools, written anew from their documentation and thresholds, on what a training showed.

They are re-implementations: each tool's own code needs its own framework. A training's 20 evaluations are their epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["PEERS", "Epoch", "Seen", "judge"]

Alarm = tuple[str, int]  # id of what it means in our words, step


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What was measured at an evaluation.

    Args:
        step: optimiser steps done.
        loss: mean training loss since the last one.
        accuracy: likewise.
        val_loss: on validation images.
        val_accuracy: likewise.
        grad_norm: of each layer's weight, in order.
        grad_mean: mean absolute gradient of each layer's weight.
        grad_zeros: share of zeros among all gradients.
        weight_std: of each layer's weight.
        update: ‖change since the last one‖ / ‖w‖ of each layer's weight.
        zeros: share of zeros behind each ReLU.
        dead: share of units behind each ReLU that gave nothing but zeros.
        saturated: share of values in front of each sigmoid and tanh beyond ±5.
    """

    step: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    grad_norm: Sequence[float] = ()
    grad_mean: Sequence[float] = ()
    grad_zeros: float = 0.0
    weight_std: Sequence[float] = ()
    update: Sequence[float] = ()
    zeros: Sequence[float] = ()
    dead: Sequence[float] = ()
    saturated: Sequence[float] = ()


@dataclass(kw_only=True)
class Seen:
    """What a training showed.

    Args:
        lr: the rate that was set.
        low: least value of the first batch.
        high: largest.
        mean: of each channel.
        dropout: largest share that is dropped.
        softmax: the model ends with one.
        counts: training images of each class.
        losses: of each step.
        epochs: evaluations.
        finite: the loss and all gradients were.
        step: the last one.
    """

    lr: float
    low: float
    high: float
    mean: Sequence[float]
    dropout: float = 0.0
    softmax: bool = False
    counts: Sequence[int] = ()
    losses: list[float] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    finite: bool = True
    step: int = 0


def _value(values: Sequence[float], at: int) -> float:
    return values[at] if values else float("nan")


# ------------------------------------------------------------------------------------------------ Lightning
def lightning(seen: Seen) -> list[Alarm]:
    """EarlyStopping (patience 3, finite) on the validation loss and SpikeDetection (window 10, twice the mean)."""
    found: list[Alarm] = []
    kept: list[float] = []
    last = 0.0
    for step, loss in enumerate(seen.losses, start=1):
        if not np.isfinite(loss):
            found.append(("non-finite", step))
            break
        mean = float(np.mean(kept[-10:])) if kept else loss
        if step > 1 and loss > last and abs(loss - mean) >= abs(2.0 * mean):
            found.append(("loss-spike", step))
            break
        kept.append(loss)
        last = loss
    if not seen.finite and not found:
        found.append(("non-finite", seen.step + 1))  # Trainer(detect_anomaly) and its check of the loss
    best, since = float("inf"), 0
    for epoch in seen.epochs:
        since = 0 if epoch.val_loss < best else since + 1
        best = min(best, epoch.val_loss)
        if not np.isfinite(epoch.val_loss) or since >= 3:
            found.append(("overfitting" if np.isfinite(epoch.val_loss) else "non-finite", epoch.step))
            break
    return found


# ------------------------------------------------------------------------------------------------ SageMaker Debugger
def sagemaker(seen: Seen) -> list[Alarm]:
    """Built-in rules for PyTorch with the defaults of the list of built-in rules."""
    found: list[Alarm] = []
    counts = np.array(seen.counts, dtype=float)
    if len(counts) and counts.max() > 10 * max(counts.min(), 1e-9):
        found.append(("class-imbalance", 0))
    if any(abs(value) > 0.2 for value in seen.mean):
        found.append(("input-not-normalised", 0))
    if not seen.finite:
        found.append(("non-finite", seen.step + 1))
    found += _not_decreasing(seen.losses)
    best, since = float("inf"), 0
    for number, epoch in enumerate(seen.epochs):
        spread = [value**2 for value in epoch.weight_std if value > 0]
        checks = {
            "vanishing-gradient": any(value < 1e-7 for value in epoch.grad_mean),
            "dead-units": any(share > 0.5 for share in epoch.dead),
            "saturated-units": any(share > 0.5 for share in epoch.saturated),
            "overfitting": epoch.val_loss - epoch.loss > 0.1 * abs(epoch.loss),
            "learning-rate-too-high": any(value > 10 for value in epoch.update),
            "learning-rate-too-low": number > 0 and any(value < 1e-8 for value in epoch.update),
            "activation-scale": number == 0 and bool(spread) and max(spread) > 10 * min(spread),
        }
        since = 0 if epoch.val_loss < best - 0.01 else since + 1
        best = min(best, epoch.val_loss)
        checks["plateau"] = since >= 10
        found += [(name, epoch.step) for name, told in checks.items() if told]
    return found


def _not_decreasing(losses: Sequence[float]) -> list[Alarm]:
    """Every 10 steps the loss must be 0.1 % lower than before."""
    for step in range(10, len(losses), 10):
        if losses[step] > losses[step - 10] * (1 - 0.001):
            return [("plateau", step + 1)]
    return []


# ------------------------------------------------------------------------------------------------ UMLAUT
def umlaut(seen: Seen) -> list[Alarm]:
    """Its heuristics: inputs in [−1, 1], rate in 1e-7 … 0.01, dropout, NaN, two kinds of validation curve."""
    at_start = {
        "input-not-normalised": seen.low < -1 or seen.high > 1,
        "learning-rate-too-high": seen.lr > 0.01,
        "learning-rate-too-low": seen.lr < 1e-7,
        "over-regularised": seen.dropout > 0.5,
        "softmax-before-cross-entropy": seen.softmax,
    }
    found = [(name, 0) for name, told in at_start.items() if told]
    if not seen.finite:
        found.append(("non-finite", seen.step + 1))
    for before, epoch in zip(seen.epochs, seen.epochs[1:], strict=False):
        if epoch.val_loss > before.val_loss and epoch.loss <= before.loss:
            found.append(("overfitting", epoch.step))
            break
    for epoch in seen.epochs[3:]:
        if epoch.val_accuracy > 0.95 or epoch.val_accuracy > epoch.accuracy:
            found.append(("leak", epoch.step))
            break
    return found


# ------------------------------------------------------------------------------------------------ AutoTrainer
def autotrainer(seen: Seen) -> list[Alarm]:
    """Its monitor with β1 1e-3, β2 1e-4, β3 70, γ 0.7, ζ 0.03, η 0.2, δ 0.01, Θ 0.7, from 30 % of the epochs on."""
    if not seen.finite or not all(np.isfinite(seen.losses)):
        return [("exploding-gradient", seen.step + 1)]
    relu = exploding = vanishing = 0
    planned = max(len(seen.epochs), 20)
    for number, epoch in enumerate(seen.epochs, start=1):
        first, last = _value(epoch.grad_norm, 0), _value(epoch.grad_norm, -1)
        ratio = first / last if last else float("inf")
        relu += epoch.grad_zeros >= 0.7
        exploding += ratio > 70
        vanishing += ratio < 1e-3 and first < 1e-4
        if number < 0.3 * planned:
            continue
        known = seen.epochs[:number]
        train, held = [one.accuracy for one in known], [one.val_accuracy for one in known]
        slow = max(np.diff(held), default=0.0) < 0.01 and max(np.diff(train), default=0.0) < 0.01
        if max(held) < 0.7 or max(train) < 0.7 or slow:
            for count, name in (
                (relu, "dead-units"),
                (exploding, "exploding-gradient"),
                (vanishing, "vanishing-gradient"),
                (int(slow), "learning-rate-too-low"),
            ):
                if count:
                    return [(name, epoch.step)]
        elif _swings(train, 0.03) >= 0.2 * number:
            return [("oscillating-score", epoch.step)]
    return []


def _swings(values: Sequence[float], height: float) -> int:
    """Pairs of a maximum and a minimum that lie so far apart."""
    middle = range(1, len(values) - 1)
    highs = [values[i] for i in middle if values[i] >= values[i - 1] and values[i] >= values[i + 1]]
    lows = [values[i] for i in middle if values[i] <= values[i - 1] and values[i] <= values[i + 1]]
    return sum(high - low >= height for high, low in zip(highs, lows, strict=False))


# ------------------------------------------------------------------------------------------------ DeepDiagnosis
def deepdiagnosis(seen: Seen) -> list[Alarm]:
    """Its callback: the first symptom ends it. That outputs be probabilities is not asked: losses here take logits.

    Zeros behind a ReLU from 70 % on at the last epoch, half of the values beyond ±5, mean gradients below 1e-7, a loss
    that stands still for 5 epochs, an accuracy that does for 20 or that is 0, anything not finite.
    """
    for number, epoch in enumerate(seen.epochs, start=1):
        known = seen.epochs[:number]
        checks = {
            "saturated-units": number % 5 == 0 and any(share > 0.5 for share in epoch.saturated),
            "dead-units": number == len(seen.epochs) and any(share >= 0.7 for share in epoch.zeros),
            "vanishing-gradient": any(value < 1e-7 for value in epoch.grad_mean),
            "learning-rate-too-low": number % 5 == 0 and len({one.loss for one in known[-5:]}) == 1,
            "stuck-at-prior": epoch.accuracy == 0
            or (number % 20 == 0 and len({one.accuracy for one in known[-20:]}) == 1),
        }
        for name, told in checks.items():
            if told:
                return [(name, epoch.step)]
    return [] if seen.finite else [("non-finite", seen.step + 1)]


PEERS: dict[str, Callable[[Seen], list[Alarm]]] = {
    "Lightning EarlyStopping + SpikeDetection": lightning,
    "SageMaker Debugger (re-implemented)": sagemaker,
    "UMLAUT (re-implemented)": umlaut,
    "AutoTrainer (re-implemented)": autotrainer,
    "DeepDiagnosis (re-implemented)": deepdiagnosis,
}


def judge(seen: Seen) -> Mapping[str, Mapping[str, Any]]:
    """Peer → whether it alarms, what it names in the order in which it did, and when first.

    Args:
        seen: of a training.
    """
    told = {name: sorted(rule(seen), key=lambda alarm: alarm[1]) for name, rule in PEERS.items()}
    return {
        name: {
            "alarm": bool(alarms),
            "ids": list(dict.fromkeys(one for one, _ in alarms)),
            "step": alarms[0][1] if alarms else None,
        }
        for name, alarms in told.items()
    }
