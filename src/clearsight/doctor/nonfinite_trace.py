"""Sees every operation of one training step, and where each value that is not finite came from."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from clearsight.doctor.nonfinite_cause import Call, Cause, explain, floats_in, takes_infinities, users_name
from clearsight.measure.replica import tensors_in

__all__ = ["LARGE", "Direction", "Known", "Origin", "Trace", "address", "finite"]

Direction = Literal["input", "label", "parameter", "buffer", "forward", "loss", "backward", "update"]

LARGE = 1e4  # finite weights beside infinite ones, from which on steps were too long

_TORCH = str(Path(torch.__file__).parent)
_OWN_FILES = ("nonfinite.py", "nonfinite_trace.py", "replay.py", "step_keeper.py")
_OWN = tuple(str(Path(__file__).with_name(name)) for name in _OWN_FILES)
_UNWRITTEN = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "empty_permuted", "resize")
_WRITES_ONLY = ("copy", "fill", "zero", "normal", "uniform", "bernoulli", "random", "exponential", "set", "resize")


class Known(NamedTuple):
    """A tensor that is there before the step: what it is, and its name (of a parameter or buffer)."""

    direction: Direction
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """Where values that are not finite begin: an operation on finite inputs, or a tensor from outside.

    Args:
        index: number of the operation that gave or first read them.
        module: name of the innermost module; None outside the model.
        layer: class of that module.
        direction: see `Direction`.
        operation: as the user knows it; the name of a parameter or buffer; empty for inputs and labels.
        line: `file:line` of the user's code; empty where there is none.
        cause: why.
        meant: infinities that the code asks for, such as those of a mask.
        counts: values that are NaN, +∞, −∞, and all there are.
        samples: those of the batch that they lie in; empty where the tensor has no batch axis.
        address: of a tensor from outside; 0 for an operation.
    """

    index: int
    module: str | None
    layer: str
    direction: Direction
    operation: str
    line: str
    cause: Cause
    meant: bool
    counts: tuple[int, int, int, int]
    samples: tuple[int, ...]
    address: int = 0


class _Ran(NamedTuple):
    """A forward operation that the backward pass will come back to."""

    module: str | None
    layer: str
    operation: str
    line: str


def finite(tensor: Tensor) -> bool:
    """Whether all values are."""
    return bool(torch.isfinite(tensor.detach()).all())


def address(tensor: Tensor) -> int:
    """Of the memory that a tensor and all its views share; 0 where it has none."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


