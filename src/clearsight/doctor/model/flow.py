"""Follows one loss through a model: which module feeds which, through which operations, and what learns from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from clearsight.doctor.model.kinds import is_convolution, is_linear, is_norm
from clearsight.measure.isolation import isolated
from clearsight.measure.replica import replicate, tensors_in

if TYPE_CHECKING:
    from clearsight.doctor.model.evidence import ModelEvidence

__all__ = ["IMAGES", "Call", "Edge", "Flow", "LossInput", "Node", "follow"]


class Call(NamedTuple):
    """One call of a module: its name, and a number that counts from 1."""

    module: str
    number: int


IMAGES = Call("", 0)
_SAID = 160  # letters of an error that are kept
_Sources = dict[Call, tuple[str, ...]]


class Edge(NamedTuple):
    """What one call gave reaches another.

    Args:
        producer: of the output; `IMAGES` for the images.
        consumer: of the input.
        operations: names of the functions between, each once, in the order of their last use.
    """

    producer: Call
    consumer: Call
    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """A module without children, or a layer of PyTorch's, that ran; losses are none.

    Args:
        name: in the model.
        module: of the model itself, not of the copy that ran.
        training: its mode at its last call.
        inputs: shape of the first tensor that each call was given; empty for none.
    """

    name: str
    module: nn.Module
    training: bool
    inputs: tuple[tuple[int, ...], ...]

    @property
    def kind(self) -> str:
        """Name of the class."""
        return type(self.module).__name__

    @property
    def calls(self) -> Iterator[Call]:
        """Each of its calls."""
        return (Call(self.name, number) for number in range(1, len(self.inputs) + 1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossInput:
    """What a loss on logits was given.

    Args:
        operation: of the loss: `cross_entropy`, `binary_cross_entropy_with_logits`, `log_softmax`, `log_sigmoid`.
        sources: calls whose output it is, with the operations since.
        classes: entries of a row, along the axis of the classes.
        least: smallest entry.
        most: largest entry.
        from_one: largest distance of a row's sum from 1.
    """

    operation: str
    sources: Mapping[Call, tuple[str, ...]]
    classes: int
    least: float
    most: float
    from_one: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """What was seen of one loss.

    Args:
        nodes: by name, in the order in which they first ran.
        edges: in the order in which they were seen.
        outputs: calls whose output reaches the loss with no module between, with the operations on the way.
        losses: what losses on logits were given.
        parameters_used: names of the parameters that the loss has a gradient of.
        stopped: the error that ended it before there was a loss; the rest is what was seen until then. Empty: none.
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    outputs: Mapping[Call, tuple[str, ...]] = field(default_factory=dict)
    losses: tuple[LossInput, ...] = ()
    parameters_used: frozenset[str] = frozenset()
    stopped: str = ""

    @property
    def lacks(self) -> str:
        """What rules that need the whole flow lack; empty for nothing."""
        return f"a loss that can be computed ({self.stopped})" if self.stopped else ""

    @cached_property
    def _after(self) -> dict[Call, list[Edge]]:
        found: dict[Call, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.producer, []).append(edge)
        return found

    @cached_property
    def _before(self) -> dict[Call, list[Edge]]:
        found: dict[Call, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.consumer, []).append(edge)
        return found

    def after(self, call: Call) -> list[Edge]:
        """Where the output of a call goes."""
        return self._after.get(call, [])

    def before(self, call: Call) -> list[Edge]:
        """Where the input of a call comes from."""
        return self._before.get(call, [])

    def reached(self, starts: Iterable[Call], *, walls: Collection[str] = ()) -> set[Call]:
        """Calls that the output of some comes to, on whatever way; these themselves too.

        Args:
            starts: calls, or `IMAGES`.
            walls: names of modules that are reached and let nothing through.
        """
        seen: set[Call] = set()
        waiting = [*starts]
        while waiting:
            call = waiting.pop()
            if call not in seen:
                seen.add(call)
                if call == IMAGES or call.module not in walls:
                    waiting += [edge.consumer for edge in self.after(call)]
        return seen


def follow(evidence: ModelEvidence) -> Flow:
    """Compute one loss in training mode, on a copy that shares the weights, and see how the batch flows through it.

    Args:
        evidence: of it, the model, the batch and the loss.

    Returns:
        The flow. Values that leave PyTorch on the way, or go through a compiled part, are lost from sight.

    Raises:
        ConfigError: the model cannot be copied.
    """
    model = getattr(evidence.model, "_orig_mod", evidence.model)
    replica = replicate(model, meta=False).train()
    follower = _Follower(dict(model.named_modules()))
    used, stopped = frozenset[str](), ""
    outputs: _Sources = {}
    with isolated(evidence.images.device), torch.enable_grad():
        torch.manual_seed(0)
        try:
            with follower.hooks(replica):
                follower.start(evidence.images)
                with follower:
                    loss = evidence.loss(replica, evidence.images, evidence.targets)
            outputs = follower.of(loss)
            used = _used(loss, dict(replica.named_parameters()))
        except Exception as error:  # noqa: BLE001 - rules shall say what is wrong with a model that cannot run
            stopped = f"{type(error).__name__}: {error}".splitlines()[0][:_SAID]
    return Flow(
        nodes=follower.nodes(),
        edges=tuple(follower.edges),
        outputs=outputs,
        losses=tuple(follower.losses),
        parameters_used=used,
        stopped=stopped,
    )


