"""Keeps hold of the last step of a training loop, and stops it before NaN or infinities reach the weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from clearsight.doctor.nonfinite import NonFinite, RandomState, find_nonfinite
from clearsight.doctor.nonfinite_cause import Cause
from clearsight.doctor.nonfinite_trace import finite
from clearsight.errors import NonFiniteLoss
from clearsight.measure.replica import tensors_in

__all__ = ["KeptStep", "StepKeeper", "check_before_update", "explain_step"]

_PASSES = 16


@dataclass(slots=True, kw_only=True, eq=False)
class KeptStep:
    """What one forward pass began with, by reference, and what came back to its outputs.

    Args:
        args: of the call; `(images, targets)` where the model computes its loss.
        kwargs: of the call.
        by_loss: the call is `model.loss(images, targets)`, not `model(…)`.
        random_state: before it.
        autocast: device type and number format of autocast; None where it is off.
        gradients: by place among the outputs, of the loss with respect to them.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    by_loss: bool = False
    random_state: RandomState
    autocast: tuple[str, torch.dtype] | None = None
    gradients: dict[int, Tensor] = field(default_factory=dict)


def check_before_update(
    parameters: Iterable[Tensor], loss: Tensor | None = None, *, norm: Tensor | None = None
) -> bool:
    """Whether the loss and all gradients are finite.

    Args:
        parameters: about to be updated.
        loss: of the step, where it is at hand.
        norm: of all gradients, where it is known already; they are then not read unless it is not finite.

    Cost: reads every gradient once, as a norm does; one transfer from the device.
    """
    gradients = [one.grad for one in parameters if one.grad is not None]
    dense = [one.coalesce().values() if one.is_sparse else one for one in gradients]
    dense = [one for one in dense if one.numel()]
    seen = [] if loss is None else [loss.detach().reshape(-1).sum()]
    if norm is not None:
        seen.append(norm.detach())
    elif dense:
        seen += torch._foreach_norm(dense)  # pyright: ignore[reportPrivateUsage,reportPrivateImportUsage]
    if not seen or bool(torch.isfinite(torch.stack([one.to(seen[0].device, torch.float32) for one in seen])).all()):
        return True
    # A norm can overflow where no gradient does, so all is looked at closely before it is called a fault.
    return all(map(finite, dense if loss is None else [*dense, loss]))


