"""A softmax too many, or a non-linearity too few."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from torch import nn

from clearsight.doctor.model.affine import affine_outputs
from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.flow import IMAGES, Call, Flow, LossInput
from clearsight.doctor.model.kinds import (
    MOVES,
    is_convolution,
    is_linear,
    is_plain,
    is_transposed,
    kernel_of,
    passes_linearly,
    units,
)
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["MissingNonLinearity", "SoftmaxBeforeCrossEntropy"]

_LISTED = 20


class SoftmaxBeforeCrossEntropy(Rule[ModelEvidence]):
    """A loss on logits that is given probabilities, and squashes them a second time.

    Rows that are not negative and sum to one give a softmax away whatever it is called; a sigmoid must also be the last
    function before the loss. A log-softmax changes nothing and is no fault.

    Args:
        tolerance: of a row's sum.
    """

    id = "softmax-before-cross-entropy"
    source = "UMLAUT, Schoop et al. 2021; NeuraLint, Nikanjam et al. 2021, arXiv:2105.08095"

    def __init__(self, *, tolerance: float = 1e-3) -> None:
        self.tolerance = tolerance

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow."""
        return evidence.flow.lacks

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for each loss."""
        seen: set[tuple[str, str]] = set()
        for given in evidence.flow.losses:
            squashed = self._squashed(evidence.flow, given)
            where = next((call.module for call in given.sources), "")
            if not squashed or (given.operation, where) in seen:
                continue
            seen.add((given.operation, where))
            rows = f"rows of {given.classes} that sum to 1" if squashed == "softmax" else "numbers"
            yield Finding(
                id=self.id,
                severity="error",
                where=where,
                explanation=(
                    f"{given.operation} expects logits and is given the output of a {squashed}: {rows} between "
                    f"{given.least:.3g} and {given.most:.3g}. Squashed twice, the loss cannot come near 0 and "
                    f"gradients are small. Give the loss what goes into the {squashed}, and apply that in use only."
                ),
                evidence={
                    "row": "S3",
                    "loss": given.operation,
                    "squashed": squashed,
                    "classes": given.classes,
                    "least": given.least,
                    "most": given.most,
                    "from_one": given.from_one,
                    "threshold": self.tolerance,
                    "path": list(next(iter(given.sources.values()), ())),
                },
                source=self.source,
            )

    def _squashed(self, flow: Flow, given: LossInput) -> str:
        if not given.sources or given.least < 0 or given.most > 1 + self.tolerance:
            return ""
        many = given.operation in ("cross_entropy", "log_softmax")
        if many and given.classes > 1 and given.from_one <= self.tolerance:
            return "softmax"
        last = {_last(flow, call, way) for call, way in given.sources.items()}
        return "sigmoid" if last == {"sigmoid"} else ""


def _last(flow: Flow, call: Call, way: tuple[str, ...]) -> str:
    """The last function before a loss that does more than to move numbers."""
    doing = [name for name in way if name not in MOVES]
    if doing:
        return doing[-1]
    node = flow.nodes.get(call.module)
    return "sigmoid" if node is not None and isinstance(node.module, nn.Sigmoid) else ""


# ------------------------------------------------------------------------------------------------ two in a row
_AVERAGES = MOVES | {"avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean", "dropout", "pad"}


class MissingNonLinearity(Rule[ModelEvidence]):
    """Two convolutions or linear layers in a row with nothing between that bends: together they are one.

    Quiet where that is done by design: a depthwise or grouped convolution beside one that mixes, a pair of k×1 and 1×k,
    a narrow layer between wide ones (low rank, linear bottlenecks), patches and up-convolutions, layers whose output
    goes to several places or is joined with something else, and the seam between parts of a model with names of their
    own (neck and head). Where no two are found so, but the model as a whole is one linear map of its images
    (`affine_outputs`) although layers that mix follow each other in it, that is told.
    """

    id = "missing-non-linearity"
    source = "UMLAUT, Schoop et al. 2021; DeepLocalize, Wardat et al. 2021, arXiv:2103.03376"

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow."""
        return evidence.flow.lacks

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for the model."""
        flow = evidence.flow
        pairs = [pair for pair in _pairs(flow) if not _by_design(flow, *pair)]
        if not pairs:
            yield from self._whole(evidence)
            return
        layers = sum(is_convolution(node.module) or is_linear(node.module) for node in flow.nodes.values())
        first, second = pairs[0]
        others = f" (and in {len(pairs) - 1} more places)" if len(pairs) > 1 else ""
        yield Finding(
            id=self.id,
            severity="warning",
            where=second,
            explanation=(
                f"Between {first} and {second} there is no non-linearity{others}: the two together can do no more than "
                "one linear layer. Put an activation between them, or make them one."
            ),
            evidence={
                "row": "S4",
                "pairs": [list(pair) for pair in pairs[:_LISTED]],
                "count": len(pairs),
                "layers": layers,
            },
            source=self.source,
        )

    def _whole(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """What joins or parts its maps has no pairs."""
        outputs = affine_outputs(evidence)
        layers = _one_behind_another(evidence.flow) if outputs else []
        if len(layers) < 2 or _is_narrow(evidence, layers, outputs):
            return
        yield Finding(
            id=self.id,
            severity="warning",
            where="model",
            explanation=(
                f"The model is one linear map of its images: {len(layers)} layers from {layers[0]} to {layers[-1]} "
                "follow each other, and nothing in it bends, so they can do no more than one. Put an activation behind "
                "each layer but the last."
            ),
            evidence={"row": "S4", "layers": len(layers), "listed": layers[:_LISTED], "outputs": outputs},
            source=self.source,
        )


def _one_behind_another(flow: Flow) -> list[str]:
    """Layers that mix all they are given and lie on a way from the images to the loss with another such layer."""
    calls = {
        call: name
        for name, node in flow.nodes.items()
        if _is_layer(node.module) and not _is_special(node.module) and not _is_patches(node.module)
        for call in node.calls
        if call in flow.reached([IMAGES]) and flow.reached([call]) & flow.outputs.keys()
    }
    found: set[str] = set()
    for call, name in calls.items():
        behind = {calls[other] for other in flow.reached([call]) if other in calls} - {name}
        found |= {name, *behind} if behind else set()
    return [name for name in flow.nodes if name in found]


def _is_narrow(evidence: ModelEvidence, layers: list[str], outputs: int) -> bool:
    """Whether a layer is given fewer numbers of an image than the model takes and gives: low rank on purpose."""
    number = len(evidence.images)
    widths = [math.prod(shape) // number for name in layers for shape in evidence.flow.nodes[name].inputs if shape]
    return min(widths, default=0) < min(evidence.images[0].numel(), outputs)


def _pairs(flow: Flow) -> Iterator[tuple[str, str]]:
    """Layers and those that read nothing but their output, linearly."""
    for name, node in flow.nodes.items():
        if _is_layer(node.module):
            following = {_next(flow, call) for call in node.calls}
            if len(following) == 1 and (second := following.pop()) and second != name:
                yield name, second


def _is_layer(module: nn.Module) -> bool:
    return (is_convolution(module) or is_linear(module)) and is_plain(module)


def _next(flow: Flow, call: Call) -> str:
    """The one linear layer that the output of a call goes into and nothing else does; empty where there is none."""
    while call not in flow.outputs and len(flow.after(call)) == 1:
        (edge,) = flow.after(call)
        if not set(edge.operations) <= _AVERAGES:  # a sum or what else joins is none of these
            return ""
        call = edge.consumer
        module = flow.nodes[call.module].module
        if _is_layer(module):
            return call.module
        if not passes_linearly(module):
            return ""
    return ""


def _by_design(flow: Flow, first: str, second: str) -> bool:
    one, two = flow.nodes[first].module, flow.nodes[second].module
    taken, between = units(one)
    given = units(two)[1]
    pointwise = is_convolution(one) and max(kernel_of(one)) == 1
    if between < min(taken, given) or (pointwise and between <= taken and between < given):
        return True  # a narrow layer between wide ones, or the end of an inverted residual block before the next
    return _is_special(one) or _is_special(two) or _is_patches(one) or _is_seam(first, second)


def _is_special(layer: nn.Module) -> bool:
    """Whether a layer is made to work with another one: on channels by themselves, along one axis, or upwards."""
    return is_transposed(layer) or getattr(layer, "groups", 1) > 1 or len(set(kernel_of(layer))) > 1


def _is_patches(layer: nn.Module) -> bool:
    kernel = kernel_of(layer)
    return max(kernel, default=1) > 1 and kernel == tuple(layer.stride)  # pyright: ignore[reportArgumentType]


def _is_seam(first: str, second: str) -> bool:
    """Whether two modules lie in parts with names of their own, such as `neck.0` and `head.tower.0`."""
    one, two = first.split("."), second.split(".")
    while one and two and one[0] == two[0]:
        one, two = one[1:], two[1:]
    parts = [name[0] for name in (one, two) if len(name) > 1 and not any(sign.isdigit() for sign in name[0])]
    return len(parts) == 2
