"""What models that say something of every pixel have in common: a net, and the statistics of its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from clearsight.nn.input import InputNorm

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics

__all__ = ["PixelModel", "PixelNet"]


class PixelNet(Protocol):
    """An `nn.Module`: `(n, c, h, w)` float, normalised → `(n, k, h, w)`, for any h and w from 1 on."""

    @property
    def class_layer(self) -> tuple[str, ...]:
        """Names of exactly the parameters whose shape depends on k."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """What it says of every pixel."""
        ...

    def reset_classes(self) -> None:
        """Start the class layer anew."""
        ...

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published state dict under the net's names."""
        ...


class PixelModel(nn.Module):
    """A net on images as they are; what its channels mean is the subclass's.

    Attributes:
        input_norm: from pixels to what the net wants.
        net: see `PixelNet`.
        in_channels: c.

    Args:
        net: see `PixelNet`.
        statistics: of the input's channels.
    """

    def __init__(self, net: PixelNet, *, statistics: Statistics) -> None:
        super().__init__()
        self.input_norm = InputNorm(statistics)
        self.net = net
        self.in_channels = len(statistics.mean)

    @property
    def class_layer(self) -> tuple[str, ...]:
        """Names of the parameters whose shape depends on the number of the net's channels."""
        return tuple(f"net.{name}" for name in self.net.class_layer)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published state under this model's names, by the net's `adapt_weights`."""
        if any(name.startswith("net.") for name in state):
            return dict(state)
        return {f"net.{name}": value for name, value in self.net.adapt_weights(state).items()}

    def reset_classes(self) -> None:
        """Start the last layer anew."""
        self.net.reset_classes()
