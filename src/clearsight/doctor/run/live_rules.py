"""Applies rules to a run while it goes, and tells each finding once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.markup import escape

from clearsight.doctor.diagnosis import GRAVITY
from clearsight.doctor.rule import Rule, examine
from clearsight.doctor.run.record import RunRecord
from clearsight.types import Finding

__all__ = ["LiveRules", "is_first_process", "print_finding"]

COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


class LiveRules:
    """Rules, and what they have found so far.

    Args:
        rules: to apply; None takes all there are.
        on_finding: called with each finding, once for each place and severity; in the first process only.
    """

    def __init__(
        self, rules: Sequence[Rule[RunRecord]] | None, on_finding: Callable[[Finding], object] | None = None
    ) -> None:
        self._rules = rules
        self._on_finding = print_finding if on_finding is None else on_finding
        self.findings: list[Finding] = []

    def examine(self, record: Callable[[], RunRecord]) -> None:
        """Apply the rules; what was found before, at the same place, is told again only where it has become graver.

        Args:
            record: makes the record; not called where there is no rule.
        """
        if self._rules is None:
            from clearsight.doctor.run.rules import RULES

            self._rules = RULES
        if not self._rules:
            return
        known = {(finding.id, finding.where): GRAVITY[finding.severity] for finding in self.findings}
        for finding in examine(self._rules, record()).findings:
            place, gravity = (finding.id, finding.where), GRAVITY[finding.severity]
            if gravity < known.get(place, len(GRAVITY)):
                known[place] = gravity
                self.findings = [one for one in self.findings if (one.id, one.where) != place] + [finding]
                if is_first_process():
                    self._on_finding(finding)


def is_first_process() -> bool:
    """Whether this process is the only one of the training, or the first of several."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def print_finding(finding: Finding) -> None:
    """One line on standard error."""
    where = f" {escape(finding.where)}:" if finding.where else ""
    line = f"[{COLOURS[finding.severity]}]{finding.severity}[/] {finding.id}:{where} {escape(finding.explanation)}"
    Console(stderr=True).print(line, soft_wrap=True, highlight=False)
