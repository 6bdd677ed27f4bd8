from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clearsight.data.formats.instance_map import object_mask
from clearsight.data.geometry import resize_map
from clearsight.errors import DataError
from clearsight.ops.masks import mask_to_rle
from clearsight.ops.outlines import polygons_to_mask
from clearsight.train.file_pixels import to_file_pixels, truth_of
from clearsight.types import ImageMeta, Instances, Object, Record, Rle


def meta_of(file: tuple[int, int], sample: tuple[int, int]) -> ImageMeta:
    scale = (sample[0] / file[0], sample[1] / file[1])
    return ImageMeta(path=Path("a.png"), index=0, size=file, scale=scale)


def with_masks(masks: torch.Tensor) -> Instances:
    n = len(masks)
    return Instances(boxes=torch.zeros((n, 4)), labels=torch.arange(n), scores=torch.linspace(0.9, 0.1, n), masks=masks)


def drawn(instances: Instances, size: tuple[int, int]) -> np.ndarray:
    assert instances.contours is not None
    assert instances.ring_object is not None
    rings, owners = instances.contours.numpy(), instances.ring_object.numpy()
    masks = [polygons_to_mask(list(rings[owners == i]), size) for i in range(len(instances))]
    return np.array(masks, bool).reshape(-1, *size)


# ------------------------------------------------------------------------------------------------ predictions
def test_boxes_go_back_to_the_pixels_of_the_file():
    instances = Instances(
        boxes=torch.tensor([[10.0, 20.0, 30.0, 40.0], [-2.0, 0.0, 200.0, 60.0]]),
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.9, 0.1]),
    )
    back = to_file_pixels(instances, meta_of((100, 50), (50, 100)))
    assert back.boxes.tolist() == [[5.0, 40.0, 15.0, 80.0], [0.0, 0.0, 50.0, 100.0]]
    assert back.scores is not None
    assert back.scores.tolist() == pytest.approx([0.9, 0.1])
    assert back.contours is back.ring_object is back.masks is None


@pytest.mark.parametrize("file", [(24, 40), (48, 80), (37, 51), (9, 13), (1, 1), (24, 100)])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_masks_become_the_outlines_of_the_resized_valid_part(file, share):
    sample = (24, 40)
    masks = torch.rand((5, 32, 64), generator=torch.Generator().manual_seed(1)) < share
    masks[3] = False
    masks[4] = False
    masks[4, 24:] = True  # only in the padding
    back = to_file_pixels(with_masks(masks), meta_of(file, sample))
    expected = resize_map(masks[:, :24, :40], file).numpy()
    np.testing.assert_array_equal(drawn(back, file), expected)
    assert back.masks is None
    assert back.ring_object is not None
    assert not torch.isin(back.ring_object, torch.tensor([3, 4])).any()
    assert len(back) == 5


def test_a_scale_that_is_no_whole_number_finds_the_valid_part():
    sides = [(n, s) for n in range(30, 120) for s in range(20, 30) if n * (s / n) != s]
    assert min(n * (s / n) - s for n, s in sides) < 0  # a floor would lose a row
    for side, shown in sides:
        masks = torch.zeros((1, 64, 64), dtype=torch.bool)
        masks[0, shown - 1] = True
        back = drawn(to_file_pixels(with_masks(masks), meta_of((side, 40), (shown, 40))), (side, 40))
        assert back[0, -1].all()


def test_contours_are_scaled_and_kept():
    rings = torch.tensor([[[1.0, 2.0], [9.0, 2.0], [9.0, 30.0]], [[-4.0, 1.0], [200.0, 1.0], [5.0, 5.0]]])
    instances = Instances(
        boxes=torch.zeros((2, 4)),
        labels=torch.zeros(2, dtype=torch.int64),
        masks=torch.ones((2, 50, 100), dtype=torch.bool),
        contours=rings.requires_grad_(),
        ring_object=torch.tensor([0, 1]),
    )
    back = to_file_pixels(instances, meta_of((100, 50), (50, 100)))
    assert back.contours is not None
    assert not back.contours.requires_grad
    assert back.contours.tolist() == [[[0.5, 4], [4.5, 4], [4.5, 60]], [[-2, 2], [100, 2], [2.5, 10]]]
    assert back.ring_object is not None
    assert back.ring_object.tolist() == [0, 1]


