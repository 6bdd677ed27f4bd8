import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clearsight.errors import RangeError
from clearsight.metrics.boundary import boundary_f
from clearsight.metrics.instances import score_instances
from clearsight.metrics.results import ImageResult
from clearsight.metrics.scores import Scores

COCO = {"map": 0, "map_50": 1, "map_75": 2, "map_small": 3, "map_medium": 4, "map_large": 5, "mar_100": 8}
SIZE = (12, 16)


def figures(stats, names):
    """pycocotools' figures by our names; -1 is NaN there."""
    return {name: math.nan if stats[place] < 0 else stats[place] for name, place in names.items()}


def mask(top, left, bottom, right, size=SIZE):
    out = np.zeros(size, bool)
    out[top:bottom, left:right] = True
    return out


@pytest.fixture
def scene(as_outlines):
    """`scene(found, truth, …)`: an ImageResult from masks; scores fall from 0.9 where none are given."""

    def make(found, truth, *, labels=None, truth_labels=None, scores=None, ignore=None, name="a.png"):
        size = found[0].shape if found else truth[0].shape if truth else SIZE
        scores = np.linspace(0.9, 0.5, len(found)) if scores is None else scores
        predicted = as_outlines(found, labels, scores=scores)
        return ImageResult(
            path=Path(name), size=size, predicted=predicted, truth=as_outlines(truth, truth_labels, ignore=ignore)
        )

    return make


