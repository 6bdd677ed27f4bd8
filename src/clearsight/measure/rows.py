"""Counts put together: a row a layer, a row a stage, and the total."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from clearsight.measure.count import Count
from clearsight.measure.counter import Tally
from clearsight.measure.receptive_field import Field

__all__ = ["Row", "Rows"]

_OPENED = 0.9
_MOST_STAGES = 20


class Row(BaseModel):
    """What one module costs, or one stage, or the model; see `measure.profile.CONVENTIONS`. All is for the whole batch.

    Args:
        name: as in `named_modules`. A module that works beside those within it has `(itself)` behind its name.
        kind: class of the module.
        outputs: shapes of what it gives when it is called first; empty where it is not called.
        calls: how often it is called.
        parameters: numbers it can learn, those of a shared one at its first owner.
        multiply_adds: of the forward pass.
        flops: of the forward pass.
        flops_usual: of the forward pass.
        backward_multiply_adds: None where the model cannot be trained with these inputs; the notes say why.
        backward_flops: of the backward pass.
        inference_bytes: of a layer, while it works.
        training_bytes: None where the model cannot be trained with these inputs.
        moved_bytes: of the forward pass.
        intensity: FLOPs a byte; low where memory, not arithmetic, takes the time.
        seconds: median, where it was measured for each layer.
        field: receptive field and stride of what it gives first, where they were looked for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    outputs: tuple[tuple[int, ...], ...] = ()
    calls: int = 0
    parameters: int = 0
    multiply_adds: int = 0
    flops: int = 0
    flops_usual: int = 0
    backward_multiply_adds: int | None = None
    backward_flops: int | None = None
    inference_bytes: int = 0
    training_bytes: int | None = None
    moved_bytes: int = 0
    intensity: float = 0.0
    seconds: float | None = None
    field: Field | None = None


class Rows:
    """Puts counts together by module, by stage and in total.

    Args:
        model: that was counted.
        used: the count of using it.
        trained: the count of training it, or None.
        times: seconds by name, of the modules that were timed.
        fields: receptive fields by name, those that are known; that of the model's first output as "".
    """

    def __init__(
        self,
        model: nn.Module,
        used: Count,
        trained: Count | None,
        times: Mapping[str, float],
        fields: Mapping[str, Field] | None = None,
    ) -> None:
        self._used, self._trained, self._times = used.layers, trained and trained.layers, times
        self._fields = fields or {}
        self._modules = dict(model.named_modules())
        seen: set[int] = set()
        self._parameters: dict[str, int] = {}
        for name, module in self._modules.items():
            own = [one for one in module.parameters(recurse=False) if id(one) not in seen]
            seen.update(map(id, own))
            self._parameters[name] = sum(one.numel() for one in own)

    def total(self, title: str) -> Row:
        """The whole model, under this name."""
        return self._row(title, "", self._modules)

    def layers(self) -> tuple[Row, ...]:
        """Modules without others in them, and those that do something beside."""
        rows = []
        for name, module in self._modules.items():
            inner = any(True for _ in module.children())
            row = self._row(_itself(name) if inner else name, name, [name])
            works = row.flops or row.moved_bytes or row.training_bytes or row.backward_flops
            if row.parameters or works or (row.calls and not inner):
                rows.append(row)
        return tuple(rows)

    def stages(self) -> tuple[Row, ...]:
        """The model's children; one that does nearly everything is replaced by its own, while they are not too many."""
        nearly_all = _OPENED * self._work(self._modules)
        chosen, opened = self._children(""), [""]
        while nearly_all:
            large = next((one for one in chosen if self._work(self._below(one)) >= nearly_all), "")
            within = self._children(large) if large else []
            if not within or len(chosen) + len(within) - 1 > _MOST_STAGES:
                break
            place = chosen.index(large)
            chosen[place : place + 1] = within
            opened.append(large)
        rows = [self._row(_itself(name), name, [name]) for name in opened]
        rows += [self._row(name, name, self._below(name)) for name in chosen]
        return tuple(row for row in rows if row.parameters or row.moved_bytes or row.training_bytes)

    def _work(self, names: Iterable[str]) -> int:
        return sum(self._used[name].multiply_adds for name in names if name in self._used)

    def _children(self, name: str) -> list[str]:
        before = f"{name}." if name else ""
        return [before + child for child, _ in self._modules[name].named_children() if before + child in self._modules]

    def _below(self, name: str) -> list[str]:
        return [one for one in self._modules if one == name or one.startswith(f"{name}.")]

    def _row(self, shown: str, name: str, members: Iterable[str]) -> Row:
        members = list(members)
        used = [self._used[one] for one in members if one in self._used]
        trained = None if self._trained is None else [self._trained[one] for one in members if one in self._trained]
        own = self._used.get(name, Tally())
        flops, moved = sum(one.flops for one in used), sum(one.moved_bytes for one in used)
        times = [self._times[one] for one in members if one in self._times]
        multiply_adds = sum(one.multiply_adds for one in used)
        training: dict[str, Any] = {}
        if trained is not None:
            training = {
                "backward_multiply_adds": sum(one.backward_multiply_adds for one in trained),
                "backward_flops": sum(one.backward_flops for one in trained),
                "training_bytes": sum(one.saved_bytes for one in trained),
            }
        return Row(
            name=shown,
            kind=type(self._modules[name]).__name__,
            outputs=own.outputs,
            calls=own.calls,
            parameters=sum(self._parameters[one] for one in members),
            multiply_adds=multiply_adds,
            flops=flops,
            flops_usual=2 * multiply_adds,
            inference_bytes=max((one.live_bytes for one in used), default=0),
            moved_bytes=moved,
            intensity=round(flops / moved, 3) if moved else 0.0,
            seconds=sum(times) if times else None,
            field=None if shown == _itself(name) else self._fields.get(name),
            **training,
        )


def _itself(name: str) -> str:
    return f"{name} (itself)" if name else "(itself)"
