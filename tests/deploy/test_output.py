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
