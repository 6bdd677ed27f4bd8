"""Deep Snake: boxes from peaks of a heat map, and contours that close in on what lies in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.published import backbone_weights
from clearsight.models.base import Backbone
from clearsight.models.contour.snake_loss import SnakeLoss
from clearsight.models.contour.snake_net import Snake
from clearsight.models.contour.snake_targets import snake_targets
from clearsight.models.detect.centernet import SELECTION, CenterNet, CenterNetOutputs, build_centernet, score_cells
from clearsight.models.detect.centernet_head import CenterNetHead
from clearsight.models.detect.centernet_loss import CenterNetLoss
from clearsight.models.detect.dense import postprocess
from clearsight.models.necks.deconv import Deconv
from clearsight.models.necks.fpn import Fpn
from clearsight.nn.checks import check_positive
from clearsight.nn.input import InputNorm
from clearsight.ops.rings import diamond
from clearsight.ops.selection import Selection
from clearsight.types import Instances, Targets

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.segment_sections import DeepSnakeConfig

__all__ = ["DeepSnake", "DeepSnakeOutputs", "build_deep_snake"]

AT_ONCE = 256  # objects traced together in prediction, which bounds the memory


class DeepSnakeOutputs(NamedTuple):
    """What the detector says of every cell, and the map that the snake reads.

    Args:
        logits: `(n, k, h, w)` that the centre of an object of a class lies in the cell.
        size: `(n, 2, h, w)` its width and height, in cells.
        offset: `(n, 2, h, w)` x and y of the centre from the cell's corner, in cells.
        features: `(n, c, h, w)`.
    """

    logits: Tensor
    size: Tensor
    offset: Tensor
    features: Tensor


class DeepSnake(nn.Module):
    """Deep Snake on the map of stride 4 of a CenterNet.

    In training the snake starts from the objects' true boxes, and its rounds from the octagon of their true extreme
    points; in prediction from the detector's boxes, or any that are given.

    Method: Peng et al. 2020 (Deep Snake), arXiv:2001.01629. The detector has CenterNet's offset within the cell, which
    the authors' code leaves out. One contour an object, see `snake_targets`; each part of an object that lies in
    several pieces would need a detection of its own (the paper's section 3.4, not done here).

    Args:
        backbone: gives the levels that the neck reads.
        neck: a `Deconv`, or an `Fpn` whose finest level is read.
        head: of the neck's channels.
        snake: of the neck's channels and stride.
        statistics: of the input's channels.
        criterion: the detector's loss; None for `CenterNetLoss()`.
        snake_criterion: the snake's; None for `SnakeLoss()`.
        max_objects: that the snake learns from in a batch, which bounds the memory; of more, so many are drawn.

    Shape: images `(n, c, h, w)` → `DeepSnakeOutputs` of `(ceil(h / stride), ceil(w / stride))` cells.

    Attributes:
        class_layer: names of the parameters whose shape depends on the number of classes.
        stride: pixels from cell to cell.

    Raises:
        ConfigError: the snake is of another stride, or `max_objects` below 1.
    """

    class_layer = CenterNet.class_layer

    def __init__(
        self,
        backbone: Backbone,
        neck: Deconv | Fpn,
        head: CenterNetHead,
        snake: Snake,
        *,
        statistics: Statistics,
        criterion: CenterNetLoss | None = None,
        snake_criterion: SnakeLoss | None = None,
        max_objects: int = 256,
    ) -> None:
        super().__init__()
        check_positive(max_objects, "max_objects")
        self.input_norm = InputNorm(statistics)
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.snake = snake
        self.criterion = CenterNetLoss() if criterion is None else criterion
        self.snake_criterion = SnakeLoss() if snake_criterion is None else snake_criterion
        self.stride = min(neck.strides.values()) if isinstance(neck, Fpn) else neck.stride
        self.max_objects = max_objects
        if snake.stride != self.stride:
            raise ConfigError(f"snake: its stride is {snake.stride}, that of the neck {self.stride}; give it the same")

    def forward(self, images: Tensor) -> DeepSnakeOutputs:
        """Logits, sizes and offsets of every cell, and the snake's map.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].
        """
        features = self.features(images)
        logits, size, offset = self.head(features)
        return DeepSnakeOutputs(logits, size, offset, features)

    def features(self, images: Tensor) -> Tensor:
        """The map that head and snake read, `(n, c, ceil(h / stride), ceil(w / stride))`."""
        levels = self.backbone.features(self.input_norm(images))
        return self.neck(levels)[0] if isinstance(self.neck, Fpn) else self.neck(levels, images.shape[-2:])

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Terms `heat`, `size` and `offset` of `CenterNetLoss`, `extreme` and `contour` of `SnakeLoss`."""
        *said, features = self(images)
        terms = self.criterion(*said, targets, stride=self.stride)
        truth = snake_targets(targets, points=self.snake.points, max_objects=self.max_objects)
        # Norms have no statistics of nothing, but for those that wait for other processes, whose batch may have some;
        # every parameter still has a gradient, as distributed training wants.
        some = len(truth.image) > 0 or any(isinstance(each, nn.SyncBatchNorm) for each in self.snake.modules())
        extremes = self.snake.extremes(features, truth.boxes, truth.image) if some else truth.extremes
        octagons = self.snake.first_contours(truth.extremes)
        contours = self.snake.evolve(features, octagons, truth.image) if some else [truth.contours]
        learnt = self.snake_criterion(extremes, contours, truth, stride=self.stride)
        if not some:
            untouched = sum((p.sum() for p in self.snake.parameters()), features.new_zeros(())).float() * 0
            learnt = {name: term + untouched for name, term in learnt.items()}
        return terms | learnt

    @torch.no_grad()
    def predict(
        self,
        images: Tensor,
        sizes: Tensor,
        selection: Selection = SELECTION,
        *,
        boxes: Sequence[Instances] | None = None,
    ) -> list[Instances]:
        """Boxes and one contour each, in pixels of the images as given, within the valid part.

        Args:
            images: as for `forward`.
            sizes: `(n, 2)` `(height, width)` of the valid part of each image.
            selection: which of the detector's boxes are kept.
            boxes: what any detector found in the images; then this one is not asked, and boxes, labels, scores and
                flags are passed on as they are.

        Returns:
            One `Instances` an image, with `contours` `(n, points, 2)`, clockwise from the top, and `ring_object`. The
            contour of an object of which the snake says what is no number is the octagon of its box's diamond.

        Raises:
            ConfigError: there are not as many `boxes` as images.
        """
        features = self.features(images)
        if boxes is None:
            said = CenterNetOutputs(*self.head(features))
            boxes = postprocess(score_cells(said, stride=self.stride), sizes, selection)
        elif len(boxes) != len(images):
            raise ConfigError(f"boxes: expected one entry an image, {len(images)}, got {len(boxes)}")
        if not boxes:
            return []
        counts = [len(each) for each in boxes]
        repeats = torch.tensor(counts, device=features.device)
        image = torch.arange(len(counts), device=features.device).repeat_interleave(repeats)
        starts = torch.cat([each.boxes.as_subclass(Tensor) for each in boxes]).to(features.device, torch.float32)
        contours = self._trace(features, starts, image, sizes.to(features.device))
        return [
            replace(each, contours=part, ring_object=torch.arange(len(part), device=part.device))
            for each, part in zip(boxes, contours.split(counts), strict=True)
        ]

    def _trace(self, features: Tensor, boxes: Tensor, image: Tensor, sizes: Tensor) -> Tensor:
        """Contours of boxes, clipped."""
        parts = [
            self.snake(features, some, where)
            for some, where in zip(boxes.split(AT_ONCE), image.split(AT_ONCE), strict=True)
            if len(some)
        ]
        if not parts:
            return boxes.new_zeros(0, self.snake.points, 2)
        traced = torch.cat(parts)
        sound = torch.isfinite(traced).flatten(1).all(dim=1)
        start = self.snake.first_contours(diamond(boxes)[:, [0, 3, 2, 1]])
        traced = torch.where(sound[:, None, None], traced, start)
        return torch.minimum(traced.clamp(min=0), sizes[image].flip(1)[:, None].to(traced.dtype))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published classifier's weights under this model's names, for the backbone."""
        return backbone_weights(self.backbone, state)

    def reset_classes(self) -> None:
        """Start the last layer of the centres anew, at the prior."""
        self.head.reset_prior()


def build_deep_snake(config: DeepSnakeConfig, *, num_classes: int, channels: int, statistics: Statistics) -> DeepSnake:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `deep_snake`: what CenterNet's section has, and the snake's numbers. Its `norm` is the
            backbone's and that of the neck and the snake too, which have batch norm where it is None or frozen.
        num_classes: k.
        channels: of the input.
        statistics: of the input's channels.
    """
    detector = build_centernet(config, num_classes=num_classes, channels=channels, statistics=statistics)
    snake = Snake(
        detector.neck.channels,
        stride=detector.stride,
        points=config.points,
        start_points=config.start_points,
        iterations=config.iterations,
        width=config.snake_channels,
        norm="batch" if config.norm in (None, "frozen_batch") else config.norm,
    )
    return DeepSnake(
        detector.backbone,
        detector.neck,
        detector.head,
        snake,
        statistics=statistics,
        criterion=detector.criterion,
        snake_criterion=SnakeLoss(extreme_weight=config.extreme_weight, contour_weight=config.contour_weight),
        max_objects=config.max_objects,
    )
