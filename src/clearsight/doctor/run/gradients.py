"""Gradients that grow without bound, do not reach the first layers, or are clipped at most steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.layer_values import held_since, measured, weight_layers
from clearsight.doctor.run.rates import slower, times
from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord
from clearsight.doctor.run.signals import starting_loss, training_loss, update_ratio, weights_left
from clearsight.doctor.run.smoothing import level, thin
from clearsight.types import Finding

__all__ = ["ClippedSteps", "ExplodingGradient", "VanishingGradient"]


def _ends(layers: LayerSeries, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of the weight layers in order, and `(t,)` the gradient of the first and of the last quarter of them.

    The first quarter speaks by its median, the last by its largest: a head whose class did not occur has none.
    """
    columns = np.flatnonzero(weight_layers(layers) & np.isfinite(norms).any(axis=0))
    if len(columns) < 3:
        return columns, np.full(len(norms), np.nan), np.full(len(norms), np.nan)
    quarter = max(1, len(columns) // 4)
    some = np.isfinite(norms[:, columns]).any(axis=1)
    first, last = np.full(len(norms), np.nan), np.full(len(norms), np.nan)
    filled = np.nan_to_num(norms[:, columns], nan=0.0, posinf=np.inf)
    first[some] = np.median(filled[some][:, :quarter], axis=1)
    last[some] = filled[some][:, -quarter:].max(axis=1)
    return columns, first, last


def _not_learning(record: RunRecord, share: float = 0.9) -> bool:
    """Whether the training loss has stayed near where it began."""
    loss, start = training_loss(record), starting_loss(record)
    return bool(len(loss) >= 5 and np.isfinite(start) and level(loss, 5) > share * start)


class VanishingGradient(Rule[RunRecord]):
    """The gradient shrinks from layer to layer on its way back, so that the first layers do not learn.

    It is the net's own doing, and there from the start: a gradient that is lost in the second half of the run has died
    with its units, and is worth knowing only. Weights that have been decayed away pass no gradient on either; that has
    another cause and nothing is said.

    Args:
        ratio: gradient norm of the first quarter of the layers over that of the last below which it counts; healthy
            nets have 0.44 to 0.99.
        hopeless: the same, below which it counts although the loss falls (the last layers learn alone).
        count: measurements in a row.
        shrunk: weight norm, in shares of that at the start, below which weights are gone.
    """

    id = "vanishing-gradient"
    source = "Zhang et al. 2021, AutoTrainer, ICSE 2021; Glorot and Bengio 2010"

    def __init__(self, *, ratio: float = 1e-3, hopeless: float = 1e-5, count: int = 3, shrunk: float = 0.5) -> None:
        self.ratio, self.hopeless, self.count, self.shrunk = ratio, hopeless, count, shrunk

    def lacks(self, evidence: RunRecord) -> str:
        """Gradient norms by layer."""
        return "" if measured(evidence, "grad_norm") is not None else "gradient norms by layer"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A finding with the layer behind which the gradient is lost."""
        layers, norms = evidence.layers, measured(evidence, "grad_norm")
        if layers is None or norms is None or weights_left(evidence) < self.shrunk:
            return
        columns, first, last = _ends(layers, norms)
        known = np.isfinite(first) & (last > 0)
        ratio = np.divide(first, last, out=np.full(len(first), np.nan), where=known)[known]
        bound = self.ratio if _not_learning(evidence) else self.hopeless
        # A gradient of exactly zero has another reason: dead units, or layers that are not part of the loss.
        since = held_since(layers.steps[known], (ratio < bound) & (first[known] > 0), self.count)
        if since is None:
            return
        profile = np.nanmedian(norms[-self.count :][:, columns], axis=0)
        relative = profile / profile[-max(1, len(columns) // 4) :].max()
        lost = [layers.names[column] for column, share in zip(columns, relative, strict=True) if share < self.ratio]
        where = lost[-1] if lost else layers.names[columns[0]]
        yield Finding(
            id=self.id,
            severity="warning" if since <= (evidence.budget or evidence.steps) / 2 else "info",
            where=where,
            explanation=f"Going back from the loss, the gradient has shrunk to {ratio[-1]:.1g} of its size when it "
            f"reaches the first layers (healthy nets keep 0.4 to 1); from {where} down nothing is learned. Use ReLU, "
            "normalisation, residual connections, or He's initialisation.",
            evidence={
                "row": "T3",
                "step": since,
                "ratio": float(ratio[-1]),
                "threshold": bound,
                "layers": lost[:20],
                "count": len(lost),
                "plot": {"layers": "grad_norm", "names": [layers.names[column] for column in columns][:20]},
            },
            source=self.source,
        )


class ExplodingGradient(Rule[RunRecord]):
    """The gradient grows from step to step while the loss does not fall, or jumps and leaves a worse loss behind.

    Single high norms are no sign of it: small batches give them all the time, and the loss forgets them.

    Args:
        factor: growth over the run, in medians of tenths of it.
        jump: height of single norms over all that came before.
        count: of the last tenths that count, and half the steps that are looked at behind a jump.
    """

    id = "exploding-gradient"
    source = "Nikanjam et al. 2021, DeepChecker; Pascanu et al. 2013, arXiv:1211.5063"

    def __init__(self, *, factor: float = 30.0, jump: float = 10.0, count: int = 3) -> None:
        self.factor, self.jump, self.count = factor, jump, count

    def lacks(self, evidence: RunRecord) -> str:
        """Gradient norms."""
        return "" if len(evidence.grad_norm.finite()) >= 20 else "20 gradient norms"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, at most one."""
        found = self._over_time(evidence) or self._in_jumps(evidence)
        if found is not None:
            yield found

    def _over_time(self, record: RunRecord) -> Finding | None:
        tenths = thin(record.grad_norm, 10)
        if len(tenths) < 10 or not _not_learning(record, 0.98):
            return None
        growth = float(tenths.values[-self.count :].min() / max(tenths.values[0], 1e-30))
        rising = np.mean(np.diff(tenths.values) > 0)
        if growth < self.factor or rising < 0.7:
            return None
        said = (
            f"The gradient's norm has grown {growth:.3g} times since the beginning, from {tenths.values[0]:.3g} to "
            f"{tenths.values[-1]:.3g}, and the loss does not fall."
        )
        doubled = int(tenths.steps[np.flatnonzero(tenths.values > 2 * tenths.values[0])[0]])
        return self._finding(record, record.name, said, doubled, {"growth": growth}, {"curves": ["grad_norm", "loss"]})

    def _in_jumps(self, record: RunRecord) -> Finding | None:
        """Norms far above all before them, after which the loss stays worse."""
        norms, loss = record.grad_norm.finite(), training_loss(record).finite()
        if len(norms) < 40 or len(loss) < 40:
            return None
        highest = np.maximum.accumulate(norms.values)[:-1]
        warm = np.arange(1, len(norms)) >= 20
        high = np.flatnonzero(warm & (norms.values[1:] > self.jump * highest)) + 1
        for at in high:
            after = norms.values[at : at + 2 * self.count]
            step = int(norms.steps[at])
            before, later = loss.between(-1, step - 1), loss.between(step, np.inf)
            if np.sum(after > self.jump * highest[at - 1]) < 2 or len(later) < 20:
                continue
            if level(later) > 1.2 * level(before, 20) + 1e-12:
                said = (
                    f"At step {step} the gradient's norm jumped to {norms.values[at]:.3g}, "
                    f"{norms.values[at] / highest[at - 1]:.3g} times the largest before, and the loss has "
                    f"been worse since: {level(later):.3g} after {level(before, 20):.3g}."
                )
                plot = {"curves": ["grad_norm", "loss"], "mark": step}
                return self._finding(record, record.name, said, step, {"norm": float(norms.values[at])}, plot)
        return None

    def _finding(
        self, record: RunRecord, where: str, said: str, step: int, numbers: dict[str, Any], plot: dict[str, Any]
    ) -> Finding:
        remedy: dict[str, Any] = {}
        if record.recipe and record.clip_norm is None:
            usual = level(Curve(record.grad_norm.steps, record.grad_norm.values).between(-1, step - 1))
            remedy = {"trainer.clip_norm": float(f"{usual:.2g}") if np.isfinite(usual) and usual > 0 else 1.0}
        elif record.recipe:
            remedy = slower(record, 1 / 3)
        return Finding(
            id=self.id,
            severity="warning",
            where=where,
            explanation=f"{said} Clip the gradient (trainer.clip_norm), warm up longer, or lower the learning rate.",
            evidence={"row": "T2", "step": step, **numbers, "plot": plot},
            remedy=remedy,
            source=self.source,
        )


class ClippedSteps(Rule[RunRecord]):
    """Most steps are clipped: the rate no longer says how far a step goes.

    For information, as transformers are trained so on purpose. It is a warning where next to nothing of the gradients
    is left, and steps are measured to be too short for it.

    Args:
        share: of the steps.
        left: share of the median norm that is left, below which it is a warning.
        update: median ‖Δw‖ / ‖w‖ below which steps are too short; healthy runs have 0.005 to 0.03.
    """

    id = "most-steps-clipped"
    source = "Google 2023, Deep learning tuning playbook"

    def __init__(self, *, share: float = 0.5, left: float = 0.05, update: float = 1e-3) -> None:
        self.share, self.left, self.update = share, left, update

    def lacks(self, evidence: RunRecord) -> str:
        """Gradient norms, and the norm that they are clipped to."""
        if evidence.clip_norm is None:
            return "the norm that gradients are clipped to (none is)"
        return "" if len(evidence.grad_norm.finite()) >= 50 else "50 gradient norms"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """At most one finding."""
        norms, bound = evidence.grad_norm.finite(), evidence.clip_norm or np.inf
        # Norms that were taken after clipping end at the bound.
        share, usual = float(np.mean(norms.values >= 0.999 * bound)), level(norms)
        if share <= self.share:
            return
        after = float(norms.values.max()) <= 1.001 * bound
        short = (after or bound < self.left * usual) and level(update_ratio(evidence)) < self.update
        wanted = bound * max(times(evidence) or 10.0, 1.0) if after else 2 * usual
        yield Finding(
            id=self.id,
            severity="warning" if short else "info",
            where="trainer.clip_norm",
            explanation=f"{share:.0%} of the steps are clipped to {bound:g} (median norm "
            f"{'read after that' if after else f'{usual:.3g}'}), so that the learning rate alone no longer says how "
            "far a step goes. A longer warm-up, a lower rate or a higher bound leave clipping to the exceptions.",
            evidence={
                "row": "T8",
                "step": int(norms.steps[0]),
                "share": share,
                "threshold": self.share,
                "usual": usual,
                "plot": {"curves": ["grad_norm"]},
            },
            remedy={"trainer.clip_norm": float(f"{wanted:.2g}")} if short and evidence.recipe else {},
            source=self.source,
        )
