"""What each operation of PyTorch does to the reach of its tensors: which elements each element of a result sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

from clearsight.measure.pointwise import ELEMENTWISE
from clearsight.measure.reach import NOTHING, alike, constant, largest, moved, reshaped, settled, slim, union
from clearsight.measure.reach_windows import adaptive_pool, convolution, pad, pool, upsample

__all__ = ["Call", "ReachRule", "Scope", "reach_rule"]

Scope = Literal["place", "gate", "mix"]
"""Whether a result may come of all places at once: no; by a mean, a maximum or statistics; by products with weights."""


class Call(NamedTuple):
    """One operation as it ran.

    Args:
        func: the operation.
        args: its arguments.
        kwargs: its keyword arguments.
        out: its result, a tensor or several.
        reach: gives the reach of a tensor, or None where it does not depend on the image.
        local: statistics over all places are not looked at.
    """

    func: OpOverload
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    out: Any
    reach: Callable[[Any], Tensor | None]
    local: bool = False

    @property
    def shape(self) -> torch.Size:
        """Of the result, or the first of several."""
        return (self.out if isinstance(self.out, Tensor) else self.out[0]).shape

    @property
    def names(self) -> list[str]:
        """Of the arguments."""
        return [one.name for one in self.func._schema.arguments]  # pyright: ignore[reportPrivateUsage]

    def argument(self, name: str) -> Any:  # noqa: ANN401
        """An argument by the name that it has in the operation's schema; None where it is not given."""
        if name in self.kwargs:
            return self.kwargs[name]
        names = self.names
        place = names.index(name) if name in names else len(self.args)
        return self.args[place] if place < len(self.args) else None


class ReachRule(NamedTuple):
    """How an operation is followed.

    Args:
        follow: gives the reach of the result, of each where a list; None where it does not depend on the image, and
            `NotImplemented` where nobody knows.
        scope: see `Scope`.
    """

    follow: Callable[[Call], Any]
    scope: Scope = "place"


def _first(call: Call) -> Tensor:
    found = call.reach(call.args[0])
    return constant(NOTHING, call.args[0].shape) if found is None else found


def _all_arguments(call: Call) -> Tensor | None:
    given = [*call.args, *call.kwargs.values()]
    seen = [one for given_one in given if isinstance(given_one, Tensor) and (one := call.reach(given_one)) is not None]
    return union(seen, call.shape) if seen else None


def _source(call: Call) -> Tensor:
    found = call.reach(call.args[1])
    return constant(NOTHING, call.shape) if found is None else union([found], call.shape)


def _nothing(call: Call) -> None:
    return None


# ------------------------------------------------------------------------------------------------ over some axes
def _axes(call: Call) -> list[int]:
    dim = call.argument("dim")
    if isinstance(dim, int):
        return [dim]
    return list(dim) if dim else list(range(call.args[0].ndim))


def _reduced(call: Call) -> Tensor:
    x = call.args[0]
    keeps = len(call.shape) == x.ndim
    return union([largest(_first(call), _axes(call), keepdim=keeps)], call.shape)


def _spread(axes: Callable[[Call], Sequence[int]]) -> Callable[[Call], Tensor]:
    """Every element along some axes sees what any of them sees."""

    def follow(call: Call) -> Tensor:
        return union([largest(_first(call), axes(call), keepdim=True)], call.shape)

    return follow


def _layer_axes(call: Call) -> list[int]:
    return list(range(-len(call.args[1]), 0))


def _group_norm(call: Call) -> Tensor:
    seen = _first(call)
    return seen if call.local else largest(seen, range(1, seen.ndim), keepdim=True).expand(seen.shape)


def _batch_norm(call: Call) -> Tensor:
    seen = _first(call)
    if call.local or not call.argument("training"):
        return seen
    return largest(seen, [0, *range(2, seen.ndim)], keepdim=True).expand(seen.shape)


def _gated_halves(call: Call) -> Tensor:
    dim = call.argument("dim")
    return union(_first(call).chunk(2, -1 if dim is None else dim), call.shape)


# ------------------------------------------------------------------------------------------------ products
def _product(call: Call) -> Tensor | None:
    """A row of the left and a column of the right matrix; whatever is added."""
    left, right = (call.reach(one) for one in call.args[-2:])
    parts = [call.reach(one) for one in call.args[:-2]]
    if left is not None:
        parts.append(largest(left, [-1], keepdim=True))
    if right is not None:
        parts.append(largest(right, [-2], keepdim=True))
    seen = [one for one in parts if one is not None]
    return union(seen, call.shape) if seen else None


