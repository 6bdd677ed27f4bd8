"""Content of every kind for reports: rich, poor and hostile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clearsight.metrics import ImageResult, Scores, score_classification, score_detection
from clearsight.report import ReportContent, draw_instances
from clearsight.types import Finding, Instances

CLASSES = ("RBC", "WBC", "Platelets")


def scene(draw: np.random.Generator, classes: int) -> tuple[Instances, Instances]:
    """Detections and truth of one image."""
    count = int(draw.integers(1, 9))
    corner = draw.uniform(0, 180, (count, 2))
    truth = np.concatenate([corner, corner + draw.uniform(12, 60, (count, 2))], axis=1)
    labels = draw.integers(0, classes, count)
    kept = draw.uniform(size=count) < 0.85
    boxes = truth[kept] + draw.normal(0, 2.5, (int(kept.sum()), 4))
    found = np.where(draw.uniform(size=len(boxes)) < 0.9, labels[kept], 0)
    scores = draw.uniform(0.3, 1, len(boxes))
    predicted = Instances(
        boxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.tensor(found),
        scores=torch.tensor(scores, dtype=torch.float32),
    )
    return predicted, Instances(boxes=torch.tensor(truth, dtype=torch.float32), labels=torch.tensor(labels))


def detection(classes: tuple[str, ...], *, images: int = 12, bootstrap: int = 20) -> Scores:
    draw = np.random.default_rng(0)
    results = []
    for index in range(images):
        predicted, truth = scene(draw, len(classes))
        results.append(ImageResult(path=Path(f"{index}.jpg"), size=(240, 240), predicted=predicted, truth=truth))
    return score_detection(results, classes, bootstrap=bootstrap)


def classification(classes: tuple[str, ...], *, images: int = 120) -> Scores:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, len(classes), (images,), generator=draw)
    logits = torch.randn(images, len(classes), generator=draw) + 2 * torch.nn.functional.one_hot(labels, len(classes))
    return score_classification(logits.softmax(1), labels, classes, bootstrap=20)


def history(steps: int = 300) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    rows = []
    for step in range(1, steps + 1):
        loss = 2 * np.exp(-3 * step / steps) + draw.uniform(0, 0.1)
        row = {"step": step, "epoch": (step - 1) // 20 + 1, "split": "train", "loss": loss, "lr": 1e-3}
        rows.append({**row, "grad_norm": draw.uniform(1, 3), "loss_box": 0.4 * loss, "loss_class": 0.6 * loss})
        if step % 20 == 0:
            figure = 0.6 * (1 - np.exp(-5 * step / steps))
            rows.append({"step": step, "epoch": step // 20, "split": "val", "map": figure, "map_50": figure * 1.4})
    return pd.DataFrame(rows)


def build(kind: str = "detection", *, classes: tuple[str, ...] = CLASSES, name: str = "cells") -> ReportContent:
    draw = np.random.default_rng(1)
    pictures = []
    for index in range(3):
        predicted, truth = scene(draw, len(classes))
        image = draw.integers(0, 255, (240, 240, 3), dtype=np.uint8)
        pictures.append((draw_instances(image, predicted, classes, truth=truth), f"{name}{index}.jpg: 1 missed"))
    scores = detection(classes) if kind == "detection" else classification(classes)
    return ReportContent(
        title=name,
        recipe_yaml=f"name: {name!r}\ntask: {kind}\ndata:\n  root: photos/bccd\nmodel:\n  name: light\n",
        environment={"torch": "2.15.0", "git": {"commit": "0123abc"}},
        history=history(),
        scores={"test": scores},
        data_statistics={
            "images": {"train": 205, "test": 12},
            "counts": {"train": {c: 100 * (i + 1) for i, c in enumerate(classes)}, "test": dict.fromkeys(classes, 7)},
            "image_sizes": {"640×480": 217},
            "object_sizes": draw.uniform(10, 90, 400).tolist(),
            "objects_per_image": draw.integers(0, 12, 205).tolist(),
            "mean": [0.66, 0.64, 0.68],
            "std": [0.24, 0.25, 0.2],
        },
        findings=[
            Finding(id="box-empty", severity="error", where="a.xml:7", explanation="No area.", action="dropped"),
            *(
                Finding(id="box-outside", severity="warning", where=f"{i}.xml", explanation="Outside.")
                for i in range(8)
            ),
            Finding(id="imbalance", severity="info", where="", explanation="Rare.", remedy={"augment.mixup": 0.5}),
        ],
        worst=pictures,
        samples=[(Image.new("RGB", (64, 48), (90, 30, 60)), f"{name}.png")],
        run_folder="runs/cells",
        seconds=603.2,
    )


@pytest.fixture(scope="session")
def make_content() -> Callable[..., ReportContent]:
    """`make_content(kind, classes=…, name=…)`: everything a report can show."""
    return build


@pytest.fixture(scope="session")
def detection_scores() -> Scores:
    """Scores of a detector with three classes."""
    return detection(CLASSES)


@pytest.fixture(scope="session")
def classification_scores() -> Scores:
    """Scores of a classifier with three classes."""
    return classification(("cat", "dog", "owl"))


@pytest.fixture
def training_history() -> pd.DataFrame:
    """`metrics.csv` of 300 steps in 15 epochs."""
    return history()
