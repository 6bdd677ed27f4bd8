"""Multiply-adds, FLOPs and memory of a model by layer: every operation is seen as it runs, whoever called it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.errors import ClearsightError, ShapeError
from clearsight.measure.counter import Counter, Tally
from clearsight.measure.isolation import isolated
from clearsight.measure.replica import replicate, tensors_in

__all__ = ["Count", "Inputs", "call", "count", "count_both"]

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""One tensor, a sequence of positional arguments, or a mapping of keyword arguments."""

_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What models raise for inputs that they do not take, or when asked for values where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What `count` found.

    Args:
        layers: by name as in `named_modules`, in that order; the model itself is "".
        uncounted: operations that have no rule, with how often each ran.
        device: where it ran: `meta`, without any data, or that of the model where its course depends on values.
    """

    layers: dict[str, Tally]
    uncounted: dict[str, int] = field(default_factory=dict)
    device: str = "meta"

    def __getattr__(self, name: str) -> int:
        """Totals of all layers, under the names of `Tally`: sums, and the largest `live_bytes`."""
        if name not in Tally.__dataclass_fields__ or name == "outputs":
            raise AttributeError(f"Count has no attribute {name!r}")
        of_each = [getattr(tally, name) for tally in self.layers.values()]
        return max(of_each, default=0) if name == "live_bytes" else sum(of_each)


def count(model: nn.Module, inputs: Inputs, *, training: bool = False, input_gradient: bool = False) -> Count:
    """Count what a model does with some inputs.

    It is a copy that runs, on the meta device, where nothing is computed and tensors have no data; only a model whose
    course depends on values (`if x.max() > 0`) runs where its weights are. The model, its gradients, its statistics and
    the streams of random numbers are as before.

    Everything is counted for the whole batch, whatever a mask takes away and whatever is zero. PyTorch's fast path of
    attention in evaluation mode is off, and attention counts the same in either mode.

    Args:
        model: any module.
        inputs: see `Inputs`.
        training: run forward and backward in training mode, as a step does without its loss: the gradients of
            parameters that want one. False: forward in evaluation mode, without gradients.
        input_gradient: take the gradient for the inputs too. Without it the first layer has none to compute, and a
            first convolution's backward pass has as many multiply-adds as its forward pass, those after it twice as
            many.

    Returns:
        The count.

    Raises:
        ShapeError: the model does not take these inputs; the message has PyTorch's reason.
        ConfigError: the model cannot be copied.

    Example:
        >>> count(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 4, 4)).multiply_adds
        3456
    """
    try:
        return count_replica(replicate(model, meta=True), inputs, training=training, input_gradient=input_gradient)
    except ClearsightError:
        raise
    except _FAULTS:  # what comes of asking for values where there are none
        copied = replicate(model, meta=False)
    try:
        return count_replica(copied, inputs, training=training, input_gradient=input_gradient)
    except ClearsightError:
        raise
    except _FAULTS as error:
        given = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(inputs))
        raise ShapeError(f"{type(model).__name__}: does not take inputs of shape {given}: {error}") from error


def count_both(model: nn.Module, inputs: Inputs, *, input_gradient: bool = False) -> tuple[Count, Count | ShapeError]:
    """The count of using a model and that of training it, or why it cannot be trained with these inputs.

    Raises:
        ShapeError: the model does not take the inputs.
        ConfigError: the model cannot be copied.
    """
    try:
        replica = replicate(model, meta=True)
        used = count_replica(replica, inputs, training=False)
        return used, count_replica(replica, inputs, training=True, input_gradient=input_gradient)
    except _FAULTS:  # each by itself, then, and with data where it must be
        used = count(model, inputs)
    try:
        return used, count(model, inputs, training=True, input_gradient=input_gradient)
    except ShapeError as error:
        return used, error


def count_replica(model: nn.Module, inputs: Inputs, *, training: bool, input_gradient: bool = False) -> Count:
    """Count a model that `replicate` made; it is left in the mode it was counted in."""
    own = [*model.parameters(), *model.buffers()]
    device = next((tensor.device for tensor in own), torch.device("meta"))
    meta = device.type == "meta"
    given = _prepared(inputs, meta=meta, gradient=input_gradient and training)
    counter = Counter(model, [*own, *tensors_in(given)], own, training=training, meta=meta)
    model.train(training)
    with isolated(device), torch.set_grad_enabled(training):
        with ExitStack() as forward:
            if meta:
                forward.enter_context(torch.device("meta"))
            if training:
                forward.enter_context(torch.autograd.graph.saved_tensors_hooks(counter.save, _unpack))
            forward.enter_context(counter)
            out = call(model, given)
        ends = [tensor for tensor in tensors_in(out) if tensor.requires_grad]
        if ends:
            seeds = [torch.ones_like(tensor) for tensor in ends]
            counter.backward = True
            with counter:
                torch.autograd.backward(ends, seeds)
    counter.detach()
    used = {name: tally for name, tally in counter.layers.items() if tally.calls or tally.moved_bytes}
    return Count(layers=used, uncounted=counter.uncounted, device=device.type)


def call(model: nn.Module, inputs: Inputs) -> Any:  # noqa: ANN401
    """What a model gives for inputs of any of the three forms."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def _prepared(value: Any, *, meta: bool, gradient: bool) -> Any:  # noqa: ANN401
    """Inputs without data, or with data that may be changed."""
    if isinstance(value, Tensor):
        data = value.detach()
        data = torch.empty_like(data, device="meta") if meta else data.clone()
        return data.requires_grad_(gradient and data.is_floating_point())
    prepare = partial(_prepared, meta=meta, gradient=gradient)
    if isinstance(value, Mapping):
        return {name: prepare(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        parts = [prepare(one) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _unpack(tensor: Tensor) -> Tensor:
    return tensor
