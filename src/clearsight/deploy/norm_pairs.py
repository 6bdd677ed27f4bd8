"""Which norm normalises the output of which layer and nothing else: found by watching a model run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]  # batch and instance norms
from torch.utils._python_dispatch import TorchDispatchMode

from clearsight.measure.replica import tensors_in
from clearsight.nn.cross_iteration_norm import CrossIterationBatchNorm
from clearsight.nn.cross_mini_batch_norm import CrossMiniBatchNorm
from clearsight.nn.fold import Foldable
from clearsight.nn.instance_norm import InstanceNorm
from clearsight.nn.layer_norm import LayerNorm2d

__all__ = ["Pair", "after_norm", "find_pairs"]

_LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
_BATCH_NORM = (  # by method: a subclass may do more
    nn.BatchNorm2d.forward,
    nn.SyncBatchNorm.forward,
    CrossIterationBatchNorm.forward,
    CrossMiniBatchNorm.forward,
)
_OF_EACH_IMAGE = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm, InstanceNorm, LayerNorm2d)


class Pair(NamedTuple):
    """A norm and the layer before it, that can be one layer.

    Args:
        layer: a convolution, transposed or not, or a linear layer.
        norm: what has running statistics.
    """

    layer: Foldable
    norm: nn.Module


def find_pairs(
    model: nn.Module, runs: Sequence[Callable[[], object]]
) -> tuple[list[Pair], list[tuple[nn.Module, str]]]:
    """Watch a model run, and find the norms that can be folded into the layer before them.

    That takes, in every call: the norm's input is the whole output of one layer, the same in all calls; nothing else
    reads that output, the norm does once, and no result of the run contains it; the norm multiplies and adds to each
    channel and does no more. Every operation is seen, whichever way it is called, and views of a tensor count as the
    tensor.

    Args:
        model: in evaluation mode.
        runs: what is run, without gradients; each gives its results.

    Returns:
        The pairs, and the norms that must stay, with why; both in the order of the model's modules.
    """
    names = {layer: name for name, layer in model.named_modules() if not isinstance(layer, torch.jit.ScriptModule)}
    watch = _Watch(names)
    with ExitStack() as stack:
        for layer in names:
            if isinstance(layer, _LAYERS) or _has_statistics(layer):
                watch.follow(layer, stack)
        stack.enter_context(torch.no_grad())
        stack.enter_context(watch)
        for run in runs:
            watch.keep(run())
    pairs: list[Pair] = []
    kept: list[tuple[nn.Module, str]] = []
    for layer in names:
        if isinstance(layer, _OF_EACH_IMAGE):
            kept.append((layer, "it normalises each image by the image's own statistics"))
        elif isinstance(layer, _NormBase) or _has_statistics(layer):
            why, before = watch.verdict(layer)
            if before is None:
                kept.append((layer, why))
            else:
                pairs.append(Pair(before, layer))
    return pairs, kept


def after_norm(norm: nn.Module) -> nn.Module:
    """What is left of a norm that is folded: nothing, or the layers in it, such as the activation of timm's norms."""
    inner = OrderedDict((name, layer) for name, layer in norm.named_children())
    return nn.Sequential(inner) if inner else nn.Identity()


@dataclass(slots=True)
class _Output:
    """One output of a layer, which may be gone.

    Args:
        geometry: of the tensor in its storage.
        axes: how many the tensor has.
        readers: norms that read it; None stands for all else.
        normalised: how often. Twice gives two tensors, of which a norm that does nothing would make one.
    """

    maker: nn.Module
    geometry: tuple[object, ...]
    axes: int
    readers: set[nn.Module | None] = field(default_factory=set)
    normalised: int = 0


