"""What travels between the rooms: records read from disk, samples, batches, predictions, assignments, findings.

Conventions, everywhere: images are `(n, c, h, w)`; boxes are `(m, 4)` xyxy in pixels, half-open, of the image as given;
contours are xy; labels are int64 from 0 and there is no background class in the data; a size is `(height, width)`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Batch",
    "Classification",
    "Finding",
    "ImageMeta",
    "Instances",
    "Object",
    "Record",
    "Rle",
    "Sample",
    "SemanticMap",
    "Severity",
    "Targets",
    "Task",
]

Task = Literal["classification", "detection", "semantic", "instance"]
Severity = Literal["error", "warning", "info"]


# ------------------------------------------------------------------------------------------------ findings
@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong or worth knowing, with its evidence and what to do about it.

    Args:
        id: stable identifier in kebab case, for example `truncated-image`; documented in `docs/findings.md`.
        severity: `error` (the item cannot be used), `warning` (used, but likely wrong), `info`.
        where: file, `file:line`, `file#annotation-id`, recipe key or module name.
        explanation: one or two plain sentences: what was found, what was expected.
        action: what lenient mode does about it ("dropped", "clipped to the image", "kept"); empty when nothing is done.
        evidence: numbers and names, plain JSON values.
        remedy: a recipe patch as dotted keys, for example `{"loader.batch_size": 8}`; empty when none applies.
        source: where the rule or its threshold comes from: a paper, a book, a tool; empty for plain facts.
        because: id of the finding that explains this one; empty when it stands for itself.
    """

    id: str
    severity: Severity
    where: str
    explanation: str
    action: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    remedy: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    because: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, as one line of `findings.jsonl`."""
        return asdict(self)


# ------------------------------------------------------------------------------------------------ what files say
@dataclass(frozen=True, slots=True)
class Rle:
    """A run-length mask as COCO stores it: column-major runs, the first of zeros.

    Args:
        size: `(height, width)`.
        counts: uncompressed run lengths.
    """

    size: tuple[int, int]
    counts: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Object:
    """One annotated object, exactly as its file says it (nothing rounded, nothing clipped).

    Args:
        label: index into the data set's classes.
        box: xyxy in pixels, half-open.
        polygons: rings of vertices, each a float64 array `(p, 2)` xy; empty when the file has none.
        rle: run-length mask; None when the file has none.
        crowd: a region of many objects that is neither a target nor a false positive.
        difficult: Pascal VOC's flag: scored neither way by the VOC protocol.
        attributes: what only some formats carry (`pose`, `truncated`, `area`, `id`, `group_id`, …), plain JSON values.
        where: `file:line` or `file#id`, for messages.
    """

    label: int
    box: tuple[float, float, float, float]
    polygons: list[np.ndarray] = field(default_factory=list)
    rle: Rle | None = None
    crowd: bool = False
    difficult: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    where: str = ""


@dataclass(slots=True, kw_only=True)
class Record:
    """One image and all that its files say of it; nothing is decoded yet.

    Args:
        image: path of the image file.
        size: `(height, width)` as the annotation says it, None when it says nothing.
        objects: annotated objects, in file order.
        label: image-level class index, for classification.
        semantic: path of a semantic map (one class index a pixel), for semantic segmentation.
        instance_map: path of an instance-index map (0 is background), for instance segmentation.
        split: `train`, `val`, `test` or any other name that the files use; None when they have no splits.
        group: what must not be torn apart by a split (a patient, a film roll); None when unknown.
        where: the annotation file, with a line or id where it has one.
        attributes: what only some formats carry, plain JSON values.
    """

    image: Path
    size: tuple[int, int] | None = None
    objects: list[Object] = field(default_factory=list)
    label: int | None = None
    semantic: Path | None = None
    instance_map: Path | None = None
    split: str | None = None
    group: str | None = None
    where: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------ one image in memory
@dataclass(slots=True, kw_only=True)
class Instances:
    """The objects of one image: annotated when `scores` is None, else predicted.

    In a `Sample` the tensors are torchvision `tv_tensors` (`BoundingBoxes`, `Mask`, `KeyPoints`), so that transforms v2
    move them together with the image.

    Args:
        boxes: `(n, 4)` float32 xyxy pixels.
        labels: `(n,)` int64.
        scores: `(n,)` float32 in [0, 1], or None.
        masks: `(n, h, w)` bool, or None.
        contours: `(r, p, 2)` float32 xy, rings padded to p vertices by repeating their last one, or None.
        ring_object: `(r,)` int64, the object each ring belongs to; given exactly when `contours` is.
        ignore: `(n,)` bool, objects that are neither target nor false positive (crowd, difficult), or None.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor | None = None
    masks: Tensor | None = None
    contours: Tensor | None = None
    ring_object: Tensor | None = None
    ignore: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: Tensor) -> Instances:
        """The objects at `keep`, a `(n,)` bool mask or an int64 index; rings follow their objects."""
        index = keep.nonzero().flatten() if keep.dtype == torch.bool else keep
        contours, ring_object = self.contours, self.ring_object
        if contours is not None and ring_object is not None:
            new = torch.full((len(self),), -1, dtype=torch.int64, device=index.device)
            new[index] = torch.arange(len(index), device=index.device)
            rings = new[ring_object] >= 0
            contours, ring_object = _rewrap(contours[rings], contours), new[ring_object][rings]
        return Instances(
            boxes=_rewrap(self.boxes[index], self.boxes),
            labels=self.labels[index],
            scores=None if self.scores is None else self.scores[index],
            masks=None if self.masks is None else _rewrap(self.masks[index], self.masks),
            contours=contours,
            ring_object=ring_object,
            ignore=None if self.ignore is None else self.ignore[index],
        )

    def to(self, device: torch.device | str) -> Instances:
        """A copy on another device."""
        given = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return Instances(**{name: value.to(device) for name, value in given.items()})