class Trace(TorchDispatchMode):
    """Follows one step while it is entered.

    Args:
        model: whose modules are named.
        known: by address, the tensors that are there before.
        batch: number of samples; None when unknown.
        without: an origin whose values are made finite, to see what then becomes of the step.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here

    def __init__(
        self, model: nn.Module, known: Mapping[int, Known], *, batch: int | None = None, without: Origin | None = None
    ) -> None:
        super().__init__()
        self.batch = batch
        self._model = model
        self._known = dict(known)
        self._without = without
        self._index = 0
        self._stack: list[tuple[str, nn.Module]] = []
        self._called = False  # a module was, so that what follows outside of one is the loss
        self._ran: dict[int, _Ran] = {}
        self._origins: dict[int, frozenset[Origin]] = {}
        self._held: list[Tensor] = []  # so that no address is given away twice
        self._sources: dict[int, Origin] = {}

    # -------------------------------------------------------------------------------------------- what was found
    def origins(self, tensors: Iterable[Tensor]) -> list[Origin]:
        """Where values of these tensors that are not finite may come from: the first first, those meant last."""
        found = frozenset[Origin]().union(*map(self._behind, tensors))
        return sorted(found, key=lambda one: (one.meant, one.index))

    # -------------------------------------------------------------------------------------------- whose it is
    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Know which module runs."""
        handles: list[Any] = []
        for name, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(self._enter, name), prepend=True, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, module: nn.Module, args: object, kwargs: object) -> None:
        if not self._stack:
            for one in tensors_in([args, kwargs]):
                if not self._called:
                    self._known.setdefault(address(one), Known("input"))
                    self.batch = self.batch or (len(one) if one.ndim > 1 else None)
        self._called = True
        self._stack.append((name, module))

    def _leave(self, module: nn.Module, args: object, out: object) -> None:
        if self._stack:
            self._stack.pop()

    def _here(self, aten: str, args: tuple[Any, ...]) -> tuple[_Ran, Direction]:
        """Where the operation that runs now belongs."""
        node = torch._C._current_autograd_node() if not self._stack else None  # pyright: ignore[reportPrivateUsage]
        if node is not None:
            ran = self._ran.get(node._sequence_nr())  # pyright: ignore[reportPrivateUsage]
            own = isinstance(node, BackwardCFunction)
            name = _of_node(node.name()) if ran is None or own else ran.operation
            return (_Ran(None, "", name, "") if ran is None else ran._replace(operation=name)), "backward"
        module, layer = (self._stack[-1][0], type(self._stack[-1][1]).__name__) if self._stack else (None, "")
        direction: Direction = "forward" if self._stack else "loss" if self._called else "input"
        if self._stack and any(type(one).__module__ == "torch.nn.modules.loss" for _, one in self._stack):
            direction = "loss"
        return _Ran(module, layer, users_name(aten, args, layer), _users_line()), direction

    # -------------------------------------------------------------------------------------------- what happens
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        self._index += 1
        if not isinstance(func, OpOverload):
            return func(*args, **kwargs)
        aten = _plain_name(func)
        ran, direction = self._here(aten, args)
        if direction != "backward":
            # The node of this operation has its number already: it was made just before.
            number = torch.autograd._get_sequence_nr() - 1  # pyright: ignore[reportPrivateUsage,reportPrivateImportUsage]
            self._ran.setdefault(number, ran)
        if func.is_view or aten in _UNWRITTEN:
            return func(*args, **kwargs)
        if self._without is not None and self._without.address:
            args, kwargs = tree_map(self._cleaned, (args, kwargs))
        mutable = func._schema.is_mutable  # pyright: ignore[reportPrivateUsage]
        bad = [one for one in _read(func, aten, args, kwargs) if not finite(one)]
        known = {address(one): self._behind(one) for one in bad}
        nan = any(bool(one.isnan().any()) for one in bad)
        before = tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, args) if mutable else args
        out = func(*args, **kwargs)
        results = [one for one in floats_in(out) if one.numel() and not finite(one)]
        if not results:
            return out
        if self._without is not None and self._without.index == self._index and not self._without.address:
            for one in results:
                torch.nan_to_num_(one, nan=0.0, posinf=0.0, neginf=0.0)
            return out
        behind = frozenset[Origin]().union(*known.values())
        meant_only = bool(bad) and all(one.meant for one in behind) and not nan
        if not bad or (meant_only and takes_infinities(aten) and any(bool(one.isnan().any()) for one in results)):
            call = Call(aten, ran.operation, before, kwargs, results[0], direction == "backward", meant_only)
            behind = frozenset([self._begin(call, ran, direction)])
        for one in results:
            at = address(one)
            partly = mutable and one.numel() * one.element_size() < one.untyped_storage().nbytes()
            self._origins[at] = behind | self._origins.get(at, frozenset()) if partly else behind
            self._held.append(one)
        return out

    def _begin(self, call: Call, ran: _Ran, direction: Direction) -> Origin:
        return Origin(
            index=self._index,
            module=ran.module,
            layer=ran.layer,
            direction=direction,
            operation=ran.operation,
            line=ran.line,
            cause=explain(call),
            meant=not call.infinite and call.meant,
            counts=_counts(call.out),
            samples=self._samples(call.out),
        )

    # -------------------------------------------------------------------------------------------- from outside
    def _behind(self, tensor: Tensor) -> frozenset[Origin]:
        return self._origins.get(address(tensor)) or frozenset([self._source(tensor)])

    def _source(self, tensor: Tensor) -> Origin:
        """The origin of a tensor that no operation of this step gave."""
        at = address(tensor)
        if at not in self._sources:
            inside = bool(self._stack) or not self._called
            known = self._known.get(at) or Known("input" if inside else "label")
            owner = known.name.rpartition(".")[0] if known.direction in ("parameter", "buffer") else None
            layer = "" if owner is None else type(self._model.get_submodule(owner)).__name__
            counts = _counts(tensor)
            mask = counts[0] == counts[1] == 0 and (known.direction == "buffer" or at not in self._known)
            self._sources[at] = Origin(
                index=self._index,
                module=owner,
                layer=layer,
                direction=known.direction,
                operation=known.name,
                line="" if owner is not None else _users_line(),
                cause=_given(known, counts, tensor),
                meant=mask,
                counts=counts,
                samples=self._samples(tensor) if owner is None else (),
                address=at,
            )
            self._held.append(tensor)
        return self._sources[at]

    def _cleaned(self, value: Any) -> Any:  # noqa: ANN401
        """An argument without what is not finite, where it is the one to be done without."""
        if self._without is None or not isinstance(value, Tensor) or address(value) != self._without.address:
            return value
        return torch.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0)

    def _samples(self, tensor: Tensor) -> tuple[int, ...]:
        """Of the batch, where the first axis is the batch or the batch's tokens."""
        n = self.batch
        if not n or tensor.ndim == 0 or len(tensor) % n or (len(tensor) != n and tensor.ndim != 2):
            return ()
        rows = (~torch.isfinite(tensor.detach())).reshape(n, -1).any(dim=1)
        return tuple(rows.nonzero().flatten().tolist())


