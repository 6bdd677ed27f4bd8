"""Effective receptive field: which pixels a place of a layer really depends on, and how much."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.errors import ClearsightError, ConfigError, RangeError, ShapeError, nearest
from clearsight.measure.field_reading import read_extent, read_place
from clearsight.measure.levels import listen_to_levels
from clearsight.measure.reach_trace import Output, Trace, trace
from clearsight.measure.replica import replicate, tensors_in

__all__ = ["EffectiveField", "effective_field"]

_LARGE = 1024
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_TWO_SIGMA = math.erf(math.sqrt(2))  # 95.45 %: what lies within two deviations of a Gaussian


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveField:
    """How much each pixel weighs for one place.

    Args:
        level: name of the level or layer.
        weights: `(h, w)` float64, at least 0; adds up to 1.
        place: `(row, column)` of the place in its layer, the middle one.
        centre: `(y, x)` mean of the weights, pixels; 0.5 is the middle of the first pixel.
        sigma: `(y, x)` standard deviation of the weights, pixels.
        diameter: of a disc with as many pixels as the heaviest ones that together weigh 95.45 %, as much as lies within
            two deviations of a Gaussian.
        box: `(top, left, bottom, right)` of the theoretical field without gates inside the image, half-open; None where
            the whole image is seen.
        inside: weight within the box; 1 where there is none.
        images: number of images the weights were averaged over.
    """

    level: str
    weights: Tensor
    place: tuple[int, int]
    centre: tuple[float, float]
    sigma: tuple[float, float]
    diameter: float
    box: tuple[int, int, int, int] | None
    inside: float
    images: int

    @property
    def size(self) -> tuple[float, float]:
        """`(height, width)` of four deviations: 95.45 % of a Gaussian on each side."""
        return 4 * self.sigma[0], 4 * self.sigma[1]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the map."""
        names = ("level", "place", "centre", "sigma", "diameter", "box", "inside", "images")
        return {"size": self.size, **{name: getattr(self, name) for name in names}}

    def __str__(self) -> str:
        """In a sentence."""
        box = "the whole image" if self.box is None else f"{self.box[2] - self.box[0]}×{self.box[3] - self.box[1]} px"
        sigma = f"σ {self.sigma[0]:.1f}×{self.sigma[1]:.1f} px"
        inside = f"{100 * self.inside:.1f} % of the weight inside"
        number = f"{self.images} image{'s' * (self.images != 1)}"
        return f"{self.level}: effective field {self.diameter:.0f} px across, {sigma}, of {box} ({number}, {inside})"


def effective_field(model: nn.Module, images: Tensor, *, level: str) -> EffectiveField:
    """Where the gradient of a layer's middle place falls.

    Method: Luo et al. 2016, arXiv:1701.04128, section 2 and 3: the gradient of the place, 1 for each channel, by the
    pixels. Differs from the paper: absolute values are averaged over images and channels, so that the result is a
    distribution; its width is given as the standard deviation and as the disc of 95.45 % of the weight, where the paper
    counts pixels above 4.55 % of the middle one.

    Args:
        model: any module that takes one tensor of images; evaluated as a copy in evaluation mode, and left as it is.
        images: `(n, c, h, w)` floating point, as the model takes them: real ones, or random ones.
        level: name of a level (`c5`, `p3`), or of a module whose output has places.

    Returns:
        The field.

    Raises:
        ConfigError: there is no such level, or it has no places in rows and columns.
        ShapeError: the model does not take the images.
        RangeError: the place does not depend on the images: its gradient is 0 everywhere.

    Cost: one forward and backward pass.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.Conv2d(1, 1, 3, padding=1, bias=False))
        >>> _ = [nn.init.ones_(one) for one in net.parameters()]
        >>> round(effective_field(net, torch.rand(1, 1, 9, 9), level="1").sigma[0] ** 2, 4)
        1.3333
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ShapeError(f"effective field: expected (n, c, h, w) floats, got {tuple(images.shape)} {images.dtype}")
    dims, output = _places(model, images, level)
    place = (output.shape[dims[0]] // 2, output.shape[dims[1]] // 2)
    gradient = _gradient(model, images, level, dims, place)
    weights = gradient.abs().double().sum(dim=(0, 1)).cpu()
    total = weights.sum()
    if not bool(total > 0):
        raise RangeError(f"effective field: {level} at {place} has no gradient; is every unit there dead?")
    weights = weights / total
    moments = [_moments(weights.sum(dim=1 - side)) for side in range(2)]
    box = _box(output, dims, place)
    inside = 1.0 if box is None else float(weights[box[0] : box[2], box[1] : box[3]].sum())
    heaviest = weights.flatten().sort(descending=True).values.cumsum(0)
    pixels = 1 + int((heaviest < _TWO_SIGMA).sum())
    return EffectiveField(
        level=level,
        weights=weights,
        place=place,
        centre=(moments[0][0] + 0.5, moments[1][0] + 0.5),
        sigma=(moments[0][1], moments[1][1]),
        diameter=2 * math.sqrt(min(pixels, weights.numel()) / math.pi),
        box=box,
        inside=min(1.0, inside),
        images=len(images),
    )


def _moments(row: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of places that weigh something."""
    places = torch.arange(len(row), dtype=row.dtype)
    mean = float((row * places).sum())
    return mean, math.sqrt(float((row * (places - mean) ** 2).sum()))


