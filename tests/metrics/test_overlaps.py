import numpy as np
import pytest

from clearsight.metrics.match import COCO_AREAS, flatten, match_coco, match_voc
from clearsight.metrics.overlaps import box_overlap, find_places, join_pairs, rank_in_group


def test_hand_worked_boxes():
    overlap = box_overlap(np.array([[0.0, 0, 4, 4], [0, 0, 0, 0]]), np.array([[2.0, 0, 6, 4], [9, 9, 9, 9]]))
    assert overlap.intersection.tolist() == [[8, 0], [0, 0]]
    assert overlap.iou().tolist() == [[8 / 24, 0], [0, 0]]
    assert overlap.iou(np.array([True, False])).tolist() == [[0.5, 0], [0, 0]]
    assert overlap.covered().tolist() == [[0.5, 0], [0, 0]]


def test_no_boxes():
    overlap = box_overlap(np.zeros((0, 4)), np.zeros((3, 4)))
    assert overlap.iou().shape == overlap.covered().shape == (0, 3)


@pytest.mark.parametrize("crowd", [0.0, 0.3])
def test_matrices_of_boxes_match_as_the_boxes_do(make_results, crowd):
    results = make_results(15, seed=3, crowd=crowd)
    found, truth = flatten(results, 3, predicted=True, limit=5), flatten(results, 3, predicted=False)
    overlaps = [box_overlap(r.predicted.boxes.double().numpy(), r.truth.boxes.double().numpy()) for r in results]
    crowds = [one.iou(r.truth.ignore.numpy()) for one, r in zip(overlaps, results, strict=True)]
    options = {"images": 15, "classes": 3}
    for ours, theirs in (
        (
            match_coco(found, truth, **options, areas=list(COCO_AREAS.values()), overlaps=crowds),
            match_coco(found, truth, **options, areas=list(COCO_AREAS.values())),
        ),
        (
            match_voc(found, truth, **options, overlaps=[one.iou() for one in overlaps]),
            match_voc(found, truth, **options),
        ),
    ):
        np.testing.assert_array_equal(ours.hit, theirs.hit)
        np.testing.assert_array_equal(ours.skip, theirs.skip)
        assert theirs.hit.any()
        assert theirs.skip.any() or not crowd


def test_matrices_in_a_row():
    pairs = join_pairs([np.ones((2, 3)), np.zeros((0, 4)), np.full((1, 2), 5.0)])
    assert pairs.start.tolist() == [0, 6, 6]
    assert pairs.width.tolist() == [3, 4, 2]
    assert pairs.values.tolist() == [1.0] * 6 + [5.0] * 2


def test_places_by_group():
    groups = np.array([3, 3, 5, 9])
    assert rank_in_group(groups).tolist() == [0, 1, 0, 0]
    places = find_places(groups, np.array([3, 5, 5, 5, 9]))
    assert [part.tolist() for part in places.found] == [[0, 0, 1, 2], [0, 1, 0, 0]]
    assert [part.tolist() for part in places.truth] == [[0, 1, 1, 1, 2], [0, 0, 1, 2, 0]]
    assert places.shape == (3, 2, 3)