@pytest.mark.parametrize("count", [0, 2])
def test_no_objects_and_no_pixels(count):
    back = to_file_pixels(with_masks(torch.zeros((count, 8, 8), dtype=torch.bool)), meta_of((5, 7), (8, 8)))
    assert len(back) == count
    assert back.contours is not None
    assert back.contours.shape == (0, 0, 2)
    assert back.ring_object is not None
    assert back.ring_object.dtype == torch.int64
    assert len(back.select(torch.arange(count))) == count


# ------------------------------------------------------------------------------------------------ truth
def test_truth_is_what_the_file_says():
    objects = [
        Object(label=2, box=(1.5, 2.0, 3.0, 4.0)),
        Object(label=0, box=(0, 0, 9, 9), crowd=True),
        Object(label=1, box=(0, 0, 5, 5), difficult=True),
    ]
    truth = truth_of(Record(image=Path("a.png"), objects=objects))
    assert truth.boxes[0].tolist() == [1.5, 2.0, 3.0, 4.0]
    assert truth.labels.tolist() == [2, 0, 1]
    assert truth.ignore is not None
    assert truth.ignore.tolist() == [False, True, True]
    assert truth.contours is truth.ring_object is None
    assert truth_of(Record(image=Path("b.png"))).boxes.shape == (0, 4)


def square(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array(((left, top), (right, top), (right, bottom), (left, bottom)), dtype=np.float64)


@pytest.mark.parametrize("size", [(20, 30), None])
def test_shapes_are_those_that_the_file_draws(size):
    rle = mask_to_rle(np.random.default_rng(0).random((20, 30)) < 0.3)
    crossing = [square(2, 2, 10, 10), square(6.5, 6, 16, 16), square(-9, 5, 3, 8), square(25, 12, 60, 18)]
    objects = [
        Object(label=0, box=(0, 0, 30, 20), rle=rle),
        Object(label=0, box=(0, 0, 8, 8), polygons=[square(0, 0, 8, 8), square(2, 2, 5, 5)]),
        Object(label=0, box=(0, 0, 8, 8), polygons=crossing, attributes={"fill": "union"}),
        Object(label=0, box=(0, 0, 8, 8), polygons=crossing),
        Object(label=0, box=(40, 40, 50, 50), polygons=[square(40, 40, 50, 50)]),
        Object(label=0, box=(3, 4, 7, 9)),
        Object(label=0, box=(40, 0, 50, 9), polygons=[square(40, 0, 50, 8)] * 2, attributes={"fill": "union"}),
    ]
    truth = truth_of(Record(image=Path("a.png"), size=size, objects=objects), shapes=True)
    masks = drawn(truth, (20, 30))
    for mask, item in zip(masks, objects, strict=True):
        expected = object_mask(item, (20, 30))
        if expected is None:
            expected = polygons_to_mask([square(3, 4, 7, 9)], (20, 30))
        np.testing.assert_array_equal(mask, expected)
    assert masks.any(axis=(1, 2)).tolist() == [True, True, True, True, False, True, False]
    assert (masks[2] & ~masks[3]).any()


def test_shapes_of_no_objects_and_of_broken_run_lengths():
    truth = truth_of(Record(image=Path("a.png")), shapes=True)
    assert truth.contours is not None
    assert truth.contours.shape == (0, 0, 2)
    broken = Object(label=0, box=(0, 0, 2, 2), rle=Rle(size=(2, 2), counts=(1, 2)))
    with pytest.raises(DataError, match="add up"):
        truth_of(Record(image=Path("a.png"), objects=[broken]), shapes=True)
