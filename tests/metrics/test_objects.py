import itertools
import math

import numpy as np
import pytest

from clearsight.errors import RangeError
from clearsight.metrics import score_detection
from clearsight.metrics.objects import finite_mean, ignored_objects, score_objects
from clearsight.metrics.overlaps import box_overlap

NAMES = ("RBC", "WBC", "Platelets")


def test_the_best_threshold_is_the_best(make_results):
    results = make_results(20, seed=2)
    scores = score_detection(results, NAMES)
    for label, row in enumerate(scores.per_class):
        best = 0.0
        for threshold in np.unique(np.concatenate([r.predicted.scores.numpy() for r in results])):
            kept = [r.predicted.labels[r.predicted.scores >= threshold].tolist().count(label) for r in results]
            curve = scores.curves["pr"][NAMES[label]]
            point = int(np.searchsorted(-np.array(curve["score"]), -threshold, side="right")) - 1
            if point < 0:
                continue
            precision, recall = curve["precision"][point], curve["recall"][point]
            if precision + recall:
                best = max(best, 2 * precision * recall / (precision + recall))
            if threshold == np.float32(row["threshold"]):
                assert sum(kept) == row["predictions"]
        assert row["f1"] == pytest.approx(best)
        assert row["f1"] == pytest.approx(2 * row["precision"] * row["recall"] / (row["precision"] + row["recall"]))


def test_size_groups_hold_each_object_once(make_results):
    results = make_results(25, seed=9, crowd=0.1)
    scores = score_detection(results, NAMES)
    quarters = [row for row in scores.by_size if row["group"] == "quantile"]
    objects = sum(int((~r.truth.ignore).sum()) for r in results)
    assert len(quarters) == 4
    assert sum(row["objects"] for row in quarters) == objects
    assert max(row["objects"] for row in quarters) - min(row["objects"] for row in quarters) <= 3
    assert all(a["high"] == pytest.approx(b["low"]) for a, b in itertools.pairwise(quarters))
    for row, name in zip(scores.by_size, ("map_small", "map_medium", "map_large"), strict=False):
        assert row["ap"] == pytest.approx(scores.summary[name], abs=1e-6)


def test_objects_on_the_edge_of_size_groups_stand_in_one_of_them(one_image):
    truth = [[0, 0, side, side] for side in range(10, 220, 10)]  # the quartiles of 21 sides are sides themselves
    rows = score_detection([one_image(truth, [0] * 21, truth, [0] * 21)], ["a"]).by_size
    assert [row["objects"] for row in rows if row["group"] == "quantile"] == [5, 5, 5, 6]


def test_equal_sizes_make_one_group_only_of_coco(one_image):
    truth = [[i * 20, 0, i * 20 + 10, 10] for i in range(20)]
    rows = score_detection([one_image(truth, [0] * 20, truth, [0] * 20)], ["a"]).by_size
    assert [row["group"] for row in rows] == ["coco"] * 3


def test_a_given_threshold_is_used_and_checked(one_image):
    image = one_image([[0, 0, 5, 5]], [0], [[0, 0, 5, 5]], [0], scores=[0.5])
    assert score_detection([image], NAMES, threshold=0.6).confusion[0] == [0, 0, 0, 1]
    assert score_detection([image], NAMES, threshold=0.5).confusion[0] == [1, 0, 0, 0]
    with pytest.raises(RangeError, match=r"in \[0, 1\], got 2"):
        score_detection([image], NAMES, threshold=2)


@pytest.mark.parametrize("crowd", [0.0, 0.2])
def test_overlaps_of_boxes_give_what_the_boxes_give(make_results, crowd):
    results = make_results(12, seed=3, crowd=crowd)
    overlaps = [box_overlap(r.predicted.boxes.double().numpy(), r.truth.boxes.double().numpy()) for r in results]
    options = {"task": "detection", "bootstrap": 20, "seed": 1, "threshold": None, "worst": 5}
    ours, theirs = (score_objects(results, NAMES, **options, overlaps=given) for given in (overlaps, None))
    assert ours.scores.to_dict() == theirs.scores.to_dict()
    assert [i.pairs for i in ours.images] == [i.pairs for i in theirs.images]
    assert [i.matched for i in ours.images] == [i.matched for i in theirs.images]
    assert ours.least == theirs.scores.settings["threshold"]
    assert theirs.scores.per_class[0]["voc_ap_50"] > 0.1


def test_without_a_threshold_every_prediction_counts(one_image):
    found = score_objects(
        [one_image([[0, 0, 5, 5]], [0], [], [])], ["a"], task="detection", bootstrap=0, seed=0, threshold=None, worst=1
    )
    assert math.isnan(found.scores.settings["threshold"])
    assert found.least == 0.0
    assert found.scores.mistakes["background"] == 1


def test_ignored_objects_of_an_image(one_image):
    assert ignored_objects(one_image([], [], [[0, 0, 5, 5]] * 2, [0, 0])).tolist() == [False, False]
    assert ignored_objects(one_image([], [], [[0, 0, 5, 5]] * 2, [0, 0], ignore=[False, True])).tolist() == [
        False,
        True,
    ]


def test_the_mean_of_those_that_are_numbers():
    assert finite_mean([1.0, math.nan, 2.0]) == 1.5
    assert math.isnan(finite_mean([math.nan]))
    assert math.isnan(finite_mean([]))
