"""Plots as plain Plotly descriptions; colours are named, the page fills them in for its theme."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SERIES", "Figure", "axis", "hatched", "named", "series"]

SERIES = 7
"""Number of line colours that the page defines, `--series-1` and on; the hues of `class_color`, in its order."""

_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(slots=True, kw_only=True)
class Figure:
    """One plot with the words that belong to it.

    Args:
        id: unique in the page, kebab case.
        title: what is shown.
        help: how to read it.
        data: Plotly traces; a colour is the name of a CSS variable, `var(--series-1)`.
        layout: Plotly layout, without the theme's part.
        wide: takes the full width of the page.
    """

    id: str
    title: str
    help: str
    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    wide: bool = False


def named(text: object, *, limit: int = 40) -> str:
    """A user's text for Plotly, which would take angle brackets for markup."""
    plain = str(text)
    return html.escape(plain if len(plain) <= limit else plain[: limit - 1] + "…", quote=False)


def series(index: int) -> tuple[str, str]:
    """Colour and dash of the n-th line: neighbours differ in both, so that colour alone never tells them apart."""
    return f"var(--series-{index % SERIES + 1})", _DASHES[index % len(_DASHES)]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title."""
    return {"title": {"text": title}, **more}


def hatched(index: int, shape: str) -> dict[str, Any]:
    """The look of the n-th group of bars: a colour, and hatching (`""`, `/`, `.`) for those who do not see it."""
    pattern = {"shape": shape, "fillmode": "overlay", "fgcolor": "var(--ground)", "fgopacity": 0.6, "size": 6}
    return {"color": f"var(--series-{index % SERIES + 1})", "pattern": {**pattern, "solidity": 0.2}}
