"""Profiles as tables for people."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

from clearsight.measure.profile import Profile
from clearsight.measure.receptive_field import ReceptiveField
from clearsight.measure.rows import Row

__all__ = ["as_text", "comparison_table", "field_table", "profile_table", "summary"]

_WIDTH = 160


def profile_table(profile: Profile, by: Literal["stage", "layer"] = "stage") -> Table:
    """A row a stage or a layer, and the total.

    Args:
        profile: what `profile` found.
        by: `stage` or `layer`.
    """
    rows = profile.stages if by == "stage" else profile.layers
    timed = any(row.seconds is not None for row in rows)
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    fields = any(row.field is not None for row in rows)
    heads = ["field", "stride"] * fields + [
        "params",
        "mult-adds",
        "FLOPs",
        "backward",
        "alive MiB",
        "kept MiB",
        "moved MiB",
        "FLOPs/byte",
    ]
    for head, total in zip([by, "kind", "output"], ["total", "", ""], strict=True):
        table.add_column(head, footer=total, overflow="fold", no_wrap=head == by)
    for head, total in zip(
        heads + ["ms"] * timed, _seen(profile.total, fields) + _cells(profile.total, timed=timed), strict=True
    ):
        table.add_column(head, footer=total, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.name, row.kind, _shapes(row.outputs), *_seen(row, fields), *_cells(row, timed=timed))
    return table


def _seen(row: Row, fields: bool) -> list[str]:  # noqa: FBT001
    """Receptive field and stride; the whole image as `all`, and the field without gates in brackets."""
    if not fields:
        return []
    if row.field is None:
        return ["–", "–"]
    return [str(row.field).replace("whole image", "all").replace("local ", ""), _step(row.field.stride)]


def _cells(row: Row, *, timed: bool) -> list[str]:
    cells = [
        _number(row.parameters),
        _number(row.multiply_adds),
        _number(row.flops),
        _number(row.backward_multiply_adds),
        _mib(row.inference_bytes),
        _mib(row.training_bytes),
        _mib(row.moved_bytes),
        f"{row.intensity:.1f}",
    ]
    return [*cells, "–" if row.seconds is None else f"{row.seconds * 1000:.2f}"] if timed else cells


def summary(profile: Profile) -> str:
    """The totals in words, with what was not counted."""
    row = profile.total
    shapes = ", ".join(f"{shape} {kind}" for shape, kind in zip(profile.inputs, profile.types, strict=True))
    backward = "" if row.backward_multiply_adds is None else f", {_number(row.backward_multiply_adds)} backward"
    kept = "" if row.training_bytes is None else f", {_mib(row.training_bytes)} MiB kept for the backward pass"
    lines = [
        f"{profile.name} on {shapes}: {_number(row.parameters)} parameters",
        f"multiply-adds: {_number(row.multiply_adds)} forward{backward}",
        f"FLOPs: {_number(row.flops)} forward, counted exactly; {_number(row.flops_usual)} as 2 × multiply-adds",
        f"activations: {_mib(row.inference_bytes)} MiB alive at once in inference{kept}",
        f"moved: {_mib(row.moved_bytes)} MiB, {row.intensity:.1f} FLOPs a byte",
    ]
    if profile.latency is not None:
        time, (first, third) = profile.latency, profile.latency.quartiles
        threads = f", {time.threads} thread{'s' * (time.threads != 1)}" if time.device == "cpu" else ""
        lines.append(
            f"latency: {_ms(time.median)} ms median, {_ms(first)} to {_ms(third)} quartiles "
            f"({time.runs} runs, {time.device}{threads})"
        )
    missed = ", ".join(f"{name} ({times}×)" for name, times in profile.uncounted.items())
    lines += [f"not counted: {missed}"] * bool(missed) + [f"note: {note}" for note in profile.notes]
    return "\n".join(lines)


def comparison_table(profiles: Sequence[Profile]) -> Table:
    """Models side by side, a column each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for one in profiles:
        table.add_column(one.name, justify="right", overflow="fold")
    table.add_row("input", *[", ".join(str(shape) for shape in one.inputs) for one in profiles])
    table.add_row("parameters", *[_number(one.total.parameters) for one in profiles])
    table.add_row("multiply-adds, forward", *[_number(one.total.multiply_adds) for one in profiles])
    table.add_row("multiply-adds, backward", *[_number(one.total.backward_multiply_adds) for one in profiles])
    table.add_row("FLOPs, exact", *[_number(one.total.flops) for one in profiles])
    table.add_row("FLOPs, 2 × multiply-adds", *[_number(one.total.flops_usual) for one in profiles])
    table.add_row("alive in inference, MiB", *[_mib(one.total.inference_bytes) for one in profiles])
    table.add_row("kept for backward, MiB", *[_mib(one.total.training_bytes) for one in profiles])
    table.add_row("moved, MiB", *[_mib(one.total.moved_bytes) for one in profiles])
    table.add_row("FLOPs/byte", *[f"{one.total.intensity:.1f}" for one in profiles])
    if any(one.latency for one in profiles):
        times = [one.latency for one in profiles]
        table.add_row("latency, median ms", *[_ms(time.median) if time else "–" for time in times])
        table.add_row("quartiles, ms", *[" to ".join(map(_ms, time.quartiles)) if time else "–" for time in times])
    for name in dict.fromkeys(name for one in profiles for name in one.scores):
        table.add_row(name, *[f"{one.scores[name]:.3f}" if name in one.scores else "–" for one in profiles])
    if any(one.uncounted for one in profiles):
        table.add_row("operations not counted", *[str(sum(one.uncounted.values())) for one in profiles])
    return table