def _rewrap(tensor: Tensor, like: Tensor) -> Tensor:
    """Indexing a tv_tensor gives a plain tensor; give it its type (and canvas) back."""
    if type(like) is Tensor:
        return tensor
    from torchvision import tv_tensors

    return tv_tensors.wrap(tensor, like=like)  # pyright: ignore[reportCallIssue] - its decorator hides its arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMeta:
    """Where an image came from and how its pixels relate to the file's.

    Args:
        path: the image file.
        index: position in the data set.
        size: `(height, width)` of the image in the file, after its EXIF turn.
        scale: `(y, x)` factors from the file's pixels to the sample's; boxes in file pixels are `boxes / scale`.
    """

    path: Path
    index: int
    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)


@dataclass(slots=True, kw_only=True)
class Sample:
    """One image in memory with its targets.

    Args:
        image: `(c, h, w)` uint8 or uint16.
        instances: objects, for detection and instance segmentation; else None.
        semantic: `(h, w)` int64 class map, for semantic segmentation; 255 is ignored; else None.
        label: class index (int), or `(k,)` float probabilities after mixing; None when there is no image label.
        meta: where the image came from.
    """

    image: Tensor
    instances: Instances | None = None
    semantic: Tensor | None = None
    label: int | Tensor | None = None
    meta: ImageMeta

    def with_(self, **changes: Any) -> Sample:
        """A copy with some fields replaced; unknown names raise TypeError."""
        return replace(self, **changes)


# ------------------------------------------------------------------------------------------------ a batch
@dataclass(slots=True, kw_only=True)
class Targets:
    """Targets of a batch: ragged, never padded; objects concatenated over the batch with an image index.

    Args:
        boxes: `(m, 4)` float32 xyxy pixels of the batch's images.
        labels: `(m,)` int64.
        image: `(m,)` int64, ascending, which image each object lies in.
        ignore: `(m,)` bool, objects that are neither target nor negative; or None.
        masks: `(m, h, w)` bool, or None.
        contours: `(r, p, 2)` float32, or None; `ring_object` is then `(r,)` int64.
        semantic: `(n, h, w)` int64, or None.
        label: `(n,)` int64 classes or `(n, k)` float32 probabilities, or None.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    ignore: Tensor | None = None
    masks: Tensor | None = None
    contours: Tensor | None = None
    ring_object: Tensor | None = None
    semantic: Tensor | None = None
    label: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Targets:
        """A copy on another device."""
        given = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return Targets(**{name: value.to(device, non_blocking=non_blocking) for name, value in given.items()})


@dataclass(slots=True, kw_only=True)
class Batch:
    """Images and targets as the loader gives them; images stay uint8 or uint16 until they are on the device.

    Args:
        images: `(n, c, h, w)` uint8 or uint16, padded with zeros on the right and below.
        sizes: `(n, 2)` int64 `(height, width)` of the valid part of each image.
        targets: see `Targets`.
        meta: one a image.
    """

    images: Tensor
    sizes: Tensor
    targets: Targets
    meta: list[ImageMeta]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """A copy on another device."""
        return Batch(
            images=self.images.to(device, non_blocking=non_blocking),
            sizes=self.sizes.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
            meta=self.meta,
        )

    def pin_memory(self) -> Self:
        """Page-lock the tensors, so that copies to a GPU overlap with work (the DataLoader calls this)."""
        self.images = self.images.pin_memory()
        slots = self.targets.__slots__
        given = {name: value for name in slots if (value := getattr(self.targets, name)) is not None}
        self.targets = Targets(**{name: value.pin_memory() for name, value in given.items()})
        return self


@dataclass(slots=True, kw_only=True)
class Classification:
    """What a classifier says of one image.

    Args:
        probs: `(k,)` float32, sums to one.
    """

    probs: Tensor

    @property
    def label(self) -> int:
        """The most probable class."""
        return int(self.probs.argmax())

    @property
    def score(self) -> float:
        """Its probability."""
        return float(self.probs.max())


@dataclass(slots=True, kw_only=True)
class SemanticMap:
    """What a segmenter says of one image.

    Args:
        probs: `(k, h, w)` float32, sums to one over the classes.
    """

    probs: Tensor

    @property
    def labels(self) -> Tensor:
        """The most probable class of each pixel, `(h, w)` int64."""
        return self.probs.argmax(dim=0)
