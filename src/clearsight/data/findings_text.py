"""Findings as text that someone who never saw the code can act on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from clearsight.types import Finding

__all__ = ["format_findings"]

_ORDER = {"error": 0, "warning": 1, "info": 2}
_HEADING = {"error": "Errors", "warning": "Warnings", "info": "Worth knowing"}


def format_findings(findings: Sequence[Finding], *, first: int = 3) -> str:
    """Findings grouped by severity and id: how many, what is done about them, the first few of each.

    Args:
        findings: any order; groups are listed in the order in which they first occur.
        first: places shown of each group.

    Returns:
        Text of several lines; empty for no findings.

    Example:
        >>> print(format_findings([Finding(id="empty-file", severity="error", where="a.jpg", explanation="zero bytes",
        ...                                action="image dropped")]))
        Errors
          empty-file: 1 (image dropped)
            a.jpg: zero bytes
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.id), []).append(finding)
    lines: list[str] = []
    heading = ""
    for (severity, fault), group in sorted(groups.items(), key=lambda item: _ORDER[item[0][0]]):
        if severity != heading:
            heading = severity
            lines.append(_HEADING[severity])
        lines.append(f"  {fault}: {len(group)}{_actions(group)}")
        lines += [f"    {finding.where}: {finding.explanation}" for finding in group[:first]]
        if len(group) > first:
            lines.append(f"    … and {len(group) - first} more")
        lines += [f"    remedy: {key}={value}" for key, value in _remedies(group).items()]
    return "\n".join(lines)


def _actions(group: Sequence[Finding]) -> str:
    """What is done, with numbers where it differs inside the group."""
    counts = Counter(finding.action for finding in group if finding.action)
    if not counts:
        return ""
    if len(counts) == 1 and counts.total() == len(group):
        return f" ({next(iter(counts))})"
    return " (" + ", ".join(f"{count} {action}" for action, count in counts.items()) + ")"


def _remedies(group: Sequence[Finding]) -> dict[str, object]:
    """The first remedy of each recipe key."""
    remedies: dict[str, object] = {}
    for finding in group:
        for key, value in finding.remedy.items():
            remedies.setdefault(key, value)
    return remedies
