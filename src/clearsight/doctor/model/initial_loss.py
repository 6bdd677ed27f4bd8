"""Whether the first loss is what a model that knows nothing has to pay."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.loss_form import LossForm, find_form
from clearsight.doctor.model.probing import labels_of, loss_of, outputs_of, untouched
from clearsight.doctor.rule import Rule
from clearsight.types import Finding, Severity

__all__ = ["InitialLossOff"]


class InitialLossOff(Rule[ModelEvidence]):
    """The first loss is far from that of a model which gives every class its share.

    Cross-entropy starts near ln k (all classes alike, whatever the label smoothing) or near the entropy of the classes'
    frequencies (a last bias that knows them); the nearer of the two counts. Independent yes-or-no scores start at ln 2
    or below. Dense detectors have no such number, as their loss is divided by the objects: there the mean score is
    looked at, which has to start near the share of positives. Of a loss that is none of the usual ones nothing is said.

    Args:
        info: relative distance from which it is worth knowing.
        warning: relative distance from which it is a warning: at twice the loss of a guess there is as much to unlearn
            as there is to learn. A loss that is too low stays worth knowing, as pretrained weights have it.
        score: mean score of a dense detector that is worth knowing; three times as much is a warning.
    """

    id = "initial-loss-off"
    source = "Karpathy 2019, A recipe for training neural networks; Lin et al. 2017, arXiv:1708.02002, section 4.1"

    def __init__(self, *, info: float = 0.2, warning: float = 1.0, score: float = 0.1) -> None:
        self.info, self.warning, self.score = info, warning, score

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        form = score = None
        with untouched(evidence.model), torch.no_grad():
            first = float(loss_of(evidence))
            if evidence.task in ("detection", "instance"):
                score = _mean_score(evidence)
            elif math.isfinite(first):
                form = find_form(evidence)
        if not math.isfinite(first):
            yield self._not_finite(first)
        elif score is not None:
            yield from self._scores(*score)
        elif form is not None and (expected := _expected(evidence, form)):
            yield from self._compare(form, expected)

    def _compare(self, form: LossForm, expected: dict[str, float]) -> Iterator[Finding]:
        name, right = min(expected.items(), key=lambda item: abs(math.log(max(form.value, 1e-9) / item[1])))
        ratio = form.value / right
        off = abs(ratio - 1)
        low_is_fine = ratio < 1 and form.name == "binary"  # as a bias at the share of positives has it
        if off <= self.info or low_is_fine:
            return
        severity: Severity = "warning" if ratio - 1 > self.warning else "info"
        if ratio > 1:
            cause = (
                "its last layer starts with large scores and training has to unlearn them first; start that layer's "
                "weights small (deviation 0.01) and its bias at 0"
            )
        else:
            cause = "it knows something already (pretrained weights), or the label reaches it by another way"
        yield Finding(
            id=self.id,
            severity=severity,
            where="loss",
            explanation=f"The first loss is {form.value:.3g}, and a model that knows nothing has {right:.3g} ({name}); "
            f"healthy models start within {self.info:.0%} of that. Either {cause}.",
            evidence={
                "row": "P1",
                "loss": form.value,
                "expected": right,
                "form": form.name,
                "ratio": ratio,
                "threshold": self.warning if severity == "warning" else self.info,
            },
            source=self.source,
        )

    def _not_finite(self, first: float) -> Finding:
        return Finding(
            id=self.id,
            severity="error",
            where="loss",
            explanation=f"The loss of the first batch is {first}, before any step; a finite number is expected. "
            "Look for a logarithm, a root or a division in model and loss, and for such values in the images.",
            evidence={"row": "P1", "loss": repr(first)},
            source=self.source,
        )

    def _scores(self, score: float, points: int) -> Iterator[Finding]:
        if score <= self.score or points < 100:
            return
        yield Finding(
            id=self.id,
            severity="warning" if score > 3 * self.score else "info",
            where="model",
            explanation=f"Before training the mean score of {points:,} points is {score:.2g}, so nearly all of the "
            "first loss is that of empty places; about 0.01 is usual. Start the bias of the class scores at "
            "-ln((1 - 0.01) / 0.01) = -4.6.",
            evidence={"row": "P1", "score": score, "threshold": self.score, "points": points},
            source=self.source,
        )


def _mean_score(evidence: ModelEvidence) -> tuple[float, int] | None:
    """Mean score and number of points of a dense detector with a sigmoid for each class; None of other ones."""
    logits = getattr(outputs_of(evidence), "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[2] != evidence.classes:
        return None
    return float(logits.float().sigmoid().mean()), logits.shape[1]


def _expected(evidence: ModelEvidence, form: LossForm) -> dict[str, float]:
    """What a model that knows nothing pays, by how it does not know; empty where that is not known."""
    if form.name == "binary":
        return {"ln 2 for yes or no": math.log(2)}
    if not form.name.endswith("cross entropy"):
        return {}
    classes = form.classes
    if classes < 2:
        return {}
    expected = {f"ln {classes} for {classes} classes": math.log(classes)}
    prior = _prior(evidence, classes)
    if prior is not None:
        entropy = -sum(p * math.log(p) for p in prior if p > 0)
        spread = -sum(math.log(max(p, 1e-6)) for p in prior) / classes
        known = (1 - form.smoothing) * entropy + form.smoothing * spread
        if known > 0.05:
            expected["entropy of the classes' frequencies"] = known
    return expected


def _prior(evidence: ModelEvidence, classes: int) -> list[float] | None:
    """Shares of the classes: of all training labels where they are known, else of the batch's pixels."""
    if evidence.task == "classification" and len(evidence.class_counts) == classes and sum(evidence.class_counts):
        return [count / sum(evidence.class_counts) for count in evidence.class_counts]
    labels = labels_of(evidence.targets)
    if labels is None or labels.is_floating_point() or labels.ndim < 3:
        return None
    ids = labels.reshape(-1).long()
    counts = torch.bincount(ids[(ids >= 0) & (ids < classes)], minlength=classes).double()
    return (counts / counts.sum()).tolist() if float(counts.sum()) else None
