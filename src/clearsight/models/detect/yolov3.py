"""YOLOv3: anchors of three shapes at each place of three maps, an objectness, and independent classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from clearsight.assign import build_assigner
from clearsight.assign.assignment import Points
from clearsight.errors import ConfigError
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.published import backbone_weights
from clearsight.models.base import Backbone
from clearsight.models.detect.bag_terms import joint_logits
from clearsight.models.detect.dense import LEVELS, Candidates, Decode, PointGrid, Scored, most_probable, suppress
from clearsight.models.detect.yolov3_head import YoloV3Head, decode_boxes
from clearsight.models.detect.yolov3_loss import YoloV3Loss
from clearsight.models.necks.yolo import YoloNeck
from clearsight.nn.input import InputNorm
from clearsight.ops.selection import Selection
from clearsight.types import Instances, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.detector_sections import YoloV3Config

__all__ = ["ANCHORS", "TINY_ANCHORS", "YoloV3", "YoloV3Outputs", "build_yolov3", "level_anchors"]

SELECTION = Selection(nms_iou=0.45)
SHAPES = 3  # a place
WIDTHS = (128, 256, 512)  # of the neck's levels
# Width and height in pixels, clusters of COCO's boxes: the paper's section 2.3, and those of `yolov3-tiny`.
# fmt: off
ANCHORS = (
    (10.0, 13.0), (16.0, 30.0), (33.0, 23.0),
    (30.0, 61.0), (62.0, 45.0), (59.0, 119.0),
    (116.0, 90.0), (156.0, 198.0), (373.0, 326.0),
)
TINY_ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (81.0, 82.0), (135.0, 169.0), (344.0, 319.0))
# fmt: on


class YoloV3Outputs(NamedTuple):
    """What the heads say of every anchor: level by level, row by row, three anchors a place.

    Args:
        logits: `(n, l, k)` class logits; a score is the product of the class's probability and the objectness.
        codes: `(n, l, 4)` of the boxes, see `yolov3_head.decode_boxes`.
        objectness: `(n, l)` logits.
    """

    logits: Tensor
    codes: Tensor
    objectness: Tensor


class YoloV3(nn.Module):
    """YOLOv3 on three levels of a backbone, or on two as the published tiny network.

    Method: Redmon and Farhadi 2018, arXiv:1804.02767, the layers and anchors; boxes are decoded as `decode_boxes` says,
    and learned as `YoloV3Loss` says. Points stand in the middle of cells of one stride, and any size of image goes.

    Args:
        backbone: gives the neck's levels.
        neck: gives a level for every three anchors.
        head: of the neck's channels, three anchors a place.
        statistics: of the input's channels.
        anchors: width and height in pixels, see `level_anchors`.
        criterion: the loss; None for `YoloV3Loss()`.

    Shape: images `(n, c, h, w)` → `YoloV3Outputs`.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes; the last two are those of an
            assigner that learns (`assign.auto_assign`), which others lack, and two levels have four of the first six.

    Raises:
        ConfigError: the anchors do not suit `level_anchors`, or are not three for each of the neck's levels.
    """

    class_layer = (
        *(f"head.class_logits.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")),
        "criterion.assigner.mean",
        "criterion.assigner.log_sigma",
    )

    def __init__(
        self,
        backbone: Backbone,
        neck: YoloNeck,
        head: YoloV3Head,
        *,
        statistics: Statistics,
        anchors: Sequence[tuple[float, float]] = ANCHORS,
        criterion: YoloV3Loss | None = None,
    ) -> None:
        super().__init__()
        boxes = level_anchors(anchors)
        if len(boxes) != len(neck.strides):
            raise ConfigError(
                f"anchors: expected {SHAPES * len(neck.strides)} for the neck's levels, got {len(anchors)}"
            )
        self.input_norm = InputNorm(statistics)
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.criterion = YoloV3Loss() if criterion is None else criterion
        self.points = PointGrid(neck.strides, anchors=boxes)

    def forward(self, images: Tensor) -> YoloV3Outputs:
        """Logits, codes and objectness of every anchor.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        features = self.backbone.features(self.input_norm(images))
        return YoloV3Outputs(*self.head(self.neck(features)))

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Terms `box`, `objectness` and `class`, or `bag` and `background`; see `YoloV3Loss`."""
        logits, codes, objectness = self(images)
        return self.criterion(logits, codes, objectness, self.points(images.shape[-2:], images.device), targets)

    def scored(self, images: Tensor) -> Scored:
        """What `predict` selects from."""
        logits, codes, objectness = self(images)
        points = self.points(images.shape[-2:], images.device)

        return Scored(joint_logits(logits, objectness), _decoder(codes, points), points.level)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor, selection: Selection = SELECTION) -> list[Instances]:
        """Boxes in pixels of the images as given; see `models.base.Detects`."""
        logits, codes, objectness = self(images)
        points = self.points(images.shape[-2:], images.device)

        sure = objectness.float().sigmoid()  # no product is larger
        passed = (sure > selection.score_threshold) & ~codes.isnan().any(dim=-1)
        image, point = passed.nonzero(as_tuple=True)
        score = sure[image, point][:, None] * logits[image, point].float().sigmoid()
        row, label = (score > selection.score_threshold).nonzero(as_tuple=True)
        found = Candidates(score[row, label], label, image[row], point[row])
        group = found.image * len(self.points.strides) + points.level[found.point]
        found = most_probable(found, group, most=selection.candidates)
        return suppress(found, sizes, selection, decode=_decoder(codes, points), classes=logits.shape[-1])

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published weights under this model's names: a classifier's, for the backbone."""
        return backbone_weights(self.backbone, state)

    def reset_classes(self) -> None:
        """Start the last layers of the classes anew, at the prior."""
        self.head.reset_classes()


