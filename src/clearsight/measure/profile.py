"""What a model costs, in one object: by layer, by stage and in total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.measure.count import Count, Inputs, count_both
from clearsight.measure.latency import Latency, latency, latency_of_layers
from clearsight.measure.receptive_field import Field, receptive_field
from clearsight.measure.replica import tensors_in
from clearsight.measure.rows import Row, Rows

__all__ = ["CONVENTIONS", "Profile", "profile"]

CONVENTIONS = {
    "multiply_adds": "products that are summed, in convolutions, matrix products and attention; one multiplication and "
    "its addition are 1; for the whole batch, padded zeros and masked pairs included",
    "flops": "exact: every multiplication, addition, comparison, division and function value of floating-point numbers "
    "is 1, so that a sum of k products is 2k - 1; norms, activations and all others included",
    "flops_usual": "2 x multiply_adds, as most papers have it",
    "backward": "gradients of the parameters, and of what lies between them; not of the inputs; without a loss",
    "inference_bytes": "most that is alive at once, inputs and weights not included",
    "training_bytes": "kept for the backward pass, weights not included; a storage that is kept twice is counted once",
    "moved_bytes": "read and written by each operation by itself, weights included",
    "intensity": "flops / moved_bytes",
}


class Profile(BaseModel):
    """What `profile` found; `print` shows it, `to_json` and `from_json` keep it.

    Args:
        name: of the model.
        inputs: shapes.
        types: of the inputs' numbers, such as `float32`.
        total: of the model.
        stages: parts of the model that a figure would have; they add up to the total.
        layers: modules that compute something or have parameters; they add up to the total.
        uncounted: operations without a rule and how often they ran: what they compute is in none of the numbers.
        notes: what else to know.
        counted_on: `meta` where nothing was computed; else the device on which the model ran to be counted.
        latency: of the forward pass, where it was measured.
        scores: of a trained model, by name, where they are known.
        conventions: what the numbers mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    inputs: tuple[tuple[int, ...], ...]
    types: tuple[str, ...]
    total: Row
    stages: tuple[Row, ...]
    layers: tuple[Row, ...]
    uncounted: dict[str, int]
    notes: tuple[str, ...]
    counted_on: str
    latency: Latency | None = None
    scores: dict[str, float] = {}
    conventions: dict[str, str] = CONVENTIONS

    def to_json(self) -> str:
        """All of it as JSON, indented."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """What `to_json` wrote."""
        return cls.model_validate_json(text)

    def __str__(self) -> str:
        """The table of the stages and what there is to say of the whole, as text."""
        from clearsight.measure.table import as_text

        return as_text(self)


def profile(  # noqa: PLR0913 - options
    model: nn.Module,
    inputs: Inputs | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    batch: int = 1,
    channels: int = 3,
    runs: int = 0,
    by_layer: bool = False,
    fields: bool = False,
    name: str | None = None,
) -> Profile:
    """Count what a model computes, keeps and moves, and time it if told to.

    Counting runs a copy without data, once in evaluation mode and once forward and backward in training mode. That
    takes a fraction of a millisecond an operation, whatever the size of the images, and no memory. The model is as
    before; so are the streams of random numbers. See `measure.count.count` for what is counted how.

    Args:
        model: any module.
        inputs: one tensor, a sequence of arguments, or a mapping of keyword arguments; None makes images.
        size: side of the images, or `(height, width)`, where no inputs are given.
        batch: number of images.
        channels: of the images.
        runs: forward passes to time, on the device of the model, after two that are not; 0 measures no time.
        by_layer: time each layer as well; see `measure.latency.latency_of_layers`.
        fields: look for the receptive fields as well, where the input is one tensor of images; see
            `measure.receptive_field`. Takes longer than the counting.
        name: None takes the model's class.

    Returns:
        The profile.

    Raises:
        ShapeError: the model does not take these inputs, or they are smaller than its largest stride.
        ConfigError: inputs and size are both given, or neither; a number is out of range.

    Example:
        >>> found = profile(nn.Conv2d(3, 8, 3, padding=1, bias=False), size=4)
        >>> found.total.multiply_adds, found.total.flops, found.total.flops_usual
        (3456, 6784, 6912)
    """
    if (inputs is None) == (size is None):
        raise ConfigError(f"profile: give either inputs or size, got {'neither' if size is None else 'both'}")
    if runs < 0 or (by_layer and not runs):
        raise ConfigError(f"runs: must be at least {int(by_layer)} here, got {runs}")
    given = _images(model, size, batch, channels) if inputs is None else inputs
    tensors = list(tensors_in(given))
    _check_stride(model, tensors)
    used, trained = count_both(model, given)
    times = latency_of_layers(model, given, runs=runs) if by_layer else {}
    seen = _fields(model, tensors) if fields else {}
    rows = Rows(model, used, None if isinstance(trained, ShapeError) else trained, times, seen)
    title = type(model).__name__ if name is None else name
    missed = [used.uncounted, {} if isinstance(trained, ShapeError) else trained.uncounted]
    return Profile(
        name=title,
        inputs=tuple(tuple(tensor.shape) for tensor in tensors),
        types=tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors),
        total=rows.total(title),
        stages=rows.stages(),
        layers=rows.layers(),
        uncounted={name: max(one.get(name, 0) for one in missed) for one in missed for name in one},
        notes=_notes(used, trained),
        counted_on=used.device,
        latency=latency(model, given, runs=runs) if runs else None,
    )


def _images(model: nn.Module, size: int | tuple[int, int] | None, batch: int, channels: int) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size or (0, 0)
    if min(height, width, batch, channels) < 1:
        raise ConfigError(
            f"profile: size, batch and channels must be at least 1, got {height}x{width}, {batch} and {channels}"
        )
    first = next(iter(model.parameters()), torch.empty(0))
    kind = first.dtype if first.is_floating_point() else torch.float32
    generator = torch.Generator().manual_seed(0)
    if first.device.type == "meta":
        return torch.empty(batch, channels, height, width, dtype=kind, device="meta")
    return torch.rand(batch, channels, height, width, generator=generator).to(first.device, kind)


def _fields(model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Field]:
    """By name of the module; none where the input is not one tensor of images."""
    if len(tensors) != 1 or tensors[0].ndim != 4:
        return {}
    _, channels, height, width = tensors[0].shape
    found = receptive_field(model, size=(height, width), channels=channels)
    whole = {"": found.outputs[0]} if found.outputs else {}
    return {one.name: one for one in found.layers} | whole


def _notes(used: Count, trained: Count | ShapeError) -> tuple[str, ...]:
    notes = []
    if used.device != "meta":
        notes.append(f"what the model does depends on values: it was counted while it ran, on {used.device}")
    if isinstance(trained, ShapeError):
        notes.append(f"training was not counted: {trained}")
    return tuple(notes)


def _check_stride(model: nn.Module, tensors: Sequence[Tensor]) -> None:
    """Images smaller than the stride of a model that says what it is."""
    strides = getattr(model, "strides", None) or getattr(getattr(model, "backbone", None), "strides", None)
    if not isinstance(strides, Mapping) or not strides:
        return
    largest = max(strides.values())
    for tensor in tensors:
        if tensor.ndim == 4 and min(tensor.shape[-2:]) < largest:
            height, width = tensor.shape[-2:]
            raise ShapeError(
                f"size: images of {height}x{width} are smaller than the model's largest stride; use {largest} or more"
            )
