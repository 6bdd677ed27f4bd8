"""A classifier on any backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.losses.classify import cross_entropy
from clearsight.models.backbones import BACKBONES
from clearsight.models.base import Backbone
from clearsight.nn.input import InputNorm
from clearsight.types import Classification, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.schema import ClassifierConfig

__all__ = ["Classifier", "build_classifier"]


class Classifier(nn.Module):
    """Backbone, mean over the image, dropout, one linear layer: torchvision's ResNet where the backbone is one.

    Shape: images `(n, c, h, w)` → logits `(n, k)`.

    Args:
        backbone: its last level is classified.
        num_classes: k.
        statistics: of the input's channels.
        dropout: probability of dropping a pooled feature in training.
        label_smoothing: see `losses.classify.cross_entropy`.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes.
    """

    class_layer = ("head.weight", "head.bias")

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        statistics: Statistics,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.input_norm = InputNorm(statistics)
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.channels["c5"], num_classes)
        self.label_smoothing = label_smoothing

    def forward(self, images: Tensor) -> Tensor:
        """Class logits.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        pooled = self.backbone.features(self.input_norm(images))["c5"].mean(dim=(2, 3))
        return self.head(self.dropout(pooled))

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Term `class`: softmax cross-entropy with `targets.label` (ids, or probabilities after mixing).

        Raises:
            ConfigError: the targets have no image labels.
        """
        if targets.label is None:
            raise ConfigError("classifier: targets.label is None; the data has no image-level labels, use a detector")
        return {"class": cross_entropy(self(images), targets.label, smoothing=self.label_smoothing)}

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor) -> list[Classification]:
        """Class probabilities of each image; `sizes` is not looked at."""
        return [Classification(probs=probs) for probs in self(images).float().softmax(dim=1)]

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published weights under this model's names: torchvision's `fc` is the head, the rest the backbone."""
        if "conv1.weight" not in state:
            return dict(state)
        return {
            name.replace("fc.", "head.", 1) if name.startswith("fc.") else f"backbone.{name}": value
            for name, value in state.items()
        }

    def reset_classes(self) -> None:
        """Start the last layer anew."""
        self.head.reset_parameters()


def build_classifier(
    config: ClassifierConfig, *, num_classes: int, channels: int, statistics: Statistics
) -> Classifier:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `classifier`.
        num_classes: k.
        channels: of the input.
        statistics: of the input's channels.
    """
    backbone = BACKBONES[config.backbone](norm=config.norm, channels=channels, small_input=config.small_input)
    return Classifier(
        backbone,
        num_classes=num_classes,
        statistics=statistics,
        dropout=config.dropout,
        label_smoothing=config.label_smoothing,
    )
