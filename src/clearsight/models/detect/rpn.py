"""Region proposal network: where on a feature pyramid something may be, whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clearsight.assign import Assigner, MaxIou
from clearsight.assign.assignment import Points
from clearsight.errors import ConfigError
from clearsight.losses.box import smooth_l1_loss
from clearsight.losses.classify import binary_cross_entropy
from clearsight.models.detect.dense import PointGrid, make_points
from clearsight.models.detect.sampling import check_sampling, sample_balanced
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.parallel import mean_over_processes
from clearsight.nn.precision import at_least_float32
from clearsight.ops.box_codes import decode_deltas, encode_deltas
from clearsight.ops.boxes import clip_boxes
from clearsight.ops.nms import batched_nms
from clearsight.types import Targets

__all__ = ["Proposals", "Rpn", "RpnHead", "RpnLoss", "RpnOutputs", "anchors_of_cell", "propose"]

RATIOS = (0.5, 1.0, 2.0)  # height over width
ANCHOR_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
LEAST_SIDE = 1e-3  # pixels; what is smaller after clipping is no proposal


class RpnOutputs(NamedTuple):
    """What the head says of every anchor: level by level, row by row, the anchors of a location side by side.

    Args:
        logits: `(n, l)` that the anchor holds an object.
        deltas: `(n, l, 4)` offsets from the anchors, see `ops.box_codes.decode_deltas`.
        points: l anchors.
        counts: anchors of each level; they sum to l.
    """

    logits: Tensor
    deltas: Tensor
    points: Points
    counts: tuple[int, ...]


class Proposals(NamedTuple):
    """Boxes that may hold an object, as many for each image; not differentiated through.

    Args:
        boxes: `(n, p, 4)` xyxy pixels, clipped to the image.
        scores: `(n, p)` falling; 0 where an image has no more proposals, and the box has no meaning.
    """

    boxes: Tensor
    scores: Tensor


class RpnHead(nn.Module):
    """One set of weights for all levels, with torchvision's parameter names.

    Shape: levels `(n, c, h, w)` → logits `(n, l)` and deltas `(n, l, 4)`.

    Args:
        channels: c.
        anchors: a location.
        convs: 3×3 convolutions with ReLU before the outputs.
    """

    def __init__(self, channels: int, anchors: int, *, convs: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(*(ConvNormAct(channels, channels, 3, norm=None) for _ in range(convs)))
        self.cls_logits = nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, anchors * 4, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and deltas of all levels."""
        logits, deltas = [], []
        for level in levels:
            x = self.conv(level)
            logits.append(self.cls_logits(x).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.bbox_pred(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)))
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)


@dataclass(frozen=True, kw_only=True)
class RpnLoss:
    """Is there an object, and where exactly: of a sample of the anchors, half of them positive where there are as many.

    Method: Ren et al. 2015, arXiv:1506.01497, equation 1, as torchvision computes it: both terms are divided by the
    number of sampled anchors (averaged over processes, so that two processes at half the batch each equal one), and the
    smooth L1 bends at 1/9.

    Args:
        assigner: a hard one; which anchors hold an object, which none.
        samples: anchors of each image, see `sample_balanced`.
        share: of positives among them, at most.
        beta: bend of the smooth L1.

    Raises:
        ConfigError: nothing could be sampled, or the assigner wants to see predictions.
    """

    assigner: Assigner = field(default_factory=lambda: MaxIou(positive=0.7, negative=0.3))
    samples: int = 256
    share: float = 0.5
    beta: float = 1 / 9

    def __post_init__(self) -> None:
        check_sampling("rpn", count=self.samples, share=self.share)
        if self.assigner.needs_predictions:
            raise ConfigError("rpn: the assigner must not look at predictions; take max_iou or atss")

    def __call__(self, outputs: RpnOutputs, targets: Targets) -> dict[str, Tensor]:
        """Both terms.

        Args:
            outputs: of the head.
            targets: of the batch.

        Returns:
            `rpn_class` and `rpn_box`, scalars in float32.
        """
        logits, deltas, points, _ = outputs
        found = self.assigner(points, targets, images=len(logits))
        owner = torch.full(logits.shape, -1, dtype=torch.int64, device=logits.device)
        owner[targets.image[found.object], found.point] = found.object
        drawn = sample_balanced(owner >= 0, found.background > 0, count=self.samples, share=self.share)
        image, point = drawn.nonzero(as_tuple=True)
        count = mean_over_processes(at_least_float32(drawn.sum())).clamp(min=1)
        mine = owner[image, point]
        wanted = (mine >= 0).to(torch.float32)
        class_loss = binary_cross_entropy(logits[image, point], wanted, reduction="sum") / count
        holds = (mine >= 0).nonzero().squeeze(1)
        image, point, mine = image[holds], point[holds], mine[holds]
        pairs = at_least_float32(deltas[image, point])
        ideal = encode_deltas(targets.boxes[mine], points.boxes[point]).to(pairs.dtype)
        return {"rpn_class": class_loss, "rpn_box": smooth_l1_loss(pairs, ideal, beta=self.beta) / count}


