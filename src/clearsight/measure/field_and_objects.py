"""Receptive fields against the objects of a data set: how many are larger than what a level sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from clearsight.data.dataset import Dataset
from clearsight.data.geometry import fitted_size
from clearsight.errors import DataError, ShapeError
from clearsight.measure.receptive_field import Field

__all__ = ["FieldShare", "FieldsAndObjects", "compare_with_objects", "object_sizes"]


class FieldShare(BaseModel):
    """One level against the objects.

    Args:
        level: its name.
        size: `(height, width)` of the theoretical field without gates, pixels; None for the whole image.
        larger: share of the objects that are taller or wider than it.
        effective: diameter of the effective field, pixels, where it was measured.
        larger_effective: share of the objects that are taller or wider than that.
        sentence: the finding in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: str
    size: tuple[int, int] | None
    larger: float
    effective: float | None = None
    larger_effective: float | None = None
    sentence: str


class FieldsAndObjects(BaseModel):
    """All levels against the objects; `print` shows the sentences.

    Args:
        name: of the model.
        objects: number of them.
        sides: longer side of each, pixels of the image that the model sees.
        rows: one a level.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    objects: int
    sides: tuple[float, ...]
    rows: tuple[FieldShare, ...]

    def __str__(self) -> str:
        """A sentence a level."""
        return "\n".join(row.sentence for row in self.rows)


def object_sizes(dataset: Dataset, size: tuple[int, int], fit: Literal["letterbox", "stretch"]) -> np.ndarray:
    """Height and width of the objects' boxes in the images that a model sees; crowds are left out.

    Args:
        dataset: read with image sizes.
        size: `(height, width)` of the model's images.
        fit: how images are scaled to it; see `DataConfig.fit`.

    Returns:
        `(n, 2)` float64 height and width, pixels.

    Raises:
        DataError: there is no object.
    """
    found: list[tuple[float, float]] = []
    for record in dataset.records:
        if record.size is None:
            continue
        height, width = fitted_size(record.size, size, fit)
        down, across = height / record.size[0], width / record.size[1]
        for item in record.objects:
            if not item.crowd:
                left, top, right, bottom = item.box
                found.append(((bottom - top) * down, (right - left) * across))
    if not found:
        raise DataError(f"{dataset.root}: no object has a box, so there is nothing to set against receptive fields")
    return np.array(found, dtype=np.float64)


def compare_with_objects(
    fields: Sequence[Field], sizes: np.ndarray, *, name: str, effective: Mapping[str, float] | None = None
) -> FieldsAndObjects:
    """The share of objects that are larger than the field of each level: taller, or wider.

    Args:
        fields: levels, as `ReceptiveField.main` has them.
        sizes: `(n, 2)` height and width of objects, pixels.
        name: of the model.
        effective: diameters of effective fields by level.

    Raises:
        ShapeError: sizes have another shape, or there are none.

    Example:
        >>> field = Field(name="c2", kind="level", shape=(1, 8, 9, 9), local_size=(43, 43))
        >>> print(compare_with_objects([field], np.array([[50.0, 20.0], [40.0, 40.0]]), name="resnet18"))
        50 % of your objects are larger than the field at C2 (resnet18, 43 px)
    """
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not len(sizes):
        raise ShapeError(f"sizes: expected (n, 2) heights and widths of one object or more, got {sizes.shape}")
    known = {} if effective is None else effective
    return FieldsAndObjects(
        name=name,
        objects=len(sizes),
        sides=tuple(sizes.max(axis=1).round(2).tolist()),
        rows=tuple(_row(field, sizes, name, known.get(field.name)) for field in fields),
    )


def _row(field: Field, sizes: np.ndarray, name: str, diameter: float | None) -> FieldShare:
    size = field.pixels
    larger = 0.0 if size is None else float((sizes > np.array(size)).any(axis=1).mean())
    beyond = None if diameter is None else float((sizes > diameter).any(axis=1).mean())
    level = field.name.upper() if field.kind == "level" else field.name
    if size is None:
        sentence = f"{level} sees the whole image: no object is larger than its field ({name})"
    else:
        sides = f"{size[0]}" if size[0] == size[1] else f"{size[0]}×{size[1]}"
        least = "at least " if field.at_least else ""
        verb = "is" if larger == 0 else "are"
        sentence = (
            f"{_percent(larger)} of your objects {verb} larger than the field at {level} ({name}, {least}{sides} px)"
        )
    if beyond is not None and diameter is not None:
        sentence += f"; {_percent(beyond)} than its effective field ({diameter:.0f} px)"
    return FieldShare(
        level=field.name, size=size, larger=larger, effective=diameter, larger_effective=beyond, sentence=sentence
    )


def _percent(share: float) -> str:
    if share == 0:
        return "none"
    if share < 0.005:
        return "less than 1 %"
    return "more than 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"