def compare(results, classes, judge, *, boxes=True):
    summary = score_instances(results, [str(k) for k in range(classes)]).summary
    theirs = figures(judge(results, classes, "segm").stats, COCO)
    assert theirs["map"] > 0.1
    for name, value in theirs.items():
        assert summary[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    if boxes:
        theirs = figures(judge(results, classes).stats, {"box_map": 0, "box_map_50": 1})
        assert {name: summary[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("classes", "crowd", "seed"), [(3, 0.2, 1), (5, 0.0, 2), (1, 0.3, 5)])
def test_gives_the_figures_of_pycocotools(make_mask_results, pycocotools_judge, classes, crowd, seed):
    compare(make_mask_results(20, classes=classes, seed=seed, crowd=crowd), classes, pycocotools_judge)


@pytest.mark.real
@pytest.mark.parametrize(("name", "classes"), [("nuclei_results", 1), ("fruit_results", 3)])
def test_gives_the_figures_of_pycocotools_on_real_masks(name, classes, request, pycocotools_judge):
    compare(request.getfixturevalue(name), classes, pycocotools_judge)


# ------------------------------------------------------------------------------------------------ by image
def brute_image_figures(result, masks, threshold):
    """Challenge score by IoU and aggregated Jaccard of one image, by loops; one class, masks drawn whole."""
    found, truth = masks
    order = np.argsort(-result.predicted.scores.numpy(), kind="stable")
    order = [d for d in order if result.predicted.scores[d] >= threshold]
    iou = np.array([[(a & b).sum() / max((a | b).sum(), 1) for b in truth] for a in found])
    by_iou = []
    for least in np.linspace(0.5, 0.95, 10):
        free = set(range(len(truth)))
        for d in order:
            able = [t for t in free if iou[d, t] >= least - 1e-10]
            if able:
                free.discard(max(able, key=lambda t, d=d: iou[d, t]))
        right = len(truth) - len(free)
        by_iou.append(right / (len(order) + len(truth) - right) if len(order) + len(truth) else math.nan)
    used, common, union = set(), 0, 0
    for t, object_ in enumerate(truth):
        best = max(order, key=lambda d, t=t: iou[d, t], default=None)
        if best is None or iou[best, t] == 0:
            union += object_.sum()
            continue
        used.add(best)
        common += (found[best] & object_).sum()
        union += (found[best] | object_).sum()
    union += sum(found[d].sum() for d in order if d not in used)
    return np.array(by_iou), common / union if union else math.nan


def test_challenge_score_and_aggregated_jaccard_equal_plain_loops(make_mask_results, draw_outlines):
    results = make_mask_results(15, classes=1, seed=8)
    scores = score_instances(results, ["a"], threshold=0.3)
    rows = []
    for result in results:
        masks = [draw_outlines(part, result.size) for part in (result.predicted, result.truth)]
        by_iou, jaccard = brute_image_figures(result, masks, 0.3)
        rows.append([by_iou.mean(), by_iou[0], jaccard])
    expected = np.nanmean(np.array(rows), axis=0)
    assert scores.summary["dsb_ap"] == pytest.approx(expected[0], abs=1e-12)
    assert scores.summary["dsb_ap_50"] == pytest.approx(expected[1], abs=1e-12)
    assert scores.summary["aji"] == pytest.approx(expected[2], abs=1e-12)
    assert 0.1 < expected[0] < expected[1] < 0.9


def test_hand_worked_figures(scene):
    # Objects of 16 px; one found with 12 px of 16 (IoU 0.75), one missed, one detection where nothing is (8 px).
    truth = [mask(0, 0, 4, 4), mask(6, 0, 10, 4)]
    found = [mask(0, 0, 4, 3), mask(0, 10, 4, 12)]
    summary = score_instances([scene(found, truth)], ["a"], threshold=0.0).summary
    assert summary["dsb_ap_50"] == pytest.approx(1 / 3)
    assert summary["dsb_ap"] == pytest.approx(6 / 10 / 3)  # a hit at 0.5 … 0.75
    assert summary["aji"] == pytest.approx(12 / (16 + 16 + 8))
    assert summary["matched_iou"] == pytest.approx(0.75)
    assert summary["boundary_f"] == pytest.approx(0.5)  # all within 2 px, the other object has 0
    assert summary["map_50"] == pytest.approx(51 / 101)


def test_boundaries_in_windows_are_those_of_whole_masks(make_mask_results, draw_outlines):
    results = make_mask_results(12, classes=1, seed=4)
    total, objects = 0.0, 0
    for result in results:
        found, truth = (draw_outlines(part, result.size) for part in (result.predicted, result.truth))
        objects += len(truth)
        free = np.ones(len(truth), bool)
        for d in np.argsort(-result.predicted.scores.numpy(), kind="stable"):
            iou = np.array([(found[d] & b).sum() / max((found[d] | b).sum(), 1) for b in truth]) * free
            if len(iou) and iou.max() >= 0.5:
                free[iou.argmax()] = False
                total += float(boundary_f(found[d], truth[iou.argmax()], tolerance=2))
    value = score_instances(results, ["a"], threshold=0.0).summary["boundary_f"]
    assert value == pytest.approx(total / objects, abs=1e-12)
    assert 0.2 < value < 0.9


def test_a_boundary_three_pixels_off_does_not_count(scene):
    square = mask(10, 10, 40, 40, (60, 60))
    summaries = [
        score_instances([scene([np.roll(square, by, axis=1)], [square])], ["a"]).summary for by in (0, 2, 3, 20)
    ]
    assert [one["boundary_f"] for one in summaries[:2]] == [1.0, 1.0]
    assert 0.4 < summaries[2]["boundary_f"] < 0.9
    assert summaries[3]["boundary_f"] == 0.0  # IoU 1/5: the object is missed
    assert math.isnan(summaries[3]["matched_iou"])


def test_classes_are_not_mixed(scene):
    square = mask(0, 0, 4, 4)
    summary = score_instances([scene([square], [square], labels=[1], truth_labels=[0])], ["a", "b"]).summary
    assert [summary[name] for name in ("map", "dsb_ap", "aji", "boundary_f")] == [0.0] * 4
    scores = score_instances([scene([square], [square], labels=[1], truth_labels=[0])], ["a", "b"])
    assert scores.mistakes["wrong class"] == 1


def test_crowds_count_neither_way_in_any_figure(scene):
    crowd, alone = mask(0, 0, 10, 8), mask(0, 10, 6, 14)
    with_crowd = scene([alone, mask(1, 1, 4, 4), mask(5, 1, 8, 5)], [alone, crowd], ignore=[False, True])
    without = scene([alone], [alone])
    ours, theirs = (score_instances([one], ["a"], threshold=0.0) for one in (with_crowd, without))
    assert ours.summary == pytest.approx(theirs.summary, nan_ok=True)
    assert sum(ours.mistakes.values()) == 0
    only = score_instances([scene([mask(1, 1, 4, 4)], [crowd], ignore=[True])], ["a"], threshold=0.0)
    assert all(math.isnan(value) for value in only.summary.values())


def test_the_challenge_score_has_no_limit_of_a_hundred(scene):
    squares = [mask(2 * i, 2 * j, 2 * i + 1, 2 * j + 1, (30, 30)) for i in range(12) for j in range(12)]
    summary = score_instances([scene(squares, squares)], ["a"], threshold=0.0).summary
    assert summary["dsb_ap"] == summary["aji"] == 1.0
    assert summary["mar_100"] == pytest.approx(100 / 144)


# ------------------------------------------------------------------------------------------------ cases at the edge
def test_identical_masks_are_perfect_down_to_one_pixel(scene):
    masks = [mask(0, 0, 1, 1), mask(5, 5, 9, 9), mask(11, 15, 12, 16)]
    scores = score_instances([scene(masks, masks)] * 3, ["a"], bootstrap=50)
    names = ("map", "map_50", "map_small", "box_map", "dsb_ap", "dsb_ap_50", "aji", "boundary_f", "matched_iou")
    assert {name: scores.summary[name] for name in names} == pytest.approx(dict.fromkeys(names, 1.0))
    assert math.isnan(scores.summary["map_large"])
    for name in ("map", "map_50", "dsb_ap", "aji", "boundary_f"):
        assert scores.intervals[name] == pytest.approx((1.0, 1.0))
    assert scores.worst == []
    assert scores.confusion == [[9, 0], [0, 0]]


def test_sizes_are_pixels_of_masks_and_not_of_boxes(scene):
    frame = mask(0, 0, 100, 100, (120, 120)) & ~mask(1, 1, 99, 99, (120, 120))  # 396 px in a box of 10,000
    scores = score_instances([scene([frame], [frame])], ["a"])
    assert scores.summary["map_small"] == pytest.approx(1.0)
    assert math.isnan(scores.summary["map_large"])
    assert scores.by_size[0]["objects"] == 1


def test_a_mask_is_scored_where_its_box_would_pass(scene):
    whole = mask(0, 0, 10, 10)
    corner = np.tri(10, 16, -6, dtype=bool)
    found = np.zeros(SIZE, bool)
    found[:10] = corner | mask(0, 0, 1, 10)[:10] | mask(0, 0, 10, 1)[:10]
    found[9, :10] = True
    summary = score_instances([scene([found], [whole])], ["a"]).summary
    assert summary["box_map"] == pytest.approx(1.0)
    assert summary["map"] == 0.0


def test_objects_without_pixels_are_never_found(scene):
    nothing, square = np.zeros(SIZE, bool), mask(0, 0, 4, 4)
    scores = score_instances([scene([nothing, square], [nothing, square])], ["a"], threshold=0.0)
    assert scores.mistakes["missed"] == 1
    assert scores.mistakes["background"] == 1
    assert scores.summary["dsb_ap_50"] == pytest.approx(1 / 3)
    assert scores.summary["aji"] == 1.0  # no pixel, no part of the union
    assert scores.summary["boundary_f"] == 0.5
    outside = scene([square], [square])
    outside.predicted.contours = outside.predicted.contours + 100
    assert score_instances([outside], ["a"]).summary["map"] == 0.0


def test_a_mask_that_fills_the_image_has_no_boundary(scene):
    full = np.ones(SIZE, bool)
    summary = score_instances([scene([full], [full])], ["a"]).summary
    assert summary["map"] == pytest.approx(1.0)
    assert math.isnan(summary["boundary_f"])
    summary = score_instances([scene([full, mask(0, 0, 4, 4)], [full, mask(0, 0, 4, 4)])], ["a"]).summary
    assert summary["boundary_f"] == 1.0


@pytest.mark.parametrize("bootstrap", [0, 20])
def test_empty_cases_are_nan_and_never_an_error(scene, bootstrap):
    square = mask(0, 0, 4, 4)
    nothing = score_instances([], ["a"], bootstrap=bootstrap)
    assert nothing.images == 0
    empty = score_instances([scene([], [])] * 2, ["a"], bootstrap=bootstrap)
    for scores in (nothing, empty):
        assert all(math.isnan(value) for value in scores.summary.values())
    no_truth = score_instances([scene([square], [])] * 2, ["a"], bootstrap=bootstrap)
    assert math.isnan(no_truth.summary["map"])
    assert no_truth.summary["dsb_ap"] == no_truth.summary["aji"] == 0.0
    no_found = score_instances([scene([], [square])] * 2, ["a"], bootstrap=bootstrap)
    assert [no_found.summary[name] for name in ("map", "dsb_ap", "aji", "boundary_f")] == [0.0] * 4
    assert no_found.mistakes["missed"] == 2
    # An image where nothing is and nothing is found has no say.
    mixed = score_instances([scene([square], [square]), scene([], [])], ["a"], bootstrap=bootstrap)
    assert mixed.summary["dsb_ap"] == mixed.summary["aji"] == 1.0
    for scores in (nothing, empty, no_truth, no_found, mixed):
        json.dumps(scores.to_dict(), allow_nan=False)


def test_faults_name_the_image(scene):
    square = mask(0, 0, 4, 4)
    image = scene([square], [square], name="cells/7.png")
    bare = replace(image, predicted=replace(image.predicted, contours=None, ring_object=None))
    with pytest.raises(RangeError, match=r"cells/7\.png: 1 instances have no contours"):
        score_instances([bare], ["a"])
    with pytest.raises(RangeError, match=r"cells/7\.png: labels \[0\] with 0 classes"):
        score_instances([image], [])
    with pytest.raises(RangeError, match=r"in \[0, 1\], got -1"):
        score_instances([image], ["a"], threshold=-1)


# ------------------------------------------------------------------------------------------------ the whole
def test_scores_are_whole_and_their_intervals_plausible(make_mask_results):
    results = make_mask_results(25, classes=2, seed=11, crowd=0.1)
    scores = score_instances(results, ["a", "b"], bootstrap=200, seed=1)
    assert scores.task == "instance"
    assert scores.main == scores.summary["map"] == pytest.approx(np.mean([row["ap"] for row in scores.per_class]))
    for name in ("map", "map_50", "map_75", "dsb_ap", "aji", "boundary_f"):
        low, high = scores.intervals[name]
        assert low < scores.summary[name] < high
        assert 0.02 < high - low < 0.4
    objects = sum(int((~r.truth.ignore).sum()) for r in results)
    assert sum(row["objects"] for row in scores.by_size if row["group"] == "coco") == objects
    assert np.array(scores.confusion)[:2].sum() == objects
    assert scores.worst[0]["error"] >= scores.worst[-1]["error"] > 0
    assert set(scores.curves["pr"]) == {"a", "b"}
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict(), allow_nan=False))).to_dict() == scores.to_dict()


