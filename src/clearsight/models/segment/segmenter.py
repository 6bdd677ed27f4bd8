"""A segmenter on any net that gives logits for every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.nn.input import InputNorm
from clearsight.types import SemanticMap, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics

__all__ = ["Segmenter", "SemanticNet"]


class SemanticNet(Protocol):
    """An `nn.Module`: `(n, c, h, w)` float, normalised → logits `(n, k, h, w)`, for any h and w from 1 on."""

    @property
    def class_layer(self) -> tuple[str, ...]:
        """Names of exactly the parameters whose shape depends on k."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""
        ...

    def reset_classes(self) -> None:
        """Start the class layer anew."""
        ...

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published state dict under the net's names."""
        ...


class Segmenter(nn.Module):
    """A net with its input's statistics and its loss: a class for every pixel.

    Shape: images `(n, c, h, w)` → logits `(n, k, h, w)`.

    Attributes:
        input_norm: from pixels to what the net wants.
        net: gives the logits.
        objective: see `SemanticLoss`.
        in_channels: c.

    Args:
        net: see `SemanticNet`.
        statistics: of the input's channels.
        loss: what is minimised; it has the net's classes.
    """

    def __init__(self, net: SemanticNet, *, statistics: Statistics, loss: SemanticLoss) -> None:
        super().__init__()
        self.input_norm = InputNorm(statistics)
        self.net = net
        self.objective = loss
        self.in_channels = len(statistics.mean)

    @property
    def class_layer(self) -> tuple[str, ...]:
        """Names of the parameters whose shape depends on the number of classes."""
        return tuple(f"net.{name}" for name in self.net.class_layer)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of every pixel.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        return self.net(self.input_norm(images))

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The terms of `SemanticLoss`, against `targets.semantic`.

        Raises:
            ConfigError: the targets have no semantic map.
        """
        if targets.semantic is None:
            raise ConfigError(
                "segmenter: targets.semantic is None; the data has no map of a class a pixel, use a detector"
            )
        return self.objective(self(images), targets.semantic)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor) -> list[SemanticMap]:
        """Class probabilities of every pixel of the valid part of each image."""
        probs = self(images).float().softmax(dim=1)
        return [
            SemanticMap(probs=each[:, :height, :width])
            for each, (height, width) in zip(probs, sizes.tolist(), strict=True)
        ]

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published state under this model's names, by the net's `adapt_weights`."""
        if any(name.startswith("net.") for name in state):
            return dict(state)
        return {f"net.{name}": value for name, value in self.net.adapt_weights(state).items()}

    def reset_classes(self) -> None:
        """Start the class layer anew."""
        self.net.reset_classes()