def _places(model: nn.Module, images: Tensor, level: str) -> tuple[tuple[int, int], Output]:
    """The axes of a level's tensor along which its rows and columns lie, and what its places see."""
    copied = replicate(model, meta=True).eval()
    image = torch.empty_like(images[:1], device="meta")
    try:
        found = _by_name(trace(copied, image))
    except ClearsightError:
        raise
    except _FAULTS as error:
        raise ShapeError(f"effective field: images of {tuple(images.shape)} cannot be followed: {error}") from error
    if level not in found:
        raise ConfigError(f"effective field: there is no level or layer {level!r}{nearest(level, found)}")
    dims = _dims(found[level], image)
    if dims is None:  # on a few places that all see the whole image no axis can be told from another
        larger = image.new_empty(1, image.shape[1], _LARGE, _LARGE)
        with contextlib.suppress(ClearsightError, *_FAULTS):
            dims = _dims(_by_name(trace(copied, larger))[level], larger)
    if dims is None:
        shape = found[level].shape
        raise ConfigError(f"level: {level!r} gives {shape}, which has no rows and columns of places; take another")
    return dims, found[level]


def _by_name(found: Trace) -> dict[str, Output]:
    return {name: outputs[0] for name, outputs in found.modules.items() if name and outputs} | found.levels


def _dims(output: Output, image: Tensor) -> tuple[int, int] | None:
    if output.seen is None:
        return None
    for up, down, left, right in (output.seen.local, output.seen.sides):
        rows = read_extent(up, down, image.shape[-2]).dim
        columns = read_extent(left, right, image.shape[-1]).dim
        if rows is not None and columns is not None and rows != columns:
            return rows, columns
    return None


def _box(output: Output, dims: tuple[int, int], place: tuple[int, int]) -> tuple[int, int, int, int] | None:
    if output.seen is None:
        return None
    up, down, left, right = output.seen.local
    rows, columns = read_place(up, down, dims[0], place[0]), read_place(left, right, dims[1], place[1])
    return None if rows is None or columns is None else (rows[0], columns[0], rows[1], columns[1])


def _gradient(model: nn.Module, images: Tensor, level: str, dims: tuple[int, int], place: tuple[int, int]) -> Tensor:
    """Of the sum of all channels of one place, by the pixels; images do not mix in evaluation mode."""
    copied = replicate(model, meta=False).eval()
    kept: list[Tensor] = []

    def note(name: str, tensor: Tensor) -> None:
        if name == level and not kept:
            kept.append(tensor)

    def leave(module: nn.Module, args: object, out: object) -> None:
        note(level, next(tensors_in(out)))

    module = dict(copied.named_modules()).get(level)
    handle = None if module is None else module.register_forward_hook(leave)
    given = images.detach().clone().requires_grad_()
    copied.requires_grad_(requires_grad=False)
    with torch.enable_grad(), listen_to_levels(copied, note):
        copied(given)
        if not kept and hasattr(copied, "features"):
            copied.features(given)  # pyright: ignore[reportCallIssue]
        first, second = sorted(zip(dims, place, strict=True), reverse=True)
        target = kept[0].select(*first).select(*second).sum()
        (gradient,) = torch.autograd.grad(target, given)
    if handle is not None:
        handle.remove()
    return gradient
