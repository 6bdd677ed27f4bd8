import json
import math

import numpy as np
import pytest
import torch

from clearsight.metrics import Scores, score_detection

NAMES = ("RBC", "WBC", "Platelets")


def finite(value):
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.real
def test_scores_of_real_annotations(bccd_results, pycocotools_judge):
    scores = score_detection(bccd_results, NAMES, bootstrap=200, seed=1)
    stats = pycocotools_judge(bccd_results, 3).stats
    assert scores.images == 72
    assert scores.summary["map"] == pytest.approx(stats[0], abs=1e-6)
    assert scores.summary["map_50"] == pytest.approx(stats[1], abs=1e-6)
    assert np.mean([row["ap"] for row in scores.per_class]) == pytest.approx(stats[0], abs=1e-9)
    for name in ("map", "map_50", "map_75"):
        low, high = scores.intervals[name]
        assert low < scores.summary[name] < high
        assert 0.01 < high - low < 0.2
    assert sum(row["objects"] for row in scores.by_size if row["group"] == "coco") == sum(
        row["objects"] for row in scores.per_class
    )
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict(), allow_nan=False))).to_dict() == scores.to_dict()


def test_perfect_predictions(one_image):
    truth = [[0, 0, 10, 10], [50, 50, 90, 90]]
    scores = score_detection([one_image(truth, [0, 1], truth, [0, 1])] * 3, NAMES[:2], bootstrap=50)
    assert scores.summary["map"] == pytest.approx(1.0)
    assert scores.summary["voc_map_50"] == 1.0
    assert scores.intervals["map"] == pytest.approx((1.0, 1.0))
    assert scores.confusion == [[3, 0, 0], [0, 3, 0], [0, 0, 0]]
    assert scores.worst == []
    assert sum(scores.mistakes.values()) == 0


@pytest.mark.parametrize("bootstrap", [0, 20])
def test_empty_cases_are_nan_and_never_an_error(one_image, bootstrap):
    nothing = score_detection([], NAMES, bootstrap=bootstrap)
    assert nothing.images == 0
    assert math.isnan(nothing.summary["map"])
    no_truth = score_detection([one_image([[0, 0, 5, 5]], [0], [], [])] * 2, NAMES, bootstrap=bootstrap)
    assert math.isnan(no_truth.summary["map"])
    assert math.isnan(no_truth.per_class[0]["f1"])
    no_found = score_detection([one_image([], [], [[0, 0, 5, 5]], [0])] * 2, NAMES, bootstrap=bootstrap)
    assert no_found.summary["map"] == 0.0
    assert no_found.per_class[0]["recall"] == 0.0
    assert math.isnan(no_found.per_class[0]["precision"])
    assert math.isnan(no_found.settings["threshold"])
    assert no_found.mistakes["missed"] == 2
    one_class = score_detection([one_image([[0, 0, 5, 5]], [0], [[0, 0, 5, 5]], [0])], ["only"], bootstrap=bootstrap)
    assert one_class.summary["map"] == pytest.approx(1.0)
    absent = score_detection([one_image([[0, 0, 5, 5]], [1], [[0, 0, 5, 5]], [0])] * 3, NAMES, bootstrap=bootstrap)
    assert math.isnan(absent.per_class[1]["ap"])
    assert math.isnan(absent.per_class[2]["ap"])
    assert absent.curves["pr"]["WBC"]["recall"] == []
    for scores in (nothing, no_truth, no_found, one_class, absent):
        json.dumps(scores.to_dict(), allow_nan=False)


def test_the_order_of_images_does_not_matter(make_results):
    results = make_results(15, seed=6)
    for item in results:
        item.predicted.scores += torch.rand(len(item.predicted)) * 1e-3
    forward, backward = score_detection(results, NAMES), score_detection(results[::-1], NAMES)
    assert forward.summary == pytest.approx(backward.summary, nan_ok=True)
    assert forward.confusion == backward.confusion
