"""Runs a model and leaves no trace: weights, buffers, modes, gradients and random numbers come back bit by bit."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.measure.replica import tensors_in

__all__ = [
    "first_logits",
    "labels_of",
    "loss_of",
    "outputs_of",
    "plain_loss",
    "roughen",
    "subset",
    "trained_parameters",
    "undropped",
    "untouched",
]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Whatever is done to a model inside, even to its types or by an error, is undone at the end.

    Weights and buffers are the same tensors with the same data in the same memory; gradients, `requires_grad`, modes of
    all modules, and the random streams of torch, NumPy and Python are as before. Inside, gradients are empty
    and warnings not shown.

    Args:
        model: any; a copy of its weights and buffers is kept meanwhile.
    """
    modules = [(m, m.training, dict(vars(m)["_parameters"]), dict(vars(m)["_buffers"])) for m in model.modules()]
    kept = {id(t): _Kept(t) for _, _, *tables in modules for table in tables for t in table.values() if t is not None}
    with _kept_random_state(), warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for module, training, parameters, buffers in modules:
                module.training = training
                _put_back(vars(module)["_parameters"], parameters)
                _put_back(vars(module)["_buffers"], buffers)
            for one in kept.values():
                one.restore()


class _Kept:
    """A tensor as it was."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.memory, self.values = tensor, tensor.data, tensor.detach().clone()
        self.gradient, self.trained = (tensor.grad, tensor.requires_grad) if tensor.is_leaf else (None, None)
        if self.gradient is not None:
            tensor.grad = None

    def restore(self) -> None:
        if self.tensor.is_leaf:
            self.tensor.grad = None
        self.tensor.data = self.memory
        with torch.no_grad():
            self.memory.copy_(self.values)
        if self.trained is not None:
            self.tensor.requires_grad_(self.trained)
            self.tensor.grad = self.gradient


def _put_back(table: dict[str, Any], before: dict[str, Any]) -> None:
    table.clear()
    table.update(before)


@contextmanager
def _kept_random_state() -> Iterator[None]:
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - code under test may draw from it
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 - see above
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


# ------------------------------------------------------------------------------------------------ running
def outputs_of(evidence: ModelEvidence, images: Tensor | None = None) -> Any:  # noqa: ANN401 - each model has its own
    """What the model says of images, every call with the same random numbers.

    Args:
        evidence: gives the model and, without `images`, the batch.
        images: others; they are copied first, as models may write to them.
    """
    torch.manual_seed(0)
    images = (evidence.images if images is None else images).clone()
    return evidence.model(images) if evidence.forward is None else evidence.forward(evidence.model, images)


def loss_of(evidence: ModelEvidence, images: Tensor | None = None, targets: Any = None) -> Tensor:  # noqa: ANN401
    """The loss of a batch, every call with the same random numbers.

    Args:
        evidence: gives model, loss and, without `images` and `targets`, the batch.
        images: others.
        targets: others.
    """
    torch.manual_seed(0)
    return plain_loss(evidence, images, targets)


def plain_loss(evidence: ModelEvidence, images: Tensor | None = None, targets: Any = None) -> Tensor:  # noqa: ANN401
    """As `loss_of`, and random numbers go on from call to call, as in training."""
    images = (evidence.images if images is None else images).clone()
    return evidence.loss(evidence.model, images, copy.deepcopy(evidence.targets if targets is None else targets))


def subset(evidence: ModelEvidence, indices: Sequence[int]) -> tuple[Tensor, Any]:
    """Images and targets at some indices of the batch."""
    return evidence.images[list(indices)], evidence.take(evidence.targets, list(indices))


# ------------------------------------------------------------------------------------------------ looking into
def labels_of(targets: Any) -> Tensor | None:  # noqa: ANN401 - targets of whatever kind
    """Class ids or probabilities of images or pixels; None where targets are of another kind.

    Args:
        targets: a tensor, or something with `label` or `semantic` such as `types.Targets`.
    """
    if isinstance(targets, Tensor):
        return targets
    for name in ("label", "semantic"):
        value = getattr(targets, name, None)
        if isinstance(value, Tensor):
            return value
    return None


def first_logits(outputs: Any, images: int) -> Tensor | None:  # noqa: ANN401 - each model has its own
    """The first floating-point tensor of outputs with a row for each image, as float32 or float64; None without one."""
    for tensor in tensors_in(outputs):
        if tensor.is_floating_point() and tensor.ndim > 1 and len(tensor) == images:
            return tensor if tensor.dtype == torch.float64 else tensor.float()
    return None


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters with `requires_grad`."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


# ------------------------------------------------------------------------------------------------ changing, inside only
def undropped(model: nn.Module) -> None:
    """Put everything that drops at random (dropout, stochastic depth) into evaluation mode."""
    for module in model.modules():
        if "drop" in type(module).__name__.lower():
            module.eval()


def roughen(model: nn.Module, *, share: float = 0.1, least: float = 0.02) -> None:
    """Add noise to all parameters, so that what starts at zero (last layers, gates) says something.

    Args:
        model: changed in place.
        share: of each parameter's root mean square that is the deviation of its noise.
        least: smallest deviation.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                size = parameter.square().mean().sqrt() if parameter.numel() else parameter.new_zeros(())
                parameter.add_(torch.randn_like(parameter) * (share * size).clamp(min=least))
