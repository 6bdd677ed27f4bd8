"""What R-CNN and Fast R-CNN have in common: regions come from elsewhere, and are classified and refined."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clearsight.models.backbones.published import backbone_weights
from clearsight.models.base import Backbone
from clearsight.models.detect.box_head import RegionHead
from clearsight.models.detect.regions import Read, RegionDetections, detect_regions, score_regions, size_of
from clearsight.models.detect.rois import RoiSampler
from clearsight.models.detect.rpn import Proposals
from clearsight.models.detect.sliding_regions import SlidingRegions
from clearsight.nn.input import InputNorm
from clearsight.ops.selection import Selection
from clearsight.types import Instances, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics

__all__ = ["GivenRegions", "Proposer"]

SELECTION = Selection()

Proposer = Callable[[Tensor, Tensor | None], Proposals]
"""Regions for images `(n, c, h, w)` as they are given, and `(n, 2)` sizes of their valid parts or None."""


class GivenRegions(nn.Module, ABC):
    """A detector on regions that come from elsewhere; how it reads them is the subclass's.

    Args:
        backbone: of `reader`.
        box_head: gives scores and boxes of a region.
        statistics: of the input's channels.
        proposer: where no regions are given; None for `SlidingRegions()`.
        sampler: which regions are learned from.

    Shape: images `(n, c, h, w)` → `RegionDetections`.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes.
    """

    class_layer = tuple(
        f"box_head.{layer}.{part}" for layer in ("cls_score", "bbox_pred") for part in ("weight", "bias")
    )

    def __init__(
        self,
        backbone: Backbone,
        box_head: RegionHead,
        *,
        statistics: Statistics,
        proposer: Proposer | None,
        sampler: RoiSampler,
    ) -> None:
        super().__init__()
        self.input_norm = InputNorm(statistics)
        self.backbone = backbone
        self.box_head = box_head
        self.proposer: Proposer = SlidingRegions() if proposer is None else proposer
        self.sampler = sampler

    @abstractmethod
    def reader(self, images: Tensor) -> Read:
        """What says of regions of these images, `(n, c, h, w)` as for `forward`, what they hold."""

    def forward(self, images: Tensor) -> RegionDetections:
        """Scores and boxes of every region of the proposer.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        return score_regions(self.box_head, self.reader(images), self.proposer(images, None), size_of(images))

    def loss(self, images: Tensor, targets: Targets, *, proposals: Proposals | None = None) -> dict[str, Tensor]:
        """Terms `class` and `box` (see `RegionHead.loss`).

        Args:
            images: as for `forward`.
            targets: of the batch.
            proposals: regions of each image; None asks the proposer.
        """
        rois = self.sampler(self.proposer(images, None) if proposals is None else proposals, targets)
        class_loss, box_loss = self.box_head.loss(self.reader(images)(rois.boxes, rois.image), rois, targets)
        return {"class": class_loss, "box": box_loss}

    @torch.no_grad()
    def predict(
        self, images: Tensor, sizes: Tensor, selection: Selection = SELECTION, *, proposals: Proposals | None = None
    ) -> list[Instances]:
        """Boxes in pixels of the images as given; see `models.base.Detects`.

        Args:
            images: as for `forward`.
            sizes: `(n, 2)` `(height, width)` of the valid part of each image.
            selection: what is kept.
            proposals: regions of each image; None asks the proposer.
        """
        found = self.proposer(images, sizes) if proposals is None else proposals
        return detect_regions(self.box_head, self.reader(images), found, sizes, selection)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published classifier's weights under this model's names, for the backbone."""
        return backbone_weights(self.backbone, state)

    def reset_classes(self) -> None:
        """Start the outputs of the head anew."""
        self.box_head.reset_outputs()
