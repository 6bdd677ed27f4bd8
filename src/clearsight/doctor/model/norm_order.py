"""Layers before a norm that lose their effect in it, or that change what it measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.flow import Call, Edge, Flow, Node
from clearsight.doctor.model.kinds import (
    MOVES,
    is_batch_norm,
    is_convolution,
    is_dropout,
    is_linear,
    is_norm,
    units,
    width_of,
)
from clearsight.doctor.rule import Rule
from clearsight.measure.isolation import isolated
from clearsight.measure.replica import replicate
from clearsight.types import Finding

__all__ = ["BiasBeforeNorm", "DropoutBeforeNorm", "biases_before_norm"]

_LISTED = 20
_KEEPS_A_CONSTANT = MOVES | {"add", "sub"}


def biases_before_norm(flow: Flow) -> dict[str, str]:
    """Layers whose bias a norm subtracts again, whatever it is, with the norm's name.

    Each call's output goes into norms with a mean for every channel, and nowhere else; between lie only sums, and
    functions that move numbers.

    Args:
        flow: of a loss in training.

    Returns:
        Convolution or linear layer → norm. The gradient of its bias is zero but for rounding.
    """
    found: dict[str, str] = {}
    for name, node in flow.nodes.items():
        if not (is_convolution(node.module) or is_linear(node.module)) or node.module.bias is None:
            continue
        edges = [edge for call in node.calls for edge in flow.after(call)]
        leaves = any(call in flow.outputs or not flow.after(call) for call in node.calls)
        if not leaves and all(_absorbs(flow.nodes[edge.consumer.module], edge, node) for edge in edges):
            found[name] = edges[0].consumer.module
    return found


def _absorbs(norm: Node, edge: Edge, before: Node) -> bool:
    """Whether a norm subtracts the mean of each channel of a layer."""
    if not set(edge.operations) <= _KEEPS_A_CONSTANT or width_of(norm.module) != units(before.module)[1]:
        return False
    return norm.training or not getattr(norm.module, "track_running_stats", False)


class BiasBeforeNorm(Rule[ModelEvidence]):
    """A bias that a norm takes away again: it costs parameters, and its gradient is noise."""

    id = "bias-before-norm"
    source = "NeuraLint, Nikanjam et al. 2021, arXiv:2105.08095; Ioffe and Szegedy 2015, arXiv:1502.03167, section 3.2"

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow."""
        return evidence.flow.lacks

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for the model."""
        found = biases_before_norm(evidence.flow)
        if not found:
            return
        layers = list(found)
        wasted = sum(units(evidence.flow.nodes[name].module)[1] for name in layers)
        first = layers[0]
        others = f" and {len(layers) - 1} other layers" if len(layers) > 1 else ""
        yield Finding(
            id=self.id,
            severity="info",
            where=first,
            explanation=(
                f"The bias of {first}{others} goes into a norm that subtracts it ({found[first]}): {wasted} parameters "
                "have no effect and a gradient of zero. Build the layers with bias=False."
            ),
            evidence={"row": "S1", "layers": layers[:_LISTED], "count": len(layers), "parameters": wasted},
            source=self.source,
        )


class DropoutBeforeNorm(Rule[ModelEvidence]):
    """A batch norm whose input has another variance in training than in use, because of a dropout before it.

    Inverted dropout multiplies the mean square by `1 / (1 - p)` in training only, and the running variance keeps the
    training's. Predicted is that factor, which is the most that a single dropout can do; measured is the variance of
    the norm's input with and without dropout, on the same batch and weights, each channel's average of several draws,
    the geometric mean over channels.

    Method: Li et al. 2019 (variance shift), arXiv:1801.05134, equation 4.

    Args:
        least: ratio of variances below which it is a fault.
        most: ratio above which it is.
        draws: of the dropout.
        images: a smaller batch tells too little.
    """

    id = "dropout-before-norm"
    source = "Li et al. 2019, Understanding the disharmony between dropout and batch normalization, arXiv:1801.05134"

    def __init__(self, *, least: float = 0.8, most: float = 1.25, draws: int = 4, images: int = 8) -> None:
        self.least, self.most, self.draws, self.images = least, most, draws, images

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow, and images enough for a variance."""
        if evidence.flow.lacks:
            return evidence.flow.lacks
        few = len(evidence.images) < self.images and _norms_after_dropout(evidence.flow)
        return f"a batch of {self.images} images or more" if few else ""

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for the model; none where the measured ratio is as it should be."""
        norms = _norms_after_dropout(evidence.flow)
        if not norms:
            return
        dropping = _Dropping(keep=True)
        trained = _variances(evidence, norms, self.draws, dropping)
        used = _variances(evidence, norms, self.draws, _Dropping(keep=False))
        ratios = {name: _ratio(trained[name], used[name]) for name in norms if name in trained and name in used}
        shifted = {name: ratio for name, ratio in ratios.items() if not self.least <= ratio <= self.most}
        if not shifted:
            return
        worst = max(shifted, key=lambda name: abs(torch.tensor(shifted[name]).log().item()))
        rate = max(dropping.rates, default=0.0)
        predicted = 1 / (1 - rate)
        yield Finding(
            id=self.id,
            severity="warning",
            where=worst,
            explanation=(
                f"Dropout (p = {rate:g}) lies before batch norm {worst}: the variance of its input is "
                f"{shifted[worst]:.2f} times as large in training as in use (predicted: up to {predicted:.2f}; "
                f"harmless: {self.least:g} to {self.most:g}), so the running variance is wrong in use. "
                "Move dropout behind the last batch norm, or lower p."
            ),
            evidence={
                "row": "S2",
                "p": rate,
                "predicted": predicted,
                "measured": dict(list(shifted.items())[:_LISTED]),
                "count": len(shifted),
                "threshold": [self.least, self.most],
                "dropouts": norms[worst][:_LISTED],
            },
            source=self.source,
        )


def _norms_after_dropout(flow: Flow) -> dict[str, list[str]]:
    """Batch norms in training that a dropout reaches with no other norm between, with the dropouts' names."""
    found: dict[str, list[str]] = {}
    for start, name in _drops(flow):
        seen: set[Call] = set()
        waiting = [start]
        while waiting:
            call = waiting.pop()
            node = flow.nodes[call.module]
            if call in seen:
                continue
            seen.add(call)
            if is_batch_norm(node.module) and node.training:
                dropouts = found.setdefault(call.module, [])
                dropouts += [] if name in dropouts else [name]
            if not is_norm(node.module):
                waiting += [edge.consumer for edge in flow.after(call)]
    return found