def _decoder(codes: Tensor, points: Points) -> Decode:
    def decode(image: Tensor, point: Tensor) -> Tensor:
        return decode_boxes(codes[image, point].float(), points.xy[point], points.stride[point], points.boxes[point])

    return decode


def level_anchors(anchors: Sequence[tuple[float, float]]) -> list[Tensor]:
    """The boxes around the origin that stand at each place of each level.

    Args:
        anchors: width and height in pixels by rising area; the first three are the shallowest level's, and so on.

    Returns:
        `(3, 4)` float32 xyxy a level.

    Raises:
        ConfigError: there are not six or nine, a side is not above 0 and finite, or an area is below the one before.
    """
    if len(anchors) not in (2 * SHAPES, 3 * SHAPES):
        raise ConfigError(f"anchors: expected 9 pairs of sides for three levels or 6 for two, got {len(anchors)}")
    if not all(0 < side < math.inf for pair in anchors for side in pair):
        raise ConfigError(f"anchors: sides must be finite and above 0 pixels, got {anchors}")
    areas = [width * height for width, height in anchors]
    if areas != sorted(areas):
        raise ConfigError(f"anchors: must stand by rising area, because small ones belong to fine maps, got {anchors}")
    half = torch.tensor(anchors, dtype=torch.float32, device="cpu") / 2
    return list(torch.cat((-half, half), dim=1).split(SHAPES))


def build_yolov3(config: YoloV3Config, *, num_classes: int, channels: int, statistics: Statistics) -> YoloV3:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Nine anchors give three levels, c3 to c5, with five convolutions each in the neck; six give two, c4 and c5, in the
    form of the published tiny network.

    Args:
        config: of name `yolov3`.
        num_classes: k.
        channels: of the input.
        statistics: of the input's channels.

    Raises:
        ConfigError: the anchors do not suit `level_anchors`, or the backbone has no such option or level.
    """
    count = len(level_anchors(config.anchors))
    levels = LEVELS[-count:]
    backbone = build_backbone(
        config.backbone, norm=config.norm, channels=channels, drop_path=config.drop_path, levels=levels
    )
    widths = [max(8 * round(width * config.neck_width / 8), 8) for width in WIDTHS[:count]]
    neck = YoloNeck(
        {level: backbone.channels[level] for level in levels},
        widths,
        strides=backbone.strides,
        convs=5 if count == len(WIDTHS) else 1,
        norm=config.neck_norm,
    )
    head = YoloV3Head(neck.channels, [2 * width for width in widths], SHAPES, num_classes, norm=config.neck_norm)
    criterion = YoloV3Loss(
        assigner=build_assigner(config.assigner, num_classes=num_classes),
        box_loss=config.box_loss,
        box_weight=config.box_weight,
        objectness_weight=config.objectness_weight,
        class_weight=config.class_weight,
    )
    return YoloV3(backbone, neck, head, statistics=statistics, anchors=config.anchors, criterion=criterion)