def test_the_order_of_images_does_not_matter(make_mask_results):
    results = make_mask_results(10, seed=6)
    for item in results:
        item.predicted.scores += torch.rand(len(item.predicted)) * 1e-3
    forward, backward = (score_instances(some, ["a", "b", "c"]) for some in (results, results[::-1]))
    assert forward.summary == pytest.approx(backward.summary, nan_ok=True)
    assert forward.confusion == backward.confusion


def test_intervals_are_those_of_images_drawn_again(make_mask_results):
    from clearsight.metrics.bootstrap import percentile_interval, resample_counts

    results = make_mask_results(6, classes=1, seed=3)
    for item in results:  # no ties: of copies of two equal scores the order would count
        item.predicted.scores += torch.rand(len(item.predicted)) * 1e-3
    scores = score_instances(results, ["a"], bootstrap=12, seed=5, threshold=0.2)
    drawn = []
    for count in resample_counts(6, 12, seed=5):
        repeated = [item for item, times in zip(results, count, strict=True) for _ in range(times)]
        drawn.append(score_instances(repeated, ["a"], threshold=0.2).summary)
    for name in ("map", "map_50", "dsb_ap", "aji", "boundary_f"):
        assert scores.intervals[name] == pytest.approx(percentile_interval(np.array([one[name] for one in drawn])))
