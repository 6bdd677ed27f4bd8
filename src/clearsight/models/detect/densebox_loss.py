"""Which cells of DenseBox's map answer for which objects, and its two loss terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points
from clearsight.assign.base import assigned_objects, background_weight, resolve_conflicts
from clearsight.errors import ConfigError, nearest
from clearsight.losses.checks import trace_nan
from clearsight.nn.parallel import mean_over_processes
from clearsight.nn.precision import at_least_float32
from clearsight.ops.box_codes import encode_distances
from clearsight.ops.boxes import box_area
from clearsight.types import Targets

__all__ = ["DenseBoxLoss", "disc_cells", "mine_background"]

BOX_SCALE = 50.0  # pixels: the unit of the distances, an object's height in the paper's training patches
HARD = 0.01  # share of the background that is hard
CLASS_LOSSES = ("l2", "bce")


@dataclass(frozen=True, kw_only=True)
class DenseBoxLoss:
    """Squared errors of the scores and of the distances, of positive cells and as many cells of background.

    Both are divided by the number of positive cells of the batch (averaged over processes); the paper has plain sums.

    Method: Huang et al. 2015, arXiv:1509.04874, section 3.3, equations 1 to 4. `bce` in place of `l2` makes the scores
    logits.

    Args:
        radius: of the disc of positive cells; see `disc_cells`.
        class_loss: `l2`, the squared error of the score itself, or `bce`, cross-entropy of its sigmoid.
        box_weight: factor of the distances' term.
        negatives: cells of background for each positive one of the batch; an image counts as one positive cell at
            least, so that images without objects teach, too.
        box_scale: unit of the distances, pixels.

    Raises:
        ConfigError: there is no such class loss, or a number is out of range.
    """

    radius: float = 0.3
    class_loss: Literal["l2", "bce"] = "l2"
    box_weight: float = 3.0
    negatives: float = 1.0
    box_scale: float = BOX_SCALE

    def __post_init__(self) -> None:
        if self.class_loss not in CLASS_LOSSES:
            raise ConfigError(
                f"class_loss: there is none named {self.class_loss!r}{nearest(self.class_loss, CLASS_LOSSES)}"
            )
        for name in ("radius", "box_weight", "negatives"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}: must be at least 0, got {getattr(self, name)}")
        if not 0 < self.box_scale < math.inf:
            raise ConfigError(f"box_scale: must be above 0 pixels, got {self.box_scale}")

    def __call__(
        self, scores: Tensor, distances: Tensor, points: Points, targets: Targets, *, shape: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Both terms.

        Args:
            scores: `(n, l, k)`.
            distances: `(n, l, 4)` left, top, right, bottom in units of `box_scale`.
            points: l cells, row by row.
            targets: of the batch.
            shape: `(height, width)` of the map.

        Returns:
            `class` and `box`, scalars in float32.
        """
        found = disc_cells(points, shape, targets, radius=self.radius, images=len(scores))
        image = targets.image[found.object]
        share = 1 / mean_over_processes(found.weight.sum()).clamp(min=1)
        wanted = math.ceil(self.negatives * max(len(found.point), len(scores)))
        chosen = mine_background(self._background_loss(scores), found.background, count=wanted)

        place = torch.cat((image * scores.shape[1] + found.point, chosen))  # read at once: one gradient is spread
        rows = at_least_float32(scores.flatten(0, 1)[place])
        label = torch.zeros_like(rows)
        label[torch.arange(len(image), device=place.device), targets.labels[found.object]] = 1.0
        class_loss = self._class_loss(rows, label)

        guess, boxes = at_least_float32(distances[image, found.point]), targets.boxes[found.object]
        scale = boxes.new_full((len(boxes),), self.box_scale)
        sides = encode_distances(boxes, points.xy[found.point], scale).to(guess.dtype)
        box_loss = trace_nan((guess - sides).square().sum(), boxes=boxes)
        return {"class": class_loss * share, "box": self.box_weight * box_loss * share}

    def _class_loss(self, scores: Tensor, wanted: Tensor) -> Tensor:
        if self.class_loss == "l2":
            return (scores - wanted).square().sum()
        return F.binary_cross_entropy_with_logits(scores, wanted, reduction="sum")

    @torch.no_grad()
    def _background_loss(self, scores: Tensor) -> Tensor:
        """What each cell would cost as background, `(n, l)`."""
        scores = at_least_float32(scores)
        if self.class_loss == "l2":
            return torch.linalg.vector_norm(scores, dim=-1).square_()
        return F.softplus(scores).sum(dim=-1)


