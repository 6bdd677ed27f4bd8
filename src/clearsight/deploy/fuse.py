"""A trained model with fewer layers and the same outputs: norms folded into convolutions, branches merged."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from clearsight.deploy.norm_pairs import after_norm, find_pairs
from clearsight.errors import ConfigError, ShapeError
from clearsight.measure.count import Inputs, call
from clearsight.measure.isolation import isolated
from clearsight.measure.replica import tensors_in
from clearsight.models.base import Backbone
from clearsight.nn.fold import fold_into
from clearsight.nn.reparam import Reparameterised

__all__ = ["FuseReport", "Fused", "Kept", "fuse"]

_SIDES = {1: (512,), 2: (224, 224), 3: (16, 64, 64)}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Fused(NamedTuple):
    """A layer that does the work of others, too.

    Args:
        name: of the layer.
        took: name of the norm that is in it now, or `its branches`.
    """

    name: str
    took: str


class Kept(NamedTuple):
    """A norm, or a layer with branches, that stays.

    Args:
        name: of the layer.
        why: the reason.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseReport:
    """What `fuse` did; `print` shows it.

    Args:
        model: in evaluation mode, of the class it was; a norm that was folded is `nn.Identity`, and the layer before
            it has a bias.
        fused: in the order of the model.
        kept: in the order of the model.
        difference: largest difference between the outputs before and after, relative to each output's largest value;
            None where there is nothing to compare (outputs of another shape, or none that are tensors).
    """

    model: nn.Module
    fused: tuple[Fused, ...]
    kept: tuple[Kept, ...]
    difference: float | None

    def __str__(self) -> str:
        """The numbers, what went into what, and what stays, by reason."""
        apart = "not comparable" if self.difference is None else f"equal to {self.difference:.1e}"
        lines = [
            f"{type(self.model).__name__}: {len(self.fused)} fused, {len(self.kept)} kept; outputs before and after "
            f"are {apart}",
            *(f"  {name} ← {took}" for name, took in self.fused),
        ]
        for why in dict.fromkeys(one.why for one in self.kept):
            lines.append(f"kept because {why}:")
            lines.append(f"  {', '.join(one.name for one in self.kept if one.why == why)}")
        return "\n".join(lines)


def fuse(model: nn.Module, inputs: Inputs | None = None, *, inplace: bool = False) -> FuseReport:
    """Fold every norm with running statistics into the convolution before it, and merge branches, for use.

    Layers with a training form (`nn.reparam`'s, timm's, those of RepVGG's authors) merge themselves.
    Then the model runs, and every operation is watched: a norm whose input is the whole output of one layer, which
    nothing else reads, is folded into that layer; see `deploy.norm_pairs.find_pairs`. Layers are changed where they
    are, so that the model keeps its class, its methods (`features`, `loss`, `predict`) and the hooks of other layers;
    only its state dict has other names.

    It sees what `forward` does in evaluation mode, and `features` and `embed` of a backbone. Parts that only run
    in training stay, and a path that these inputs do not take is not seen.

    Args:
        model: any module.
        inputs: one tensor, a sequence of arguments or a mapping of keyword arguments; None makes an image with the
            channels of the model's first convolution, 224 pixels wide and high.
        inplace: change the model itself; False changes a copy.

    Returns:
        The fused model, and what was fused, what was not and why.

    Raises:
        ShapeError: the model does not take these inputs.
        ConfigError: this is no module, or one that cannot be copied, has no data yet, or is scripted; or no inputs were
            given and none can be guessed.

    Example:
        >>> report = fuse(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
        >>> report.fused, report.model[1]
        ((Fused(name='0', took='1'),), Identity())
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"fuse: expected a module, found {type(model).__name__}; of a run it is `run.model`")
    model = getattr(model, "_orig_mod", model)  # what `torch.compile` was given
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError("fuse: the model is scripted and cannot be changed; fuse it before torch.jit.script")
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise ConfigError("fuse: a lazy layer has no shape before its first use; run the model once, then fuse it")
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ConfigError("fuse: the model is on the meta device and has no data; load its weights first")
    model = (model if inplace else _copied(model)).eval()
    given = _example(model) if inputs is None else inputs
    runs = _runs(model, given)
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    with isolated(device):
        before = _results(runs, given, guessed=inputs is None)
        merged, kept = _merge_branches(model)
        names = {layer: name for name, layer in model.named_modules()}
        pairs, stay = find_pairs(model, [partial(_seeded, run) for run in runs])
        fused = [*merged, *(Fused(names[layer], names[norm]) for layer, norm in pairs)]
        for layer, norm in pairs:
            fold_into(layer, norm)
            _replace(model, norm, after_norm(norm))
        after = _results(runs, given, guessed=False)
    order = {name: place for place, name in enumerate(names.values())}
    kept += [Kept(names[norm], why) for norm, why in stay]
    return FuseReport(
        model=model,
        fused=tuple(sorted(fused, key=lambda one: order[one.name])),
        kept=tuple(sorted(kept, key=lambda one: order[one.name])),
        difference=_difference(before, after),
    )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise ConfigError(
            f"fuse: {type(model).__name__} does not allow copy.deepcopy, which says: {error}; change the model itself: "
            "inplace=True"
        ) from error


def _example(model: nn.Module) -> Tensor:
    """An image, or what else the model's first layer takes."""
    convolution = next((layer for layer in model.modules() if isinstance(layer, _CONVOLUTIONS)), None)
    linear = next((layer for layer in model.modules() if isinstance(layer, nn.Linear)), None)
    first = convolution or linear
    if first is None:
        raise ConfigError("fuse: the model has no convolution that says what it takes; give inputs")
    sides = () if convolution is None else _SIDES[convolution.weight.ndim - 2]
    channels = first.in_features if isinstance(first, nn.Linear) else first.in_channels
    random = torch.rand((1, channels, *sides), generator=torch.Generator().manual_seed(0))
    return random.to(first.weight.device, first.weight.dtype)


