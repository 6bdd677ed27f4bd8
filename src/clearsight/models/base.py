"""What the trainer, the predictor and the exporter ask of a model, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from clearsight.ops.selection import Selection
from clearsight.types import Classification, Instances, SemanticMap, Targets

__all__ = ["Backbone", "Classifies", "Detects", "Model", "Neck", "Segments"]


@runtime_checkable
class Backbone(Protocol):
    """An `nn.Module` that gives a pyramid, and one vector an image.

    Attributes:
        in_channels: of the images.
        channels: by level, `c2` to `c5`; a net of coarse patches has no `c2`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of the vector.
    """

    in_channels: int
    channels: dict[str, int]
    strides: dict[str, int]
    embedding: int

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """`(n, channels[level], ceil(h / strides[level]), ceil(w / strides[level]))` by level.

        Args:
            images: `(n, in_channels, h, w)` float, normalised.

        Raises:
            ShapeError: they have other channels, or are smaller than the largest stride.
        """
        ...

    def embed(self, images: Tensor) -> Tensor:
        """What a classifier's last layer reads, `(n, embedding)`: the published network without that layer.

        Args:
            images: as for `features`.

        Raises:
            ShapeError: as for `features`.
        """
        ...

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published state dict under this backbone's names; the last, class-dependent layer as `head.weight`, …."""
        ...


@runtime_checkable
class Neck(Protocol):
    """An `nn.Module` between a backbone and a head; `strides` are pixels of the input between neighbours, rising."""

    @property
    def strides(self) -> Mapping[str, int]:
        """By output level."""
        ...

    def __call__(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Levels of the backbone by name → `(n, channels, h, w)` an output level."""
        ...


@runtime_checkable
class Model(Protocol):
    """An `nn.Module` with three methods; parameters below `backbone.` may be trained at another rate."""

    def forward(self, images: Tensor) -> Any:  # noqa: ANN401 - each model has its own NamedTuple
        """Pure tensors (one, or a NamedTuple of them), so that it can be exported.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        ...

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Named scalar terms, whose sum is minimised.

        Args:
            images: as for `forward`.
            targets: of the batch.
        """
        ...

    def predict(self, images: Tensor, sizes: Tensor) -> list[Any]:
        """Results in the pixels of the images as given.

        Args:
            images: as for `forward`.
            sizes: `(n, 2)` `(height, width)` of the valid part of each image.
        """
        ...


@runtime_checkable
class Detects(Model, Protocol):
    """A detector."""

    def predict(self, images: Tensor, sizes: Tensor, selection: Selection = ...) -> list[Instances]:
        """One `Instances` an image, scores falling, boxes clipped to the valid part.

        Args:
            images: as for `forward`.
            sizes: `(n, 2)` `(height, width)` of the valid part of each image.
            selection: how many boxes are kept, and which; the default is each method's own.
        """
        ...


@runtime_checkable
class Classifies(Model, Protocol):
    """A classifier."""

    def predict(self, images: Tensor, sizes: Tensor) -> list[Classification]:
        """One `Classification` an image."""
        ...


@runtime_checkable
class Segments(Model, Protocol):
    """A segmenter: a class for every pixel."""

    def predict(self, images: Tensor, sizes: Tensor) -> list[SemanticMap]:
        """One `SemanticMap` an image, cut to the valid part."""
        ...
