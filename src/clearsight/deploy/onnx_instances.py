"""Mask R-CNN as one graph: boxes with both suppressions, and a small mask for every box that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.deploy.onnx_detector import best_of_regions, predicted
from clearsight.deploy.onnx_file import ExportGraph
from clearsight.deploy.onnx_suppression import check_selection, pair_boxes
from clearsight.errors import ConfigError
from clearsight.models.detect.regions import score_regions, size_of
from clearsight.models.segment.mask_rcnn import MaskRcnn
from clearsight.nn.precision import at_least_float32
from clearsight.ops.paste import paste_masks
from clearsight.ops.selection import Selection

__all__ = ["MaskDetections", "MaskGraph"]

AGREEING = 0.9999  # share of the pixels of the pasted masks


class MaskDetections(NamedTuple):
    """What an exported Mask R-CNN gives, as many places an image as it may keep boxes.

    Args:
        boxes: `(n, d, 4)` xyxy pixels; 0 where there is none.
        labels: `(n, d)` int64; -1 where there is none.
        scores: `(n, d)` falling; 0 where there is none.
        masks: `(n, d, s, s)` probabilities within the box, which `ops.paste.paste_masks` brings into the image; 0 where
            there is none.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor


class MaskGraph(ExportGraph):
    """Mask R-CNN, its masks drawn in the boxes that are kept, as `predict` draws them.

    Args:
        model: it is set to evaluation mode.
        selection: what is kept.

    Shape: images `(n, c, h, w)` → `MaskDetections`.

    Raises:
        ConfigError: the selection is soft, which no ONNX operator does.
    """

    task = "instance"
    outputs = MaskDetections._fields

    def __init__(self, model: MaskRcnn, selection: Selection) -> None:
        super().__init__()
        check_selection(selection)
        self.model = model.eval()
        self.selection = selection

    def forward(self, images: Tensor) -> MaskDetections:
        """Propose, read the regions, suppress, keep the best and draw them."""
        model, size = self.model, size_of(images)
        levels = model.levels(images)
        proposals = model.rpn.propose(model.rpn(levels, size), size)
        found = score_regions(model.box_head, partial(model.box_head, levels), proposals, size)
        boxes, labels, scores = best_of_regions(found, size=size, selection=self.selection)
        image = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand_as(labels)
        logits = model.mask_head(levels, boxes.flatten(0, 1), image.flatten())  # n·d k s s
        side = logits.shape[-1]
        own = labels.clamp(min=0).flatten()[:, None, None, None].expand(-1, 1, side, side)
        masks = at_least_float32(logits.gather(1, own)).sigmoid().view(*labels.shape, side, side)
        return MaskDetections(boxes, labels, scores, torch.where((scores > 0)[..., None, None], masks, 0.0))

    def check(self, given: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        """Every box has its counterpart, and their masks are the same pixels of the images."""
        size = size_of(given[0])
        boxes, labels, scores, masks = answers
        expected = predicted(self.model, given[0], self.selection)
        for number, (mine, theirs) in enumerate(pair_boxes((boxes, labels, scores), expected)):
            truth = expected[number].masks
            if truth is None or not len(mine):
                continue
            same = paste_masks(masks[number, mine], boxes[number, mine], size) == truth[theirs]
            share = same.double().mean().item()
            if share < AGREEING:
                raise ConfigError(
                    f"export: {1 - share:.2%} of the masks' pixels differ between ONNX Runtime and the model; "
                    "no file was written"
                )
