"""The first NaN or infinity of a training step: module, direction, operation, cause."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.doctor.nonfinite_cause import Cause
from clearsight.doctor.nonfinite_trace import LARGE, Direction, Known, Origin, Trace, address, finite
from clearsight.measure.replica import tensors_in
from clearsight.types import Finding

__all__ = ["NonFinite", "RandomState", "find_nonfinite"]

_TRIES = 6
_ADVICE = {
    "log-of-zero": "add a small number inside the logarithm, or compute in logits (log_softmax, logsigmoid)",
    "log-of-negative": "clamp what the logarithm is taken of to positive numbers",
    "division-by-zero": "clamp the divisor away from 0, or add a small number to it",
    "zero-over-zero": "clamp the divisor away from 0, or leave these elements out",
    "sqrt-of-negative": "clamp what the root is taken of to at least 0",
    "root-at-zero": "add a small number under the root: torch.where behind it does not help",
    "norm-at-zero": "add a small number under the root of the norm",
    "exp-overflow": "subtract the largest value first, or clamp the exponent",
    "overflow": "lower the learning rate, or normalise what grows",
    "half-overflow": "use bfloat16, which has the range of float32",
    "masked-row": "leave one position of each row unmasked, or set rows without any to 0",
    "zero-times-infinity": "use torch.where or masked_fill with a large finite number in place of a product with ∞",
    "infinity-minus-infinity": "use large finite numbers in place of infinities",
    "input": "look at the files of these samples, and at what prepares them",
    "label": "look at the annotations of these samples",
    "weights": "go back to the last good checkpoint; lower the rate if weights had grown, else see what writes to them",
    "buffer": "reset the buffer or go back to the last good checkpoint",
    "one-value-variance": "use unbiased=False, or larger batches",
    "empty-mean": "skip batches without targets, or divide by at least 1",
    "power-of-negative": "clamp the base to at least 0",
    "domain-edge": "clamp the argument a little inside the domain",
    "outside-domain": "clamp the argument to the domain",
    "uninitialised": "fill the memory first: torch.zeros in place of torch.empty",
    "explicit-infinity": "use a large finite number, or keep this element out of the loss",
}
_TOO_FAST = ("overflow", "weights")
_TOO_COARSE = ("log-of-zero", "division-by-zero", "zero-over-zero", "root-at-zero", "domain-edge")


class RandomState(NamedTuple):
    """Of PyTorch's streams.

    Args:
        cpu: state of the CPU's.
        cuda: state of the current CUDA device's; None where it is not in use.
    """

    cpu: Tensor
    cuda: Tensor | None = None

    @classmethod
    def now(cls) -> Self:
        """As it is."""
        return cls(
            torch.default_generator.get_state(),
            torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        )

    def restore(self) -> None:
        """Go on from here."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.cuda)


