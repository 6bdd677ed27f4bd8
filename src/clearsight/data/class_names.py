"""Class names of a data set, and what to do with a name that is not quite one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from clearsight.types import Finding

__all__ = ["ClassNames", "names_found"]


def names_found(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted class names of a data set whose files have no list of them.

    Of names that differ by case or by space around them only, the most frequent spelling stands for all.
    """
    spellings: dict[str, Counter[str]] = {}
    for name in names:
        spellings.setdefault(name.strip().casefold(), Counter())[name.strip()] += 1
    return tuple(sorted(max(sorted(counts), key=counts.__getitem__) for counts in spellings.values()))


class ClassNames:
    """Label of a class name, exact case first, any case after that.

    Args:
        names: class names in label order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._exact = {name: label for label, name in enumerate(self.names)}
        self._any_case = {name.casefold(): label for label, name in enumerate(self.names)}

    def label(self, name: str, where: str, findings: list[Finding]) -> int | None:
        """The label of a name, or None if there is no such class; whatever is odd is added to `findings`."""
        stripped = name.strip()
        if stripped in self._exact:
            return self._exact[stripped]
        label = self._any_case.get(stripped.casefold())
        if label is None:
            findings.append(
                Finding(
                    id="unknown-class",
                    severity="error",
                    where=where,
                    explanation=f"class {name!r} is not one of {', '.join(map(repr, self.names)) or 'no classes'}; "
                    "add it to data.classes or correct the name",
                    action="dropped",
                    evidence={"class": name},
                )
            )
            return None
        findings.append(
            Finding(
                id="class-case-mismatch",
                severity="warning",
                where=where,
                explanation=f"class {name!r} differs from {self.names[label]!r} by case only",
                action=f"read as {self.names[label]!r}",
                evidence={"class": name, "read_as": self.names[label]},
            )
        )
        return label
