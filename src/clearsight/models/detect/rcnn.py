"""R-CNN: each given region is cut out, warped to one size, and looked at by itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearsight.models.backbones import build_backbone
from clearsight.models.base import Backbone
from clearsight.models.detect.box_head import RegionHead, RegionOutputs
from clearsight.models.detect.given_regions import GivenRegions, Proposer
from clearsight.models.detect.regions import Read
from clearsight.models.detect.rois import RoiSampler
from clearsight.models.detect.sliding_regions import SlidingRegions
from clearsight.nn.checks import check_positive
from clearsight.nn.roi import roi_align

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.proposal_sections import RcnnConfig

__all__ = ["Rcnn", "build_rcnn"]

CONTEXT = 16 / (227 - 2 * 16)  # of a side, seen around the region on each side
AT_ONCE = 256  # regions that are looked at together


class Rcnn(GivenRegions):
    """R-CNN: a classifier's backbone on every region, then class scores and a refined box.

    Method: Girshick et al. 2014, arXiv:1311.2524, section 2 and appendix A: regions are warped to a square whatever
    their shape, with 16 of 227 pixels of context on each side. Differs from the paper: one softmax with background and
    one regression of boxes are trained together, as in Fast R-CNN, where there support vector machines and ridge
    regressions follow on the trained features; regions are those of the proposer, not of selective search. Pixels
    outside of the image are the mean of the input.

    Cost: the backbone once a region. Take Fast R-CNN unless regions are few.

    Args:
        backbone: its `embed` is what is read of a region.
        box_head: of vectors of `backbone.embedding` numbers.
        statistics: of the input's channels.
        crop: side of the warped regions, pixels.
        proposer: where no regions are given; None for `SlidingRegions()`.
        sampler: which regions are learned from; None for 64 of each image.

    Shape: images `(n, c, h, w)` → `RegionDetections`.

    Raises:
        ConfigError: `crop` is below 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        box_head: RegionHead,
        *,
        statistics: Statistics,
        crop: int = 96,
        proposer: Proposer | None = None,
        sampler: RoiSampler | None = None,
    ) -> None:
        check_positive(crop, "crop")
        chosen = RoiSampler(samples=64) if sampler is None else sampler
        super().__init__(backbone, box_head, statistics=statistics, proposer=proposer, sampler=chosen)
        self.crop = crop

    def reader(self, images: Tensor) -> Read:
        """See `GivenRegions`: the network on crops."""
        return partial(self.read, self.input_norm(images))

    def read(self, images: Tensor, boxes: Tensor, image: Tensor) -> RegionOutputs:
        """What the network says of regions.

        Args:
            images: `(n, c, h, w)` normalised.
            boxes: `(s, 4)` xyxy pixels.
            image: `(s,)` int64.
        """
        margin = (boxes[:, 2:] - boxes[:, :2]) * CONTEXT
        wide = torch.cat((boxes[:, :2] - margin, boxes[:, 2:] + margin), dim=1)
        crops = roi_align(images, wide, image, self.crop, stride=1)
        parts = [self.backbone.embed(part) for part in crops.split(AT_ONCE)] if len(crops) else []
        vectors = torch.cat(parts) if parts else crops.new_zeros((0, self.backbone.embedding))
        return self.box_head.outputs(vectors)


def build_rcnn(config: RcnnConfig, *, num_classes: int, channels: int, statistics: Statistics) -> Rcnn:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `rcnn`.
        num_classes: k, without background.
        channels: of the input.
        statistics: of the input's channels.
    """
    backbone = build_backbone(config.backbone, norm=config.norm, channels=channels, drop_path=config.drop_path)
    return Rcnn(
        backbone,
        RegionHead(backbone.embedding, num_classes),
        statistics=statistics,
        crop=config.crop,
        proposer=SlidingRegions(sizes=config.region_sizes, ratios=config.region_ratios, step=config.region_step),
        sampler=RoiSampler(samples=config.samples),
    )