@dataclass(frozen=True, slots=True, kw_only=True)
class NonFinite:
    """Where the first NaN or infinity that spoiled a step came from.

    Args:
        module: name of the innermost module, as `named_modules` has it; None outside the model.
        layer: its class.
        direction: `input` or `label` (dirty, or spoiled before the model), `parameter`, `buffer`, `forward`, `loss`
            (behind the model), `backward`, or `update` (weights that the previous update spoiled).
        operation: as the user knows it (`log`, `conv2d`); in `backward` the one whose gradient it is; the name of a
            parameter or buffer; empty for inputs and labels.
        cause: why.
        reached: what it spoiled.
        samples: of the batch, those that it began in; empty where that cannot be told.
        counts: values of the operation's result that are NaN, +∞, −∞, and all there are.
        line: `file:line` of the code; empty where there is none. Not compared: a replay may run elsewhere.
        step: of the run, where known.
        files: of the samples, where known.
    """

    module: str | None
    layer: str
    direction: Direction
    operation: str
    cause: Cause
    reached: str
    samples: tuple[int, ...] = ()
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    line: str = field(default="", compare=False)
    step: int | None = field(default=None, compare=False)
    files: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        where = "outside the model" if self.module is None else f"in {self.module or 'the model'} ({self.layer})"
        nan, above, below, values = self.counts
        told = [f"{nan} NaN", f"{above} +∞", f"{below} −∞"]
        found = " and ".join(one for one in told if not one.startswith("0 "))
        start = "The" if self.step is None else f"Step {self.step}: the"
        whose = f"{self.direction} pass" if self.direction in ("forward", "backward") else self.direction
        samples = f" in samples {_some(self.samples)} of the batch" if self.samples else ""
        line = f", at {self.line}" if self.line else ""
        name = f" of {self.operation}" if self.operation else ""
        return (
            f"{start} first values that are not finite come from the {whose}{name} {where}{line}: "
            f"{self.cause.text}. {found} among {values} values{samples}; they reached {self.reached}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `as_dict` gave, also by way of JSON."""
        given = dict(values)
        for name in ("samples", "counts", "files"):
            given[name] = tuple(given[name])
        return cls(**{**given, "cause": Cause(**given["cause"])})

    def as_finding(self, recipe: Mapping[str, Any] | None = None) -> Finding:
        """As the doctor reports it.

        Args:
            recipe: of the run, nested plain values; the remedy is a patch of it.
        """
        advice = _ADVICE.get(self.cause.kind, "look at this operation with the batch that was saved")
        place = self.module or self.layer or "model" if self.module is not None else self.direction
        return Finding(
            id="non-finite",
            severity="error",
            where=self.files[0] if self.files and self.direction in ("input", "label") else place,
            explanation=f"{self} To mend it: {advice}.",
            evidence={"row": "T1", **self.as_dict()},
            remedy=_remedy(self, recipe or {}),
            source="Wardat et al. 2021, DeepLocalize, arXiv:2103.03376",
        )


def find_nonfinite(
    model: nn.Module,
    run: Callable[[], Any],
    *,
    images: object = None,
    targets: object = None,
    random_state: RandomState | None = None,
    gradients: Sequence[Tensor | None] | None = None,
) -> NonFinite | None:
    """Run one training step again, watching every operation, and say where the first NaN or infinity came from.

    Only what reaches the loss or the gradient of a parameter is reported: an infinity that a softmax, a maximum or a
    `where` takes away is none. Where several may be behind it, the step is run again without each, and the first is
    named without which all is finite.

    The model is left as it was: weights, gradients, buffers, modes, random state.

    Args:
        model: with the weights of before the update.
        run: forward pass and loss: gives the scalar loss.
        images: what the model is given, any nest of tensors; None takes what its first call is given.
        targets: what the loss is given, any nest of tensors.
        random_state: at the beginning of the step, so that dropout drops the same; None takes the present one.
        gradients: of the tensors that `run` gives, in order, where it gives outputs and no loss; those of None are not
            followed. Without any (an empty list) only the outputs are looked at.

    Returns:
        None where all is finite.
    """
    known = _known(model, images, targets)
    batch = next((len(one) for one in tensors_in(images) if one.ndim > 1), None)
    start = random_state or RandomState.now()

    def attempt(without: Origin | None = None, *, backward: bool = True) -> _Spoiled | None:
        trace = Trace(model, known, batch=batch, without=without)
        with _unchanged(model), trace.hooks(), torch.enable_grad():
            start.restore()
            return _spoiled(model, run, trace, gradients, backward=backward)

    found = attempt()
    if found is None:
        return None
    first = found.origins[0]
    if len(found.origins) > 1:
        tries = found.origins[:_TRIES]
        first = next((one for one in tries if attempt(one, backward=found.backward) is None), first)
    return NonFinite(
        module=first.module,
        layer=first.layer,
        direction=first.direction,
        operation=first.operation,
        cause=first.cause,
        reached=found.reached,
        samples=first.samples,
        counts=first.counts,
        line=first.line,
    )


def _known(model: nn.Module, images: object, targets: object) -> dict[int, Known]:
    known = {address(one): Known("label") for one in tensors_in(targets)}
    known |= {address(one): Known("input") for one in tensors_in(images)}
    known |= {address(one): Known("buffer", name) for name, one in model.named_buffers()}
    known |= {address(one): Known("parameter", name) for name, one in model.named_parameters()}
    known.pop(0, None)
    return known


class _Spoiled(NamedTuple):
    """What a step spoils.

    Args:
        reached: in words.
        origins: what may be behind it, the first first; those that were meant last.
        backward: the loss is finite, a gradient is not.
    """

    reached: str
    origins: list[Origin]
    backward: bool


def _spoiled(
    model: nn.Module, run: Callable[[], Any], trace: Trace, gradients: Sequence[Tensor | None] | None, *, backward: bool
) -> _Spoiled | None:
    with trace:
        outputs = list(tensors_in(run()))
    for one in outputs:
        # Outputs may hold infinities and the loss be finite; the gradients that are given then tell.
        if not finite(one) and (not gradients or bool(one.isnan().any())):
            reached = "the loss" if gradients is None else "the output of the model"
            return _Spoiled(reached, trace.origins([one]), backward=False)
    given = [None] * len(outputs) if gradients is None else list(gradients)
    pairs = [
        (one, gradient)
        for one, gradient in zip(outputs, given, strict=False)
        if one.requires_grad and (gradients is None or gradient is not None)
    ]
    if not pairs or not backward:
        return None
    with trace:
        torch.autograd.backward([one for one, _ in pairs], [gradient for _, gradient in pairs])
    named = [(name, one.grad) for name, one in model.named_parameters() if one.grad is not None]
    spoiled = [(name, gradient) for name, gradient in named if not finite(gradient)]
    if not spoiled:
        return None
    more = f" and of {len(spoiled) - 1} more parameters" if len(spoiled) > 1 else ""
    origins = trace.origins(gradient for _, gradient in spoiled)
    return _Spoiled(f"the gradient of {spoiled[0][0]}{more}", origins, backward=True)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Whatever the step does to the model and to the random streams is undone."""
    gradients = [(one, one.grad) for one in model.parameters()]
    modes = [(one, one.training) for one in model.modules()]
    buffers = [
        (one, name, buffer, buffer.clone())
        for one in model.modules()
        for name, buffer in one.named_buffers(recurse=False, remove_duplicate=False)
    ]
    torch_state, python_state, numpy_state = RandomState.now(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        for one, _ in gradients:
            one.grad = None
        yield
    finally:
        for one, gradient in gradients:
            one.grad = gradient
        for one, mode in modes:
            one.training = mode
        with torch.no_grad():
            for owner, name, buffer, values in buffers:
                setattr(owner, name, buffer.copy_(values))
        torch_state.restore()
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 - user code may draw from it


def _remedy(found: NonFinite, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The first change of the recipe to try; empty where none does it."""
    trainer, optimizer = recipe.get("trainer") or {}, recipe.get("optimizer") or {}
    precision = trainer.get("precision")
    if found.cause.kind == "half-overflow" and precision == "16-mixed":
        return {"trainer.precision": "bf16-mixed"}
    if found.cause.kind in _TOO_COARSE and precision in ("16-mixed", "bf16-mixed") and "format" in found.cause.numbers:
        return {"trainer.precision": "32-true"}
    grown = float(found.cause.numbers.get("largest", LARGE)) >= LARGE or found.cause.kind != "weights"
    if found.cause.kind in _TOO_FAST and grown and found.operation != "mul":  # a product overflows by its constants
        if trainer and trainer.get("clip_norm") is None:
            return {"trainer.clip_norm": 1.0}
        if optimizer.get("lr"):
            return {"optimizer.lr": float(f"{optimizer['lr'] / 10:.3g}")}
    return {}


def _some(numbers: Sequence[int], limit: int = 8) -> str:
    return ", ".join(map(str, numbers[:limit])) + (", …" if len(numbers) > limit else "")
