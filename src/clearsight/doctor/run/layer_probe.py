"""Hooks that measure the layers of a model in one training step, and are gone in the next."""

from __future__ import annotations

import weakref
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from clearsight.doctor.run.gradient_origin import GradientOrigin
from clearsight.doctor.run.hook import Hook
from clearsight.doctor.run.layer_measures import (
    active_units,
    batch_against_running,
    flat_share,
    moments,
    norms,
    norms_by_layer,
)
from clearsight.doctor.run.layer_plan import Layer, plan_of

__all__ = ["MEASURES", "LayerProbe"]

MEASURES = (
    "grad_norm",
    "weight_norm",
    "update_ratio",
    "parameters",
    "out_mean",
    "out_std",
    "inactive",
    "saturated",
    "bn_gap",
    "bn_ratio",
)

# Functions by which modules and people apply a non-linearity; modules of torch call these too.
_KINDS: dict[str, tuple[Callable[..., Any], ...]] = {
    "relu": (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    "relu6": (F.relu6,),
    "hardswish": (F.hardswish,),
    "sigmoid": (F.sigmoid, torch.sigmoid, torch.sigmoid_, torch.special.expit, Tensor.sigmoid, Tensor.sigmoid_),
    "tanh": (F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_),
    "gelu": (F.gelu,),
    "silu": (F.silu,),
    "elu": (F.elu,),
    "leaky_relu": (F.leaky_relu,),
    "mish": (F.mish,),
    "softplus": (F.softplus,),
    "hardtanh": (F.hardtanh,),
}
_KIND_OF = {function: kind for kind, functions in _KINDS.items() for function in functions}
_CUT = ("relu", "relu6", "hardswish")  # give exact zeros
CHECKS = 4  # of gradients left over that are remembered: what begins during a run is the most of them soon
FEW = 10  # units of a layer, below which the share that is dead says little: the narrow part of a gate
_FLAT = {"sigmoid": 5.0, "tanh": 3.0}  # beyond it the slope is below 0.7 % and 1 % of its peak


class LayerProbe:
    """Measures layers in the steps for which it is armed; at other steps nothing of it is in the model.

    The order of calls is `arm`, the step's forward and backward passes, `before_update`, the optimiser's step,
    `after_update`. Results stay on the device until the end, when one transfer brings them all.

    Args:
        model: as it is called in training. Inside compiled parts only parameters and gradients are measured.
        window: measured steps over which a unit must give nothing to count as inactive.

    Attributes:
        root: the model without wrappers.
        layers: what is measured, in order of definition.
        hidden: why outputs are not measured, in words.
        leftovers: whether gradients of before were found where backward began, in the last measured steps.
        origin: whether gradients were changed behind backward.
    """

    def __init__(self, model: nn.Module, *, window: int = 4) -> None:
        plan = plan_of(model)
        self.root, self.layers, self.hidden = plan.root, plan.layers, plan.hidden
        self.leftovers = deque[bool](maxlen=CHECKS)
        self.origin = GradientOrigin(self.root)
        self.armed = False
        self._regions = plan.regions
        self._handles: list[RemovableHandle] = []
        self._depth = 0
        self._mode = _Nonlinearities(self)
        self._last_single: int | None = None  # the layer that ran last, and once, when last measured
        self._active = {i: deque[Tensor](maxlen=window) for i in range(len(self.layers))}
        self._clear()

    # -------------------------------------------------------------------------------------------- one measured step
    def arm(self) -> None:
        """Put the hooks in, for the step that comes."""
        self.disarm()
        self.armed = True
        self.origin.arm()
        for i, layer in enumerate(self.layers):
            if layer.visible:
                if layer.has_statistics:
                    self._handles.append(layer.module.register_forward_pre_hook(Hook(self._before_norm, i)))
                self._handles.append(layer.module.register_forward_hook(Hook(self._behind_layer, i)))
        for module in self._regions:
            self._handles.append(module.register_forward_pre_hook(Hook(self._enter)))
            self._handles.append(module.register_forward_hook(Hook(self._leave), always_call=True))

    def disarm(self) -> None:
        """Take the hooks out and forget what is half measured."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.origin.disarm()
        while self._depth > 0:
            self._leave()
        self.armed = False
        self._clear()

    def before_update(self, scale: Tensor | None = None) -> None:
        """Measure gradients and keep the weights; right before the optimiser's step.

        Args:
            scale: what the gradients are multiplied by, where mixed precision scales the loss.
        """
        if not self.armed:
            return
        owned = [(p, i) for i, layer in enumerate(self.layers) for p in layer.parameters]
        if not owned:
            return
        self.origin.compare()
        device, count = owned[0][0].device, len(self.layers)
        learning = [(p, i) for p, i in owned if p.requires_grad]
        with torch.no_grad():
            graded = [(p.grad, i) for p, i in learning if p.grad is not None]
            found = norms_by_layer([g for g, _ in graded], [i for _, i in graded], count, device)
            self._vectors["grad_norm"] = found if scale is None else found / scale.to(device)
            self._vectors["weight_norm"] = norms_by_layer([p for p, _ in owned], [i for _, i in owned], count, device)
            self._vectors["learning"] = norms_by_layer(
                [p for p, _ in learning], [i for _, i in learning], count, device
            )
            self._kept = [(p, p.detach().clone(), i) for p, i in learning]
        self._graded = {i for _, i in graded}

    def after_update(self) -> dict[str, np.ndarray] | None:
        """Bring in what was measured and take the hooks out; right after the optimiser's step.

        Returns:
            Measure → `(layers,)` float64; None where `before_update` did not come.
        """
        if not self._vectors:
            self.disarm()
            return None
        device = self._vectors["grad_norm"].device
        with torch.no_grad():
            for parameter, kept, _ in self._kept:
                kept.sub_(parameter)
            moved = [kept for _, kept, _ in self._kept]
            count = len(self.layers)
            self._vectors["update"] = norms_by_layer(moved, [i for *_, i in self._kept], count, device)
            for i, masks in self._active.items():
                if masks and masks[0].numel() >= FEW:
                    share = 1 - torch.stack(list(masks)).any(0).float().mean()
                    self._numbers.append(("inactive", i, 1, share))
            row = self._gather(device)
        self.origin.fetch()
        self._remember_order()
        self.disarm()
        return row

    def _gather(self, device: torch.device) -> dict[str, np.ndarray]:
        """One transfer of all that was measured."""
        names = list(self._vectors)
        dtype = self._vectors["grad_norm"].dtype
        parts = [self._vectors[name] for name in names]
        parts += [value.detach().reshape(1).to(device, dtype) for *_, value in self._numbers]
        parts += [value.reshape(1).to(device, dtype) for value in self._left]
        flat = torch.cat(parts).double().cpu().numpy()
        count = len(self.layers)
        vectors = {name: flat[k * count : (k + 1) * count] for k, name in enumerate(names)}
        numbers = flat[len(names) * count : len(names) * count + len(self._numbers)]
        left = flat[len(names) * count + len(self._numbers) :]
        self.leftovers.extend((left > 0).tolist())
        row = _weighted(count, [(*entry[:3], value) for entry, value in zip(self._numbers, numbers, strict=True)])
        graded = np.isin(np.arange(count), list(self._graded))
        row["grad_norm"] = np.where(graded, vectors["grad_norm"], np.nan)
        row["weight_norm"] = vectors["weight_norm"]
        row["parameters"] = np.array([sum(p.numel() for p in layer.parameters) for layer in self.layers], float)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = vectors["update"] / vectors["learning"]
        row["update_ratio"] = np.where(vectors["learning"] > 0, ratio, np.nan)
        return row

    # -------------------------------------------------------------------------------------------- inside the model
    def _behind_layer(self, index: int, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        self._order.append(index)
        if args and self.layers[index].has_statistics:
            source = self._source(args[0])
            if source is not None:
                self.layers[source].before_norm = True
        out = _first_tensor(output)
        if out is None or not out.is_floating_point() or not out.numel():
            return
        if index == self._last_single and out.requires_grad:
            out.register_hook(partial(self._backward_begins, index))
        with torch.no_grad():
            mean, square = moments(out.detach())
            self._numbers.append(("out_mean", index, out.numel(), mean))
            self._numbers.append(("out_square", index, out.numel(), square))
            self._compare_statistics(index, module)
        self._outputs[id(out)] = (weakref.ref(out), out._version, index)

    def _before_norm(self, index: int, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not module.training:
            return
        if index not in self._running:
            mean, var = module.get_buffer("running_mean"), module.get_buffer("running_var")
            self._running[index] = (mean.clone(), var.clone())

    def _compare_statistics(self, index: int, module: nn.Module) -> None:
        before = self._running.get(index)
        if before is None or index in self._compared:
            return
        self._compared.add(index)
        momentum = getattr(module, "momentum", None)
        if momentum is None:  # a plain mean over all batches
            momentum = 1 / module.get_buffer("num_batches_tracked").float()
        elif not momentum:
            return
        now = (module.get_buffer("running_mean"), module.get_buffer("running_var"))
        gap, ratio = batch_against_running(*before, *now, momentum=momentum, eps=float(module.eps))  # pyright: ignore
        self._numbers += [("bn_gap", index, 1, gap), ("bn_ratio", index, 1, ratio)]

    def _backward_begins(self, index: int, _: Tensor) -> None:
        """The gradient reaches a layer that ran once: what its parameters hold now is of before."""
        if self._checked:
            return
        self._checked = True
        gradients = [p.grad for p in self.layers[index].parameters if p.grad is not None]
        if not gradients:
            self.leftovers.append(False)
            return
        with torch.no_grad():
            self._left.append(torch.stack([norm.float() for norm in norms(gradients)]).norm())

    def _enter(self, *_: object) -> None:
        if torch.compiler.is_compiling():
            return
        if not self._depth:
            self._mode.__enter__()
        self._depth += 1

    def _leave(self, *_: object) -> None:
        if torch.compiler.is_compiling() or not self._depth:
            return
        self._depth -= 1
        if not self._depth:
            self._mode.__exit__(None, None, None)

    # -------------------------------------------------------------------------------------------- non-linearities
    def apply(self, kind: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """Call a non-linearity and measure it, where its input is just what a layer gave."""
        before = args[0] if args else kwargs.get("input")
        source = self._source(before) if torch.is_grad_enabled() else None
        if source is None or not isinstance(before, Tensor):
            return function(*args, **kwargs)
        if kind == "hardtanh" and kwargs.get("min_val", args[1] if len(args) > 1 else -1) == 0:
            kind = "relu6"  # what nn.ReLU6 calls
        layer = self.layers[source]
        layer.activation = layer.activation or kind
        if kind in _FLAT and before.numel():
            with torch.no_grad():
                self._numbers.append(("saturated", source, before.numel(), flat_share(before.detach(), _FLAT[kind])))
        out = function(*args, **kwargs)
        if kind in _CUT and isinstance(out, Tensor) and out.numel():
            with torch.no_grad():
                self._note_units(source, active_units(out.detach(), layer.unit_axis))
        return out

    def _note_units(self, source: int, active: Tensor) -> None:
        masks = self._active[source]
        if masks and masks[-1].shape != active.shape:
            masks.clear()
            self._counted.discard(source)
        if source in self._counted:
            masks[-1] = masks[-1] | active
        else:
            masks.append(active)
            self._counted.add(source)

    def _source(self, tensor: object) -> int | None:
        """The layer that gave this very tensor, if it was not changed since."""
        found = self._outputs.get(id(tensor))
        if found is None or found[0]() is not tensor or found[1] != tensor._version:  # pyright: ignore
            return None
        return found[2]

    # -------------------------------------------------------------------------------------------- what is known so far
    def _remember_order(self) -> None:
        for index in self._order:
            if self.layers[index].turn is None:
                self.layers[index].turn = sum(layer.turn is not None for layer in self.layers)
        calls = Counter(self._order)
        once = [i for i in self._order if calls[i] == 1 and _learns(self.layers[i])]
        self._last_single = once[-1] if once else None

    def _clear(self) -> None:
        self._numbers: list[tuple[str, int, int, Tensor]] = []  # measure, layer, weight, value
        self._vectors: dict[str, Tensor] = {}
        self._left: list[Tensor] = []
        self._kept: list[tuple[nn.Parameter, Tensor, int]] = []
        self._graded: set[int] = set()
        self._order: list[int] = []
        self._outputs: dict[int, tuple[weakref.ref[Tensor], int, int]] = {}
        self._running: dict[int, tuple[Tensor, Tensor]] = {}
        self._compared: set[int] = set()
        self._counted: set[int] = set()
        self._checked = False


class _Nonlinearities(TorchFunctionMode):
    """Sees every non-linearity inside a module's call, also those that are no module."""

    def __init__(self, probe: LayerProbe) -> None:
        self.probe = weakref.ref(probe)

    def __torch_function__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kind, probe = _KIND_OF.get(func), self.probe()
        if kind is None or probe is None:
            return func(*args, **(kwargs or {}))
        return probe.apply(kind, func, args, kwargs or {})


def _learns(layer: Layer) -> bool:
    return any(p.requires_grad for p in layer.parameters)


def _first_tensor(output: object) -> Tensor | None:
    """The tensor itself, or the first one of a tuple, list or mapping."""
    if isinstance(output, Tensor):
        return output
    values = list(output.values()) if isinstance(output, dict) else output
    if isinstance(values, (tuple, list)):
        return next((found for value in values if (found := _first_tensor(value)) is not None), None)
    return None


def _weighted(count: int, numbers: list[tuple[str, int, int, float]]) -> dict[str, np.ndarray]:
    """Means of what was measured in several calls, by measure and layer."""
    weight: dict[str, np.ndarray] = {}
    total: dict[str, np.ndarray] = {}
    for name, i, size, value in numbers:
        weight.setdefault(name, np.zeros(count))[i] += size
        total.setdefault(name, np.zeros(count))[i] += size * value
    row: dict[str, np.ndarray] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in total:
            row[name] = total[name] / weight[name]
    square = row.pop("out_square", None)
    if square is not None:
        row["out_std"] = np.sqrt(np.maximum(square - row["out_mean"] ** 2, 0))
    return row
