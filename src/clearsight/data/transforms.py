"""Random changes of one sample, as a recipe names them; boxes, masks, contours and maps move along.

Samples carry tv_tensors, so any transform of torchvision's transforms v2 can be applied to one: `apply_v2`. The changes
a recipe switches on are kernels of transforms v2 where those are exact and fast, and fused ones of our own where not
(`geometry.place`, `colour.change_colour`). All of them draw from torch's CPU generator only; call them inside `draws`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors

from clearsight.data.colour import ColourChange, change_colour
from clearsight.data.geometry import Flips, Rect, drop_hidden, fitted_size, place
from clearsight.data.turning import rotate, rotate90
from clearsight.recipe.schema import AugmentConfig, DataConfig
from clearsight.types import Sample

__all__ = ["RandomView", "Transform", "apply_v2", "build_transforms", "resize_to"]

Transform = Callable[[Sample], Sample]


def build_transforms(augment: AugmentConfig, data: DataConfig, *, train: bool) -> Transform:
    """The changes of single samples that a recipe switches on, in a fixed order: turns; flips, zoom and colour at once.

    Args:
        augment: values of 0 (None for `zoom`) switch a change off, and it then draws nothing.
        data: `channels` says whether colours can be changed.
        train: False gives a function that changes nothing.
    """
    steps = _steps(augment, data) if train else []

    def transform(sample: Sample) -> Sample:
        for step in steps:
            sample = step(sample)
        return sample

    return transform


def _steps(augment: AugmentConfig, data: DataConfig) -> list[Transform]:
    steps: list[Transform] = []
    if augment.rotate90:
        steps.append(partial(_maybe, _random_quarter_turn, augment.rotate90))
    if augment.rotate:
        steps.append(partial(_random_turn, augment.rotate))
    view = RandomView(
        flips=(augment.flip_horizontal, augment.flip_vertical),
        zoom=augment.zoom if augment.zoom_probability else None,
        zoom_probability=augment.zoom_probability,
        colour=(augment.brightness, augment.contrast, *_hues(augment, data.channels)),
    )
    if view.zoom or any(view.flips) or any(view.colour):
        steps.append(view)
    return steps


def _hues(augment: AugmentConfig, channels: int) -> tuple[float, float]:
    return (augment.saturation, augment.hue) if channels == 3 else (0.0, 0.0)


def resize_to(sample: Sample, size: tuple[int, int], fit: Literal["letterbox", "stretch"]) -> Sample:
    """Scale a sample to a size, or into it with its aspect ratio kept (`letterbox`); no object is dropped.

    Returns:
        The scaled sample; `meta.scale` tells how its pixels relate to the file's.
    """
    old = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    new = fitted_size(old, size, fit)
    if new == old:
        return sample
    placed = place(sample, Rect(0, 0, *old), Rect(0, 0, *new), new)
    scale = (sample.meta.scale[0] * new[0] / old[0], sample.meta.scale[1] * new[1] / old[1])
    return replace(placed, meta=replace(sample.meta, scale=scale))


def apply_v2(transform: Callable[[Any], Any], sample: Sample) -> Sample:
    """Apply any transform of torchvision's transforms v2 to a sample; objects that it moved out of sight are dropped.

    Args:
        transform: for example `torchvision.transforms.v2.RandomPerspective()`. Key points that transforms v2 flips land
            one pixel off (see `clearsight.data.turning`); flips of this package do not.
        sample: any sample whose tensors are tv_tensors.
    """
    moving: dict[str, Any] = {"image": sample.image}
    if sample.semantic is not None:
        moving["semantic"] = sample.semantic
    if sample.instances is not None:
        shapes = {name: getattr(sample.instances, name) for name in ("boxes", "masks", "contours")}
        moving |= {name: value for name, value in shapes.items() if value is not None}
    moved = transform(moving)
    image = moved["image"]
    size = (int(image.shape[-2]), int(image.shape[-1]))
    instances = sample.instances
    if instances is not None:
        shapes = {name: moved[name] for name in ("boxes", "masks", "contours") if name in moved}
        instances = drop_hidden(replace(instances, **shapes), Rect(0, 0, *size), size)
    return replace(sample, image=tv_tensors.Image(image), semantic=moved.get("semantic"), instances=instances)


# ------------------------------------------------------------------------------------------------ what is drawn
def _maybe(change: Transform, probability: float, sample: Sample) -> Sample:
    return change(sample) if float(torch.rand(())) < probability else sample


def _random_quarter_turn(sample: Sample) -> Sample:
    """One to three quarter turns of a square image; others keep their shape and take a half turn."""
    turns = int(torch.randint(1, 4, ()))
    square = sample.image.shape[-1] == sample.image.shape[-2]
    return rotate90(sample, turns if square else 2)


def _random_turn(largest: float, sample: Sample) -> Sample:
    return rotate(sample, (2 * float(torch.rand(())) - 1) * largest)


@dataclass(frozen=True, kw_only=True)
class RandomView:
    """Flips, zoom and colour in one pass over the pixels: the hot path of training.

    Args:
        flips: probabilities, horizontal and vertical.
        zoom: range of the scale, drawn evenly in its logarithm; above 1 a window is enlarged, below 1 the image shrinks
            on its canvas.
        zoom_probability: how often there is one.
        colour: largest relative change of brightness, contrast and saturation, and largest turn of the hue.
    """

    flips: tuple[float, float] = (0.0, 0.0)
    zoom: tuple[float, float] | None = None
    zoom_probability: float = 1.0
    colour: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __call__(self, sample: Sample) -> Sample:
        """A random view of a sample; the same object where nothing was drawn."""
        size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
        whole = Rect(0, 0, *size)
        # One call for all: each change has its own places among the draws, whatever else is switched on.
        draws = torch.rand(10).tolist()
        flips = Flips(draws[0] < self.flips[0], draws[1] < self.flips[1])
        source, target = self._window(size, draws[2:6])
        recolour = self._recolour(draws[6:])
        if not any(flips) and recolour is None and source == target == whole:
            return sample
        return place(sample, source, target, size, flips=flips, recolour=recolour)

    def _window(self, size: tuple[int, int], draws: list[float]) -> tuple[Rect, Rect]:
        """What is seen of an image, and where on its canvas."""
        whole = Rect(0, 0, *size)
        happens, share, down, right = draws
        if self.zoom is None or happens >= self.zoom_probability:
            return whole, whole
        low, high = (math.log(value) for value in self.zoom)
        scale = math.exp(low + share * (high - low))
        ratio = 1 / scale if scale >= 1 else scale
        height, width = (max(1, round(side * ratio)) for side in size)
        top, left = int(down * (size[0] - height + 1)), int(right * (size[1] - width + 1))
        inner = Rect(top, left, top + height, left + width)
        return (inner, whole) if scale >= 1 else (whole, inner)

    def _recolour(self, draws: list[float]) -> Callable[[Tensor], Tensor] | None:
        if not any(self.colour):
            return None
        brightness, contrast, saturation, hue = (
            limit * (2 * value - 1) for limit, value in zip(self.colour, draws, strict=True)
        )
        change = ColourChange(brightness=1 + brightness, contrast=1 + contrast, saturation=1 + saturation, hue=hue)
        return partial(change_colour, change=change)
