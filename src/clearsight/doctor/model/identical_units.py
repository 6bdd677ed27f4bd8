"""Units of a layer that start alike, and so learn alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.flow import IMAGES, Call, Flow
from clearsight.doctor.model.kinds import (
    MOVES,
    is_convolution,
    is_dropout,
    is_linear,
    is_norm,
    is_transposed,
    passes_linearly,
    units,
)
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["IdenticalUnits"]

_LISTED = 20
_ROWS = 1024  # compared with all others at once
_LOOSE = 1e-3
_SKETCH = 48  # numbers that stand for a longer row until it is looked at itself


class _Alike(NamedTuple):
    name: str
    units: int
    alike: int
    zero: bool


class IdenticalUnits(Rule[ModelEvidence]):
    """Layers whose units have the same weights, from a start with zeros or a constant.

    Where all units of a hidden layer are alike, it is as good as one unit wide until chance parts them: a warning. A
    few alike are only told (kernels that are repeated on purpose, dead ones of a trained network). Units of different
    groups see different channels and are not compared. A layer of zeros is right where its output is added to or
    multiplied with something else (the end of a residual branch, offsets, scales), and any layer whose output goes
    to the loss learns its units apart. But where layers of zeros lie on every way from the images to the loss, nothing
    of an image comes through, and the first of them are told whatever they are joined with.

    Args:
        closeness: cosine above which two units are the same.
        shortest: weights of a unit, below which two may be alike by chance.
    """

    id = "identical-units"
    source = "DeepChecker (TheDeepChecker), Ben Braiek and Khomh 2022, arXiv:2204.00694; Goodfellow et al. 2016, 8.4"

    def __init__(self, *, closeness: float = 1 - 1e-6, shortest: int = 4) -> None:
        self.closeness, self.shortest = closeness, shortest

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow."""
        return evidence.flow.lacks

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for layers whose units are all alike, one for those with some."""
        found = [one for name in evidence.flow.nodes if (one := self._alike(evidence.flow, name)) is not None]
        found += [one for one in _first_walls(evidence.flow) if one.name not in {other.name for other in found}]
        found.sort(key=lambda one: [*evidence.flow.nodes].index(one.name))
        whole = [one for one in found if one.alike == one.units]
        some = [one for one in found if one.alike < one.units]
        for layers in filter(None, (whole, some)):
            first = layers[0]
            others = f" (and of {len(layers) - 1} more layers)" if len(layers) > 1 else ""
            how = "have weights of zero" if first.zero else "have the same weights as another one"
            yield Finding(
                id=self.id,
                severity="warning" if layers is whole else "info",
                where=first.name,
                explanation=(
                    f"{first.alike} of the {first.units} units of {first.name}{others} {how}: they compute the same "
                    "and get the same gradient up to the layer behind. Start them from random numbers, such as "
                    "torch.nn.init.kaiming_normal_."
                ),
                evidence={
                    "row": "P2",
                    "layers": {one.name: {"units": one.units, "alike": one.alike} for one in layers[:_LISTED]},
                    "count": len(layers),
                    "threshold": self.closeness,
                },
                source=self.source,
            )

    def _alike(self, flow: Flow, name: str) -> _Alike | None:
        node = flow.nodes[name]
        layer = node.module
        weight = layer.weight if is_convolution(layer) or is_linear(layer) else None
        if not isinstance(weight, Tensor) or is_transposed(layer) or not weight.requires_grad:
            return None
        ends = [_ends(flow, call) for call in node.calls]
        if any("loss" in one for one in ends):
            return None
        weight = weight.detach().flatten(1).float()
        groups = int(getattr(layer, "groups", 1))
        if weight.shape[0] // groups < 2 or weight.shape[1] < 2:
            return None
        if not bool(weight.any()):
            joined = any("joined" in one for one in ends)
            return None if joined else _Alike(name, len(weight), len(weight), zero=True)
        alike = sum(_repeated(part, self.closeness, self.shortest) for part in weight.chunk(groups))
        return _Alike(name, len(weight), alike, zero=False) if alike else None


def _first_walls(flow: Flow) -> list[_Alike]:
    """Layers of zeros that an image comes to first, where none of its ways to the loss goes around such layers.

    A layer whose output goes to the loss is none, nor is one with no layer behind it: those learn.
    """
    walls: set[str] = set()
    for name, node in flow.nodes.items():
        weight = node.module.weight if is_convolution(node.module) or is_linear(node.module) else None
        if not isinstance(weight, Tensor) or bool(weight.any()):
            continue
        behind = {call.module for call in flow.reached(node.calls)} - {name}
        layers = any(one.ndim > 1 for other in behind for one in flow.nodes[other].module.parameters())
        if layers and not any("loss" in _ends(flow, call) for call in node.calls):
            walls.add(name)
    outputs = {call for call in flow.outputs if call != IMAGES}
    seen = flow.reached([IMAGES], walls=walls)
    if not walls or seen & outputs or not flow.reached([IMAGES]) & outputs:
        return []
    first = [name for name in flow.nodes if name in walls and any(call in seen for call in flow.nodes[name].calls)]
    wide = {name: units(flow.nodes[name].module)[1] for name in first}
    return [_Alike(name, width, width, zero=True) for name, width in wide.items()]


def _ends(flow: Flow, start: Call) -> set[str]:
    """Where the output of a call comes to: `layer`, `loss`, or `joined` with something else on the way."""
    ends: set[str] = set()
    seen: set[Call] = set()
    waiting = [start]
    while waiting:
        call = waiting.pop()
        if call in seen:
            continue
        seen.add(call)
        if call in flow.outputs:
            ends.add("loss")
        for edge in flow.after(call):
            module = flow.nodes[edge.consumer.module].module
            if not set(edge.operations) <= _PLAIN:
                ends.add("joined")
            elif is_convolution(module) or is_linear(module):
                ends.add("layer")
            elif _goes_on(module):
                waiting.append(edge.consumer)
            else:
                ends.add("joined")
    return ends


_PLAIN = MOVES | {
    "relu", "relu6", "gelu", "silu", "leaky_relu", "elu", "selu", "tanh", "hardtanh", "hardswish", "mish", "softplus",
    "sigmoid", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "dropout", "clamp", "batch_norm",
}  # fmt: skip


def _goes_on(module: nn.Module) -> bool:
    pools = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
    bends = type(module).__module__ == "torch.nn.modules.activation" and not isinstance(module, nn.MultiheadAttention)
    return bends or isinstance(module, pools) or is_norm(module) or is_dropout(module) or passes_linearly(module)


def _repeated(rows: Tensor, closeness: float, shortest: int) -> int:
    """Units that another one equals, up to a positive factor; zero ones are not counted unless all others are."""
    rows = rows[rows.any(dim=1)]
    if len(rows) < 2:
        return 0
    if rows.shape[1] < shortest:  # by chance two may be alike, not all
        every = nn.functional.cosine_similarity(rows.double(), rows[:1].double())
        return len(rows) if bool((every > closeness).all()) else 0
    short = _sketch(rows)
    alike = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    for first in range(0, len(rows), _ROWS):
        last = min(first + _ROWS, len(rows))
        near = short[first:last] @ short.T
        near[torch.arange(last - first), torch.arange(first, last)] = -1
        best, nearest = near.max(1)
        close = (best > 1 - _LOOSE).nonzero().flatten()  # the sketch is coarse: look at the rows themselves
        pair = (rows[first + close].double(), rows[nearest[close]].double())
        alike[first + close] = nn.functional.cosine_similarity(*pair) > closeness
    return int(alike.sum())


def _sketch(rows: Tensor) -> Tensor:
    """Short rows of length 1 that are alike where the rows are."""
    if rows.shape[1] > _SKETCH:
        generator = torch.Generator().manual_seed(0)
        rows = rows @ torch.randn(rows.shape[1], _SKETCH, generator=generator).to(rows.device)
    return nn.functional.normalize(rows, dim=1)
