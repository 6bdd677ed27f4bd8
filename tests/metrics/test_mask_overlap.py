import numpy as np
import pytest
import torch

from clearsight.errors import RangeError
from clearsight.metrics import mask_overlap as module
from clearsight.metrics.mask_overlap import mask_iou, mask_overlap
from clearsight.types import Instances


def rings(points, owners, count):
    return Instances(
        boxes=torch.zeros((count, 4)),
        labels=torch.zeros(count, dtype=torch.int64),
        contours=torch.as_tensor(np.asarray(points), dtype=torch.float32),
        ring_object=torch.tensor(owners),
    )


def square(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.9, 1.0])
def test_equals_pycocotools_on_random_masks(as_outlines, coco_masks, share):
    from pycocotools.mask import iou

    draw = np.random.default_rng(int(share * 100))
    for _ in range(20):
        size = tuple(draw.integers(1, 40, 2).tolist())
        found, truth = (draw.uniform(size=(draw.integers(1, 6), *size)) < share for _ in range(2))
        crowd = draw.uniform(size=len(truth)) < 0.4
        theirs = iou(coco_masks(found), coco_masks(truth), crowd.astype(np.uint8).tolist())
        np.testing.assert_array_equal(mask_iou(as_outlines(found), as_outlines(truth), size, crowd=crowd), theirs)


@pytest.mark.real
@pytest.mark.parametrize("name", ["nuclei_results", "fruit_results"])
def test_equals_pycocotools_on_real_masks(name, request, draw_outlines, coco_masks):
    from pycocotools.mask import iou

    for result in request.getfixturevalue(name):
        found, truth = (coco_masks(draw_outlines(part, result.size)) for part in (result.predicted, result.truth))
        crowd = result.truth.ignore.numpy()
        theirs = iou(found, truth, crowd.astype(np.uint8).tolist())
        assert theirs.max() > 0.5
        np.testing.assert_array_equal(mask_iou(result.predicted, result.truth, result.size, crowd=crowd), theirs)


def test_any_rings_count_what_drawing_them_counts(draw_outlines):
    draw = np.random.default_rng(0)
    for _ in range(30):
        size = tuple(draw.integers(3, 60, 2).tolist())
        # Two rings an object, crossing themselves and each other, some far outside.
        points = draw.normal(20, draw.choice([5, 30, 1000]), (10, 7, 2)).round(int(draw.integers(0, 3)))
        some = rings(points, [0, 1, 2, 3, 4] * 2, 5)
        masks = draw_outlines(some, size)
        overlap = mask_overlap(some, some, size)
        np.testing.assert_array_equal(overlap.found, masks.sum(axis=(1, 2)))
        np.testing.assert_array_equal(overlap.intersection, (masks[:, None] & masks).sum(axis=(2, 3)))


def test_hand_worked_with_a_hole():
    found = rings([square(0, 0, 4, 4), square(1, 1, 3, 3)], [0, 0], 1)
    truth = rings([square(0, 0, 2, 4), square(1, 1, 2, 2), square(9, 9, 10, 10)], [0, 1, 2], 3)
    overlap = mask_overlap(found, truth, (10, 10))
    assert overlap.found.tolist() == [12.0]
    assert overlap.truth.tolist() == [8.0, 1.0, 1.0]
    assert overlap.intersection.tolist() == [[6.0, 0.0, 0.0]]
    assert mask_iou(found, truth, (10, 10)).tolist() == [[6 / 14, 0.0, 0.0]]
    crowd = np.array([True, False, False])
    assert mask_iou(found, truth, (10, 10), crowd=crowd).tolist() == [[0.5, 0.0, 0.0]]


def test_objects_without_pixels_overlap_nothing_not_even_themselves():
    bad = square(0, 0, 5, 5)
    bad[2] = [float("nan"), 5]
    far = square(100, 0, 120, 5)
    thin = square(0.6, 0, 1.4, 5)  # between the centres of pixels
    some = rings([bad, square(0, 0, 5, 5), far, thin], [0, 0, 1, 2], 4)  # the last has no ring
    overlap = mask_overlap(some, some, (8, 8))
    assert not overlap.found.any()
    assert mask_iou(some, some, (8, 8)).tolist() == [[0.0] * 4] * 4
    one = rings([square(3, 3, 4, 4)], [0], 1)
    assert mask_iou(one, one, (8, 8)).tolist() == [[1.0]]
    assert mask_iou(one, some, (8, 8), crowd=np.ones(4, bool)).tolist() == [[0.0] * 4]


def test_no_objects_need_no_contours_and_others_do():
    none = Instances(boxes=torch.zeros((0, 4)), labels=torch.zeros(0, dtype=torch.int64))
    one = rings([square(3, 3, 4, 4)], [0], 1)
    assert mask_iou(none, one, (8, 8)).shape == (0, 1)
    assert mask_iou(one, none, (8, 8)).shape == (1, 0)
    boxes = Instances(boxes=torch.zeros((2, 4)), labels=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(RangeError, match="2 instances have no contours"):
        mask_iou(boxes, one, (8, 8))


def test_portions_give_what_one_portion_gives(make_mask_results, monkeypatch):
    results = make_mask_results(4, seed=2)
    whole = [mask_overlap(r.predicted, r.truth, r.size) for r in results]
    monkeypatch.setattr(module, "_CHUNK", 20)
    for result, before in zip(results, whole, strict=True):
        after = mask_overlap(result.predicted, result.truth, result.size)
        np.testing.assert_array_equal(after.intersection, before.intersection)
    assert sum(one.intersection.sum() for one in whole) > 0
