"""Whole runs of segmenters on real images, from the recipe to pictures, tables and a file in tiles."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import clearsight as cs
from clearsight.errors import ConfigError

SHORT = ("trainer.steps=2", "loader.workers=0", "loader.batch_size=2", "eval.bootstrap=5")


@pytest.mark.real
def test_a_class_a_pixel(tmp_path: Path, shared_data: Path) -> None:
    root = shared_data / "membrane"
    changes = (f"data.root={root}", "data.size=[64,64]", "model.width=2", "model.class_weights=median", *SHORT)
    run = cs.train("membrane-unet", *changes, out=tmp_path / "run", quiet=True)
    scores = run.scores["test"]
    assert scores.task == "semantic"
    assert scores.images == 6
    assert scores.classes == ("membrane", "cell")
    assert {"miou", "dice", "boundary_f", "foreground_rand"} <= scores.summary.keys()
    assert sum(map(sum, scores.confusion)) == 6 * 512 * 512  # in the files' own pixels
    weight = run.model.objective.class_weight  # pyright: ignore[reportAttributeAccessIssue]
    assert weight.tolist() == [1.0, 1.0]  # of the training data; not part of the model
    page = run.report.read_text(encoding="utf-8")
    for said in ("The U-Net, trained on 24 images", "reaches mean IoU", "Boundary F", "share of pixels.membrane"):
        assert said in page, said
    assert "Objects in a training image" not in page
    image = root / "image" / "25.png"
    (found,) = run.predict([image], out=tmp_path / "out", quiet=True)
    assert found.semantic is not None
    assert found.semantic.shape == (512, 512)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        shares = [float(row["share"]) for row in csv.DictReader(file)]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    with Image.open(tmp_path / "out" / "25.png") as picture:
        assert np.array_equal(np.asarray(picture), found.semantic)
    tiled = run.predict_tiled(image, tile=128, overlap=32, out=tmp_path / "classes.tif", quiet=True)
    assert tiled.size == (512, 512)
    written = tifffile.imread(tmp_path / "classes.tif")
    assert written.shape == (512, 512)
    assert set(np.unique(written)) <= {0, 1}


@pytest.mark.real
@pytest.mark.parametrize(
    ("recipe", "small"),
    [
        ("nuclei-maskrcnn", ("model.fpn_channels=16", "model.box_width=16", "model.samples=16", "model.mask_convs=1")),
        ("nuclei-snake", ("model.neck_channels=[16,16,16]", "model.head_channels=8", "model.snake_channels=8")),
    ],
)
def test_a_shape_an_object(recipe: str, small: tuple[str, ...], tmp_path: Path, shared_data: Path) -> None:
    root = shared_data / "nuclei"
    always = ("eval.score_threshold=0.0", "eval.draw_threshold=0.0", "eval.max_detections=9", "data.size=[96,96]")
    run = cs.train(recipe, f"data.root={root}", *always, *small, *SHORT, out=tmp_path / "run", quiet=True)
    scores = run.scores["test"]
    assert scores.task == "instance"
    assert scores.images == 15
    assert {"map", "box_map", "dsb_ap", "aji", "boundary_f"} <= scores.summary.keys()
    page = run.report.read_text(encoding="utf-8")
    assert "AP of the Data Science Bowl" in page
    assert "Objects in a training image" in page
    image = sorted((root / "images").glob("*.png"))[-1]
    (found,) = run.predict([image], out=tmp_path / "out", threshold=0.0, quiet=True)
    assert 0 < len(found) <= 9
    assert len(found.polygons) == len(found)
    assert found.masks.shape == (len(found), *found.size)
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(entries) == len(found)
    assert all("segmentation" in entry for entry in entries)
    with pytest.raises(ConfigError, match="tiles are for semantic segmentation"):
        run.predict_tiled(image)
