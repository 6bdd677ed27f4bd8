import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clearsight.deploy.output import ResultFolder
from clearsight.deploy.prediction import Prediction
from clearsight.errors import ConfigError
from clearsight.ops.masks import rle_from_string, rle_to_mask
from clearsight.types import Classification, Instances

CLASSES = ("cat", "dog")
PIXELS = np.full((600, 800, 3), 90, np.uint8)


def detection(path=None, boxes=((10.0, 20.0, 110.0, 220.0),)):
    instances = Instances(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.ones(len(boxes)).long(),
        scores=torch.full((len(boxes),), 0.5),
    )
    return Prediction(path=path, size=(600, 800), classes=CLASSES, instances=instances)


def rows(folder):
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_and_pictures_are_written(tmp_path):
    with ResultFolder(tmp_path / "a" / "out", CLASSES) as folder:
        folder.add("deep/x.png", detection(Path("photos/deep/x.png")), PIXELS)
        folder.add("y.jpg", detection(Path("photos/y.jpg"), boxes=()), PIXELS)
    first, second = rows(folder.path)
    assert first == {
        "file": "photos/deep/x.png",
        "height": "600",
        "width": "800",
        "class": "dog",
        "score": "0.5",
        "x1": "10",
        "y1": "20",
        "x2": "110",
        "y2": "220",
    }
    assert (second["file"], second["class"], second["x1"]) == ("photos/y.jpg", "", "")
    (entry,) = json.loads((folder.path / "predictions.json").read_text())
    assert entry == {
        "image_id": 1,
        "file_name": "photos/deep/x.png",
        "category_id": 2,
        "category": "dog",
        "bbox": [10.0, 20.0, 100.0, 200.0],
        "score": 0.5,
    }
    with Image.open(folder.path / "deep" / "x.jpg") as picture:
        drawn = np.asarray(picture).astype(int)
    assert drawn.shape == PIXELS.shape
    assert np.abs(drawn[100, 8:13] - 90).max() > 40  # the box's left side
    assert np.abs(drawn[400:, 400:] - 90).max() < 6


def test_coco_evaluation_reads_the_results(tmp_path):
    pycocotools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    with ResultFolder(tmp_path, CLASSES) as folder:
        folder.add("x.png", detection(), PIXELS)
    truth = pycocotools.COCO()
    truth.dataset = {
        "images": [{"id": 1, "height": 600, "width": 800}],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    truth.createIndex()
    read = truth.loadRes(str(tmp_path / "predictions.json"))
    assert read.anns[1]["area"] == 100 * 200


def test_a_classifiers_results(tmp_path):
    one = Prediction(
        path=None, size=(600, 800), classes=CLASSES, classification=Classification(probs=torch.tensor([0.9, 0.1]))
    )
    with ResultFolder(tmp_path, CLASSES) as folder:
        folder.add("x.png", one, PIXELS)
    (row,) = rows(tmp_path)
    assert (row["file"], row["class"], row["p_dog"]) == ("x.png", "cat", "0.1")
    assert json.loads((tmp_path / "predictions.json").read_text())[0]["category_id"] == 1
    with Image.open(tmp_path / "x.jpg") as picture:
        assert picture.height > 600  # the picture, and a band with the answer


def test_pictures_never_overwrite_each_other(tmp_path):
    with ResultFolder(tmp_path, CLASSES) as folder:
        for name in ("a.png", "a.jpg", "A.tif"):
            folder.add(name, detection(), PIXELS)
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == ["A_3.jpg", "a.jpg", "a_2.jpg"]


def test_what_was_done_before_an_interruption_is_kept(tmp_path):
    def work():
        with ResultFolder(tmp_path, CLASSES) as folder:
            folder.add("a.png", detection(), PIXELS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert len(rows(tmp_path)) == 1


def test_a_name_cannot_leave_the_folder(tmp_path):
    with ResultFolder(tmp_path / "out", CLASSES) as folder:
        folder.add("/etc/../../x.png", detection(), PIXELS)
    assert list(tmp_path.glob("*.jpg")) == []
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="the folder for results cannot be made"):
        ResultFolder(tmp_path / "file" / "out", CLASSES)


def test_shapes_are_polygons_or_run_lengths(tmp_path):
    square, hole = torch.tensor([[10.0, 10], [50, 10], [50, 50], [10, 50]]), torch.tensor([20.0, 20])
    instances = Instances(
        boxes=torch.tensor([[10.0, 10, 50, 50], [60, 10, 100, 50]]),
        labels=torch.tensor([0, 1]),
        scores=torch.tensor([0.5, 0.5]),
        contours=torch.stack([square, square / 2 + hole / 2 + 5, square + torch.tensor([50.0, 0])]),
        ring_object=torch.tensor([0, 0, 1]),
    )
    found = Prediction(path=Path("x.png"), size=(600, 800), classes=CLASSES, instances=instances)
    with ResultFolder(tmp_path / "out", CLASSES) as folder:
        folder.add("x.png", found, PIXELS)
    first, second = json.loads((folder.path / "predictions.json").read_text())
    rle = first["segmentation"]
    assert rle["size"] == [600, 800]
    mask = rle_to_mask(rle_from_string(rle["counts"], (600, 800)))
    assert np.array_equal(mask, found.masks[0])
    assert mask.sum() == 40 * 40 - 20 * 20
    assert second["segmentation"] == [[60.0, 10.0, 100.0, 10.0, 100.0, 50.0, 60.0, 50.0]]


def test_a_class_map_is_a_picture_of_its_own(tmp_path):
    labels = np.zeros((600, 800), np.uint8)
    labels[:300] = 1
    found = Prediction(path=Path("a/x.png"), size=(600, 800), classes=CLASSES, semantic=labels)
    with ResultFolder(tmp_path / "out", CLASSES) as folder:
        folder.add("x.png", found, PIXELS)
    with Image.open(folder.path / "x.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), labels)
    with Image.open(folder.path / "x.jpg") as picture:
        assert picture.width == 800
    assert [row["class"] for row in rows(folder.path)] == ["cat", "dog"]
    assert not (folder.path / "predictions.json").exists()