def _attention(call: Call) -> Tensor | None:
    """A query, all keys and all values; whether a mask takes some away is not looked at."""
    query, key, value = (call.reach(one) for one in call.args[:3])
    parts = [
        None if query is None else largest(query, [-1], keepdim=True),
        None if key is None else largest(key, [-1, -2], keepdim=True),
        None if value is None else largest(value, [-2], keepdim=True),
    ]
    seen = [one for one in parts if one is not None]
    return union(seen, call.shape) if seen else None


# ------------------------------------------------------------------------------------------------ other places
def _reshaped(call: Call) -> Tensor:
    return reshaped(_first(call), call.shape)


def _viewed(call: Call) -> Any:  # noqa: ANN401
    seen = _first(call).detach()  # itself must not change its shape, as in-place views do
    if "as_strided" in str(call.func):
        x = call.args[0]
        if x is call.out or x.shape == call.shape:  # only its place in memory is another
            return seen if seen.shape == call.shape else NotImplemented
        dense = torch.empty_strided(x.shape, x.stride(), device="cpu").copy_(seen)
        return settled(dense.as_strided(call.shape, call.args[2], (call.argument("storage_offset") or 0)))
    return call.func(seen, *call.args[1:], **call.kwargs)


def _turned(call: Call) -> Any:  # noqa: ANN401
    """`flip` and `roll`: along axes on which nothing changes they change nothing."""
    if not call.args[-1] or (call.func.overloadpacket is torch.ops.aten.roll and len(call.args) < 3):
        return NotImplemented  # of the flattened tensor
    return moved(_first(call), (), lambda seen: call.func(seen, *call.args[1:]))


def _joined(call: Call) -> Tensor | None:
    tensors = [one for one in call.args[0] if one.ndim > 1 or one.numel()]
    dim = call.argument("dim") or 0
    seen = [call.reach(one) for one in tensors]
    if all(one is None for one in seen):
        return None
    found = [constant(NOTHING, t.shape) if one is None else one for t, one in zip(tensors, seen, strict=True)]
    if call.func.overloadpacket is torch.ops.aten.stack:
        dim %= tensors[0].ndim + 1
        found = [one.unsqueeze(dim) for one in found]
    dim %= found[0].ndim
    small = [slim(one, keep=(dim,)) for one in found]
    other = [max(sizes) for sizes in zip(*(one.shape for one in small), strict=True)]
    parts = [one.expand([one.size(d) if d == dim else size for d, size in enumerate(other)]) for one in small]
    return settled(torch.cat(parts, dim).expand(call.shape))


