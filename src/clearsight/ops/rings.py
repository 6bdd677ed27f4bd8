"""Many rings at once: closed contours of xy vertices in pixels, `(r, p, 2)`, shorter ones padded by their last vertex.

Repeated vertices, wherever they stand, change nothing but `align_rings` and `match_rings`, which count vertices.
Clockwise is as seen on a screen, y down. One ring in NumPy: `ops.contours`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.errors import ConfigError, ShapeError

__all__ = [
    "align_rings",
    "cut_rings",
    "diamond",
    "extreme_points",
    "match_rings",
    "octagon",
    "orient_rings",
    "resample_rings",
    "ring_areas",
    "ring_boxes",
]

FEW = 16  # edges among which counting finds the right one as fast as a search, and in any exported graph


# ------------------------------------------------------------------------------------------------ measures
def ring_areas(rings: Tensor, *, signed: bool = False) -> Tensor:
    """Area of each ring by the shoelace formula; a ring that crosses itself counts its loops with their sign.

    Args:
        rings: `(r, p, 2)`; fewer than three different vertices have no area.
        signed: keep the sign: positive where the ring runs clockwise.

    Returns:
        `(r,)` square pixels.
    """
    _check_rings(rings)
    points = rings - rings[:, :1]  # far from the origin the products would cancel digits
    x, y = points.unbind(dim=-1)
    twice = (x * y.roll(-1, dims=1) - x.roll(-1, dims=1) * y).sum(dim=1)
    return twice / 2 if signed else twice.abs() / 2


def ring_boxes(rings: Tensor) -> Tensor:
    """The smallest xyxy box around each ring, `(r, 4)`.

    Args:
        rings: `(r, p, 2)`, p >= 1.
    """
    _check_rings(rings)
    return torch.cat((rings.amin(dim=1), rings.amax(dim=1)), dim=1)


def extreme_points(rings: Tensor, *, tolerance: float = 0.02) -> Tensor:
    """The topmost, leftmost, lowest and rightmost point of each ring, `(r, 4, 2)` in this order.

    Where the ring is flat there, the point is the middle of the flat stretch: of the vertices that follow one another
    within `tolerance` of the ring's height (or width) from the outermost one. Of several outermost stretches it is the
    leftmost, or the uppermost, whatever vertex the ring begins with.

    Method: Zhou et al. 2019 (ExtremeNet), arXiv:1901.08043, section 3, and the authors' code for the annotation, where
    it is the first stretch along the ring.

    Args:
        rings: `(r, p, 2)`, p >= 1, in either direction.
        tolerance: share of the height or width, in [0, 1].
    """
    _check_rings(rings)
    x, y = rings.unbind(dim=-1)
    depth = torch.stack((y, x, -y, -x), dim=1)  # r 4 p: the smallest lies outermost
    along = torch.stack((x, y, x, y), dim=1)
    edge = depth.amin(dim=2, keepdim=True)
    flat = depth <= edge + tolerance * (depth.amax(dim=2, keepdim=True) - edge)
    first = along.masked_fill(depth != edge, torch.inf).argmin(dim=2, keepdim=True)
    count = rings.shape[1]
    index = (torch.arange(count, device=rings.device) + first) % count
    flat, along = flat.gather(2, index).to(torch.int64), along.gather(2, index)
    stretch = (flat.cumprod(dim=2) + flat.flip(2).cumprod(dim=2).flip(2)) > 0
    low = along.masked_fill(~stretch, torch.inf).amin(dim=2)
    high = along.masked_fill(~stretch, -torch.inf).amax(dim=2)
    middle = (low + high) / 2
    top, left, bottom, right = edge[:, :, 0].unbind(dim=1)
    pairs = (middle[:, 0], top, left, middle[:, 1], middle[:, 2], -bottom, -right, middle[:, 3])
    return torch.stack(pairs, dim=1).unflatten(1, (4, 2))


# ------------------------------------------------------------------------------------------------ vertices
def resample_rings(rings: Tensor, points: int) -> Tensor:
    """Vertices at equal distances along each ring, from its first vertex on, in its direction.

    Args:
        rings: `(r, p, 2)`, p >= 1.
        points: how many vertices to give, >= 1.

    Returns:
        `(r, points, 2)`; all the same where a ring has no length. Differentiable with respect to the vertices.

    Raises:
        ConfigError: `points` is below 1.

    Example:
        >>> resample_rings(torch.tensor([[[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]]]), 8)[0, 1].tolist()
        [2.0, 0.0]
    """
    _check_rings(rings)
    if points < 1:
        raise ConfigError(f"resample_rings: points must be at least 1, got {points}")
    steps = rings.roll(-1, dims=1) - rings
    lengths = torch.linalg.vector_norm(steps, dim=2)
    ends = lengths.cumsum(dim=1)
    wanted = ends[:, -1:] * (torch.arange(points, device=rings.device, dtype=ends.dtype) / points)
    if rings.shape[1] <= FEW:
        edge = (ends[:, None] <= wanted[:, :, None]).sum(dim=2)
    else:
        edge = torch.searchsorted(ends.detach(), wanted.detach(), right=True)
    edge = edge.clamp(max=rings.shape[1] - 1)
    length = lengths.gather(1, edge)
    share = (wanted - (ends - lengths).gather(1, edge)) / length.masked_fill(length == 0, 1)
    return _pick(rings, edge) + share.clamp(0, 1)[..., None] * _pick(steps, edge)


def orient_rings(rings: Tensor) -> Tensor:
    """The same rings, all clockwise; the first vertex stays first, and rings without area stay as they are."""
    backwards = ring_areas(rings, signed=True) < 0
    return torch.where(backwards[:, None, None], rings.flip(1).roll(1, dims=1), rings)


def align_rings(rings: Tensor, to: Tensor) -> Tensor:
    """The same vertices from another first one: the nearest to a point, the earliest of several.

    Args:
        rings: `(r, p, 2)`.
        to: `(r, 2)`.
    """
    _check_rings(rings)
    return _from_vertex(rings, (rings - to[:, None]).square().sum(dim=2).argmin(dim=1))


def match_rings(rings: Tensor, like: Tensor) -> Tensor:
    """The same vertices from another first one: that which brings the ring nearest to another, vertex by vertex.

    Of all rotations it takes the one with the least sum of squared distances, found as the peak of the circular
    correlation, in double precision.

    Args:
        rings: `(r, p, 2)`.
        like: `(r, p, 2)`, of the same direction.

    Cost: O(r p log p).
    """
    _check_rings(rings)
    _check_rings(like)
    middle = like.mean(dim=1, keepdim=True)
    theirs, mine = (torch.view_as_complex((each - middle).double().contiguous()) for each in (like, rings))
    agreement = torch.fft.ifft(torch.fft.fft(mine) * torch.fft.fft(theirs).conj()).real
    return _from_vertex(rings, agreement.argmax(dim=1))


def cut_rings(rings: Tensor, at: Tensor) -> Tensor:
    """The same outlines with one more vertex, the first: the place of the outline that is nearest to a point.

    Args:
        rings: `(r, p, 2)`, p >= 1.
        at: `(r, 2)`.

    Returns:
        `(r, p + 1, 2)`.
    """
    _check_rings(rings)
    steps = rings.roll(-1, dims=1) - rings
    towards = at[:, None] - rings
    squared = steps.square().sum(dim=2)
    share = ((towards * steps).sum(dim=2) / squared.masked_fill(squared == 0, 1)).clamp(0, 1)
    edge = (towards - share[..., None] * steps).square().sum(dim=2).argmin(dim=1)
    foot = _pick(rings + share[..., None] * steps, edge[:, None])
    return torch.cat((foot, _from_vertex(rings, (edge + 1) % rings.shape[1])), dim=1)


# ------------------------------------------------------------------------------------------------ first contours
def diamond(boxes: Tensor, points: int = 4) -> Tensor:
    """The rhombus of the middles of each box's sides, clockwise from the top, in vertices at equal distances.

    Method: Peng et al. 2020 (Deep Snake), arXiv:2001.01629, section 3.3.

    Args:
        boxes: `(r, 4)` xyxy pixels.
        points: a multiple of 4; vertex `points // 4 · i` is corner i: top, right, bottom, left.

    Returns:
        `(r, points, 2)`.

    Raises:
        ConfigError: `points` is no multiple of 4.
    """
    if points < 4 or points % 4:
        raise ConfigError(f"diamond: points must be a multiple of 4, got {points}")
    left, top, right, bottom = boxes.unbind(dim=1)
    x, y = (left + right) / 2, (top + bottom) / 2
    corners = torch.stack((x, top, right, y, x, bottom, left, y), dim=1).unflatten(1, (4, 2))
    share = torch.arange(points // 4, device=boxes.device, dtype=boxes.dtype)[:, None] / (points // 4)
    return (corners[:, :, None] * (1 - share) + corners.roll(-1, dims=1)[:, :, None] * share).flatten(1, 2)


def octagon(extremes: Tensor) -> Tensor:
    """An octagon through four extreme points: each is drawn out along its side of the box, the ends are joined.

    A stretch measures a quarter of the side, an eighth to either hand, and ends at the box's corners. Where the points
    contradict each other the box is still that around all four.

    Method: Zhou et al. 2019 (ExtremeNet), arXiv:1901.08043, section 4.3, as in Peng et al. 2020, arXiv:2001.01629.

    Args:
        extremes: `(r, 4, 2)` top, left, bottom, right.

    Returns:
        `(r, 12, 2)` clockwise from the top: the extreme points, and between them the ends.
    """
    low, high = extremes.amin(dim=1), extremes.amax(dim=1)
    (left, top), (right, bottom) = low.unbind(dim=1), high.unbind(dim=1)
    reach = (high - low)[:, None] / 8
    before = torch.maximum(extremes - reach, low[:, None])
    after = torch.minimum(extremes + reach, high[:, None])
    up, down = extremes[:, 0, 0], extremes[:, 2, 0]
    west, east = extremes[:, 1, 1], extremes[:, 3, 1]
    vertices = (
        *(up, top, after[:, 0, 0], top),
        *(right, before[:, 3, 1], right, east, right, after[:, 3, 1]),
        *(after[:, 2, 0], bottom, down, bottom, before[:, 2, 0], bottom),
        *(left, after[:, 1, 1], left, west, left, before[:, 1, 1]),
        *(before[:, 0, 0], top),
    )
    return torch.stack(vertices, dim=1).unflatten(1, (12, 2))


# ------------------------------------------------------------------------------------------------ parts
def _pick(rings: Tensor, vertex: Tensor) -> Tensor:
    """Vertices by index, `(r, q)` → `(r, q, 2)`."""
    return rings.gather(1, vertex[..., None].expand(-1, -1, 2))


def _from_vertex(rings: Tensor, first: Tensor) -> Tensor:
    """Each ring from its own first vertex on."""
    count = rings.shape[1]
    return _pick(rings, (torch.arange(count, device=rings.device) + first[:, None]) % count)


def _check_rings(rings: Tensor) -> None:
    if rings.ndim != 3 or rings.shape[-1] != 2:
        raise ShapeError(
            f"rings: expected (r, p, 2) xy vertices, got {tuple(rings.shape)}; for one ring pass ring[None]"
        )
