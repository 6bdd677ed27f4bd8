"""What a recipe may say of detectors of two stages and more."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clearsight.recipe.detector_sections import DetectorSection, Neck, Overlap
from clearsight.recipe.section import Count, Pixels, Positive

__all__ = ["CascadeRcnnConfig", "FastRcnnConfig", "FasterRcnnConfig", "MaskRcnnConfig", "RcnnConfig"]


class _ProposalSection(DetectorSection):
    """What they have in common."""

    neck: Neck = "fpn"
    fpn_channels: Count = 256
    anchor_sizes: tuple[Positive, Positive, Positive, Positive, Positive] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of each level's anchors, pixels; three shapes come of each."""
    box_width: Count = 1024
    """Of the two hidden layers behind the pooled regions."""
    pooling: Literal["align", "pool"] = "align"
    """Of regions: interpolated (He et al. 2017) or to whole pixels (Girshick 2015)."""
    proposals: Count = 1000
    """Regions an image in use."""
    train_proposals: Count = 2000
    """Regions an image in training, before sampling."""
    samples: Count = 512
    """Regions an image that the heads learn from, a quarter of them objects where there are as many."""


class _SlidingSection(DetectorSection):
    """What detectors of given regions have in common: where the regions are, which slide over the image."""

    region_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (32.0, 64.0, 128.0, 256.0)
    """√area of the regions, pixels."""
    region_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height over width."""
    region_step: Positive = 0.33
    """Between neighbours, relative to their size."""


class RcnnConfig(_SlidingSection):
    """R-CNN (Girshick et al. 2014): every region is cut out, warped to one size and looked at by itself."""

    name: Literal["rcnn"] = "rcnn"
    crop: Pixels = 96
    """Side of the warped regions."""
    samples: Count = 64
    """Regions an image that are learned from, a quarter of them objects where there are as many."""


class FastRcnnConfig(_SlidingSection):
    """Fast R-CNN (Girshick 2015): one look at the image, from which every region is read."""

    name: Literal["fast_rcnn"] = "fast_rcnn"
    neck: Neck = "fpn"
    fpn_channels: Count = 256
    box_width: Count = 1024
    """Of the two hidden layers behind the pooled regions."""
    pooling: Literal["align", "pool"] = "align"
    """Of regions: interpolated (He et al. 2017) or to whole pixels (Girshick 2015)."""
    samples: Count = 512
    """Regions an image that the head learns from, a quarter of them objects where there are as many."""


class FasterRcnnConfig(_ProposalSection):
    """Faster R-CNN (Ren et al. 2015) on a feature pyramid: proposes regions, then classifies and refines them."""

    name: Literal["faster_rcnn"] = "faster_rcnn"
    stage: Literal["joint", "rpn", "boxes"] = "joint"
    """What is trained: both, the proposals alone, or what classifies and refines them (alternating training)."""


class MaskRcnnConfig(_ProposalSection):
    """Mask R-CNN (He et al. 2017): Faster R-CNN, and the pixels of each object."""

    name: Literal["mask_rcnn"] = "mask_rcnn"
    stage: Literal["joint", "rpn", "boxes"] = "joint"
    """What is trained: all, the proposals alone, or what classifies, refines and cuts out."""
    mask_channels: Count = 256
    mask_convs: Annotated[int, Field(ge=1, le=8)] = 4
    mask_size: Count = 14
    """Side of what is read of a region; its mask has twice the side."""


class CascadeRcnnConfig(_ProposalSection):
    """Cascade R-CNN (Cai and Vasconcelos 2018): three refinements, each for boxes that overlap more."""

    name: Literal["cascade_rcnn"] = "cascade_rcnn"
    overlaps: tuple[Overlap, Overlap, Overlap] = (0.5, 0.6, 0.7)
    """IoU from which on a region is an object's, one a stage."""
