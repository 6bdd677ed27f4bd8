"""What of a model is watched: the layers that have parameters, and what cannot be looked into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = ["Layer", "Plan", "modes_matter", "plan_of"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(slots=True, eq=False)
class Layer:
    """A module with parameters of its own.

    Args:
        name: of the module, without the prefixes of wrappers.
        module: the module itself.
        visible: its outputs can be seen; False inside compiled parts.
        activation: name of the non-linearity right behind it, once one was seen.
        before_norm: its output went straight into a batch norm.
        turn: when it first ran, among the layers; None as long as it did not.
    """

    name: str
    module: nn.Module
    visible: bool = True
    activation: str = ""
    before_norm: bool = False
    turn: int | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Its own, without those of the modules inside; lazy ones only once they have a shape."""
        return [p for p in self.module.parameters(recurse=False) if not nn.parameter.is_lazy(p)]

    @property
    def exempt(self) -> bool:
        """Its gradients vanish by construction: frozen, or only biases, which a norm behind takes away."""
        learning = [name for name, p in self.module.named_parameters(recurse=False) if p.requires_grad]
        return not learning or (self.before_norm and learning == ["bias"])

    @property
    def has_statistics(self) -> bool:
        """It is a batch norm that keeps running statistics."""
        return isinstance(self.module, NORMS) and self.module.running_mean is not None

    @property
    def unit_axis(self) -> int:
        """The axis of its output that counts units: the last one of layers that work on it, else that of channels."""
        return -1 if isinstance(self.module, (nn.Linear, nn.LayerNorm, nn.Embedding)) else 1


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is watched.

    Args:
        root: the model without its wrappers.
        layers: in the order of `named_modules`.
        regions: modules inside whose call non-linearities are looked for.
        hidden: why outputs are not measured, in words; empty where all are.
    """

    root: nn.Module
    layers: list[Layer]
    regions: list[nn.Module]
    hidden: str


def plan_of(model: nn.Module) -> Plan:
    """Find the layers of a model.

    Args:
        model: as it is called in training: wrapped in DDP or compiled, or as it is.
    """
    root, hidden = _unwrapped(model)
    layers: list[Layer] = []
    regions: list[nn.Module] = []
    for name, module, compiled in _walk(root):
        hidden = hidden or ("parts of the model are compiled" if compiled else "")
        own = any(True for _ in module.parameters(recurse=False))
        if own:
            layers.append(Layer(name or type(root).__name__, module, visible=not compiled))
        if not own or any(True for _ in module.children()):
            regions.append(module)
    if hidden:
        # A mode around compiled code would be traced into it.
        regions = []
    if hidden and hidden != "parts of the model are compiled":
        for layer in layers:
            layer.visible = False
    return Plan(root, layers, regions, hidden)


def _unwrapped(model: nn.Module) -> tuple[nn.Module, str]:
    """The model inside its wrappers, and why its outputs cannot be measured."""
    hidden = ""
    while True:
        if _is_compiled(model):
            hidden = "the model is compiled"
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, DataParallel):
            hidden = "DataParallel runs copies of the model in threads"
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model, hidden
        model = inner


def _is_compiled(module: nn.Module) -> bool:
    """Whether calls of a module do not come by its hooks: `torch.compile`, `module.compile()`, TorchScript."""
    called = getattr(module, "_compiled_call_impl", None) or getattr(module, "_compiler_ctx", None)
    return called is not None or hasattr(module, "_orig_mod") or isinstance(module, torch.jit.ScriptModule)


def _walk(module: nn.Module, name: str = "", *, compiled: bool = False) -> Iterator[tuple[str, nn.Module, bool]]:
    """Every module once, with its name and whether it is in a compiled part."""
    known: set[int] = set()

    def visit(module: nn.Module, name: str, compiled: bool) -> Iterator[tuple[str, nn.Module, bool]]:  # noqa: FBT001
        if id(module) in known:
            return
        known.add(id(module))
        compiled = compiled or _is_compiled(module)
        if not hasattr(module, "_orig_mod"):  # the wrapper itself has nothing of its own
            yield name, module, compiled
        for child_name, child in module.named_children():
            full = name if child_name == "_orig_mod" else f"{name}.{child_name}" if name else child_name
            yield from visit(child, full, compiled)

    yield from visit(module, name, compiled)


def untouched_statistics(module: nn.Module) -> bool:
    """Whether a norm's running statistics are as they were made: means of 0 and variances of 1."""
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    return (
        isinstance(mean, torch.Tensor) and isinstance(var, torch.Tensor) and bool((mean == 0).all() & (var == 1).all())
    )


def modes_matter(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that do something else in training than in evaluation: dropout and norms with running statistics."""
    found = []
    for name, module in root.named_modules():
        kind = type(module).__name__
        drops = "Drop" in kind and getattr(module, "p", getattr(module, "drop_prob", 1.0)) != 0
        tracks = isinstance(getattr(module, "running_mean", None), torch.Tensor) and "Frozen" not in kind
        if drops or tracks:
            found.append((name.replace("_orig_mod.", "") or kind, module))
    return found
