"""The third output of a detector of regions: which of a region's pixels belong to its object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.losses.classify import binary_cross_entropy
from clearsight.models.detect.rois import Rois
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.parallel import mean_over_processes
from clearsight.nn.precision import at_least_float32
from clearsight.nn.roi import RoIAlign, roi_align
from clearsight.types import Targets

__all__ = ["MaskHead", "crop_masks"]

CROPPED_PIXELS = 2**22  # of whole masks that are floats at a time
REGIONS = 256  # that are drawn at a time where nothing is learned


class MaskHead(nn.Module):
    """Regions read from the pyramid, convolutions, and a mask for each class; layers named as in torchvision's.

    Method: He et al. 2017, arXiv:1703.06870, section 3 and figure 4, right. As torchvision's published weights want it,
    regions are read without the half-pixel shift (`aligned=False`); the outputs begin near 0, as in the authors' code.

    Shape: levels `(n, c, h, w)`, boxes `(s, 4)`, image `(s,)` → logits `(s, k, 2 size, 2 size)`.

    Args:
        channels: c.
        classes: k, without background.
        strides: of the levels that are read, powers of two that double; levels beyond are passed over.
        width: channels of the convolutions.
        convs: 3×3 convolutions before the enlargement.
        size: bins a side of the regions.

    Raises:
        ConfigError: the strides do not double.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        strides: Sequence[int],
        width: int = 256,
        convs: int = 4,
        size: int = 14,
    ) -> None:
        super().__init__()
        self.pool = RoIAlign(size, strides, aligned=False)
        self.strides = tuple(strides)
        before = (channels, *(width for _ in range(convs)))
        self.convs = nn.Sequential(*(ConvNormAct(count, width, 3, norm=None) for count in before[:-1]))
        self.conv5_mask = nn.ConvTranspose2d(before[-1], width, 2, 2)
        self.mask_fcn_logits = nn.Conv2d(width, classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.reset_outputs()

    def reset_outputs(self) -> None:
        """Start the masks of the classes anew."""
        nn.init.normal_(self.mask_fcn_logits.weight, std=0.001)
        if self.mask_fcn_logits.bias is not None:
            nn.init.zeros_(self.mask_fcn_logits.bias)

    def forward(self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """Draw the regions.

        Args:
            levels: of the pyramid, in rising stride.
            boxes: `(s, 4)` xyxy pixels.
            image: `(s,)` int64.
        """
        return self._draw(self.pool(levels[: len(self.strides)], boxes, image))

    @torch.no_grad()
    def probabilities(self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """How likely each pixel of a region is inside its object.

        Args:
            levels: as for `forward`.
            boxes: `(s, 4)` xyxy pixels.
            image: `(s,)` int64.
            labels: `(s,)` int64, whose mask is wanted.

        Returns:
            `(s, 2 size, 2 size)`, float32 at least.
        """
        regions = self.pool(levels[: len(self.strides)], boxes, image)
        drawn = [
            _of_classes(self._draw(part), label)
            for part, label in zip(regions.split(REGIONS), labels.split(REGIONS), strict=True)
        ]
        return at_least_float32(torch.cat(drawn)).sigmoid()

    def loss(self, levels: Sequence[Tensor], rois: Rois, targets: Targets) -> Tensor:
        """Mean binary cross-entropy of the positive regions' pixels, each in the mask of its object's class.

        Method: He et al. 2017, section 3; the number of regions is averaged over processes. An object whose mask is
        empty (lost when its image was made smaller) says nothing of shapes: its regions are left out.

        Args:
            levels: as for `forward`.
            rois: the regions, with what they hold.
            targets: of the batch, with the masks of all objects at the size of the images; None where there are none.

        Returns:
            A scalar in float32; 0, with gradients of 0, where there is no positive region.
        """
        holds = (rois.object >= 0).nonzero().squeeze(1)
        boxes, mine, image = rois.boxes[holds], rois.object[holds], rois.image[holds]
        masks = image.new_zeros((0, 1, 1), dtype=torch.bool) if targets.masks is None else targets.masks
        logits = self(levels, boxes, image)
        wanted = crop_masks(masks, boxes, mine, logits.shape[-1])
        counts = _says_shape(wanted, masks, mine).nonzero().squeeze(1)
        own = _of_classes(logits, targets.labels[mine])[counts]
        number = mean_over_processes(at_least_float32(own.new_tensor(len(counts)))).clamp(min=1)
        return binary_cross_entropy(own, wanted[counts], reduction="sum") / (number * logits.shape[-1] ** 2)

    def _draw(self, regions: Tensor) -> Tensor:
        return self.mask_fcn_logits(F.relu(self.conv5_mask(self.convs(regions))))


@torch.no_grad()
def crop_masks(masks: Tensor, boxes: Tensor, index: Tensor, size: int) -> Tensor:
    """What boxes see of masks: the mean of bilinear samples of a bin, as many a side as it has pixels.

    Method: as torchvision's targets of Mask R-CNN: RoI align at stride 1, without the half-pixel shift.

    Args:
        masks: `(m, h, w)` bool.
        boxes: `(s, 4)` xyxy pixels.
        index: `(s,)` int64, the mask that each box looks at.
        size: bins a side.

    Returns:
        `(s, size, size)` in [0, 1], in the dtype of the boxes, float32 at least.

    Cost: some 2²² pixels of the masks (or one mask) are floats at a time; masks that no box looks at are not read.
    """
    wide = at_least_float32(boxes)
    used, slot = index.unique(return_inverse=True)
    crops = wide.new_zeros((len(boxes), size, size))
    step = max(1, CROPPED_PIXELS // max(masks.shape[1] * masks.shape[2], 1))
    for start in range(0, len(used), step):
        part = masks[used[start : start + step]].to(wide.dtype)[:, None]
        rows = ((slot >= start) & (slot < start + step)).nonzero().squeeze(1)
        seen = roi_align(part, wide[rows], slot[rows] - start, size, stride=1, samples=0, aligned=False)
        crops[rows] = seen[:, 0]
    return crops.clamp_(0, 1)  # a sum of weights may be a hair above


def _says_shape(crops: Tensor, masks: Tensor, index: Tensor) -> Tensor:
    """Whether a region's object has a mask with any pixel, `(s,)` bool; whole masks are looked at where need be."""
    says = crops.flatten(1).any(dim=1)
    blank = (~says).nonzero().squeeze(1)
    says[blank] = masks[index[blank]].flatten(1).any(dim=1)
    return says


def _of_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each region the mask of one class, `(s, side, side)`."""
    return logits[torch.arange(len(labels), device=labels.device), labels]
