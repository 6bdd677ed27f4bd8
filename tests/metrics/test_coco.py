import math

import numpy as np
import pytest

from clearsight.metrics.coco import coco_summary

FIGURES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")


@pytest.mark.parametrize(("classes", "crowd", "seed"), [(3, 0.2, 1), (7, 0.0, 2), (1, 0.1, 5)])
def test_gives_the_figures_of_pycocotools(make_results, pycocotools_judge, capfd, classes, crowd, seed):
    results = make_results(30, classes=classes, seed=seed, crowd=crowd)
    figures = coco_summary(results)
    assert capfd.readouterr() == ("", "")
    stats = pycocotools_judge(results, classes).stats
    np.testing.assert_allclose([figures[name] for name in FIGURES], stats[:6], atol=1e-6)  # torchmetrics gives 32 bits
    assert figures["mar_100"] == pytest.approx(stats[8], abs=1e-6)


def test_the_library_left_to_itself_is_off_by_its_rounded_thresholds(make_results, pycocotools_judge):
    from torchmetrics.detection import MeanAveragePrecision

    from clearsight.metrics.coco import _predicted, _truth

    results = make_results(30, classes=3, seed=1, crowd=0.2)
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    metric.update([_predicted(r.predicted) for r in results], [_truth(r.truth) for r in results])
    stats = pycocotools_judge(results, 3).stats
    theirs = metric.compute()
    # When this fails, the library has mended it, and coco_summary need not give thresholds any more.
    assert max(abs(float(theirs[name]) - stats[i]) for i, name in enumerate(FIGURES)) > 1e-5


def test_sizes_that_do_not_occur_are_nan(one_image):
    figures = coco_summary([one_image([[0, 0, 10, 10]], [0], [[0, 0, 10, 10]], [0])])
    assert figures["map"] == pytest.approx(1.0)
    assert figures["map_small"] == pytest.approx(1.0)
    assert math.isnan(figures["map_large"])


def test_nothing_there_and_nothing_found(one_image):
    assert math.isnan(coco_summary([one_image([[0, 0, 5, 5]], [0], [], [])])["map"])
    assert math.isnan(coco_summary([])["map"])
    assert coco_summary([one_image([], [], [[0, 0, 5, 5]], [0])])["map"] == 0.0


def test_more_than_a_hundred_detections_are_no_warning(one_image):
    boxes = [[i, 0, i + 5, 5] for i in range(150)]
    assert coco_summary([one_image(boxes, [0] * 150, [[0, 0, 5, 5]], [0])])["map"] == pytest.approx(1.0)