def _runs(model: nn.Module, inputs: Inputs) -> list[Callable[[], Any]]:
    def given() -> Inputs:  # what a model changes in place is a copy
        return copy.deepcopy(inputs, {id(tensor): tensor.detach().clone() for tensor in tensors_in(inputs)})

    runs: list[Callable[[], Any]] = [lambda: call(model, given())]
    if isinstance(model, Backbone) and isinstance(inputs, Tensor):
        runs += [lambda: model.features(inputs.clone()), lambda: model.embed(inputs.clone())]
    return runs


def _seeded(run: Callable[[], Any]) -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    return run()


@torch.no_grad()
def _results(runs: Sequence[Callable[[], Any]], inputs: Inputs, *, guessed: bool) -> list[Tensor]:
    """All float tensors that the runs give, with data of their own."""
    try:
        return [tensor.clone() for run in runs for tensor in tensors_in(_seeded(run)) if tensor.is_floating_point()]
    except _FAULTS as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(inputs))
        more = "; give `inputs` that it takes" if guessed else ""
        raise ShapeError(f"fuse: the model does not take inputs {shapes}: {error}{more}") from error


def _merge_branches(model: nn.Module) -> tuple[list[Fused], list[Kept]]:
    merged: list[Fused] = []
    kept: list[Kept] = []
    for name, layer in list(model.named_modules()):
        merge = _own_merge(layer)
        if merge is None:
            continue
        try:
            merge()
        except _FAULTS as error:
            kept.append(Kept(name, f"its branches cannot be merged: {error}"))
        else:
            merged.append(Fused(name, "its branches"))
    return merged, kept


def _own_merge(layer: nn.Module) -> Callable[[], object] | None:
    """How a layer in its training form merges its branches; None for all other layers."""
    if isinstance(layer, Reparameterised):
        return layer.deploy if layer.reparam_conv is None else None
    if getattr(layer, "reparam_conv", layer) is None:  # timm's
        return getattr(layer, "reparameterize", None)
    if not hasattr(layer, "rbr_reparam"):  # of RepVGG's authors
        return getattr(layer, "switch_to_deploy", None)
    return None


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Wherever the layer is, under whatever names."""
    places = [place for place, layer in model.named_modules(remove_duplicate=False) if layer is old]
    for place in places:
        parent, _, name = place.rpartition(".")
        setattr(model.get_submodule(parent), name, new)


def _difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> float | None:
    """What the report calls so; numbers that are infinite or not a number on one side only are infinitely apart."""
    if not before or [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return None
    found = 0.0
    for old, new in zip(before, after, strict=True):
        same = (old == new) | (old.isnan() & new.isnan())
        apart = (old - new).abs().nan_to_num(nan=math.inf).masked_fill(same, 0)
        finite = old[old.isfinite()]
        scale = (finite.abs().max().item() if finite.numel() else 0.0) or 1.0
        found = max(found, apart.max().item() / scale if apart.numel() else 0.0)
    return found
