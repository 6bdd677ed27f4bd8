"""Fast R-CNN: one look at the image, then each given region is read from the features, classified and refined."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from clearsight.models.base import Backbone
from clearsight.models.detect.box_head import BoxHead
from clearsight.models.detect.given_regions import GivenRegions, Proposer
from clearsight.models.detect.pyramid import Pyramid, build_pyramid
from clearsight.models.detect.regions import Read
from clearsight.models.detect.rois import RoiSampler
from clearsight.models.detect.sliding_regions import SlidingRegions

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.proposal_sections import FastRcnnConfig

__all__ = ["FastRcnn", "build_fast_rcnn"]

LEVELS = ("c2", "c3", "c4", "c5")


class FastRcnn(GivenRegions):
    """Fast R-CNN on a pyramid, on regions that come from elsewhere.

    Method: Girshick 2015, arXiv:1504.08083. Regions are read from a feature pyramid, as later work does, by RoI align
    or RoI pooling. The paper takes those of selective search; here whoever proposes is an argument, and `loss` and
    `predict` also take the regions themselves.

    Args:
        backbone: gives the levels that the neck takes.
        neck: gives any number of levels.
        box_head: reads the first of them.
        statistics: of the input's channels.
        proposer: where no regions are given; None for `SlidingRegions()`.
        sampler: which regions the head learns from; None for `RoiSampler()`.

    Shape: images `(n, c, h, w)` → `RegionDetections`.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: Pyramid,
        box_head: BoxHead,
        *,
        statistics: Statistics,
        proposer: Proposer | None = None,
        sampler: RoiSampler | None = None,
    ) -> None:
        chosen = RoiSampler() if sampler is None else sampler
        super().__init__(backbone, box_head, statistics=statistics, proposer=proposer, sampler=chosen)
        self.neck = neck

    def reader(self, images: Tensor) -> Read:
        """See `GivenRegions`: the head on the pyramid."""
        return partial(self.box_head, self.neck(self.backbone.features(self.input_norm(images))))


def build_fast_rcnn(config: FastRcnnConfig, *, num_classes: int, channels: int, statistics: Statistics) -> FastRcnn:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `fast_rcnn`.
        num_classes: k, without background.
        channels: of the input.
        statistics: of the input's channels.
    """
    backbone, neck = build_pyramid(config, channels=channels, levels=LEVELS, neck=config.neck)
    head = BoxHead(
        config.fpn_channels,
        num_classes,
        strides=list(neck.strides.values()),
        width=config.box_width,
        pooling=config.pooling,
    )
    return FastRcnn(
        backbone,
        neck,
        head,
        statistics=statistics,
        proposer=SlidingRegions(sizes=config.region_sizes, ratios=config.region_ratios, step=config.region_step),
        sampler=RoiSampler(samples=config.samples),
    )
