from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clearsight.data.dataset import Dataset
from clearsight.data.geometry import mask_boxes, plain
from clearsight.data.targets import TargetStore, read_semantic
from clearsight.ops.masks import mask_to_rle
from clearsight.ops.outlines import polygons_to_mask
from clearsight.train.file_pixels import truth_of
from clearsight.types import Object, Record

SQUARE = np.array([(10.0, 10.0), (30.0, 10.0), (30.0, 20.0), (10.0, 20.0)])


def records(*objects: Object) -> list[Record]:
    empty = Record(image=Path("empty.png"), size=(50, 60))
    return [empty, Record(image=Path("full.png"), size=(50, 60), objects=list(objects))]


def instances_of(found: list[Record], task: str, *, size=(50, 60), scale=(1.0, 1.0)):
    return TargetStore(found, task).instances(1, found[1], size=size, scale=scale)


def test_boxes_labels_and_flags() -> None:
    found = records(
        Object(label=2, box=(10, 20, 30, 40)),
        Object(label=0, box=(1.5, 2.5, 3.5, 4.5), crowd=True),
        Object(label=1, box=(0, 0, 60, 50), difficult=True),
    )
    instances = instances_of(found, "detection", size=(25, 120), scale=(0.5, 2.0))
    assert plain(instances.boxes).tolist() == [[20, 10, 60, 20], [3.0, 1.25, 7.0, 2.25], [0, 0, 120, 25]]
    assert instances.boxes.dtype == torch.float32
    assert instances.boxes.canvas_size == (25, 120)
    assert instances.labels.tolist() == [2, 0, 1]
    assert instances.ignore.tolist() == [False, True, True]
    assert instances.masks is None
    empty = TargetStore(found, "detection").instances(0, found[0], size=(50, 60), scale=(1.0, 1.0))
    assert empty.boxes.shape == (0, 4)


def test_no_flags_where_nothing_is_flagged() -> None:
    assert instances_of(records(Object(label=0, box=(0, 0, 1, 1))), "detection").ignore is None


@pytest.mark.parametrize("task", ["classification", "semantic"])
def test_other_tasks_have_no_instances(task: str) -> None:
    assert instances_of(records(Object(label=0, box=(0, 0, 1, 1))), task) is None


def test_masks_and_contours_come_from_what_the_file_has() -> None:
    ring = np.zeros((50, 60), dtype=bool)
    ring[5:25, 5:25] = True
    ring[10:15, 10:15] = False
    found = records(
        Object(label=0, box=(10, 10, 30, 20), polygons=[SQUARE]),
        Object(label=1, box=(5, 5, 25, 25), rle=mask_to_rle(ring)),
        Object(label=2, box=(40, 30, 50, 40)),
    )
    instances = instances_of(found, "instance")
    masks = plain(instances.masks)
    assert torch.equal(masks[1], torch.from_numpy(ring))
    assert torch.equal(mask_boxes(masks), plain(instances.boxes))
    assert instances.ring_object.tolist() == [0, 1, 1]  # a box alone has no outline
    assert plain(instances.contours)[0].tolist() == SQUARE.tolist()
    triangle = Object(label=0, box=(0, 0, 9, 9), polygons=[np.array([(0.0, 0.0), (9.0, 0.0), (9.0, 9.0)])])
    shorter = instances_of(records(found[1].objects[0], triangle), "instance").contours
    assert plain(shorter)[1].tolist() == [[0, 0], [9, 0], [9, 9], [9, 9]]
    outline = [plain(row).double().numpy() for row in instances.contours[1:]]
    assert np.array_equal(polygons_to_mask(outline, (50, 60)), ring)


def test_polygons_are_drawn_at_the_resized_size() -> None:
    found = records(Object(label=0, box=(10, 10, 30, 20), polygons=[SQUARE]))
    instances = instances_of(found, "instance", size=(25, 120), scale=(0.5, 2.0))
    assert mask_boxes(plain(instances.masks)).tolist() == [[20, 5, 60, 10]]
    assert plain(instances.boxes).tolist() == [[20, 5, 60, 10]]


