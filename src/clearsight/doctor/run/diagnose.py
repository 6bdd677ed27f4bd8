"""A run judged from its log: what it did, what is wrong with it, and what cannot be told."""

from __future__ import annotations

from collections.abc import Sequence

from clearsight.doctor.diagnosis import Diagnosis, ranked
from clearsight.doctor.rule import Rule, examine
from clearsight.doctor.run.logged import Logged
from clearsight.doctor.run.progress_state import Phase, progress
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.rules import RULES
from clearsight.doctor.run.signals import training_loss
from clearsight.types import Finding

__all__ = ["diagnose_log"]

_SAYING = {
    "learning": "it was learning",
    "overfitting": "it learned the training images by heart: the validation loss rose",
    "data-fault": "the training loss stood still while the validation loss moved, as where the two sets do not match",
    "bottleneck": "neither loss moved any more, far from a good value",
    "diverging": "it diverged",
    "too-slow": "it learned too slowly for its length",
    "converged": "it had converged",
    "undecided": "too little was logged to tell",
}
FEW = 20


def diagnose_log(
    logged: Logged, *, earlier: Sequence[Finding] = (), rules: Sequence[Rule[RunRecord]] = RULES
) -> Diagnosis:
    """Apply the rules to a log.

    Args:
        logged: what was read.
        earlier: what was found before and while the run went, of the data, the model and the run; what the rules find
            again is told in their words of now.
        rules: what to look for.
    """
    record = logged.record
    examined = examine(rules, record)
    phases = progress(record)
    again = {(finding.id, finding.where) for finding in examined.findings}
    findings = ranked([*(one for one in earlier if (one.id, one.where) not in again), *examined.findings])
    return Diagnosis(
        subject=record.name,
        findings=findings,
        verdict=_verdict(record, phases, findings),
        notes=(*logged.notes, *_limits(record)),
        passed=examined.passed,
        silent=examined.silent,
        recipe=record.recipe,
    )


def _verdict(record: RunRecord, phases: Sequence[Phase], findings: Sequence[Finding]) -> str:
    """What the run did, and the gravest cause."""
    if not record.steps:
        return "Nothing was logged, so that nothing can be said of the run."
    if len(training_loss(record)) < FEW:
        phases = ()
    told = "; ".join(f"steps {phase.first:,} to {phase.last:,}: {_SAYING[phase.state]}" for phase in _main(phases))
    told = told or "too little was logged to tell how it learned"
    grave = [finding for finding in findings if finding.severity != "info" and not (finding.because or finding.action)]
    if not grave:
        return f"{told[:1].upper()}{told[1:]}. Nothing was found that would have cost quality."
    others = f", and {len(grave) - 1} more causes" if len(grave) > 1 else ""
    return f"{told[:1].upper()}{told[1:]}. What matters most: {grave[0].id} ({grave[0].where}){others}."


def _main(phases: Sequence[Phase]) -> list[Phase]:
    """Without what is too early to tell, and with rests between times of learning taken for learning."""
    told = [phase for phase in phases if phase.state != "undecided"] or list(phases)
    merged: list[Phase] = []
    for phase in told:
        last = merged[-1] if merged else None
        if last is None or last.state != phase.state:
            merged.append(phase)
        else:
            merged[-1] = Phase(last.state, last.first, phase.last)
        if len(merged) > 2 and merged[-1].state == merged[-3].state == "learning" and merged[-2].state == "converged":
            merged[-3:] = [Phase("learning", merged[-3].first, merged[-1].last)]
    return merged


def _limits(record: RunRecord) -> list[str]:
    """What cannot be concluded from this log."""
    limits = []
    loss = training_loss(record)
    if not len(loss):
        limits.append("there is no training loss: nothing can be said of how it learned")
    elif len(loss) < FEW:
        limits.append(f"there are only {len(loss)} values of the training loss: trends are uncertain")
    if not record.val:
        limits.append("there was no validation: over-fitting, and whether what it learned holds, cannot be judged")
    elif max(len(curve) for curve in record.val.values()) < 5:
        limits.append("there are fewer than five evaluations: over-fitting can hardly be judged")
    if record.layers is None:
        limits.append("layers were not watched: gradients, dead units and updates cannot be judged")
    if not record.finished and record.budget and record.steps < record.budget:
        limits.append(f"the run has done {record.steps:,} of {record.budget:,} steps")
    if len(loss) and len(loss.finite()) < len(loss):
        limits.append(f"{len(loss) - len(loss.finite())} of {len(loss)} losses are not finite")
    return limits
