"""All that is known of a run: its curves, its layers over time, what it was told to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

__all__ = ["EMPTY", "Curve", "LayerSeries", "RunRecord"]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A number over the steps of a run.

    Args:
        steps: `(t,)` int64, optimiser steps done, rising.
        values: `(t,)` float64; NaN and infinities as they were logged.
    """

    steps: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, steps: Sequence[int] | np.ndarray, values: Sequence[float] | np.ndarray) -> Self:
        """From plain numbers.

        Raises:
            ValueError: they differ in number, or the steps do not rise.
        """
        at, what = np.asarray(steps, dtype=np.int64).reshape(-1), np.asarray(values, dtype=np.float64).reshape(-1)
        if at.shape != what.shape:
            raise ValueError(f"Curve: found {len(at)} steps and {len(what)} values; give one value a step")
        if np.any(np.diff(at) <= 0):
            raise ValueError("Curve: the steps do not rise; sort them and keep one value a step")
        return cls(at, what)

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> Self:
        """Without NaN and infinities."""
        kept = np.isfinite(self.values)
        return type(self)(self.steps[kept], self.values[kept])

    def between(self, first: float, last: float) -> Self:
        """Of the steps `first < step <= last`."""
        kept = (self.steps > first) & (self.steps <= last)
        return type(self)(self.steps[kept], self.values[kept])


EMPTY = Curve(np.zeros(0, dtype=np.int64), np.zeros(0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerSeries:
    """What was measured of each layer, at some steps.

    Args:
        names: `L` module names, in the order in which they run first.
        kinds: class names, such as `Conv2d`.
        activations: name of the non-linearity right behind each layer (`relu`, `sigmoid`, …), empty where none is.
        exempt: layers whose gradients vanish by construction (frozen, or all parameters are biases before a norm).
        steps: `(t,)` int64.
        values: measure → `(t, L)` float64, NaN where it was not measured or does not apply: `grad_norm` (of the
            layer's own parameters, before clipping), `weight_norm`, `update_ratio` (‖Δw‖ / ‖w‖ of the step),
            `parameters` (their number), `out_mean`, `out_std` (over the layer's output), `inactive` (share of the
            units behind which the non-linearity gave nothing but zeros in the last four measured steps), `saturated`
            (share of pre-activations in the flat part of a sigmoid or tanh), `bn_gap` (distance of a batch norm's
            running mean to the batch's, in running standard deviations, mean over channels), `bn_ratio` (batch
            variance / running variance, geometric mean over channels).
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    activations: tuple[str, ...]
    exempt: tuple[bool, ...]
    steps: np.ndarray
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunRecord:
    """All that is known of a run; what is not known is None or empty, and rules say that they lack it.

    Args:
        name: of the run.
        origin: `clearsight`, `watch` (somebody's own loop), `csv` or `tensorboard`.
        task: `classification`, `detection`, `semantic`, `instance`; None when unknown.
        classes: their names.
        class_counts: training labels of each class (images, objects or pixels).
        budget: optimiser steps planned.
        steps_per_epoch: of one epoch.
        batch_size: images of one optimiser step.
        accumulate: batches of one optimiser step, as declared.
        clip_norm: norm that gradients are clipped to.
        loss: of each training step.
        terms: loss terms by name.
        val: metric → curve over the evaluations; `loss` is the validation loss.
        train: metric → curve of the same on training images (`accuracy`, and what else was logged).
        train_in_eval: metric → curve on training images in eval mode, where somebody measured it.
        class_scores: class → curve of its score on the validation images.
        grad_norm: before clipping.
        lr: of the first parameter group.
        seconds: of each step, or of each span between two entries, a step.
        waiting: seconds of a step spent waiting for data.
        memory: resident bytes of the process.
        layers: by layer; None when not measured.
        facts: what else is known, plain values: `eval_in_train_mode`, `train_in_eval_mode` (module names),
            `gradient_before_backward` (share of the last checked steps), `gradient_left_since` (step),
            `gradient_cosines` (of the last measured steps, between gradients behind backward and at the update),
            `momentum` (of the first parameter group), `not_in_optimizer` (parameter names).
        recipe: the run's recipe as nested plain values; empty for runs of other tools.
        finished: it came to its end.
    """

    name: str = "run"
    origin: str = "watch"
    task: str | None = None
    classes: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    budget: int | None = None
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    loss: Curve = EMPTY
    terms: Mapping[str, Curve] = field(default_factory=dict)
    val: Mapping[str, Curve] = field(default_factory=dict)
    train: Mapping[str, Curve] = field(default_factory=dict)
    train_in_eval: Mapping[str, Curve] = field(default_factory=dict)
    class_scores: Mapping[str, Curve] = field(default_factory=dict)
    grad_norm: Curve = EMPTY
    lr: Curve = EMPTY
    seconds: Curve = EMPTY
    waiting: Curve = EMPTY
    memory: Curve = EMPTY
    layers: LayerSeries | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = False

    @property
    def steps(self) -> int:
        """The last step that anything is known of."""
        curves = (self.loss, self.grad_norm, self.lr, *self.val.values(), *self.train.values())
        return max((int(curve.steps[-1]) for curve in curves if len(curve)), default=0)