@pytest.mark.parametrize("size", [(50, 60), (25, 120)])
def test_masks_of_many_objects_are_those_of_each(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    scale = (size[0] / 50, size[1] / 60)
    objects = [
        Object(
            label=0, box=(0, 0, 1, 1), polygons=[rng.uniform((0, 0), (60, 50), (5, 2)) for _ in range(1 + index % 3)]
        )
        for index in range(12)
    ]
    instances = instances_of(records(*objects), "instance", size=size, scale=scale)
    for mask, item in zip(plain(instances.masks), objects, strict=True):
        scaled = [ring * (scale[1], scale[0]) for ring in item.polygons]
        assert np.array_equal(mask.numpy(), polygons_to_mask(scaled, size))


def test_what_is_trained_is_what_is_scored() -> None:
    other = SQUARE + np.array((12, 4))  # the two share a part, which the even-odd rule would leave out
    found = records(
        Object(label=0, box=(10, 10, 42, 24), polygons=[SQUARE, other], attributes={"fill": "union"}),
        Object(label=0, box=(10, 10, 42, 24), polygons=[SQUARE, other]),
        Object(label=0, box=(10, 10, 30, 20), polygons=[SQUARE]),
        Object(label=0, box=(1, 2, 5, 9)),
        Object(label=0, box=(5, 5, 9, 9), rle=mask_to_rle(np.pad(np.ones((4, 4), bool), ((5, 41), (5, 51))))),
    )
    trained, scored = instances_of(found, "instance"), truth_of(found[1], shapes=True)
    assert scored.contours is not None
    areas = []
    for number, mask in enumerate(plain(trained.masks).numpy()):
        rings = [ring.double().numpy() for ring in scored.contours[scored.ring_object == number]]
        assert np.array_equal(mask, polygons_to_mask(rings, (50, 60))), number
        contours = [ring.double().numpy() for ring in plain(trained.contours)[trained.ring_object == number]]
        if number != 3:  # a box alone has no contour
            assert np.array_equal(mask, polygons_to_mask(contours, (50, 60))), number
        areas.append(int(mask.sum()))
    assert areas == [200 + 200 - 48, 400 - 96, 200, 28, 16]


def test_semantic_maps(tmp_path: Path) -> None:
    values = np.zeros((6, 8), dtype=np.uint8)
    values[2:4, 2:6] = 7
    values[0, 0] = 255
    Image.fromarray(values).save(tmp_path / "map.png")
    record = Record(image=Path("x.png"), semantic=tmp_path / "map.png")
    found = read_semantic(record, (6, 8))
    assert torch.equal(plain(found), torch.from_numpy(values.astype(np.int64)))
    assert set(read_semantic(record, (12, 16)).unique().tolist()) == {0, 7, 255}
    assert read_semantic(Record(image=Path("x.png")), (6, 8)) is None


def test_scenes_of_digits_have_all_kinds(digit_scenes: Dataset) -> None:
    store = TargetStore(digit_scenes.records, "instance")
    for index, record in enumerate(digit_scenes.records[:10]):
        instances = store.instances(index, record, size=(128, 128), scale=(1.0, 1.0))
        semantic = read_semantic(record, (128, 128))
        masks = plain(instances.masks)
        assert torch.equal(mask_boxes(masks), plain(instances.boxes))
        drawn = torch.zeros(128, 128, dtype=torch.int64)
        for mask, label in zip(masks, instances.labels.tolist(), strict=True):
            drawn[mask] = label + 1
        assert torch.equal(drawn, plain(semantic))


@pytest.mark.real
def test_black_and_white_masks_are_two_classes(shared_data: Path) -> None:
    from clearsight.data.read import read_dataset

    record = read_dataset(shared_data / "membrane", format="mask_png").records[0]
    found = read_semantic(record, (512, 512))
    assert found is not None
    assert set(found.unique().tolist()) == {0, 1}  # 255 in the file is the second class, not an ignored pixel
