"""From the names of published weights to ours, and from photographs to other channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from clearsight.errors import WeightsError

if TYPE_CHECKING:
    from clearsight.models.base import Backbone

__all__ = ["adapt_first_layer", "backbone_weights", "rename_head"]


def rename_head(state: Mapping[str, Tensor], last: str) -> dict[str, Tensor]:
    """The state with the last, class-dependent layer called `head`.

    Args:
        state: a published state dict.
        last: the published name of that layer, such as `fc`.

    Returns:
        A new dict in the same order; tensors are not copied.
    """
    prefix = f"{last}."
    return {
        f"head.{name.removeprefix(prefix)}" if name.startswith(prefix) else name: value for name, value in state.items()
    }


def backbone_weights(backbone: Backbone, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published classifier's state for a detector on that backbone: `backbone.`-names, without the class layers."""
    if any(name.startswith("backbone.") for name in state):
        return dict(state)
    adapted = backbone.adapt_weights(state).items()
    return {f"backbone.{name}": value for name, value in adapted if not name.startswith(("head.", "aux_heads."))}


def adapt_first_layer(weight: Tensor, channels: int) -> Tensor:
    """Weights of a first convolution for another number of input channels.

    The sum over the old input channels is shared out evenly: one channel gets the sum, c channels get a c-th of it
    each. An image whose channels are all alike then gives the same response as a grey photo did.

    Args:
        weight: `(out, old, kh, kw)`.
        channels: of the new input.

    Returns:
        `(out, channels, kh, kw)`; `weight` itself when nothing changes.

    Raises:
        WeightsError: the weight is not that of a convolution.
    """
    if weight.ndim != 4:
        raise WeightsError(f"first layer: expected weights (out, in, kh, kw), got {tuple(weight.shape)}")
    if weight.shape[1] == channels:
        return weight
    shared = weight.sum(dim=1, keepdim=True) / channels
    return shared.repeat(1, channels, 1, 1)
