"""Sees the operations of a model as they run, and writes down what each costs beside the module that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from clearsight.measure.memory import LiveBytes, SavedBytes
from clearsight.measure.operations import rule_of
from clearsight.measure.products import Work
from clearsight.measure.replica import tensors_in
from clearsight.measure.shapes import shape_rule

__all__ = ["Counter", "Tally"]

NOTHING = Work(0, 0)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted in one module, without the modules in it.

    Args:
        multiply_adds: of the forward pass.
        flops: of the forward pass, counted exactly; see `measure.operations`.
        backward_multiply_adds: of the backward pass; 0 where none was run.
        backward_flops: of the backward pass.
        moved_bytes: read and written by the operations of the forward pass, each by itself.
        live_bytes: most that was alive at once while the module worked; 0 in a count of training.
        saved_bytes: kept for the backward pass; a storage belongs to the first module that keeps it.
        calls: how often the module was called.
        outputs: shapes of the results of its first call.
    """

    multiply_adds: int = 0
    flops: int = 0
    backward_multiply_adds: int = 0
    backward_flops: int = 0
    moved_bytes: int = 0
    live_bytes: int = 0
    saved_bytes: int = 0
    calls: int = 0
    outputs: tuple[tuple[int, ...], ...] = ()


class Counter(TorchDispatchMode):
    """Sees every operation of a replica while it is entered, and knows by hooks whose it is.

    Args:
        model: what `replicate` made.
        outside: tensors that are there before it runs.
        own: its parameters and buffers.
        training: follow what is kept for the backward pass; else what is alive at once.
        meta: nothing is computed.

    Attributes:
        layers: by name, in the order of `named_modules`.
        uncounted: how often operations without a rule ran.
        backward: set it before the backward pass.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the wrapper that says so costs more than the counting

    def __init__(
        self, model: nn.Module, outside: Sequence[Tensor], own: Sequence[Tensor], *, training: bool, meta: bool
    ) -> None:
        super().__init__()
        self.layers = {name: Tally() for name, _ in model.named_modules()}
        self.uncounted: dict[str, int] = {}
        self.backward = False
        self._stack = [self.layers[""]]
        self._behind = self.layers[""]  # whose gradients are being computed
        self._labelled: set[Any] = set()
        self._meta = meta
        self._live = None if training else LiveBytes(outside)
        self._saved = SavedBytes(own)
        self._handles: list[Any] = []
        for name, module in model.named_modules():
            tally = self.layers[name]
            self._handles += [
                module.register_forward_pre_hook(partial(self._enter, tally), prepend=True, with_kwargs=True),
                module.register_forward_hook(partial(self._leave, tally), always_call=True),
            ]

    def detach(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    # -------------------------------------------------------------------------------------------- whose it is
    def _enter(self, tally: Tally, module: nn.Module, args: object, kwargs: object) -> None:
        self._label(tensors_in((args, kwargs)), self._stack[-1])
        tally.calls += 1
        self._stack.append(tally)

    def _leave(self, tally: Tally, module: nn.Module, args: object, out: object) -> None:
        self._stack.pop()
        results = list(tensors_in(out))
        if not tally.outputs:
            tally.outputs = tuple(tuple(tensor.shape) for tensor in results)
        self._label(results, tally)

    def _label(self, tensors: Iterable[Tensor], tally: Tally) -> None:
        """Claim the nodes of the graph behind some tensors for a module, but those that are another's already.

        What modules within computed was claimed when they were left, what came before when this one was entered.
        """
        pending = [tensor.grad_fn for tensor in tensors]
        while pending:
            node = pending.pop()
            if node is not None and node not in self._labelled:
                self._labelled.add(node)
                node.register_prehook(partial(self._answer, tally))
                pending.extend(before for before, _ in node.next_functions)

    def _answer(self, tally: Tally, gradients: object) -> None:
        self._behind = tally

    def save(self, tensor: Tensor) -> Tensor:
        """Called by autograd with each tensor that it keeps."""
        self._stack[-1].saved_bytes += self._saved.add(tensor)
        return tensor.detach()  # itself would be a circle: it may be a result that keeps its own graph alive

    # -------------------------------------------------------------------------------------------- what it is
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload):  # control flow and the like
            self.uncounted[str(func)] = self.uncounted.get(str(func), 0) + 1
            return func(*args, **kwargs)
        rule = rule_of(func)
        if rule is None:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        result = shape_rule(func) if self._meta else None
        out = None if result is None else result(args, kwargs)
        if out is None:
            out = func(*args, **kwargs)
        within = len(self._stack) > 1  # also where a forward pass is run again to save memory
        tally = self._behind if self.backward and not within else self._stack[-1]
        if rule is None or rule.reads != "nothing":
            self._add(tally, func, args, kwargs, out)
        if self._live is not None and not func.is_view:
            for tensor in _tensors((out,)):
                self._live.add(tensor)
            tally.live_bytes = max(tally.live_bytes, self._live.now)
        return out

    def _add(self, tally: Tally, func: OpOverload, args: Any, kwargs: Any, out: Any) -> None:  # noqa: ANN401
        rule = rule_of(func)
        work = None if rule is None else NOTHING if rule.cost is None else rule.cost(args, kwargs, out)
        if rule is None or work is None:
            name = str(func.overloadpacket)
            self.uncounted[name] = self.uncounted.get(name, 0) + 1
            work = NOTHING
        if self.backward:
            tally.backward_multiply_adds += work.multiply_adds
            tally.backward_flops += work.flops
            return
        tally.multiply_adds += work.multiply_adds
        tally.flops += work.flops
        written = sum(map(_bytes, _tensors((out,))))
        reads = "all" if rule is None else rule.reads
        if reads == "chosen":
            read = written + sum(map(_bytes, _tensors(args[1:])))
        else:
            read = sum(map(_bytes, _tensors(args[1:] if reads == "others" else args)))
        tally.moved_bytes += read + written


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """Those among an operation's arguments or results, lists of them too."""
    found = []
    for one in values:
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, list | tuple):
            found += [part for part in one if isinstance(part, Tensor)]
    return found


def _bytes(tensor: Tensor) -> int:
    """Bytes of its values; what is repeated by a stride of 0 is there once."""
    if tensor.is_contiguous():
        return tensor.numel() * tensor.element_size()
    size = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride:
            size *= length
    return size