@torch.no_grad()
def disc_cells(
    points: Points, shape: tuple[int, int], targets: Targets, *, radius: float = 0.3, grey: float = 2.0, images: int
) -> Assignment:
    """Which cells of a map answer for which objects: those of a disc around each centre.

    A cell is positive for an object when its middle lies at most `radius` times the object's shorter side from the
    object's centre, or the centre lies in the cell. Of several objects the one whose centre is nearest takes it, of
    equals the smaller, then the first. Other cells at most `grey` cells from a positive one (of any class, from middle
    to middle) are neither, as are those inside ignored objects. An object whose centre lies outside the map has those
    cells of its disc that the map has, perhaps none.

    Method: Huang et al. 2015, arXiv:1509.04874, section 3.1 (disc) and 3.3 (grey zone, `r_near`). Differs from the
    paper: its objects are about square and the disc measures 0.3 of their size; with the shorter side the disc lies
    inside objects of any shape. All objects count; the paper leaves out those of a size far from the patch's own.

    Args:
        points: cells of one map, row by row.
        shape: `(height, width)` of the map.
        targets: m objects of the batch.
        radius: of the disc, relative to the shorter side.
        grey: cells.
        images: n.

    Returns:
        The assignment; pairs sorted by image and cell, all of weight 1.

    Cost: memory for the squares around the discs, as far as the map has them; no matrix of objects and cells.
    """
    height, width = shape
    usable = assigned_objects(targets)
    usable = usable[torch.argsort(box_area(targets.boxes[usable]), stable=True)]  # of equals the first is kept
    boxes, stride = targets.boxes[usable], points.stride[0]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride  # in cells from the map's corner
    reach = radius * (boxes[:, 2:] - boxes[:, :2]).amin(dim=1).clamp(min=0) / stride
    row, x, y = _windows(centre, reach, width=width, height=height)
    cell = torch.stack((x, y), dim=1)
    off = (cell + 0.5 - centre[row]).square().sum(dim=1)
    kept = ((off <= reach[row].square()) | (cell == centre[row].floor()).all(dim=1)).nonzero().squeeze(1)
    row, x, y, off = row[kept], x[kept], y[kept], off[kept]
    place = (targets.image[usable][row] * height + y) * width + x
    first = resolve_conflicts(place, off)
    row, x, y, place = row[first], x[first], y[first], place[first]
    background = background_weight(points, targets, place, images=images)
    if len(place):
        background.masked_fill_(_near(place, (images, height, width), grey).flatten(1), 0.0)
    return Assignment(
        object=usable[row], point=place % (height * width), weight=torch.ones_like(off[first]), background=background
    )


@torch.no_grad()
def mine_background(loss: Tensor, background: Tensor, *, count: int) -> Tensor:
    """Some cells of background: half of them hard, half not.

    The hardest hundredth of the batch's background is hard. Where hard ones or others are too few, there are more of
    the other kind; where both are, all are taken.

    Method: Huang et al. 2015, arXiv:1509.04874, section 3.3 (balanced sampling). Differs from the paper, which draws:
    of either kind cells are taken that lie evenly by rank of loss, beginning with the hardest, so that the same scores
    give the same cells.

    Args:
        loss: `(n, l)` of each cell as background.
        background: `(n, l)`; cells of 0 are never taken.
        count: cells to take.

    Returns:
        `(q,)` int64 indices into the flat `(n * l)`, hard ones first.
    """
    place = background.flatten().nonzero().squeeze(1)
    place = place[loss.flatten()[place].argsort(descending=True, stable=True)]
    pool = math.ceil(HARD * len(place))
    others = len(place) - pool
    hard = min(max(math.ceil(count / 2), count - others), pool)
    rest = min(count - hard, others)
    return place[torch.cat((_spread(hard, pool, place.device), pool + _spread(rest, others, place.device)))]


def _spread(count: int, among: int, device: torch.device) -> Tensor:
    """`count` of the ranks below `among`, evenly, from 0 on."""
    return torch.arange(count, device=device) * among // max(count, 1)


def _windows(centre: Tensor, reach: Tensor, *, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells of the squares around the discs, cell by cell: row of the object, x and y, three of `(p,)` int64."""
    most = centre.new_tensor((width, height))
    low = (centre - reach[:, None] - 0.5).floor().nan_to_num(0.0).clamp(min=0).minimum(most).long()
    high = (centre + reach[:, None] - 0.5).ceil().nan_to_num(0.0).clamp(min=-1).minimum(most - 1).long()
    across, down = (high - low + 1).clamp(min=0).unbind(dim=1)
    count = across * down
    row = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    rank = torch.arange(len(row), device=count.device) - (count.cumsum(0) - count)[row]
    y = rank.div(across[row], rounding_mode="floor")
    return row, rank - y * across[row] + low[row, 0], y + low[row, 1]


def _near(place: Tensor, shape: tuple[int, int, int], distance: float) -> Tensor:
    """Which cells lie at most so far from one of these, `(n, height, width)` bool."""
    _, height, width = shape
    edge = int(distance)
    cells = torch.zeros(shape, dtype=torch.bool, device=place.device)
    cells.view(-1)[place] = True
    wide = F.pad(cells, (edge, edge, edge, edge))
    for y in range(2 * edge + 1):
        for x in range(2 * edge + 1):
            if (x - edge) ** 2 + (y - edge) ** 2 <= distance**2:
                cells |= wide[:, y : y + height, x : x + width]
    return cells