def field_table(found: ReceptiveField) -> Table:
    """A row an outermost layer, a row a level and a row an output; whatever is unknown is named below."""
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    table.add_column("where", no_wrap=True)
    table.add_column("kind", overflow="fold")
    table.add_column("output")
    for head in ("field, px", "stride", "offset"):
        table.add_column(head, justify="right", no_wrap=True)
    outermost = [one for one in found.layers if one.name.count(".") < 2]
    for one in (*outermost, *found.levels, *found.outputs):
        field = f"{one}{'' if one.known else ' ?'}"
        table.add_row(one.name, one.kind, _shapes([one.shape]), field, _step(one.stride), _step(one.offset))
    unknown = ", ".join(f"{name} ({times}×)" for name, times in found.unknown.items())
    lines = [f"no rule, taken to see everything: {unknown}"] * bool(unknown) + list(found.notes)
    table.caption = "\n".join(lines) or None
    return table


def _step(value: tuple[float, float] | None) -> str:
    if value is None:
        return "–"
    down, across = value
    return f"{down:g}" if down == across else f"{down:g}×{across:g}"


def as_text(profile: Profile) -> str:
    """The stages and the summary, as plain text."""
    text = io.StringIO()
    Console(file=text, width=_WIDTH, color_system=None).print(profile_table(profile))
    return f"{text.getvalue()}\n{summary(profile)}"


def _number(value: int | None) -> str:
    """Three figures and a letter, in thousands."""
    if value is None:
        return "–"
    for letter, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.3g} {letter}" if value < 999.5 * size else f"{value / size:.0f} {letter}"
    return str(value)


def _mib(value: int | None) -> str:
    if value is None:
        return "–"
    mib = value / 2**20
    return f"{mib:.0f}" if mib >= 99.95 else f"{mib:.1f}" if mib >= 0.95 or not value else f"{mib:.2g}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}" if seconds < 0.9995 else f"{seconds * 1000:.0f}"


def _shapes(outputs: Sequence[tuple[int, ...]]) -> str:
    if not outputs:
        return ""
    first = "×".join(map(str, outputs[0])) or "()"
    return f"{first} +{len(outputs) - 1}" if len(outputs) > 1 else first
