"""A classifier on any backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.losses.classify import cross_entropy
from clearsight.models.backbones import build_backbone
from clearsight.models.base import Backbone
from clearsight.nn.input import InputNorm
from clearsight.types import Classification, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.model_sections import ClassifierConfig

__all__ = ["Classifier", "build_classifier"]


class Classifier(nn.Module):
    """A backbone's published vector an image, dropout, one linear layer: the published classifier of any backbone.

    Shape: images `(n, c, h, w)` → logits `(n, k)`.

    Args:
        backbone: its `embed` is classified.
        num_classes: k.
        statistics: of the input's channels.
        dropout: probability of dropping a feature in training.
        label_smoothing: see `losses.classify.cross_entropy`.
    """

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
        self.head = nn.Linear(backbone.embedding, num_classes)
        self.label_smoothing = label_smoothing
        self.branches: dict[str, tuple[int, float]] = getattr(backbone, "auxiliary", {})
        self.aux_heads = nn.ModuleDict(
            {name: nn.Linear(width, num_classes) for name, (width, _) in self.branches.items()}
        )

    @property
    def class_layer(self) -> tuple[str, ...]:
        """Names of the parameters whose shape depends on the number of classes."""
        layers = ("head", *(f"aux_heads.{name}" for name in self.branches))
        return tuple(f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))

    def forward(self, images: Tensor) -> Tensor:
        """Class logits.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        return self.head(self.dropout(self.backbone.embed(self.input_norm(images))))

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Term `class`: softmax cross-entropy with `targets.label` (ids, or probabilities after mixing).

        In training each auxiliary branch of the backbone has a term of its own, `class_aux1`, by its published weight.

        Raises:
            ConfigError: the targets have no image labels.
        """
        if targets.label is None:
            raise ConfigError("classifier: targets.label is None; the data has no image-level labels, use a detector")
        if not (self.training and self.branches):
            return {"class": self._entropy(self(images), targets.label)}
        vectors = self.backbone.embed_all(self.input_norm(images))  # pyright: ignore[reportAttributeAccessIssue]
        terms = {"class": self._entropy(self.head(self.dropout(vectors["main"])), targets.label)}
        for name, (_, weight) in self.branches.items():
            terms[f"class_{name.lower()}"] = weight * self._entropy(self.aux_heads[name](vectors[name]), targets.label)
        return terms

    def _entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(logits, label, smoothing=self.label_smoothing)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor) -> list[Classification]:
        """Class probabilities of each image; `sizes` is not looked at."""
        return [Classification(probs=probs) for probs in self(images).float().softmax(dim=1)]

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published classifier's state under this model's names, by the backbone's `adapt_weights`."""
        if any(name.startswith("backbone.") for name in state):
            return dict(state)
        own = ("head.", "aux_heads.")
        return {
            name if name.startswith(own) else f"backbone.{name}": value
            for name, value in self.backbone.adapt_weights(state).items()
        }

    def reset_classes(self) -> None:
        """Start the last layers anew."""
        for layer in (self.head, *self.aux_heads.values()):
            layer.reset_parameters()  # pyright: ignore[reportCallIssue]


def build_classifier(
    config: ClassifierConfig, *, num_classes: int, channels: int, statistics: Statistics
) -> Classifier:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `classifier`.
        num_classes: k.
        channels: of the input.
        statistics: of the input's channels.

    Raises:
        ConfigError: the backbone has no such option.
    """
    backbone = build_backbone(
        config.backbone,
        norm=config.norm,
        channels=channels,
        small_input=config.small_input,
        drop_path=config.drop_path,
        auxiliary=config.auxiliary,
    )
    return Classifier(
        backbone,
        num_classes=num_classes,
        statistics=statistics,
        dropout=config.dropout,
        label_smoothing=config.label_smoothing,
    )
