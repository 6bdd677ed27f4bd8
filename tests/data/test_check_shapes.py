"""Faults of masks and outlines: planted, nearly planted, and none, in files of the formats that can hold them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearsight.data.check_shapes import check_shapes
from clearsight.data.read import read_dataset
from clearsight.ops.masks import mask_to_rle
from clearsight.types import Finding

WIDTH, HEIGHT = 60, 50
Coco = Callable[..., Path]


def square(left: float, top: float, side: float) -> list[float]:
    return [left, top, left + side, top, left + side, top + side, left, top + side]


@pytest.fixture
def coco(tmp_path: Path) -> Coco:
    """Writes one image, and a COCO file with these segmentations as objects 1, 2, …."""

    def write(*shapes: Any, **common: Any) -> Path:
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "a.png")
        entries = []
        for number, shape in enumerate(shapes, 1):
            given = shape if isinstance(shape, dict) and "segmentation" in shape else {"segmentation": shape}
            entries.append({"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, **common, **given})
        names = [{"id": 1, "name": "cell"}, {"id": 2, "name": "core"}]
        image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
        path = tmp_path / "labels.json"
        path.write_text(json.dumps({"images": [image], "annotations": entries, "categories": names}))
        return path

    return write


def findings(path: Path) -> list[Finding]:
    return [finding for finding in read_dataset(path).findings if finding.id not in ("empty-class", "single-image")]


def ids(path: Path) -> list[tuple[str, str, str]]:
    """Id, severity and object of all findings."""
    return [(one.id, one.severity, one.where.rpartition("#")[2] if "#" in one.where else "") for one in findings(path)]


def runs(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": list(mask_to_rle(mask).counts)}


CLEAN = [square(5, 5, 10)], [square(25, 5, 10)]


def test_a_clean_file_has_no_findings(coco: Coco) -> None:
    assert ids(coco(*CLEAN)) == []


# ------------------------------------------------------------------------------------------------ one object
@pytest.mark.parametrize(("side", "area"), [(0.2, 0), (1, 1), (1.7, 4)])
def test_specks(coco: Coco, side: float, area: int) -> None:
    found = findings(coco(*CLEAN, [square(40.2, 20.2, side)]))
    wanted = [] if area > 3 else [("tiny-object", "warning", "kept", area)]
    assert [(one.id, one.severity, one.action, one.evidence["pixels"]) for one in found] == wanted
    assert all(one.where.endswith("#3") for one in found)


def test_a_speck_of_run_lengths_and_one_pixel_more(coco: Coco) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[4, 4:7] = True
    assert ids(coco(runs(mask))) == [("tiny-object", "warning", "1")]
    mask[5, 4] = True
    assert ids(coco(runs(mask))) == []


def test_empty_run_lengths_drop_the_object(coco: Coco) -> None:
    empty = {"segmentation": runs(np.zeros((HEIGHT, WIDTH), dtype=bool)), "bbox": [3, 3, 5, 5]}
    assert ids(coco(*CLEAN, empty)) == [("mask-empty", "error", "3")]


def test_outlines_that_cross_themselves(coco: Coco) -> None:
    bow = [20, 20, 30, 20, 20, 30, 30, 30]
    (found,) = findings(coco(*CLEAN, [bow]))
    assert (found.id, found.severity, found.action) == ("polygon-crosses-itself", "warning", "kept")
    assert found.where.endswith("#3")
    assert "4 points crosses itself once, at (25.0, 25.0);" in found.explanation
    closed, touching = [*square(20, 20, 10), 20, 20], [40, 0, 44, 0, 42, 2, 44, 4, 40, 4, 42, 2]
    assert "polygon-crosses-itself" not in {one[0] for one in ids(coco([closed], [touching]))}


def test_short_rings_cost_only_themselves(coco: Coco) -> None:
    path = coco(*CLEAN, [square(40, 20, 8), [1, 2, 3, 4]], [square(5, 30, 8), [9, 30, 9, 30, 12, 33, 9, 30]])
    found = findings(path)
    assert [(one.id, one.severity, one.action) for one in found] == [("polygon-empty", "error", "polygon dropped")] * 2
    assert "2 points has no area" in found[0].explanation
    assert "4 points (2 different ones) has no area" in found[1].explanation
    assert [len(item.polygons) for item in read_dataset(path).records[0].objects] == [1, 1, 1, 1]


def test_a_mask_that_is_lost_is_not_silently_a_box(coco: Coco) -> None:
    path = coco(
        *CLEAN, {"segmentation": [[1, 2, 3, 4]], "bbox": [30, 30, 9, 9]}, {"segmentation": [], "bbox": [1, 30, 9, 9]}
    )
    found = findings(path)
    assert [(one.id, one.severity) for one in found] == [("json-type", "warning"), ("box-without-mask", "warning")]
    assert found[1].explanation.startswith("2 of 4 objects (50.0%) have a box and no mask")
    boxes = coco(*({"segmentation": [], "bbox": [1, y, 9, 9]} for y in (1, 20)))
    assert ids(boxes) == []  # a data set of boxes is one


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vertices_that_are_no_numbers(coco: Coco, value: float) -> None:
    bad = {"segmentation": [[value, *square(5, 30, 8)[1:]]], "bbox": [5, 30, 8, 8]}
    assert ids(coco(*CLEAN, bad)) == [("polygon-not-finite", "error", "3"), ("polygon-empty", "error", "3")]


def test_run_lengths_that_do_not_add_up(coco: Coco) -> None:
    bad = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [10, 20]}, "bbox": [5, 30, 8, 8]}
    found = findings(coco(*CLEAN, bad))
    assert [(one.id, one.action) for one in found] == [
        ("json-type", "mask dropped, box kept"),
        ("box-without-mask", "kept"),
    ]
    assert f"add up to 30, expected {HEIGHT} × {WIDTH}" in found[0].explanation


# ------------------------------------------------------------------------------------------------ several
@pytest.mark.parametrize(("move", "warns"), [(0, True), (1, True), (2, False)])
def test_copies(coco: Coco, move: int, *, warns: bool) -> None:
    found = findings(coco(*CLEAN, [square(25 + move, 5, 10)]))  # IoU 1, 90 / 110, 80 / 120
    copies = [one for one in found if one.id == "duplicate-object"]
    assert [(one.severity, one.where.endswith("#3")) for one in copies] == [("warning", True)] * warns
    if warns:
        assert copies[0].evidence["first"].endswith("#2")
        assert copies[0].evidence["iou"] == pytest.approx((10 - move) / (10 + move), abs=1e-4)
    shared = next(one for one in found if one.id == "overlapping-objects")
    assert (shared.severity, shared.evidence["objects"], shared.evidence["of"]) == ("info", 2, 3)


def test_several_copies_are_also_counted(coco: Coco) -> None:
    found = [one for one in findings(coco(*CLEAN, *CLEAN)) if one.id == "duplicate-object"]
    assert [one.where.rpartition("#")[2] for one in found[:2]] == ["3", "4"]
    assert found[2].explanation == "2 of 4 objects (50.0%) are nearly copies of another one"


def test_other_classes_neighbours_and_crowds_are_no_copies(coco: Coco) -> None:
    core = {"segmentation": [square(5, 5, 10)], "category_id": 2}
    assert [one for one in ids(coco(*CLEAN, core)) if one[1] != "info"] == []
    assert ids(coco(*CLEAN, [square(15, 5, 10)])) == []  # a common edge is no common pixel
    crowd = {"segmentation": runs(np.pad(np.ones((10, 10), bool), ((5, 35), (5, 45)))), "iscrowd": 1}
    assert ids(coco(*CLEAN, crowd)) == []


def test_what_is_only_worth_knowing_is_counted_once(coco: Coco) -> None:
    holed = np.zeros((HEIGHT, WIDTH), dtype=bool)
    holed[20:30, 40:50], holed[23:26, 43:46] = True, False
    corner = np.zeros((HEIGHT, WIDTH), dtype=bool)
    corner[40:44, 20:24], corner[44:47, 24:28] = True, True  # parts that touch at a corner are one
    path = coco(
        *CLEAN,
        runs(holed),
        runs(corner),
        [square(5, 25, 6), square(15, 25, 6)],
        [square(0, 40, 5)],
        [square(55, 40, 5)],
    )
    found = {one.id: one for one in findings(path)}
    assert {id_: (one.severity, one.evidence["objects"]) for id_, one in found.items()} == {
        "objects-with-holes": ("info", 1),
        "objects-in-parts": ("info", 1),
        "objects-at-border": ("info", 2),
    }
    assert [name.rpartition("#")[2] for name in found["objects-at-border"].evidence["examples"]] == ["6", "7"]
    assert found["objects-in-parts"].evidence["examples"][0].endswith("#5")
    assert found["objects-with-holes"].evidence["examples"][0].endswith("#3")


def test_a_pixel_from_the_border_is_not_at_it(coco: Coco) -> None:
    near = [square(1, 1, 5)], [square(WIDTH - 6, HEIGHT - 6, 5)]
    assert ids(coco(*near)) == []
    at = [square(0, 20, 5)], [square(20, 0, 5)], [square(WIDTH - 5, 20, 5)], [square(20, HEIGHT - 5, 5)]
    (found,) = findings(coco(*near, *at))
    assert (found.id, found.evidence["objects"]) == ("objects-at-border", 4)


# ------------------------------------------------------------------------------------------------ instance maps
@pytest.fixture
def instance_map(tmp_path: Path) -> Callable[..., Path]:
    """Writes an image and its instance map."""

    def write(numbers: np.ndarray) -> Path:
        for folder in ("images", "instances"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.zeros((*numbers.shape, 3), np.uint8)).save(tmp_path / "images/a.png")
        Image.fromarray(numbers.astype(np.uint16)).save(tmp_path / "instances/a.png")
        return tmp_path

    return write


@pytest.mark.parametrize(("column", "scattered"), [(50, True), (25, False)])
def test_one_number_for_two_far_objects(instance_map, column: int, *, scattered: bool) -> None:
    numbers = np.zeros((40, 60), np.uint16)
    numbers[5:15, 5:15] = numbers[20:30, 20:30] = 7
    numbers[20:30, 20:30] = 9
    numbers[8:12, column : column + 4] = 7
    found = findings(instance_map(numbers))
    wanted = [("scattered-instance", "info")] if scattered else []
    assert [(one.id, one.severity) for one in found] == [*wanted, ("objects-in-parts", "info")]
    if scattered:
        assert found[0].where.endswith("a.png#7")
        assert found[0].evidence == {"components": 2, "gap": 35, "side": 10}


def test_instances_of_a_few_pixels(instance_map) -> None:
    numbers = np.zeros((40, 60), np.uint16)
    numbers[5:15, 5:15], numbers[20, 20:23], numbers[30, 30:34] = 1, 2, 3
    assert ids(instance_map(numbers)) == [("tiny-object", "warning", "2")]


# ------------------------------------------------------------------------------------------------ other formats
def test_lines_of_yolo(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "images/a.png")
    lines = [
        "0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3",
        "0 0.5 0.5 0.7 0.5 0.5 0.8 0.7 0.7",  # crosses itself
        "0 0.1 0.5 nan 0.5 0.3 0.8",
        "0 0.1 0.1 0.2 0.2 0.3 0.3",  # on one line
        "0 0.8 0.1 0.9 0.1 0.9",  # one number is missing
    ]
    (tmp_path / "labels/a.txt").write_text("\n".join(lines))
    (tmp_path / "classes.txt").write_text("cell\n")
    assert {(one.id, one.where.rpartition(":")[2]) for one in findings(tmp_path)} == {
        ("unreadable-annotation", "5"),
        ("box-not-finite", "3"),
        ("polygon-empty", "4"),
        ("polygon-crosses-itself", "2"),
    }
    assert len(read_dataset(tmp_path).records[0].objects) == 2


def test_shapes_of_labelme(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "a.png")
    points = [
        [[5, 5], [15, 5], [15, 15]],
        [[25, 5], [35, 5]],
        [[25, 25], [35, 25], [25, 36], [35, 35]],
        [[45, 25], [45, 25], [46, 26], [45, 25]],
    ]
    shapes = [{"label": "cell", "points": each, "shape_type": "polygon"} for each in points]
    document = {"imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}
    (tmp_path / "a.json").write_text(json.dumps(document))
    found = findings(tmp_path)
    assert [(one.id, one.severity) for one in found if one.severity != "info"] == [
        ("json-type", "error"),
        ("polygon-empty", "error"),
        ("polygon-empty", "error"),
        ("polygon-crosses-itself", "warning"),
    ]
    assert "the polygon has 2 points, expected at least 3" in found[0].explanation
    assert "4 points (2 different ones) has no area" in found[1].explanation
    assert found[2].action == "object dropped"
    assert len(read_dataset(tmp_path).records[0].objects) == 2


# ------------------------------------------------------------------------------------------------ real data
@pytest.mark.real
@pytest.mark.parametrize("name", ["nuclei", "membrane", "fruits/data/trainval.json"])
def test_no_alarm_on_real_data(shared_data: Path, name: str) -> None:
    data = read_dataset(shared_data / name)
    assert [finding for finding in data.findings if finding.severity != "info"] == []


@pytest.mark.real
def test_the_nuclei_that_are_counted(shared_data: Path) -> None:
    data = read_dataset(shared_data / "nuclei", images="skip")
    assert [finding.id for finding in check_shapes(data)] == ["objects-with-holes"]  # sizes are not known yet
    data = read_dataset(shared_data / "nuclei")
    at_border = next(finding for finding in data.findings if finding.id == "objects-at-border")
    touching = 0
    for record in data.records:
        assert record.instance_map is not None
        numbers = np.asarray(Image.open(record.instance_map))
        edge = np.concatenate((numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]))
        touching += len(np.unique(edge[edge > 0]))
    assert at_border.evidence["objects"] == touching
    assert check_shapes(data, workers=1) == check_shapes(data, workers=3)
