"""Kernels that leave holes or a chequered pattern."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.flow import Call, Flow
from clearsight.doctor.model.kinds import is_convolution, is_dropout, is_norm, is_transposed, kernel_of
from clearsight.doctor.rule import Rule
from clearsight.nn.dilation import coverage
from clearsight.types import Finding

__all__ = ["CheckerboardKernel", "GriddingDilations"]

_LISTED = 20
_POINTWISE = {
    "relu", "relu6", "gelu", "silu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "hardtanh", "hardswish", "mish",
    "dropout", "contiguous", "to", "float", "half", "bfloat16", "pad",
}  # fmt: skip


class GriddingDilations(Rule[ModelEvidence]):
    """Dilated convolutions in a row that together never look at some pixels of their field.

    Rates with a common divisor leave a grid of holes, and so do rates that grow too fast. Holes are counted exactly, by
    the paths from each pixel; the paper's criterion, largest gap of the second layer at most the kernel, is given
    beside. Rows that join something else on the way (residual blocks, pyramids) are not judged: they see it too.

    Method: Wang et al. 2018 (hybrid dilated convolution), arXiv:1702.08502, equation 2; counted instead of bounded.

    Args:
        layers: dilated convolutions in a row from which it is a warning; two are only told.
    """

    id = "gridding-dilations"
    source = "Wang et al. 2018, Understanding convolution for semantic segmentation, arXiv:1702.08502, equation 2"

    def __init__(self, *, layers: int = 3) -> None:
        self.layers = layers

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow."""
        return evidence.flow.lacks

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for each row of convolutions."""
        for names, axis in _rows(evidence.flow):
            convolutions = [evidence.flow.nodes[name].module for name in names]
            kernels = [kernel_of(layer)[axis] for layer in convolutions]
            rates = [_on(layer.dilation, axis) for layer in convolutions]
            dilated = sum(rate > 1 for rate in rates)
            if dilated < 2:
                continue
            seen = coverage(kernels, rates, [_on(layer.stride, axis) for layer in convolutions])
            if not seen.holes:
                continue
            divisor, gap = math.gcd(*rates), _largest_gap(rates)
            yield Finding(
                id=self.id,
                severity="warning" if dilated >= self.layers else "info",
                where=names[0],
                explanation=(
                    f"Convolutions with the rates {', '.join(map(str, rates))} in a row, from {names[0]}, never look "
                    f"at {seen.holes} of the {seen.field} pixels along their field (gridding). Choose rates without a "
                    "common divisor that grow slowly, such as 1, 2, 5."
                ),
                evidence={
                    "row": "gridding",
                    "layers": names[:_LISTED],
                    "count": len(names),
                    "rates": rates[:_LISTED],
                    "kernels": kernels[:_LISTED],
                    "divisor": divisor,
                    "gap": gap,
                    "holes": seen.holes,
                    "field": seen.field,
                },
                source=self.source,
            )


def _on(value: object, axis: int) -> int:
    return int(value[axis]) if isinstance(value, Sequence) else int(value)  # pyright: ignore[reportArgumentType]


def _largest_gap(rates: Sequence[int]) -> int:
    """M₂ of the paper."""
    gap = rates[-1]
    for rate in reversed(rates[1:-1]):
        gap = max(gap - 2 * rate, gap - 2 * (gap - rate), rate)
    return gap


def _rows(flow: Flow) -> Iterator[tuple[list[str], int]]:
    """Convolutions of which each reads the one before and nothing else; with an axis on which rates are dilated."""
    following = {name: _next(flow, Call(name, 1)) for name, node in flow.nodes.items() if _wide(node.module)}
    later = set(following.values())
    for start in following:
        if start in later:
            continue
        names = [start]
        while (name := following[names[-1]]) and name not in names:
            names.append(name)
        axes = len(kernel_of(flow.nodes[start].module))
        for axis in range(axes):
            layers = [flow.nodes[name].module for name in names]
            if all(len(kernel_of(layer)) == axes for layer in layers) and any(
                _on(layer.dilation, axis) > 1 for layer in layers
            ):
                yield names, axis
                break


def _next(flow: Flow, call: Call) -> str:
    while len(flow.after(call)) == 1:
        (edge,) = flow.after(call)
        module = flow.nodes[edge.consumer.module].module
        if not set(edge.operations) <= _POINTWISE:  # a sum or what else joins is none of these
            return ""
        if _wide(module):
            return edge.consumer.module
        if not _by_pixel(module):
            return ""
        call = edge.consumer
    return ""


def _wide(module: nn.Module) -> bool:
    return is_convolution(module) and not is_transposed(module) and max(kernel_of(module)) > 1


def _by_pixel(module: nn.Module) -> bool:
    if is_convolution(module):
        return not is_transposed(module) and max(module.stride) == 1  # pyright: ignore[reportArgumentType]
    bends = type(module).__module__ == "torch.nn.modules.activation" and not isinstance(module, nn.MultiheadAttention)
    return bends or is_norm(module) or is_dropout(module) or isinstance(module, nn.Identity)


class CheckerboardKernel(Rule[ModelEvidence]):
    """Transposed convolutions whose kernel is no multiple of the stride: some pixels get more terms than others.

    Later layers can even it out, so it is a warning only for a layer that gives the output itself, or whose kernel is
    smaller than its stride, so that some pixels get nothing.
    """

    id = "checkerboard-kernel"
    source = "Odena et al. 2016, Deconvolution and checkerboard artifacts, Distill"

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow."""
        return evidence.flow.lacks

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for each layer."""
        for name, node in evidence.flow.nodes.items():
            if not is_transposed(node.module):
                continue
            kernel = kernel_of(node.module)
            stride = tuple(_on(node.module.stride, axis) for axis in range(len(kernel)))
            dilated = any(_on(node.module.dilation, axis) > 1 for axis in range(len(kernel)))
            if dilated or all(side % step == 0 for side, step in zip(kernel, stride, strict=True)):
                continue
            empty = any(side < step for side, step in zip(kernel, stride, strict=True))
            last = any(call in evidence.flow.outputs for call in node.calls)
            better = [math.ceil(side / step) * step for side, step in zip(kernel, stride, strict=True)]
            yield Finding(
                id=self.id,
                severity="warning" if empty or last else "info",
                where=name,
                explanation=(
                    f"{name} has a kernel of {_sides(kernel)} and a stride of {_sides(stride)}, which does not divide "
                    f"it: {'some pixels get no term at all' if empty else 'pixels get different numbers of terms'}, "
                    f"a chequered pattern. Take a kernel of {_sides(better)}, or enlarge first and convolve then."
                ),
                evidence={
                    "row": "checkerboard",
                    "kernel": list(kernel),
                    "stride": list(stride),
                    "output": last,
                    "better": better,
                },
                source=self.source,
            )


def _sides(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))
