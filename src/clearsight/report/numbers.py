"""Numbers as people read them: sensible digits, units, and a dash for what does not exist."""

from __future__ import annotations

import math

__all__ = ["DASH", "count", "duration", "general", "interval", "percent", "score"]

DASH = "–"


def score(value: float, *, digits: int = 3) -> str:
    """A figure between 0 and 1: `0.583`."""
    return f"{value:.{digits}f}" if math.isfinite(value) else DASH


def interval(pair: tuple[float, float] | None) -> str:
    """`0.556 – 0.609`; empty where there is none."""
    if pair is None or not all(math.isfinite(v) for v in pair):
        return ""
    return f"{score(pair[0])} – {score(pair[1])}"


def percent(value: float) -> str:
    """A share: `46 %`, below ten percent with one digit more."""
    if not math.isfinite(value):
        return DASH
    return f"{value * 100:.0f} %" if value == 0 or value >= 0.095 else f"{value * 100:.1f} %"


def count(value: float) -> str:
    """A whole number, thousands apart: `12,345`."""
    return f"{value:,.0f}" if math.isfinite(value) else DASH


def general(value: float) -> str:
    """Any number with four significant digits."""
    if not math.isfinite(value):
        return DASH
    if value == int(value) and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """`42 s`, `9 min 58 s`, `2 h 5 min`; empty when unknown."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