def _drops(flow: Flow) -> Iterable[tuple[Call, str]]:
    """What numbers that a dropout left go into, and the dropout's name."""
    for edge in flow.edges:
        producer = flow.nodes.get(edge.producer.module)  # None for the images
        drops = producer is not None and producer.training and is_dropout(producer.module)
        if drops and producer.module.p:  # pyright: ignore[reportOptionalMemberAccess]
            yield edge.consumer, edge.producer.module
        if any("dropout" in operation for operation in edge.operations):
            yield edge.consumer, f"dropout before {edge.consumer.module}"


class _Dropping(TorchFunctionMode):
    """Notes the rates of dropouts, and leaves them out unless they are to be kept."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self.keep = keep
        self.rates: set[float] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if "dropout" in getattr(func, "__name__", ""):
            rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            training = kwargs.get("training", args[2] if len(args) > 2 else True)
            if training and isinstance(rate, int | float):
                self.rates.add(float(rate))
            if not self.keep:
                return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


def _variances(evidence: ModelEvidence, norms: Iterable[str], draws: int, dropping: _Dropping) -> dict[str, Tensor]:
    """Variance of each channel that batch norms are given, averaged over draws, in training mode."""
    replica = replicate(getattr(evidence.model, "_orig_mod", evidence.model), meta=False).train()
    seen: dict[str, list[Tensor]] = {}
    with ExitStack() as stack:
        stack.enter_context(isolated(evidence.images.device))
        stack.enter_context(torch.no_grad())
        for name in norms:
            handle = replica.get_submodule(name).register_forward_pre_hook(_noting(seen.setdefault(name, [])))
            stack.callback(handle.remove)
        for draw in range(draws):
            torch.manual_seed(draw)
            with dropping:
                evidence.loss(replica, evidence.images, evidence.targets)
    return {name: torch.stack(values).mean(0) for name, values in seen.items() if values}


def _noting(values: list[Tensor]) -> Callable[[nn.Module, Any], None]:
    return partial(_note, values)


def _note(values: list[Tensor], _: nn.Module, args: Any) -> None:  # noqa: ANN401
    values.append(args[0].detach().double().transpose(0, 1).flatten(1).var(1, unbiased=False))


def _ratio(trained: Tensor, used: Tensor) -> float:
    varies = (used > 1e-12) & (trained > 1e-12)
    return float((trained[varies] / used[varies]).log().mean().exp()) if bool(varies.any()) else 1.0
