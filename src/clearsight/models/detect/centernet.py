"""CenterNet: an object is the peak of a heat map, with a size and an offset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.published import backbone_weights
from clearsight.models.base import Backbone
from clearsight.models.detect.centernet_head import CenterNetHead
from clearsight.models.detect.centernet_loss import CenterNetLoss
from clearsight.models.detect.dense import Scored, postprocess
from clearsight.models.detect.heat_map import local_peaks
from clearsight.models.necks.deconv import Deconv
from clearsight.models.necks.fpn import Fpn
from clearsight.nn.input import InputNorm
from clearsight.ops.selection import Selection
from clearsight.types import Instances, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.detector_sections import CentreSection

__all__ = ["CenterNet", "CenterNetOutputs", "build_centernet", "score_cells"]

SELECTION = Selection(score_threshold=0.1, nms_iou=1.0)  # peaks alone, as in the paper


class CenterNetOutputs(NamedTuple):
    """What the heads say of every cell of the map.

    Args:
        logits: `(n, k, h, w)` that the centre of an object of a class lies in the cell.
        size: `(n, 2, h, w)` its width and height, in cells.
        offset: `(n, 2, h, w)` x and y of the centre from the cell's corner, in cells.
    """

    logits: Tensor
    size: Tensor
    offset: Tensor


class CenterNet(nn.Module):
    """CenterNet on a map of stride 4.

    Method: Zhou et al. 2019, arXiv:1904.07850, sections 3 and 4. A box's centre is `(cell + offset) · stride`, its size
    that of the head times the stride, in any class; its score is the peak's probability. There is no suppression among
    boxes unless `Selection.nms_iou` is below 1, as a recipe's `eval` section has it; it then acts on the peaks' boxes.

    Args:
        backbone: gives the levels that the neck reads.
        neck: a `Deconv`, or an `Fpn` whose finest level is read.
        head: of the neck's channels.
        statistics: of the input's channels.
        criterion: the loss; None for `CenterNetLoss()`.

    Shape: images `(n, c, h, w)` → `CenterNetOutputs` of `(ceil(h / stride), ceil(w / stride))` cells.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes.
        stride: pixels from cell to cell.
    """

    class_layer = ("head.heat.1.weight", "head.heat.1.bias")

    def __init__(
        self,
        backbone: Backbone,
        neck: Deconv | Fpn,
        head: CenterNetHead,
        *,
        statistics: Statistics,
        criterion: CenterNetLoss | None = None,
    ) -> None:
        super().__init__()
        self.input_norm = InputNorm(statistics)
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.criterion = CenterNetLoss() if criterion is None else criterion
        self.stride = min(neck.strides.values()) if isinstance(neck, Fpn) else neck.stride

    def forward(self, images: Tensor) -> CenterNetOutputs:
        """Logits, sizes and offsets of every cell.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        features = self.backbone.features(self.input_norm(images))
        if isinstance(self.neck, Fpn):
            return CenterNetOutputs(*self.head(self.neck(features)[0]))
        return CenterNetOutputs(*self.head(self.neck(features, images.shape[-2:])))

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Terms `heat`, `size` and `offset`; see `CenterNetLoss`."""
        return self.criterion(*self(images), targets, stride=self.stride)

    def scored(self, images: Tensor) -> Scored:
        """What `predict` selects from."""
        return score_cells(self(images), stride=self.stride)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor, selection: Selection = SELECTION) -> list[Instances]:
        """Boxes in pixels of the images as given; see `models.base.Detects`. Cells with what is no number give none."""
        return postprocess(self.scored(images), sizes, selection)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published classifier's weights under this model's names, for the backbone."""
        return backbone_weights(self.backbone, state)

    def reset_classes(self) -> None:
        """Start the last layer of the centres anew, at the prior."""
        self.head.reset_prior()


def score_cells(outputs: CenterNetOutputs, *, stride: float) -> Scored:
    """The peaks of the heat map as boxes; cells with what is no number have no score.

    Args:
        outputs: of a head on a map.
        stride: pixels from cell to cell of it.
    """
    logits, size, offset = outputs
    numbers = torch.isfinite(torch.cat((size, offset), dim=1)).all(dim=1, keepdim=True)
    heat = logits.masked_fill(~(numbers & torch.isfinite(logits)), -torch.inf)
    heat = heat.masked_fill(~local_peaks(heat), -torch.inf)
    width = heat.shape[-1]

    def decode(image: Tensor, point: Tensor) -> Tensor:
        y, x = torch.div(point, width, rounding_mode="floor"), point % width
        centre = torch.stack((x, y), dim=1) + offset[image, :, y, x].float()
        half = size[image, :, y, x].float().clamp(min=0) / 2
        return torch.cat((centre - half, centre + half), dim=1) * stride

    scores = heat.permute(0, 2, 3, 1).flatten(1, 2)
    level = torch.zeros(scores.shape[1], dtype=torch.int64, device=scores.device)
    return Scored(scores, decode=decode, level=level)


def build_centernet(config: CentreSection, *, num_classes: int, channels: int, statistics: Statistics) -> CenterNet:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `centernet`, or another with its keys. Its `norm` is the backbone's and that of the transposed
            convolutions too, which have batch norm where it is None or frozen.
        num_classes: k.
        channels: of the input.
        statistics: of the input's channels.
    """
    levels = ("c5",) if config.neck == "deconv" else ("c2", "c3", "c4", "c5")
    backbone = build_backbone(
        config.backbone, norm=config.norm, channels=channels, drop_path=config.drop_path, levels=levels
    )
    used = {level: backbone.channels[level] for level in levels}
    if config.neck == "deconv":
        norm = "batch" if config.norm in (None, "frozen_batch") else config.norm
        neck = Deconv(used, config.neck_channels, strides=backbone.strides, norm=norm)
    else:
        neck = Fpn(used, config.neck_channels[-1], strides=backbone.strides, finest_only=True)
    criterion = CenterNetLoss(
        min_overlap=config.min_overlap, size_weight=config.size_weight, offset_weight=config.offset_weight
    )
    head = CenterNetHead(neck.channels, num_classes, width=config.head_channels)
    return CenterNet(backbone, neck, head, statistics=statistics, criterion=criterion)
