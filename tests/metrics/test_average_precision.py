import numpy as np
import pytest
import torch

from clearsight.metrics import average_precision as module
from clearsight.metrics.average_precision import average_precision, class_ranking, voc_average_precision
from clearsight.metrics.bootstrap import resample_counts
from clearsight.metrics.match import COCO_AREAS, flatten, match_coco, match_voc


def match_all(results, classes):
    found, truth = flatten(results, classes, predicted=True, limit=100), flatten(results, classes, predicted=False)
    return match_coco(found, truth, images=len(results), classes=classes, areas=list(COCO_AREAS.values()))


@pytest.mark.parametrize(("classes", "crowd", "seed"), [(1, 0.0, 0), (3, 0.2, 1), (7, 0.1, 2), (3, 0.0, 3)])
def test_equals_pycocotools(make_results, pycocotools_judge, classes, crowd, seed):
    results = make_results(30, classes=classes, seed=seed, crowd=crowd)
    table = average_precision(match_all(results, classes))
    precision = pycocotools_judge(results, classes).eval
    theirs = precision["precision"][..., 2].mean(axis=1)  # t k a, at 100 detections
    ours = table.ap[0].transpose(1, 2, 0)
    known = theirs >= 0
    assert known.any()
    assert np.isnan(ours[~known]).all()
    np.testing.assert_allclose(ours[known], theirs[known], rtol=0, atol=1e-9)
    recall = precision["recall"][..., 2]
    np.testing.assert_allclose(table.recall[0].transpose(1, 2, 0)[known], recall[known], rtol=0, atol=1e-9)


@pytest.mark.real
def test_equals_pycocotools_on_real_annotations(bccd_results, pycocotools_judge):
    table = average_precision(match_all(bccd_results, 3))
    stats = pycocotools_judge(bccd_results, 3).stats
    ours = [np.nanmean(table.ap[0, 0]), *(np.nanmean(table.ap[0, 0, t]) for t in (0, 5))]
    ours += [np.nanmean(table.ap[0, a]) for a in (1, 2, 3)]
    np.testing.assert_allclose([*ours, np.nanmean(table.recall[0, 0])], stats[[0, 1, 2, 3, 4, 5, 8]], rtol=0, atol=1e-9)


def test_a_weighting_equals_a_data_set_with_repeated_images(make_results):
    results = make_results(9, seed=5, crowd=0.1)
    counts = resample_counts(len(results), 6, seed=1)
    table = average_precision(match_all(results, 3), weights=counts)
    for row, count in enumerate(counts):
        repeated = [item for item, times in zip(results, count, strict=True) for _ in range(times)]
        alone = average_precision(match_all(repeated, 3))
        np.testing.assert_allclose(table.ap[row], alone.ap[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(table.recall[row], alone.recall[0], rtol=0, atol=1e-12)


def test_portions_give_what_one_portion_gives(make_results, monkeypatch):
    matches = match_all(make_results(9, seed=5), 3)
    counts = resample_counts(9, 20, seed=1)
    whole = average_precision(matches, weights=counts).ap
    monkeypatch.setattr(module, "_CHUNK", 1)
    np.testing.assert_array_equal(average_precision(matches, weights=counts).ap, whole)


def test_hand_worked_coco_precision(one_image):
    # Objects 2; by score: hit, false, hit. Precision envelope: 1 up to recall 1/2 (51 levels), 2/3 beyond (50 levels).
    truth = [[0, 0, 10, 10], [50, 50, 60, 60]]
    image = one_image([truth[0], [200, 200, 210, 210], truth[1]], [0, 0, 0], truth, [0, 0])
    assert average_precision(match_all([image], 1)).ap[0, 0, 0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_hand_worked_voc_precision(one_image):
    # The same: area under the envelope is 1/2 · 1 + 1/2 · 2/3. A difficult object and its detection change nothing.
    truth = [[0, 0, 10, 10], [50, 50, 60, 60], [90, 90, 99, 99]]
    boxes = [truth[0], [200, 200, 210, 210], truth[2], truth[1]]
    image = one_image(boxes, [0] * 4, truth, [0, 0, 0], ignore=[False, False, True])
    found, objects = flatten([image], 1, predicted=True), flatten([image], 1, predicted=False)
    ranking = class_ranking(match_voc(found, objects, images=1, classes=1), 0)
    assert voc_average_precision(ranking) == pytest.approx(0.5 + 0.5 * 2 / 3)


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union else 0.0


def outcomes_by_loops(results, label):
    """True for a hit and False for a false detection, by falling score, as the VOC development kit decides."""
    rows = []
    for index, item in enumerate(results):
        found = item.predicted.select(item.predicted.labels == label)
        rows += [(score, index, box) for score, box in zip(found.scores.tolist(), found.boxes.tolist(), strict=True)]
    taken, outcomes = set(), []
    for _, index, box in sorted(rows, key=lambda row: -row[0]):
        truth = results[index].truth.select(results[index].truth.labels == label)
        overlaps = [iou(box, other) for other in truth.boxes.tolist()]
        best = int(np.argmax(overlaps)) if overlaps else 0
        if not overlaps or overlaps[best] < 0.5:
            outcomes.append(False)
        elif not truth.ignore[best]:
            outcomes.append((index, best) not in taken)
            taken.add((index, best))
    return outcomes


def voc_by_loops(results, label):
    total = sum(int(((r.truth.labels == label) & ~r.truth.ignore).sum()) for r in results)
    outcomes = outcomes_by_loops(results, label)
    hits = [sum(outcomes[: i + 1]) for i in range(len(outcomes))]
    precision = [hit / (i + 1) for i, hit in enumerate(hits)]
    # Each hit raises the recall by 1/total, at the best precision from there on.
    return sum(max(precision[i:]) / total for i, hit in enumerate(outcomes) if hit)


def test_voc_equals_the_procedure_by_loops(make_results):
    results = make_results(20, seed=8, crowd=0.2)
    for item in results:  # without ties, whose order the procedure leaves open
        item.predicted.scores += torch.rand(len(item.predicted)) * 1e-3
    found, truth = flatten(results, 3, predicted=True), flatten(results, 3, predicted=False)
    matches = match_voc(found, truth, images=len(results), classes=3)
    for label in range(3):
        ours = voc_average_precision(class_ranking(matches, label))
        assert 0.1 < ours < 0.95
        assert ours == pytest.approx(voc_by_loops(results, label), abs=1e-12)


def test_ranking_takes_equal_scores_together(one_image):
    truth = [[0, 0, 10, 10]]
    image = one_image([[50, 50, 60, 60], truth[0], [70, 70, 80, 80]], [0] * 3, truth, [0], scores=[0.5, 0.5, 0.25])
    ranking = class_ranking(match_all([image], 1), 0)
    assert ranking.score.tolist() == [0.5, 0.25]
    assert ranking.hit.tolist() == [1, 1]
    assert ranking.false.tolist() == [1, 2]


def test_nothing_found_and_nothing_there(one_image):
    table = average_precision(match_all([one_image([], [], [[0, 0, 5, 5]], [0])], 2))
    assert table.ap[0, 0, :, 0].tolist() == [0.0] * 10
    assert np.isnan(table.ap[0, 0, :, 1]).all()
    assert np.isnan(voc_average_precision(class_ranking(match_all([one_image([], [], [], [])], 1), 0)))