class _Watch(TorchDispatchMode):
    """Sees every operation of a run, and knows by hooks in which layer it is."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        super().__init__()
        self._names = names
        self._inside: list[nn.Module] = []
        self._paused = False
        self._last: tuple[object, ...] = (None, None, None, None)  # operation, its second and third argument, result
        self._expected: Tensor | None = None
        self._alive: WeakKeyDictionary[torch.UntypedStorage, _Output] = WeakKeyDictionary()
        self._outputs: dict[nn.Module, list[_Output]] = {}
        self._makers: dict[nn.Module, list[nn.Module | None]] = {}
        self._faults: dict[nn.Module, str] = {}
        self._owners: dict[int, list[nn.Module]] = {}

    def follow(self, layer: nn.Module, stack: ExitStack) -> None:
        """Watch a layer; the stack takes its hooks away."""
        if any(getattr(layer, f"_{kind}_hooks") for kind in ("forward", "forward_pre", "backward", "backward_pre")):
            self._faults[layer] = "has hooks, which would see other numbers"
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            self._owners.setdefault(id(tensor.untyped_storage()), []).append(layer)
        enter, leave = (
            (self._enter_norm, self._leave_norm) if _has_statistics(layer) else (self._enter, self._leave_layer)
        )
        hook: Any = layer.register_forward_pre_hook(enter, with_kwargs=True)
        stack.callback(hook.remove)
        hook = layer.register_forward_hook(leave)
        stack.callback(hook.remove)

    def keep(self, results: object) -> None:
        """Results are read by whoever gets them."""
        for tensor in tensors_in(results):
            self._read(tensor, None)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Run an operation, and note whose output it reads, and whose weights."""
        result = func(*args, **(kwargs or {}))
        if not self._paused:
            reader = self._inside[-1] if self._inside else None
            for tensor in tensors_in((args, kwargs)):
                self._read(tensor, reader)
                owners = self._owners.get(_storage(tensor), [])
                if owners and not any(owner in self._inside for owner in owners):
                    for owner in owners:
                        self._faults.setdefault(owner, "has weights that are used outside of it too")
            self._last = (func, *(*args, None, None, None)[1:3], result)
        return result

    def _read(self, tensor: Tensor, reader: nn.Module | None) -> None:
        output = self._alive.get(tensor.untyped_storage()) if tensor.layout is torch.strided else None
        if output is not None:
            output.readers.add(reader)

    def _enter(self, layer: nn.Module, *_: object) -> None:
        self._inside.append(layer)

    def _leave_layer(self, layer: nn.Module, _: object, result: object) -> None:
        self._inside.pop()
        if not isinstance(result, Tensor) or result.layout is not torch.strided:
            self._faults.setdefault(layer, "gives something else than a tensor")
            return
        output = _Output(layer, _geometry(result), result.ndim)
        self._alive[result.untyped_storage()] = output
        self._outputs.setdefault(layer, []).append(output)
        parameters = dict(layer.named_parameters(recurse=False))
        func, *used, made = self._last
        if "weight" not in parameters:
            self._faults.setdefault(layer, "computes its weight from others")
        elif isinstance(layer, nn.Linear):
            if type(layer).forward is not nn.Linear.forward:
                self._faults.setdefault(layer, f"is a {type(layer).__name__}, which may do more than a linear layer")
        else:
            own = [parameters["weight"], parameters.get("bias")]
            same = made is result and all(one is other for one, other in zip(used, own, strict=True))
            if func is not torch.ops.aten.convolution.default or not same:
                self._faults.setdefault(layer, f"is a {type(layer).__name__}, which does more than a convolution")

    def _enter_norm(self, norm: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()), None)
        output = self._alive.get(x.untyped_storage()) if isinstance(x, Tensor) and x.layout is torch.strided else None
        whole = output is not None and isinstance(x, Tensor) and output.geometry == _geometry(x)
        self._makers.setdefault(norm, []).append(output.maker if output is not None and whole else None)
        if output is not None:
            output.normalised += 1
        self._inside.append(norm)
        self._expected = None
        if isinstance(x, Tensor) and type(norm).forward not in _BATCH_NORM and _has_statistics(norm):
            self._expected = self._unwatched(lambda: _by_the_book(norm, x))

    def _leave_norm(self, norm: nn.Module, _: object, result: object) -> None:
        self._inside.pop()
        expected = self._expected
        if expected is not None and not self._unwatched(lambda: _same(result, expected)):
            self._faults.setdefault(norm, f"is a {type(norm).__name__}, which does more than scale and shift")

    def _unwatched(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401
        self._paused = True
        try:
            return work()
        finally:
            self._paused = False

    def verdict(self, norm: nn.Module) -> tuple[str, Foldable | None]:
        """Why a norm must stay, or the layer that it goes into."""
        if not _has_statistics(norm):
            return "it has no running statistics", None
        if norm.training:
            return "it is in training mode, also where the model is not", None
        if norm not in self._makers:
            return "it did not run as a layer with these inputs", None
        if norm in self._faults:
            return f"it {self._faults[norm]}", None
        makers = set(self._makers[norm])
        layer = next(iter(makers))
        if None in makers or layer is None:
            return "what it normalises is not just the output of a convolution or linear layer", None
        if len(makers) > 1:
            called = sorted(self._names[one] for one in makers if one is not None)
            return f"it normalises what several layers give: {', '.join(called)}", None
        why = self._against(layer, norm)
        return why, None if why else layer  # pyright: ignore[reportReturnType]

    def _against(self, layer: nn.Module, norm: nn.Module) -> str:
        """What speaks against a layer that is the only one before a norm; empty for nothing."""
        name, outputs = self._names[layer], self._outputs[layer]
        readers = {reader for output in outputs for reader in output.readers}
        if layer in self._faults:
            return f"the layer before it, {name}, {self._faults[layer]}"
        if any(reader is not norm and reader in self._makers for reader in readers):
            return f"the output of {name} goes to several norms"
        if any(output.readers != {norm} for output in outputs):
            return f"the output of {name} is used elsewhere too"
        if any(output.normalised > 1 for output in outputs):
            return f"it normalises one output of {name} twice"
        if isinstance(layer, nn.Linear) and any(output.axes != 2 for output in outputs):
            return f"its channels are another axis than those of {name}"
        return ""


def _has_statistics(layer: nn.Module) -> bool:
    """Whether a layer is a norm with running statistics: PyTorch's, ours, torchvision's frozen one, or others alike."""
    known = all(isinstance(getattr(layer, name, None), Tensor) for name in ("running_mean", "running_var"))
    return known and hasattr(layer, "eps") and hasattr(layer, "weight") and hasattr(layer, "bias")


def _geometry(tensor: Tensor) -> tuple[object, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), tensor.dtype


def _storage(tensor: Tensor) -> int:
    return id(tensor.untyped_storage()) if tensor.layout is torch.strided else 0


def _by_the_book(norm: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    """What a norm gives if it is batch norm in evaluation mode, and then the layers in it."""
    terms = norm.running_mean, norm.running_var, norm.weight, norm.bias
    return after_norm(norm)(F.batch_norm(x, *terms, training=False, eps=norm.eps))


def _same(found: object, expected: Tensor) -> bool:
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    apart = (found - expected).abs().max() if expected.numel() else torch.zeros(())
    scale = expected.abs().max() if expected.numel() else torch.ones(())
    return bool(apart <= (1e-4 if expected.dtype.itemsize >= 4 else 2e-2) * scale)
