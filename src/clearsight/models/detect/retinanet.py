"""RetinaNet: one stage, many anchors, a loss that forgets the easy ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from clearsight.assign import build_assigner
from clearsight.errors import ConfigError
from clearsight.models.backbones.published import backbone_weights
from clearsight.models.base import Backbone, Neck
from clearsight.models.detect.dense import LEVELS, PointGrid, Scored, postprocess
from clearsight.models.detect.pyramid import build_pyramid
from clearsight.models.detect.retinanet_head import RetinaNetHead
from clearsight.models.detect.retinanet_loss import RetinaNetLoss
from clearsight.nn.input import InputNorm
from clearsight.ops.box_codes import decode_deltas
from clearsight.ops.selection import Selection
from clearsight.types import Instances, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.detector_sections import RetinaNetConfig

__all__ = [
    "RetinaNet",
    "RetinaNetOutputs",
    "build_retinanet",
    "cell_anchors",
    "convert_torchvision_retinanet",
]

SELECTION = Selection()

OCTAVES = 3
RATIOS = (0.5, 1.0, 2.0)  # height over width
ANCHOR_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)


class RetinaNetOutputs(NamedTuple):
    """What the heads say of every anchor: level by level, row by row, nine anchors a location.

    Args:
        logits: `(n, l, k)` class logits.
        deltas: `(n, l, 4)` offsets from the anchors, see `ops.box_codes.decode_deltas`.
    """

    logits: Tensor
    deltas: Tensor


class AnchorHead(Protocol):
    """An `nn.Module` that says of every anchor what it holds: `RetinaNetHead`, or one like it."""

    def __call__(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits `(n, l, k)` and deltas `(n, l, 4)`."""
        ...

    def reset_prior(self) -> None:
        """Start the last layer of the class scores anew."""
        ...


class RetinaNet(nn.Module):
    """RetinaNet on a backbone with levels c3 to c5.

    Method: Lin et al. 2017, arXiv:1708.02002. As torchvision's: P6 comes of P5; anchors stand at multiples of the whole
    quotient of image and level side, which is the stride except on levels that do not divide the image.

    Args:
        backbone: gives `c3`, `c4`, `c5`.
        neck: gives as many levels as there are anchor sizes.
        head: nine anchors a location.
        statistics: of the input's channels.
        anchor_sizes: side of the first anchor of each level, pixels.
        criterion: the loss; None for `RetinaNetLoss()`.

    Shape: images `(n, c, h, w)` → `RetinaNetOutputs`.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes; the last two are those of an
            assigner that learns (`assign.auto_assign`), which others lack.

    Raises:
        ConfigError: there are not as many anchor sizes as levels.
    """

    class_layer = (
        "head.classification_head.cls_logits.weight",
        "head.classification_head.cls_logits.bias",
        "criterion.assigner.mean",
        "criterion.assigner.log_sigma",
    )

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        head: AnchorHead,
        *,
        statistics: Statistics,
        anchor_sizes: Sequence[float] = ANCHOR_SIZES,
        criterion: RetinaNetLoss | None = None,
    ) -> None:
        super().__init__()
        if len(anchor_sizes) != len(neck.strides):
            raise ConfigError(
                f"anchor_sizes: expected one for each of {', '.join(neck.strides)}, got {len(anchor_sizes)}"
            )
        self.input_norm = InputNorm(statistics)
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.criterion = RetinaNetLoss() if criterion is None else criterion
        self.points = PointGrid(
            tuple(neck.strides.values()),
            anchors=[cell_anchors(size) for size in anchor_sizes],
            offset=0.0,
            whole_steps=True,
        )

    def forward(self, images: Tensor) -> RetinaNetOutputs:
        """Logits and deltas of every anchor.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        features = self.backbone.features(self.input_norm(images))
        return RetinaNetOutputs(*self.head(self.neck(features)))

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Terms `class` and `box`, or `bag` and `background`; see `RetinaNetLoss`."""
        logits, deltas = self(images)
        return self.criterion(logits, deltas, self.points(images.shape[-2:], images.device), targets)

    def scored(self, images: Tensor) -> Scored:
        """What `predict` selects from."""
        logits, deltas = self(images)
        points = self.points(images.shape[-2:], images.device)

        def decode(image: Tensor, point: Tensor) -> Tensor:
            return decode_deltas(deltas[image, point].float(), points.boxes[point])

        return Scored(logits, decode=decode, level=points.level)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor, selection: Selection = SELECTION) -> list[Instances]:
        """Boxes in pixels of the images as given; see `models.base.Detects`."""
        return postprocess(self.scored(images), sizes, selection)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published weights under this model's names: torchvision's detector, or its classifier for the backbone."""
        if any(name.startswith("backbone.body.") for name in state):
            return convert_torchvision_retinanet(state)
        return backbone_weights(self.backbone, state)

    def reset_classes(self) -> None:
        """Start the last layer of the class head anew, at the prior."""
        self.head.reset_prior()


def cell_anchors(size: float) -> Tensor:
    """The nine anchors of a location, around the origin.

    Three sizes a third of an octave apart, each in three shapes; sides are cut to whole pixels and corners rounded as
    torchvision does.

    Args:
        size: side of the smallest, pixels.

    Returns:
        `(9, 4)` float32 xyxy, by shape and then by size.
    """
    sizes = torch.tensor([size] + [int(size * 2 ** (step / OCTAVES)) for step in range(1, OCTAVES)])
    ratio = torch.tensor(RATIOS).sqrt()
    width = ((1 / ratio)[:, None] * sizes).flatten()
    height = (ratio[:, None] * sizes).flatten()
    return (torch.stack((-width, -height, width, height), dim=1) / 2).round()


def convert_torchvision_retinanet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's `RetinaNet` on a ResNet-FPN under this model's names.

    `backbone.body.` becomes `backbone.`, `backbone.fpn.` becomes `neck.`; the heads' names are the same, also those of
    files older than torchvision 0.14, whose towers number their layers in another way.

    Args:
        state: torchvision's state dict.

    Returns:
        A new dict; tensors are not copied.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        new = name.replace("backbone.body.", "backbone.").replace("backbone.fpn.", "neck.")
        parts = new.split(".")
        if parts[0] == "head" and len(parts) == 5:  # head.X_head.conv.<2 i>.weight: convolution and ReLU were counted
            parts[3:4] = [str(int(parts[3]) // 2), "0"]
        if parts[0] == "neck" and len(parts) == 4 and parts[1] != "extra_blocks":  # neck.inner_blocks.<i>.weight
            parts.insert(3, "0")
        found[".".join(parts)] = value
    return found


def build_retinanet(config: RetinaNetConfig, *, num_classes: int, channels: int, statistics: Statistics) -> RetinaNet:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `retinanet`.
        num_classes: k.
        channels: of the input.
        statistics: of the input's channels.
    """
    backbone, neck = build_pyramid(config, channels=channels, levels=LEVELS, extra="p6p7", neck=config.neck)
    criterion = RetinaNetLoss(
        assigner=build_assigner(config.assigner, num_classes=num_classes),
        box_loss=config.box_loss,
        alpha=config.focal_alpha,
        gamma=config.focal_gamma,
    )
    return RetinaNet(
        backbone,
        neck,
        RetinaNetHead(config.fpn_channels, OCTAVES * len(RATIOS), num_classes, convs=config.head_convs),
        statistics=statistics,
        anchor_sizes=config.anchor_sizes,
        criterion=criterion,
    )