class Rpn(nn.Module):
    """The head on its anchors, and the way from there to proposals.

    Method: Ren et al. 2015, arXiv:1506.01497, section 3.1, on a pyramid as Lin et al. 2017, arXiv:1612.03144, section
    4.1: one size of anchors a level, three shapes. Anchors stand at multiples of the whole quotient of image and level
    side, as torchvision's.

    Args:
        channels: of the levels.
        strides: of the levels.
        anchor_sizes: √area of the anchors of each level, pixels.
        convs: of the head.
        nms_iou: overlap above which the weaker of two proposals of a level is dropped.
        proposals: of each image, and kept of each level before suppression.
        train_proposals: the same where the second stage learns from them.
        criterion: the loss; None for `RpnLoss()`.

    Raises:
        ConfigError: there are not as many sizes as levels, `nms_iou` lies outside [0, 1], or there are no proposals.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        anchor_sizes: Sequence[float] = ANCHOR_SIZES,
        convs: int = 1,
        nms_iou: float = 0.7,
        proposals: int = 1000,
        train_proposals: int = 2000,
        criterion: RpnLoss | None = None,
    ) -> None:
        super().__init__()
        if len(anchor_sizes) != len(strides):
            raise ConfigError(
                f"anchor_sizes: expected one a level, so {len(strides)} for strides {tuple(strides)}, "
                f"got {tuple(anchor_sizes)}"
            )
        if not 0 <= nms_iou <= 1:
            raise ConfigError(f"rpn: nms_iou must be in [0, 1], got {nms_iou}")
        if min(proposals, train_proposals) < 1:
            raise ConfigError(f"rpn: there must be a proposal at least, got {proposals} and {train_proposals}")
        self.nms_iou, self.proposals, self.train_proposals = nms_iou, proposals, train_proposals
        self.head = RpnHead(channels, len(RATIOS), convs=convs)
        self.criterion = RpnLoss() if criterion is None else criterion
        cells = [anchors_of_cell(size) for size in anchor_sizes]
        self.points = PointGrid(strides, anchors=cells, offset=0.0, whole_steps=True)

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> RpnOutputs:
        """What the head says.

        Args:
            levels: `(n, c, h, w)`, one a stride.
            size: `(height, width)` of the images.
        """
        logits, deltas = self.head(levels)
        shapes = [(level.shape[-2], level.shape[-1]) for level in levels]
        if torch.compiler.is_compiling():  # what is traced is not remembered, and its sizes may be unknown
            steps = [(size[0] // height, size[1] // width) for height, width in shapes]
            grid, device = self.points, levels[0].device
            points = make_points(
                shapes, grid.strides, steps=steps, anchors=grid.anchors, offset=grid.offset, device=device
            )
        else:
            points = self.points(size, levels[0].device)
        counts = tuple(height * width * len(RATIOS) for height, width in shapes)
        return RpnOutputs(logits, deltas, points, counts)

    def loss(self, outputs: RpnOutputs, targets: Targets) -> dict[str, Tensor]:
        """Terms `rpn_class` and `rpn_box`; see `RpnLoss`."""
        return self.criterion(outputs, targets)

    def propose(self, outputs: RpnOutputs, sizes: Tensor | tuple[int, int], *, learning: bool = False) -> Proposals:
        """The best boxes, `proposals` of each image, or `train_proposals` where the second stage is `learning`."""
        count = self.train_proposals if learning else self.proposals
        return propose(outputs, sizes, count=count, nms_iou=self.nms_iou)


@torch.no_grad()
def propose(outputs: RpnOutputs, sizes: Tensor | tuple[int, int], *, count: int, nms_iou: float) -> Proposals:
    """From the scores of all anchors to a fixed number of boxes for each image, for the whole batch at once.

    The best `count` of each image and level → decoded and clipped → non-maximum suppression within image and level,
    whatever the class → the best `count` of each image. Boxes with a side below a thousandth of a pixel are left out.

    Args:
        outputs: of the head.
        sizes: `(height, width)` that boxes are clipped to, of all images or `(n, 2)` of each.
        count: p, kept of each level before suppression and of each image after it.
        nms_iou: overlap above which the weaker box is dropped.

    Returns:
        p proposals for each image, or l where there are fewer anchors.
    """
    logits, deltas, points, counts = outputs
    images = logits.shape[0]
    best, start = [], 0
    for level in logits.detach().split(counts, dim=1):
        best.append(start + level.topk(min(count, level.shape[1]), dim=1).indices)
        start += level.shape[1]
    group = torch.cat([torch.full_like(part, number) for number, part in enumerate(best)], dim=1)
    group = group + len(counts) * torch.arange(images, device=group.device)[:, None]
    index = torch.cat(best, dim=1)  # n k
    scores = at_least_float32(logits.gather(1, index)).sigmoid()
    offsets = at_least_float32(deltas.gather(1, index[..., None].expand(-1, -1, 4)))
    limits = sizes if isinstance(sizes, tuple) else sizes.to(index.device)[:, None]
    boxes = clip_boxes(decode_deltas(offsets, points.boxes[index]), limits)
    usable = ((boxes[..., 2:] - boxes[..., :2]) >= LEAST_SIDE).all(dim=-1)
    kept = usable & _unsuppressed(boxes.view(-1, 4), scores.view(-1), group.view(-1), usable.view(-1), nms_iou).view(
        index.shape
    )
    scores, order = scores.masked_fill(~kept, 0.0).topk(min(count, index.shape[1]), dim=1)
    return Proposals(boxes.gather(1, order[..., None].expand(-1, -1, 4)), scores)


def anchors_of_cell(size: float, ratios: Sequence[float] = RATIOS) -> Tensor:
    """The anchors of a location, around the origin, corners rounded to whole pixels as torchvision's.

    Args:
        size: √area, pixels.
        ratios: height over width.

    Returns:
        `(a, 4)` float32 xyxy.
    """
    tall = torch.tensor(ratios).sqrt()
    width, height = size * (1 / tall), size * tall
    return (torch.stack((-width, -height, width, height), dim=1) / 2).round()


def _unsuppressed(boxes: Tensor, scores: Tensor, groups: Tensor, usable: Tensor, iou: float) -> Tensor:
    """Which boxes suppression within their group leaves, `(k,)` bool."""
    if torch.compiler.is_compiling():  # in one call, which code without branches can hold
        from torchvision.ops import nms

        apart = boxes + (groups * (boxes.max() + 1))[:, None]
        kept = nms(apart, scores, iou)
    else:
        index = usable.nonzero().squeeze(1)
        kept = index[batched_nms(boxes[index], scores[index], groups[index], iou=iou)]
    return torch.zeros_like(usable).index_fill(0, kept, True)  # noqa: FBT003 - the value has no name
