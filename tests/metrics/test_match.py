import numpy as np
import pytest

from clearsight.errors import RangeError
from clearsight.metrics import match as module
from clearsight.metrics.match import COCO_AREAS, flatten, match_coco, match_voc

ALL = [COCO_AREAS["all"]]


def matched(results, classes=1, areas=ALL, **options):
    found, truth = flatten(results, classes, predicted=True, limit=100), flatten(results, classes, predicted=False)
    return match_coco(found, truth, images=len(results), classes=classes, areas=areas, **options)


def test_the_better_score_takes_the_object_and_the_second_is_false(one_image):
    # Both overlap the object; by score the second detection comes first.
    image = one_image([[0, 0, 10, 9], [0, 0, 10, 10]], [0, 0], [[0, 0, 10, 10]], [0], scores=[0.6, 0.8])
    out = matched([image])
    assert out.score.tolist() == pytest.approx([0.8, 0.6])
    assert out.hit[0, 0].tolist() == [True, False]
    assert not out.skip.any()
    assert out.truth[0, 0, 0] == 1


def test_a_detection_takes_the_free_object_when_its_best_is_taken(one_image):
    truth = [[0, 0, 10, 10], [0, 0, 10, 8]]
    image = one_image([[0, 0, 10, 10], [0, 0, 10, 10]], [0, 0], truth, [0, 0])
    assert matched([image]).hit[0, 0].tolist() == [True, True]
    # VOC lets a detection stand for its best object only, and that one is taken.
    found, objects = flatten([image], 1, predicted=True), flatten([image], 1, predicted=False)
    assert match_voc(found, objects, images=1, classes=1).hit[0, 0].tolist() == [True, False]


def test_an_overlap_of_exactly_one_half_counts(one_image):
    image = one_image([[0, 0, 10, 10]], [0], [[0, 0, 10, 5]], [0])
    out = matched([image])
    assert out.hit[0, :, 0].tolist() == [True] + [False] * 9
    found, objects = flatten([image], 1, predicted=True), flatten([image], 1, predicted=False)
    assert match_voc(found, objects, images=1, classes=1).hit[0, 0].tolist() == [True]


def test_crowds_excuse_any_number_of_detections_but_objects_come_first(one_image):
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]]
    image = one_image(boxes, [0, 0, 0], [[0, 0, 100, 100], [0, 0, 10, 10]], [0, 0], ignore=[True, False])
    out = matched([image])
    assert out.hit[0, 0].tolist() == [True, False, False]
    assert out.skip[0, 0].tolist() == [False, True, True]
    assert out.truth[0, 0, 0] == 1


def test_difficult_objects_excuse_every_detection_of_them(one_image):
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]
    image = one_image(boxes, [0, 0, 0], [[0, 0, 10, 10]], [0], ignore=[True])
    found, objects = flatten([image], 1, predicted=True), flatten([image], 1, predicted=False)
    out = match_voc(found, objects, images=1, classes=1)
    assert out.skip[0, 0].tolist() == [True, True, False]
    assert not out.hit.any()
    assert out.truth.sum() == 0


def test_outside_a_size_range_nothing_counts(one_image):
    boxes = [[0, 0, 10, 10], [100, 100, 200, 200], [300, 300, 310, 310]]
    image = one_image(boxes, [0, 0, 0], [[0, 0, 10, 10], [100, 100, 200, 200]], [0, 0])
    out = matched([image], areas=[COCO_AREAS["small"], COCO_AREAS["large"]])
    assert out.hit[:, 0].tolist() == [[True, False, False], [False, True, False]]
    assert out.skip[:, 0].tolist() == [[False, True, False], [True, False, True]]
    assert out.truth[:, 0, 0].tolist() == [1, 1]


def test_classes_and_images_do_not_mix(one_image):
    a = one_image([[0, 0, 10, 10]], [1], [[0, 0, 10, 10]], [0])
    b = one_image([[0, 0, 10, 10]], [0], [], [])
    out = matched([a, b], classes=2)
    assert not out.hit.any()
    assert out.truth[0].tolist() == [[1, 0], [0, 0]]


def test_only_the_best_scores_an_image_and_class_are_kept(one_image):
    image = one_image([[0, 0, 1, 1]] * 7, [0, 0, 0, 0, 1, 1, 0], [], [], scores=[0.1, 0.5, 0.4, 0.3, 0.2, 0.1, 0.9])
    found = flatten([image], 2, predicted=True, limit=2)
    assert found.score.tolist() == pytest.approx([0.9, 0.5, 0.2, 0.1])
    assert found.origin.tolist() == [6, 1, 4, 5]


def test_scores_below_the_least_are_left_out_and_areas_may_be_given(one_image):
    image = one_image([[0, 0, 1, 1]] * 3, [0, 0, 0], [[0, 0, 9, 9]], [0], scores=[0.5, 0.2, 0.75])
    found = flatten([image], 1, predicted=True, least=0.5, areas=[np.array([4.0, 5.0, 6.0])])
    assert found.origin.tolist() == [2, 0]
    assert found.area.tolist() == [6.0, 4.0]
    assert flatten([image], 1, predicted=False).area.tolist() == [81.0]


def test_portions_give_what_one_portion_gives(make_results, monkeypatch):
    results = make_results(12, crowd=0.2)
    whole = matched(results, 3, areas=list(COCO_AREAS.values()))
    monkeypatch.setattr(module, "_CHUNK", 500)
    parts = matched(results, 3, areas=list(COCO_AREAS.values()))
    assert np.array_equal(whole.hit, parts.hit)
    assert np.array_equal(whole.skip, parts.skip)
    assert whole.hit.any()
    assert whole.skip.any()


def test_labels_outside_the_classes_and_missing_scores_are_named(one_image):
    image = one_image([[0, 0, 1, 1]], [3], [], [], name="cells/7.jpg")
    with pytest.raises(RangeError, match=r"cells/7\.jpg: labels \[3\] with 3 classes"):
        flatten([image], 3, predicted=True)
    image.predicted.scores = None
    with pytest.raises(RangeError, match=r"cells/7\.jpg: predicted instances have no scores"):
        flatten([image], 4, predicted=True)


def test_boxes_that_are_no_numbers_hit_nothing(one_image):
    image = one_image([[float("nan")] * 4, [0, 0, 10, 10]], [0, 0], [[0, 0, 10, 10]], [0])
    assert matched([image]).hit[0, 0].tolist() == [False, True]
