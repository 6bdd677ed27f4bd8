"""Colours of classes: told apart by colour-blind readers, the same class always the same colour."""

from __future__ import annotations

import colorsys

from clearsight.errors import RangeError

__all__ = ["class_color", "edge_of", "readable_on", "to_hex"]

# Okabe & Ito (2008), without black; ordered so that neighbours differ most.
_BASE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233), (240, 228, 66))


def class_color(index: int) -> tuple[int, int, int]:
    """The colour of a class, 0 to 255 each; from the eighth class on the hues return lighter, then darker.

    Raises:
        RangeError: `index` is negative.
    """
    if index < 0:
        raise RangeError(f"class_color: expected a class index from 0, got {index}")
    turn, place = divmod(index, len(_BASE))
    if not turn:
        return _BASE[place]
    hue, light, saturation = colorsys.rgb_to_hls(*(v / 255 for v in _BASE[place]))
    shift = 0.16 * ((turn + 1) // 2) * (1 if turn % 2 else -1)
    light = (light + shift - 0.25) % 0.6 + 0.25
    red, green, blue = colorsys.hls_to_rgb(hue, light, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def to_hex(color: tuple[int, int, int]) -> str:
    """`#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def readable_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever contrasts more with `color` (WCAG 2)."""
    return (0, 0, 0) if _luminance(color) > 0.179 else (255, 255, 255)


def edge_of(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """The edge that keeps a thin line of `color` visible on any ground without hiding it."""
    return (20, 22, 24) if _luminance(color) > 0.6 else (255, 255, 255)


def _luminance(color: tuple[int, int, int]) -> float:
    """Relative luminance, 0 to 1 (WCAG 2)."""
    red, green, blue = (v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
