"""Detections of known faults, and pycocotools as the judge."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from clearsight.metrics.results import ImageResult
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


def judge(results: Sequence[ImageResult], classes: int):
    """pycocotools' evaluation of the same boxes."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = [], []
    for image, item in enumerate(results, start=1):
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
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        dataset = {
            "images": [{"id": i + 1, "height": 640, "width": 640} for i in range(len(results))],
            "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
            "annotations": truth,
        }
        coco.dataset = dataset  # pyright: ignore[reportAttributeAccessIssue] - its types ask for more than it reads
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


@pytest.fixture(scope="session")
def pycocotools_judge():
    """`judge(results, classes)`: pycocotools' COCOeval, already summarised."""
    pytest.importorskip("pycocotools")
    return judge


@pytest.fixture(scope="session")
def one_image():
    """`one_image(boxes, labels, truth, truth_labels, …)`: an ImageResult from plain lists."""
    return result