# ------------------------------------------------------------------------------------------------ operations
def _plain_name(func: OpOverload) -> str:
    name = str(func.overloadpacket).rpartition(".")[2]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _read(func: OpOverload, aten: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors whose values an operation looks at; not those that it only writes to."""
    schema = func._schema  # pyright: ignore[reportPrivateUsage]
    if "batch_norm" in aten:
        given = dict(zip([argument.name for argument in schema.arguments], args, strict=False))
        trains = next((given[name] for name in ("training", "train", "update") if name in given), "no_" not in aten)
        if trains:  # the running statistics are only brought up to date
            args = tuple(one for name, one in given.items() if not name.startswith("running_"))
            return [one for one in floats_in(args) if one.numel()]
    if schema.is_mutable and aten in _WRITES_ONLY:
        args = args[1:]
    kwargs = {name: one for name, one in kwargs.items() if name != "out"}
    return [one for one in floats_in([args, kwargs]) if one.numel()]


def _of_node(name: str) -> str:
    """`LinalgVectorNormBackward0` → `norm`; the class of a user's own function stays as it is."""
    plain = re.sub(r"Backward\d*$", "", name.rpartition("::")[2])
    if plain == name:
        return plain
    if not name[-1].isdigit():  # of a `torch.autograd.Function`
        return plain
    return users_name(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", plain).lower(), ())


def _users_line() -> str:
    """`file:line` of the innermost code that is neither PyTorch's nor of this search."""
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_TORCH, "<")) and name not in _OWN and "contextlib" not in name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _counts(tensor: Tensor) -> tuple[int, int, int, int]:
    x = tensor.detach()
    x = torch.view_as_real(x) if x.is_complex() else x
    return int(x.isnan().sum()), int(torch.isposinf(x).sum()), int(torch.isneginf(x).sum()), x.numel()


def _given(known: Known, counts: tuple[int, int, int, int], tensor: Tensor) -> Cause:
    """The cause where values were not finite before the step."""
    nan, above, below, values = counts
    numbers: dict[str, int | float | str] = {"nan": nan, "infinite": above + below, "values": values}
    found = f"{nan} NaN and {above + below} infinities among {values} values"
    if known.direction == "parameter":
        rest = tensor.detach()[tensor.detach().isfinite()]
        text = f"the weights were not finite before this step ({found}): an earlier update spoiled them"
        if len(rest):
            numbers["largest"] = largest = float(rest.abs().max())
            if largest < LARGE:
                text += f", by a gradient that was not finite, or other code did; the others are at most {largest:.3g}"
        return Cause("weights", text, numbers)
    if known.direction == "buffer":
        return Cause("buffer", f"the buffer was not finite before this step ({found})", numbers)
    holds = "targets hold" if known.direction == "label" else "input holds"
    return Cause(known.direction, f"the {holds} {found}", numbers)