class StepKeeper:
    """Watches a training loop by hooks alone, and explains the first NaN or infinity before it reaches the weights.

    Before each forward pass of the root module it keeps its inputs by reference and the state of the random streams;
    of its outputs it keeps the gradients that come back. Before each update it looks at the gradients, all at once. On
    a hit the step is run again and watched closely. The weights that training gives are the same with and without it.

    Args:
        model: its root module.
        optimizer: its updates are what is guarded.
        report: called before the update with what was found (None where it does not repeat); the update then takes
            place unless `report` raises. None raises.

    Attributes:
        found: the last finding; None before there is one.
        blamed: the pass in which it was found, to be saved with `doctor.replay.save_step`.
        kept: forward passes since the last update, the last 16.

    Raises:
        NonFiniteLoss: in `optimizer.step()`, with what was found; the weights are those of before the update.

    Example:
        >>> with StepKeeper(model, optimizer):
        ...     for images, labels in loader:
        ...         loss = criterion(model(images), labels)
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, report: Callable[[NonFinite | None], None] | None = None
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.report = report
        self.found: NonFinite | None = None
        self.blamed: KeptStep | None = None
        self.kept: deque[KeptStep] = deque(maxlen=_PASSES)
        self._updates = 0
        self._explaining = False
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        self._handles = [
            self.model.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True),
            self.model.register_forward_hook(self._after),
            self.optimizer.register_step_pre_hook(self._check),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self.kept.clear()

    def keep(self, images: Tensor, targets: object) -> None:
        """Call it before `model.loss(images, targets)`, where the loss is the model's own."""
        self.kept.append(_now((images, targets), {}, by_loss=True))

    def explain(self) -> NonFinite | None:
        """Run the kept passes again, the oldest first, and say where the first NaN or infinity came from.

        Returns:
            None where all of them are finite: what happened does not repeat.
        """
        self._explaining = True  # the passes that are run now are not training
        try:
            for step in self.kept:
                found = explain_step(self.model, step)
                if found is not None:
                    self.blamed = step
                    # The gradients of the update before were finite, and so were the weights that it started from.
                    spoiled = found.direction == "parameter" and self._updates > 0
                    return replace(found, direction="update") if spoiled else found
        finally:
            self._explaining = False
        return None

    # -------------------------------------------------------------------------------------------- hooks
    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        by_hand = bool(self.kept) and self.kept[-1].by_loss
        if torch.is_grad_enabled() and not by_hand and not self._explaining:
            self.kept.append(_now(args, kwargs))

    def _after(self, module: nn.Module, args: object, out: object) -> None:
        if not torch.is_grad_enabled() or self._explaining or not self.kept or self.kept[-1].by_loss:
            return
        for place, one in enumerate(tensors_in(out)):
            if one.requires_grad:
                one.register_hook(partial(self.kept[-1].gradients.__setitem__, place))

    def _check(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        if check_before_update(parameters):
            self.kept.clear()
            self._updates += 1
            return
        why = "and running the step again does not repeat it: look for inputs that are changed in place, and for hooks"
        try:
            self.found = self.explain()
        except Exception as error:  # noqa: BLE001 - whatever it is, the update must not happen
            self.found, why = None, f"and the step could not be run again ({type(error).__name__}: {error})"
        self.kept.clear()
        if self.report is not None:
            self.report(self.found)
            return
        said = f"a gradient is NaN or infinite, {why}." if self.found is None else str(self.found)
        raise NonFiniteLoss(f"{said} The weights are those of before the update.")


def _now(args: tuple[Any, ...], kwargs: Mapping[str, Any], *, by_loss: bool = False) -> KeptStep:
    device = next((one.device.type for one in tensors_in((args, kwargs))), "cpu")
    on = torch.is_autocast_enabled(device)
    return KeptStep(
        args=args,
        kwargs=kwargs,
        by_loss=by_loss,
        random_state=RandomState.now(),
        autocast=(device, torch.get_autocast_dtype(device)) if on else None,
    )


def explain_step(model: nn.Module, step: KeptStep) -> NonFinite | None:
    """Run a kept pass again, forward and backward, and say where the first NaN or infinity came from.

    Args:
        model: with the weights of then; left as it is.
        step: what the pass began with.

    Returns:
        None where all is finite.
    """
    model = getattr(model, "_orig_mod", model)  # what `torch.compile` was given
    outputs: list[Tensor] = []
    args, kwargs = tree_map(_cut, (step.args, dict(step.kwargs)))

    def run() -> list[Tensor]:
        context: AbstractContextManager[object] = nullcontext()
        if step.autocast is not None:
            context = torch.autocast(step.autocast[0], dtype=step.autocast[1])
        with context:
            given = model.loss(*args) if step.by_loss else model(*args, **kwargs)  # pyright: ignore[reportCallIssue]
        outputs[:] = tensors_in(given)
        return outputs

    if step.by_loss:
        images, targets = args
        return find_nonfinite(model, run, images=images, targets=targets, random_state=step.random_state)
    dirty = not all(map(finite, step.gradients.values()))
    last = max(step.gradients, default=-1) + 1
    gradients = [] if dirty else [step.gradients.get(place) for place in range(last)]
    found = find_nonfinite(model, run, images=(args, kwargs), random_state=step.random_state, gradients=gradients)
    return _of_the_loss(step, outputs) if found is None and dirty else found


def _cut(value: Any) -> Any:  # noqa: ANN401
    """An input without the graph that it came from, which may be gone."""
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


def _of_the_loss(step: KeptStep, outputs: list[Tensor]) -> NonFinite:
    """The model gave finite outputs, and what came back is not: the loss did it, or the targets that it was given."""
    place = next(place for place, one in sorted(step.gradients.items()) if not finite(one))
    gradient, output = step.gradients[place], outputs[place].detach()
    low, high = float(output.min()), float(output.max())
    wrong = ~torch.isfinite(gradient)
    text = (
        f"the model's outputs are finite (from {low:.4g} to {high:.4g}), the gradient of the loss with respect to "
        "them is not: the loss does it, or the targets that it is given"
    )
    rows = wrong.reshape(len(wrong), -1).any(dim=1).nonzero().flatten().tolist() if wrong.ndim > 1 else []
    counts = (gradient.isnan().sum(), torch.isposinf(gradient).sum(), torch.isneginf(gradient).sum())
    nan, above, below = (int(one) for one in counts)
    return NonFinite(
        module=None,
        layer="",
        direction="loss",
        operation="loss",
        cause=Cause("loss", text, {"smallest_output": low, "largest_output": high}),
        reached="the gradients of all that is below",
        samples=tuple(rows),
        counts=(nan, above, below, gradient.numel()),
    )
