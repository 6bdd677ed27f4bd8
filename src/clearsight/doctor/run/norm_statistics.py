"""Batch norms whose running statistics are not those of the batches, and modes that are not those of the moment."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.layer_values import last_rows, measured
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.signals import score, training_score
from clearsight.doctor.run.smoothing import level
from clearsight.types import Finding, Severity

__all__ = ["DriftingNormStatistics", "WrongMode"]


class DriftingNormStatistics(Rule[RunRecord]):
    """What a batch norm uses in evaluation is far from what it uses in training, so that the scores are of another net.

    Half the distance counts where the score on validation images, which the running statistics serve, is far below the
    one in training, which the batches' own do; healthy runs past their start have 0.2 and 1.5 at most.

    Args:
        gap: distance of the means, in running standard deviations.
        ratio: of the variances, either way.
        count: measurements, whose median counts.
        behind: validation score below the one in training with which `half` of both counts.
        half: of the distance of the means, and of the logarithm of the ratio.
    """

    id = "norm-statistics-drift"
    source = "Wu and Johnson 2021, Rethinking 'Batch' in BatchNorm, arXiv:2105.07576"

    def __init__(
        self, *, gap: float = 1.0, ratio: float = 4.0, count: int = 3, behind: float = 0.15, half: float = 0.5
    ) -> None:
        self.gap, self.ratio, self.count, self.behind, self.half = gap, ratio, count, behind, half

    def lacks(self, evidence: RunRecord) -> str:
        """Statistics of batch norms, some time after the start."""
        values = measured(evidence, "bn_gap")
        if values is None:
            return "statistics of batch norms"
        return "" if len(last_rows(values, self.count)) >= self.count else f"{self.count} measurements of batch norms"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning for all layers together, at the worst."""
        gaps, ratios, layers = measured(evidence, "bn_gap"), measured(evidence, "bn_ratio"), evidence.layers
        if gaps is None or ratios is None or layers is None or layers.steps[-1] < 100:
            return  # running statistics begin at 0 and 1 and need some ten times 1 / momentum steps
        columns = np.flatnonzero(np.isfinite(last_rows(gaps, 1)[0]))
        gap = np.median(last_rows(gaps, self.count)[:, columns], axis=0)
        spread = np.exp(np.abs(np.log(np.median(last_rows(ratios, self.count)[:, columns], axis=0).clip(1e-9))))
        costs = level(training_score(evidence), 5) - level(score(evidence)[1], 3) >= self.behind
        share = self.half if costs else 1.0
        most, widest = self.gap * share, self.ratio**share
        far = np.flatnonzero((gap > most) | (spread > widest))
        if not len(far):
            return
        worst = far[np.argmax(np.maximum(gap[far] / most, spread[far] / widest))]
        names = [layers.names[columns[at]] for at in far]
        yield Finding(
            id=self.id,
            severity="warning",
            where=layers.names[columns[worst]],
            explanation=f"The batches' means are {gap[worst]:.2g} standard deviations from the running ones of "
            f"{layers.names[columns[worst]]}, their variances differ by a factor of {spread[worst]:.2g} ({len(names)} "
            "batch norms are concerned): in evaluation the net is another one. Make batches larger or mix them better, "
            "raise the norms' momentum, or use group norm.",
            evidence={
                "row": "T6",
                "step": int(layers.steps[-1]),
                "gap": float(gap[worst]),
                "ratio": float(spread[worst]),
                "threshold": {"gap": most, "ratio": widest},
                "layers": names[:20],
                "count": len(names),
                "plot": {"layers": "bn_gap", "names": names[:20]},
            },
            source=self.source,
        )


class WrongMode(Rule[RunRecord]):
    """Training in evaluation mode, or evaluation in training mode."""

    id = "wrong-mode"
    source = "Nikanjam et al. 2021, DeepChecker; Jiang et al. 2025, TrainCheck, OSDI 2025"

    def lacks(self, evidence: RunRecord) -> str:
        """Modes of the modules."""
        known = {"eval_in_train_mode", "train_in_eval_mode"} & set(evidence.facts)
        return "" if known else "the modes of modules"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, and an info where training in evaluation mode may be meant: norms have statistics from before."""
        scored: list[str] = list(evidence.facts.get("eval_in_train_mode") or ())
        trained: list[str] = list(evidence.facts.get("train_in_eval_mode") or ())
        if scored:
            yield self._finding(
                "warning",
                scored,
                f"The model was evaluated in training mode ({_named(scored)}): dropout was on and batch norms used, "
                "and changed, statistics of the batch. Call model.eval() before, and model.train() after.",
            )
        if trained:
            whole = bool(evidence.facts.get("untouched_statistics"))
            yield self._finding(
                "warning" if whole else "info",
                trained,
                "The model is trained in evaluation mode: dropout is off, and batch norms stay at a mean of 0 and a "
                "variance of 1, as if they were not there. Call model.train() before each epoch."
                if whole
                else f"{_named(trained)} are in evaluation mode in training: right where they are frozen on purpose.",
            )

    def _finding(self, severity: Severity, names: list[str], said: str) -> Finding:
        return Finding(
            id=self.id,
            severity=severity,
            where=names[0] or "model",
            explanation=said,
            evidence={"row": "T6", "step": 1, "modules": names[:20], "count": len(names)},
            source=self.source,
        )


def _named(names: list[str]) -> str:
    shown = [name or "the whole model" for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
