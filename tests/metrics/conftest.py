"""Detections of known faults, and pycocotools as the judge."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from clearsight.metrics.results import ImageResult
from clearsight.ops.masks import mask_to_box
from clearsight.ops.outlines import mask_to_polygons, polygons_to_mask
from clearsight.types import Instances

CLASSES = ("RBC", "WBC", "Platelets")


def result(boxes, labels, truth, truth_labels, *, scores=None, ignore=None, name="image.jpg") -> ImageResult:
    """One image from plain lists; scores fall from 0.9 where none are given."""
    scores = np.linspace(0.9, 0.5, len(boxes)) if scores is None else scores
    return ImageResult(
        path=Path(name),
        size=(640, 640),
        predicted=Instances(
            boxes=torch.tensor(np.asarray(boxes).reshape(-1, 4), dtype=torch.float32),
            labels=torch.tensor(np.asarray(labels), dtype=torch.int64),
            scores=torch.tensor(np.asarray(scores), dtype=torch.float32),
        ),
        truth=Instances(
            boxes=torch.tensor(np.asarray(truth).reshape(-1, 4), dtype=torch.float32),
            labels=torch.tensor(np.asarray(truth_labels), dtype=torch.int64),
            ignore=None if ignore is None else torch.tensor(ignore, dtype=torch.bool),
        ),
    )


def perturb(truth: np.ndarray, labels: np.ndarray, classes: int, draw: np.random.Generator):
    """Detections as a fair model makes them: jittered, missed, twice, of another class, out of nothing."""
    boxes, found, scores = [], [], []
    for box, label in zip(truth, labels, strict=True):
        for _ in range(int(draw.choice([0, 1, 1, 1, 2]))):
            side = np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 1.0))
            boxes.append(box + draw.normal(0, side * draw.choice([0.0, 0.03, 0.1, 0.2]), 4).round(1))
            found.append(label if draw.uniform() < 0.9 else draw.integers(0, classes))
            scores.append(draw.beta(4, 2))
    for _ in range(int(draw.integers(0, 8))):
        corner = draw.uniform(0, 500, 2)
        boxes.append(np.concatenate([corner, corner + draw.uniform(5, 150, 2)]))
        found.append(draw.integers(0, classes))
        scores.append(draw.beta(2, 5))
    boxes = np.array(boxes).reshape(-1, 4)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    # Every other image has coarse scores, so that there are ties.
    return boxes, np.array(found, np.int64), np.array(scores).round(int(draw.choice([1, 6])))


@pytest.fixture(scope="session")
def make_results() -> Callable[..., list[ImageResult]]:
    """Random scenes: `make_results(images, classes=…, seed=…, crowd=share)`."""

    def make(images: int, *, classes: int = 3, seed: int = 0, crowd: float = 0.0) -> list[ImageResult]:
        draw = np.random.default_rng(seed)
        out = []
        for index in range(images):
            count = int(draw.integers(0, 16))
            corner = draw.uniform(0, 500, (count, 2))
            sides = draw.choice([12, 40, 120, 200], (count, 1)) * draw.uniform(0.6, 1.4, (count, 2))
            truth = np.concatenate([corner, corner + sides], axis=1).round(int(draw.integers(0, 2)))
            labels = draw.integers(0, classes, count)
            boxes, found, scores = perturb(truth, labels, classes, draw)
            ignore = draw.uniform(size=count) < crowd
            out.append(result(boxes, found, truth, labels, scores=scores, ignore=ignore, name=f"{index}.jpg"))
        return out

    return make


@pytest.fixture(scope="session")
def bccd_results(shared_data: Path) -> list[ImageResult]:
    """The official test split of BCCD with its annotations, perturbed, as detections."""
    root = shared_data / "bccd"
    names = (root / "ImageSets" / "Main" / "test.txt").read_text().split()
    draw = np.random.default_rng(7)
    out = []
    for name in names:
        tree = ElementTree.parse(root / "Annotations" / f"{name}.xml")
        truth, labels = [], []
        for node in tree.iter("object"):
            corners = [float(node.findtext(f"bndbox/{key}", "0")) for key in ("xmin", "ymin", "xmax", "ymax")]
            truth.append([corners[0] - 1, corners[1] - 1, corners[2], corners[3]])
            labels.append(CLASSES.index(node.findtext("name", "")))
        boxes, found, scores = perturb(np.array(truth).reshape(-1, 4), np.array(labels), 3, draw)
        out.append(result(boxes, found, truth, labels, scores=scores, name=f"{name}.jpg"))
    return out


def outlines(masks, labels=None, *, scores=None, ignore=None) -> Instances:
    """Instances as they are kept: rings of `(n, h, w)` masks, with tight boxes."""
    rings, owners, boxes = [], [], []
    for number, mask in enumerate(masks):
        found = mask_to_polygons(mask)
        rings += found
        owners += [number] * len(found)
        boxes.append(mask_to_box(mask) or (0.0, 0.0, 0.0, 0.0))
    contours = np.zeros((len(rings), max(map(len, rings), default=0), 2), np.float32)
    for row, ring in zip(contours, rings, strict=True):
        row[:] = ring[-1]
        row[: len(ring)] = ring
    count = len(boxes)
    return Instances(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.zeros(count, dtype=torch.int64) if labels is None else torch.tensor(labels, dtype=torch.int64),
        scores=None if scores is None else torch.tensor(scores, dtype=torch.float32),
        contours=torch.from_numpy(contours),
        ring_object=torch.tensor(owners, dtype=torch.int64),
        ignore=None if ignore is None else torch.tensor(ignore, dtype=torch.bool),
    )


def drawn(instances: Instances, size: tuple[int, int]) -> np.ndarray:
    """The `(n, h, w)` masks of outlines, one by one."""
    assert instances.contours is not None
    assert instances.ring_object is not None
    rings, owners = instances.contours.numpy(), instances.ring_object.numpy()
    masks = [polygons_to_mask(list(rings[owners == number]), size) for number in range(len(instances))]
    return np.array(masks, bool).reshape(-1, *size)


def encoded(masks: np.ndarray) -> list[Any]:
    """pycocotools' run lengths."""
    from pycocotools.mask import encode

    return [encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


def add_masks(entries: list[dict], instances: Instances, size: tuple[int, int]) -> None:
    """Give COCO's entries of the objects of an image their masks, and areas in pixels."""
    masks = drawn(instances, size)
    for entry, mask, runs in zip(entries, masks, encoded(masks), strict=True):
        entry["segmentation"] = runs
        if "area" in entry:
            entry["area"] = int(mask.sum())


def judge(results: Sequence[ImageResult], classes: int, kind: str = "bbox"):
    """pycocotools' evaluation of the same boxes, or (`segm`) masks."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = [], []
    for image, item in enumerate(results, start=1):
        first = len(truth), len(found)
        ignore = item.truth.ignore.tolist() if item.truth.ignore is not None else [False] * len(item.truth)
        for box, label, crowd in zip(item.truth.boxes.double(), item.truth.labels.tolist(), ignore, strict=True):
            place = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
            entry = {"id": len(truth) + 1, "image_id": image, "category_id": label + 1, "bbox": place}
            truth.append({**entry, "area": place[2] * place[3], "iscrowd": int(crowd)})
        scores = item.predicted.scores
        assert scores is not None
        for box, label, score in zip(
            item.predicted.boxes.double(), item.predicted.labels.tolist(), scores.tolist(), strict=True
        ):
            place = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
            found.append({"image_id": image, "category_id": label + 1, "bbox": place, "score": score})
        if kind == "segm":
            add_masks(truth[first[0] :], item.truth, item.size)
            add_masks(found[first[1] :], item.predicted, item.size)
    if kind == "segm":
        for entry in found:
            del entry["bbox"]  # else it would be taken for a result of boxes, and its area for that of the box
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        dataset = {
            "images": [{"id": i + 1, "height": r.size[0], "width": r.size[1]} for i, r in enumerate(results)],
            "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
            "annotations": truth,
        }
        coco.dataset = dataset  # pyright: ignore[reportAttributeAccessIssue] - its types ask for more than it reads
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(found), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


@pytest.fixture(scope="session")
def pycocotools_judge():
    """`judge(results, classes, kind)`: pycocotools' COCOeval, already summarised."""
    pytest.importorskip("pycocotools")
    return judge


@pytest.fixture(scope="session")
def one_image():
    """`one_image(boxes, labels, truth, truth_labels, …)`: an ImageResult from plain lists."""
    return result


@pytest.fixture(scope="session")
def as_outlines():
    """`as_outlines(masks, labels, scores=…, ignore=…)`: Instances with the contours of `(n, h, w)` masks."""
    return outlines


@pytest.fixture(scope="session")
def draw_outlines():
    """`draw_outlines(instances, size)`: the masks again."""
    return drawn


@pytest.fixture(scope="session")
def coco_masks():
    """`coco_masks(masks)`: pycocotools' run lengths."""
    pytest.importorskip("pycocotools")
    return encoded


def blot(draw: np.random.Generator, size: tuple[int, int], side: float) -> np.ndarray:
    """A mask of some shape: an ellipse with a bite and, at times, a hole; often cut by the border."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    centre, radii = draw.uniform(0, size, 2), side * draw.uniform(0.4, 1.0, 2)
    away = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2
    mask = away < 1
    mask &= (x - centre[1]) * draw.normal() + (y - centre[0]) * draw.normal() < radii.mean() * draw.uniform(0.5, 2)
    return mask & (away > 0.1) if draw.uniform() < 0.3 else mask


def worn(draw: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """A mask as a fair model finds it: moved, and at times half of it."""
    far = int(draw.choice([0, 1, 3]))
    moved = np.roll(mask, draw.integers(-far, far + 1, 2), axis=(0, 1))
    if draw.uniform() < 0.1:
        moved = moved & (np.arange(mask.shape[1]) < draw.uniform(0, mask.shape[1]))
    return moved


def mask_result(masks, labels, classes: int, draw: np.random.Generator, *, crowd: float, name: str) -> ImageResult:
    """Objects beside worn copies of them: missed, twice, of another class, out of nothing."""
    size = masks.shape[1:]
    found, names = [], []
    for mask, label in zip(masks, labels, strict=True):
        for _ in range(int(draw.choice([0, 1, 1, 1, 2]))):
            found.append(worn(draw, mask))
            names.append(int(label) if draw.uniform() < 0.9 else int(draw.integers(0, classes)))
    for _ in range(int(draw.integers(0, 4))):
        found.append(blot(draw, size, draw.uniform(3, 30)))
        names.append(int(draw.integers(0, classes)))
    scores = draw.uniform(size=len(found)).round(int(draw.choice([1, 6])))
    ignore = draw.uniform(size=len(labels)) < crowd
    truth = outlines(masks, labels, ignore=ignore)
    predicted = outlines(np.array(found, bool).reshape(-1, *size), names, scores=scores)
    return ImageResult(path=Path(name), size=size, predicted=predicted, truth=truth)


@pytest.fixture(scope="session")
def make_mask_results() -> Callable[..., list[ImageResult]]:
    """Random scenes of masks: `make_mask_results(images, classes=…, seed=…, crowd=share)`."""

    def make(images: int, *, classes: int = 3, seed: int = 0, crowd: float = 0.0) -> list[ImageResult]:
        draw = np.random.default_rng(seed)
        out = []
        for index in range(images):
            size = tuple(draw.integers(60, 160, 2).tolist())
            sides = draw.choice([0.6, 6, 20, 60], int(draw.integers(0, 9)))
            masks = np.array([blot(draw, size, side) for side in sides], bool).reshape(-1, *size)
            labels = draw.integers(0, classes, len(masks))
            out.append(mask_result(masks, labels, classes, draw, crowd=crowd, name=f"{index}.png"))
        return out

    return make


@pytest.fixture(scope="session")
def nuclei_results(shared_data: Path) -> list[ImageResult]:
    """Annotated nuclei of eight images beside worn copies, a tenth of them crowds."""
    from PIL import Image

    draw, out = np.random.default_rng(3), []
    for path in sorted((shared_data / "nuclei" / "instances").glob("*.png"))[:8]:
        numbers = np.asarray(Image.open(path))
        masks = np.array([numbers == value for value in np.unique(numbers) if value], bool).reshape(-1, *numbers.shape)
        out.append(mask_result(masks, [0] * len(masks), 1, draw, crowd=0.1, name=path.name))
    return out


@pytest.fixture(scope="session")
def fruit_results(shared_data: Path) -> list[ImageResult]:
    """Annotated polygons of fruits beside worn copies."""
    import clearsight
    from clearsight.train.file_pixels import truth_of

    draw, out = np.random.default_rng(4), []
    dataset = clearsight.read_dataset(shared_data / "fruits")
    for record in dataset.records[:6]:
        assert record.size is not None
        truth = truth_of(record, shapes=True)
        masks = drawn(truth, record.size)
        made = mask_result(masks, truth.labels.numpy(), len(dataset.classes), draw, crowd=0.0, name=record.image.name)
        out.append(ImageResult(path=record.image, size=record.size, predicted=made.predicted, truth=truth))
    return out
