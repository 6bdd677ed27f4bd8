"""Deep Snake's network: rings are read off a feature map and moved, all vertices of a ring at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.nn.checks import check_positive
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.init import init
from clearsight.nn.norm import norm as make_norm
from clearsight.ops.rings import diamond, octagon, resample_rings

__all__ = ["DILATIONS", "CircularConv", "Snake", "SnakeNet", "read_rings"]

KERNEL = 9
DILATIONS = (1, 1, 1, 1, 2, 2, 4, 4)
FEWEST = 16  # vertices: a ring must not be shorter than the farthest neighbour that is looked at


class CircularConv(nn.Module):
    """A convolution along a closed ring, with norm and ReLU: the last vertex is the first one's neighbour.

    Method: Peng et al. 2020 (Deep Snake), arXiv:2001.01629, equation 3.

    Shape: x `(r, in_channels, p)` → `(r, out_channels, p)`, p at least `dilation * (kernel // 2)`.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: odd.
        dilation: vertices from neighbour to neighbour.
        norm: a name of `nn.norm`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = KERNEL, *, dilation: int = 1, norm: str = "batch"
    ) -> None:
        super().__init__()
        self.reach = dilation * (kernel // 2)
        self.layers = ConvNormAct(in_channels, out_channels, kernel, padding=0, dilation=dilation, norm=norm, dims=1)

    def forward(self, x: Tensor) -> Tensor:
        """Around the ring."""
        return self.layers(torch.cat((x[..., x.shape[-1] - self.reach :], x, x[..., : self.reach]), dim=-1))


class SnakeNet(nn.Module):
    """From what every vertex sees to where it should go.

    Eight circular convolutions, all but the first beside the identity; what all eight say goes through a 1×1
    convolution and the maximum over the ring, and is joined again with what they say of each vertex; three 1×1
    convolutions end in an offset.

    Method: Peng et al. 2020 (Deep Snake), arXiv:2001.01629, section 3.2 and figure 3; dilations as in the authors'
    code. Convolution, norm and ReLU come in this order, as in the paper; the code has ReLU before the norm. The first
    of the three reads the ring's vector and the vertices' by weights of its own, which is the same as to join them. The
    second has a norm, which the paper has not: without it two thirds of its units die at the rates of short trainings.

    Shape: x `(r, in_channels, p)` → `(r, 2, p)`, p at least 16.

    Args:
        in_channels: of what the vertices see.
        width: channels of the convolutions; twice as many of the ring's vector.
        norm: a name of `nn.norm`.
    """

    def __init__(self, in_channels: int, width: int = 128, *, norm: str = "batch") -> None:
        super().__init__()
        check_positive(width, "width")
        channels = (in_channels, *[width] * (len(DILATIONS) - 1))
        self.layers = nn.ModuleList(
            CircularConv(before, width, dilation=dilation, norm=norm)
            for before, dilation in zip(channels, DILATIONS, strict=True)
        )
        joined, half = width * len(DILATIONS), max(width // 2, 1)
        self.fusion = nn.Conv1d(joined, 2 * width, 1)
        self.of_vertex = nn.Conv1d(joined, 2 * width, 1)
        self.of_ring = nn.Conv1d(2 * width, 2 * width, 1, bias=False)
        self.predict = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(2 * width, half, 1, bias=False),
            make_norm(norm, half, dims=1),
            nn.ReLU(),
            nn.Conv1d(half, 2, 1),
        )
        init(self)
        nn.init.normal_(self.predict[-1].weight, std=0.01)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """Offsets of all vertices."""
        x = self.layers[0](x)
        said = [x]
        for layer in list(self.layers)[1:]:
            x = layer(x) + x
            said.append(x)
        states = torch.cat(said, dim=1)
        ring = self.fusion(states).amax(dim=2, keepdim=True)
        return self.predict(self.of_vertex(states) + self.of_ring(ring))


class Snake(nn.Module):
    """From boxes to contours: diamond, four extreme points, octagon, and rounds of small moves.

    Each round has a network of its own. What a vertex sees is the map under it and its place relative to the lowest
    x and y of its contour; of the diamond's vertices, the map under the box's middle too. Extreme points are
    moved and measured in cells of the map, contours in pixels.

    Method: Peng et al. 2020 (Deep Snake), arXiv:2001.01629, sections 3.2 and 3.3; what the paper leaves open is as in
    the authors' code, but for: the map is continued by its edge where the code has zeros, vertices of the octagon lie
    at equal distances where the code gives each side a whole number of them, and weights start by `nn.init.init`.

    Shape: features `(n, channels, h, w)`, boxes `(r, 4)`, image `(r,)` → `(r, points, 2)`.

    Args:
        channels: of the map.
        stride: pixels from cell to cell.
        points: vertices of the contours, at least 16.
        start_points: vertices of the diamond, a multiple of 4, at least 16.
        iterations: rounds.
        width: channels of the networks.
        norm: a name of `nn.norm`.

    Raises:
        ConfigError: a number is too small, or `start_points` no multiple of 4.
    """

    def __init__(
        self,
        channels: int = 64,
        *,
        stride: float = 4,
        points: int = 128,
        start_points: int = 40,
        iterations: int = 3,
        width: int = 128,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if points < FEWEST:
            raise ConfigError(f"points: must be at least {FEWEST}, got {points}")
        if start_points < FEWEST or start_points % 4:
            raise ConfigError(f"start_points: must be a multiple of 4 and at least {FEWEST}, got {start_points}")
        check_positive(iterations, "iterations")
        self.stride, self.points, self.start_points = stride, points, start_points
        self.middle = nn.Conv1d(2 * channels, channels, 1)
        init(self.middle)
        self.start = SnakeNet(channels + 2, width, norm=norm)
        self.rounds = nn.ModuleList(SnakeNet(channels + 2, width, norm=norm) for _ in range(iterations))

    def forward(self, features: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
        """The contours that the last round gives.

        Args:
            features: `(n, channels, h, w)`.
            boxes: `(r, 4)` xyxy pixels.
            image: `(r,)` int64, which map each box lies on.
        """
        limits = features.new_tensor([side * self.stride for side in features.shape[:1:-1]])  # width, height
        extremes = torch.minimum(self.extremes(features, boxes, image).clamp(min=0), limits.to(boxes.dtype))
        return self.evolve(features, self.first_contours(extremes), image)[-1]

    def extremes(self, features: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
        """The extreme points of what lies in the boxes, `(r, 4, 2)` top, left, bottom, right, in pixels."""
        contours = diamond(boxes, self.start_points)
        centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        seen = read_rings(features, contours / self.stride, image)
        middle = read_rings(features, centres / self.stride, image).expand_as(seen)
        seen = self.middle(torch.cat((seen, middle), dim=1))
        moved = self._move(self.start, seen, contours, unit=self.stride)
        top, right, bottom, left = moved[:, :: self.start_points // 4].unbind(dim=1)
        return torch.stack((top, left, bottom, right), dim=1)

    def first_contours(self, extremes: Tensor) -> Tensor:
        """The octagons of extreme points `(r, 4, 2)`, in `points` vertices, the top extreme point first."""
        return resample_rings(octagon(extremes), self.points)

    def evolve(self, features: Tensor, contours: Tensor, image: Tensor) -> list[Tensor]:
        """The contours after each round.

        Args:
            features: `(n, channels, h, w)`.
            contours: `(r, p, 2)` xy pixels, of any number of vertices from 16 on.
            image: `(r,)` int64.

        Returns:
            One `(r, p, 2)` a round.
        """
        moved = []
        for net in self.rounds:
            contours = self._move(net, read_rings(features, contours / self.stride, image), contours, unit=1)
            moved.append(contours)
        return moved

    @staticmethod
    def _move(net: nn.Module, seen: Tensor, contours: Tensor, *, unit: float) -> Tensor:
        """Contours moved by a network whose lengths are multiples of `unit` pixels."""
        place = (contours - contours.amin(dim=1, keepdim=True)) / unit
        offsets = net(torch.cat((seen, place.transpose(1, 2).to(seen.dtype)), dim=1))
        return contours + unit * offsets.transpose(1, 2).to(contours.dtype)


def read_rings(features: Tensor, rings: Tensor, image: Tensor) -> Tensor:
    """A map under each vertex, bilinear between the centres of its four nearest cells.

    Beyond the outermost centres the map is continued by its edge; a place that is no number reads the first cell.
    Its gradient is added up in one order whatever the device, unlike that of `grid_sample`.

    Args:
        features: `(n, c, h, w)`.
        rings: `(r, p, 2)` xy in cells; the first cell's centre is (0.5, 0.5).
        image: `(r,)` int64.

    Returns:
        `(r, c, p)`; differentiable with respect to the map and the places.
    """
    images, channels, height, width = features.shape
    table = features.permute(0, 2, 3, 1).reshape(images * height * width, channels)
    places = rings.masked_fill(torch.isnan(rings), 0) - 0.5
    x, y = places[..., 0].clamp(0, width - 1), places[..., 1].clamp(0, height - 1)
    left, top = x.detach().floor(), y.detach().floor()
    along, down = (x - left)[..., None], (y - top)[..., None]
    column, row = left.long(), top.long() + height * image[:, None]
    right, below = (column + 1).clamp(max=width - 1), row + (top < height - 1).long()
    upper, lower = (
        F.embedding(line * width + column, table) * (1 - along) + F.embedding(line * width + right, table) * along
        for line in (row, below)
    )
    return (upper * (1 - down) + lower * down).transpose(1, 2)