def _used(loss: Tensor, parameters: Mapping[str, Tensor]) -> frozenset[str]:
    learning = {name: one for name, one in parameters.items() if one.requires_grad}
    if not loss.requires_grad or not learning:
        return frozenset()
    gradients = torch.autograd.grad(loss, list(learning.values()), allow_unused=True)
    return frozenset(name for name, gradient in zip(learning, gradients, strict=True) if gradient is not None)


# ------------------------------------------------------------------------------------------------ following
_LOGIT_LOSSES = ("cross_entropy", "binary_cross_entropy_with_logits", "log_softmax", "log_sigmoid")
_ALIASES = {"truediv": "div", "true_divide": "div", "divide": "div", "subtract": "sub", "multiply": "mul"} | {
    "concat": "cat", "concatenate": "cat", "logsigmoid": "log_sigmoid",
}  # fmt: skip
_OPERATORS = ("add", "sub", "mul", "div", "truediv", "pow", "matmul")


def _name_of(func: Callable[..., object]) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":  # an attribute, such as `x.T`
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    name = name.strip("_")
    if name[:1] in ("r", "i") and name[1:] in _OPERATORS:  # `1 + x`, `x += 1`
        name = name[1:]
    return _ALIASES.get(name, name)


class _Follower(TorchFunctionMode):
    """Knows of each tensor whose output it is."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.sources = WeakTensorKeyDictionary()
        self.edges: list[Edge] = []
        self.losses: list[LossInput] = []
        self._modules = modules
        self._inputs: dict[str, list[tuple[int, ...]]] = {}
        self._training: dict[str, bool] = {}
        self._inside = 0

    def start(self, images: Tensor) -> None:
        self.sources[images] = {IMAGES: ()}

    def of(self, tensor: Tensor) -> _Sources:
        return self.sources.get(tensor) or {}

    def nodes(self) -> dict[str, Node]:
        return {
            name: Node(name=name, module=self._modules[name], training=self._training[name], inputs=tuple(shapes))
            for name, shapes in self._inputs.items()
        }

    # -------------------------------------------------------------------------------------------- modules
    @contextmanager
    def hooks(self, model: nn.Module) -> Iterator[None]:
        """Watch the modules while the block runs."""
        handles = []
        for name, module in model.named_modules():
            if _is_one_step(module):
                handles.append(module.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True))
                handles.append(module.register_forward_hook(partial(self._leave, name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        self._inside += 1
        if self._inside > 1:
            return
        given = list(tensors_in([args, kwargs]))
        shapes = self._inputs.setdefault(name, [])
        shapes.append(tuple(given[0].shape) if given else ())
        self._training[name] = module.training
        call = Call(name, len(shapes))
        self.edges += [Edge(producer, call, way) for producer, way in self._merged(given).items()]

    def _leave(self, name: str, module: nn.Module, args: object, out: object) -> None:
        self._inside -= 1
        if self._inside:
            return
        call = Call(name, len(self._inputs[name]))
        given = list(tensors_in(out))
        if _is_loss(module, given):  # no part of the network: what is done inside is seen as functions
            self._inputs[name].pop()
            if not self._inputs[name]:
                del self._inputs[name]
            self.edges = [edge for edge in self.edges if edge.consumer != call]
            return
        for tensor in given:
            self.sources[tensor] = {call: ()}

    # -------------------------------------------------------------------------------------------- functions
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        sources = self._merged(tensors_in([args, kwargs]))
        if not sources:
            return func(*args, **kwargs)
        name = _name_of(func)
        if name in _LOGIT_LOSSES:
            self._note_loss(name, args, kwargs)
        out = func(*args, **kwargs)
        sources = {call: (*(one for one in way if one != name), name) for call, way in sources.items()}
        if name == "setitem":
            self.sources[args[0]] = sources
        elif isinstance(out, Tensor | list | tuple):
            for tensor in tensors_in(out):
                if tensor.is_floating_point() or tensor.is_complex():
                    self.sources[tensor] = sources
                    base = tensor._base
                    if base is not None and args and tensor is args[0]:  # what was written through a view
                        self.sources[base] = _merge([self.of(base), sources])
        return out

    def _merged(self, tensors: Iterable[Tensor]) -> _Sources:
        return _merge([found for one in tensors if (found := self.of(one))])

    def _note_loss(self, name: str, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        given = args[0] if args else kwargs.get("input")
        if not isinstance(given, Tensor) or not given.numel():
            return
        x = given.detach().float()
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None) if name == "log_softmax" else None
        axis = axis if isinstance(axis, int) else min(1, x.ndim - 1)
        total = x.sum(axis) if x.ndim else x
        self.losses.append(
            LossInput(
                operation=name,
                sources=self.of(given),
                classes=x.shape[axis] if x.ndim else 1,
                least=float(x.min()),
                most=float(x.max()),
                from_one=float((total - 1).abs().max()),
            )
        )


def _is_one_step(module: nn.Module) -> bool:
    """Whether what a module does inside is its own affair."""
    layer = is_convolution(module) or is_linear(module) or is_norm(module)
    return layer or isinstance(module, nn.MultiheadAttention) or next(module.children(), None) is None


def _is_loss(module: nn.Module, given: list[Tensor]) -> bool:
    scalars = bool(given) and all(one.ndim == 0 for one in given)
    return scalars or isinstance(module, nn.modules.loss._Loss)  # pyright: ignore[reportPrivateUsage]


def _merge(found: list[_Sources]) -> _Sources:
    if len(found) == 1:
        return found[0]
    merged: _Sources = {}
    for sources in found:
        for call, way in sources.items():
            known = merged.get(call, ())
            merged[call] = (*known, *(one for one in way if one not in known))
    return merged
