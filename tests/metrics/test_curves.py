import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from clearsight.metrics.bootstrap import resample_counts
from clearsight.metrics.curves import auc_pairs, auc_rank, calibration, pr_curve, precision_average, roc_curve


def case(seed, count=200, digits=None):
    draw = np.random.default_rng(seed)
    positive = draw.uniform(size=count) < 0.3
    score = np.clip(draw.normal(0.4 + 0.2 * positive, 0.2), 0, 1)
    return (score if digits is None else score.round(digits)), positive


@pytest.mark.parametrize("digits", [None, 2, 1, 0])
def test_the_area_by_ranks_equals_pairs_and_scikit_learn(digits):
    score, positive = case(1, digits=digits)
    area = auc_rank(score, positive)[0]
    assert area == pytest.approx(auc_pairs(score, positive), abs=1e-12)
    assert area == pytest.approx(sk.roc_auc_score(positive, score), abs=1e-12)


def test_hand_worked_area_with_a_tie():
    # Pairs: 0.9 beats 0.5 and 0.1; 0.5 ties with 0.5 and beats 0.1: 3.5 of 4.
    score, positive = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert auc_rank(score, positive)[0] == 3.5 / 4
    assert auc_pairs(score, positive) == 3.5 / 4
    assert auc_rank(np.ones(4), positive)[0] == 0.5


def test_a_weighted_area_is_that_of_repeated_images():
    score, positive = case(2, count=30, digits=1)
    counts = resample_counts(30, 8, seed=0)
    areas = auc_rank(score, positive, counts)
    for area, count in zip(areas, counts, strict=True):
        assert area == pytest.approx(auc_pairs(np.repeat(score, count), np.repeat(positive, count)), abs=1e-12)


@pytest.mark.parametrize("digits", [None, 1])
def test_curves_equal_scikit_learn(digits):
    score, positive = case(3, digits=digits)
    ours = roc_curve(score, positive, points=10_000)
    fpr, tpr, threshold = sk.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(ours["fpr"], fpr)
    np.testing.assert_allclose(ours["tpr"], tpr)
    np.testing.assert_allclose(ours["score"][1:], threshold[1:])
    ours = pr_curve(score, positive, points=10_000)
    precision, recall, threshold = sk.precision_recall_curve(positive, score)
    np.testing.assert_allclose(ours["precision"], precision[:-1][::-1])
    np.testing.assert_allclose(ours["recall"], recall[:-1][::-1])
    np.testing.assert_allclose(ours["score"], threshold[::-1])
    assert precision_average(score, positive) == pytest.approx(sk.average_precision_score(positive, score))


def test_thinned_curves_keep_their_ends():
    score, positive = case(4, count=5000)
    thin, whole = roc_curve(score, positive, points=50), roc_curve(score, positive, points=10_000)
    assert len(thin["fpr"]) == 51
    assert thin["fpr"][-1] == whole["fpr"][-1] == 1.0
    assert thin["fpr"][:2] == whole["fpr"][:2]


def test_calibration_equals_torchmetrics_and_its_definition():
    from torchmetrics.functional.classification import multiclass_calibration_error

    draw = np.random.default_rng(5)
    probs = draw.dirichlet([0.5] * 4, size=500)
    labels = draw.integers(0, 4, 500)
    out = calibration(probs, labels, bins=15)
    theirs = multiclass_calibration_error(
        torch.tensor(probs), torch.tensor(labels), num_classes=4, n_bins=15, norm="l1"
    )
    assert out.error == pytest.approx(float(theirs), abs=1e-6)
    assert out.images.sum() == 500
    assert out.error == pytest.approx(np.nansum(out.images / 500 * abs(out.accuracy - out.confidence)))


def test_hand_worked_calibration():
    # Two images at 0.8, one right: |0.8 - 0.5|; one at 1.0, right: 0. Weighted: 2/3 · 0.3.
    probs = np.array([[0.8, 0.2], [0.8, 0.2], [0.0, 1.0]])
    out = calibration(probs, np.array([0, 1, 1]), bins=15)
    assert out.error == pytest.approx(0.2)
    assert out.images[11] == 2
    assert out.images[14] == 1


def test_what_does_not_exist_is_nan_or_empty():
    score, none = np.array([0.1, 0.9]), np.array([False, False])
    for positive in (none, ~none):
        assert math.isnan(auc_rank(score, positive)[0])
        assert math.isnan(auc_pairs(score, positive))
        assert roc_curve(score, positive)["fpr"] == []
    assert pr_curve(score, none)["recall"] == []
    assert math.isnan(precision_average(score, none))
    empty = np.zeros(0)
    assert math.isnan(auc_rank(empty, empty.astype(bool))[0])
    assert pr_curve(empty, empty.astype(bool))["recall"] == []
    assert math.isnan(calibration(np.zeros((0, 3)), np.zeros(0, np.int64)).error)
