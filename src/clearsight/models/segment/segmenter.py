"""A segmenter on any net that gives logits for every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearsight.errors import ConfigError
from clearsight.models.segment.pixel_model import PixelModel, PixelNet
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.types import SemanticMap, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics

__all__ = ["Segmenter"]


class Segmenter(PixelModel):
    """A net with its input's statistics and its loss: a class for every pixel.

    Shape: images `(n, c, h, w)` → logits `(n, k, h, w)`.

    Attributes:
        objective: see `SemanticLoss`; the others are `PixelModel`'s.

    Args:
        net: gives the logits.
        statistics: of the input's channels.
        loss: what is minimised; it has the net's classes.
    """

    def __init__(self, net: PixelNet, *, statistics: Statistics, loss: SemanticLoss) -> None:
        super().__init__(net, statistics=statistics)
        self.objective = loss

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