def _shuffled(call: Call) -> Tensor:
    """Channels to places, places to channels, channels to other channels."""
    seen, name, by = _first(call), call.func.overloadpacket, call.args[1]
    *lead, c, h, w = seen.shape
    n = len(lead)
    if name is torch.ops.aten.pixel_shuffle:
        parts = reshaped(seen, (*lead, c // by**2, by, by, h, w))
        order = [*range(n + 1), n + 3, n + 1, n + 4, n + 2]
    elif name is torch.ops.aten.pixel_unshuffle:
        parts = reshaped(seen, (*lead, c, h // by, by, w // by, by))
        order = [*range(n + 1), n + 2, n + 4, n + 1, n + 3]
    else:
        parts = reshaped(seen, (*lead, by, c // by, h, w))
        order = [*range(n), n + 1, n, n + 2, n + 3]
    return reshaped(parts.permute(order), call.shape)


def _indexed(call: Call) -> Any:  # noqa: ANN401
    """One index along one axis on which nothing changes; anything else depends on the values of the index."""
    seen = call.reach(call.args[0])
    chosen = call.args[1]
    indices = list(chosen) if isinstance(chosen, list | tuple) else [None] * chosen + [call.args[2]]
    if any(one is not None and call.reach(one) is not None for one in indices):
        return NotImplemented
    if seen is None:
        return None
    places = [dim for dim, one in enumerate(indices) if one is not None]
    if len(places) != 1 or not alike(seen, places[0]):
        return NotImplemented
    (dim,), index = places, indices[places[0]]
    small = seen.narrow(dim, 0, 1).unflatten(dim, (1,) * index.ndim) if index.ndim else seen.select(dim, 0)
    return small.expand(call.shape)


def _repeated(call: Call) -> Tensor:
    return settled(call.func(_first(call), *call.args[1:]))


_POINTWISE = (
    "_to_copy", "clone", "contiguous", "lift_fresh_copy", "masked_fill", "where", "bernoulli", "native_dropout",
    "_native_batch_norm_legit_no_training", "_batch_norm_no_update", "complex", "alias_copy", "_conj", "tril", "triu",
)  # fmt: skip
_FACTORIES = (
    "arange", "empty", "empty_like", "empty_strided", "empty_permuted", "eye", "fill", "full", "full_like", "linspace",
    "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "rand", "rand_like",
    "randn", "randn_like", "randperm", "scalar_tensor", "zero", "zeros", "zeros_like",
)  # fmt: skip
_REDUCTIONS = (
    "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "count_nonzero", "linalg_vector_norm", "logsumexp",
    "max", "mean", "min", "nansum", "norm", "prod", "std", "std_mean", "sum", "var", "var_mean", "median",
)  # fmt: skip
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)  # fmt: skip
RULES: dict[str, ReachRule] = {
    **dict.fromkeys(ELEMENTWISE, ReachRule(_all_arguments)),
    **dict.fromkeys(_POINTWISE, ReachRule(_all_arguments)),
    **dict.fromkeys(_FACTORIES, ReachRule(_nothing)),
    **dict.fromkeys(_REDUCTIONS, ReachRule(_reduced, "gate")),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), ReachRule(_spread(_axes), "mix")),
    **dict.fromkeys(("cumsum", "cumprod", "sort", "topk"), ReachRule(_spread(_axes), "mix")),
    **dict.fromkeys(("_fft_c2c", "_fft_r2c", "_fft_c2r"), ReachRule(_spread(_axes), "mix")),
    **dict.fromkeys(_PRODUCTS, ReachRule(_product, "mix")),
    **dict.fromkeys(_ATTENTION, ReachRule(_attention, "mix")),
    "native_layer_norm": ReachRule(_spread(_layer_axes), "gate"),
    "native_group_norm": ReachRule(_group_norm, "gate"),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit"), ReachRule(_batch_norm, "gate")),
    "copy": ReachRule(_source),
    "glu": ReachRule(_gated_halves),
    "convolution": ReachRule(convolution),
    **{f"avg_pool{axes}d": ReachRule(pool, "gate") for axes in (1, 2, 3)},
    **{f"max_pool{axes}d_with_indices": ReachRule(pool, "gate") for axes in (2, 3)},
    **{f"_adaptive_avg_pool{axes}d": ReachRule(adaptive_pool, "gate") for axes in (2, 3)},
    **{f"adaptive_max_pool{axes}d": ReachRule(adaptive_pool, "gate") for axes in (2, 3)},
    **{f"{kind}_pad{axes}d": ReachRule(pad) for kind in ("reflection", "replication") for axes in (1, 2, 3)},
    "constant_pad_nd": ReachRule(pad),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), ReachRule(upsample)),
    **dict.fromkeys(("upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), ReachRule(upsample)),
    **{f"{kind}{axes}d": ReachRule(upsample) for kind in ("upsample_nearest", "_upsample_nearest_exact")
       for axes in (1, 2, 3)},
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy"), ReachRule(_reshaped)),
    **dict.fromkeys(("flip", "roll"), ReachRule(_turned)),
    **dict.fromkeys(("cat", "stack"), ReachRule(_joined)),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle"), ReachRule(_shuffled)),
    **dict.fromkeys(("index", "index_select", "_unsafe_index"), ReachRule(_indexed)),
    "repeat": ReachRule(_repeated),
    **dict.fromkeys(("unsafe_split", "unsafe_split_with_sizes"), ReachRule(_viewed)),
}  # fmt: skip
"""By name, `aten.` and the `_` of in-place forms left away."""


@cache
def reach_rule(operation: OpOverload) -> ReachRule | None:
    """How an operation is followed; None where nobody knows."""
    name = str(operation.overloadpacket).removeprefix("aten.")
    if name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    if name in RULES:
        return RULES[name]
    if operation.is_view or torch.Tag.inplace_view in operation.tags:
        return ReachRule(_viewed)
    return ReachRule(_all_arguments) if torch.Tag.pointwise in operation.tags else None
