"""A rule looks for one fault in the evidence it is given; a failing rule is reported and ends nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from clearsight.types import Finding

__all__ = ["Examination", "Rule", "examine"]

E = TypeVar("E")


class Rule(ABC, Generic[E]):
    """Looks for one fault.

    A rule is a small class without state: `check` reads the evidence, changes nothing, and gives the same findings for
    the same evidence. Thresholds are constructor arguments with defaults, so that they can be set and measured.

    Attributes:
        id: of the findings, in kebab case, the fault's name.
        source: the paper, book or tool that the rule or its threshold comes from.
    """

    id: str
    source: str

    def lacks(self, evidence: E) -> str:
        """What must be known and is not, in words ("no validation"); empty where the rule can judge."""
        return ""

    @abstractmethod
    def check(self, evidence: E) -> Iterable[Finding]:
        """What is wrong, one finding for each cause; nothing where nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What a set of rules found.

    Args:
        findings: in the order of the rules.
        passed: ids of the rules that could judge and found nothing.
        silent: id → what the rule lacked to judge.
    """

    findings: list[Finding] = field(default_factory=list)
    passed: tuple[str, ...] = ()
    silent: dict[str, str] = field(default_factory=dict)


def examine(rules: Sequence[Rule[E]], evidence: E, *, begins: Callable[[str], object] | None = None) -> Examination:
    """Apply rules to evidence.

    Args:
        rules: in the order in which their findings are wanted.
        evidence: what they look at.
        begins: told of each rule's id before it is applied, for a progress bar.

    Returns:
        Their findings. A rule that raises gives one finding `rule-failed` of severity `info` that names it.
    """
    findings: list[Finding] = []
    passed: list[str] = []
    silent: dict[str, str] = {}
    for rule in rules:
        if begins is not None:
            begins(rule.id)
        try:
            lacking = rule.lacks(evidence)
            found = [] if lacking else list(rule.check(evidence))
        except Exception as error:  # noqa: BLE001 - whatever a rule does, it ends nothing
            findings.append(_failed(rule.id, error))
            continue
        if lacking:
            silent[rule.id] = lacking
        elif not found:
            passed.append(rule.id)
        findings += found
    return Examination(findings=findings, passed=tuple(passed), silent=silent)


def _failed(rule: str, error: Exception) -> Finding:
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Finding(
        id="rule-failed",
        severity="info",
        where=rule,
        explanation=f"The rule could not be applied ({said}); nothing is said of this fault, and nothing else is lost.",
        evidence={"error": said},
    )
