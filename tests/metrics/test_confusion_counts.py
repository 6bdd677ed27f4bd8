import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from clearsight.errors import RangeError, ShapeError
from clearsight.metrics.bootstrap import resample_counts
from clearsight.metrics.confusion_counts import (
    class_map,
    confusion_counts,
    known_mean,
    overlap_figures,
    resampled_figures,
)


def maps(seed=0, classes=4, size=(17, 23), void=0.1):
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, size)
    predicted = np.where(draw.random(size) < 0.7, truth, draw.integers(0, classes, size))
    return predicted, np.where(draw.random(size) < void, 255, truth).astype(np.uint8)


def test_by_hand():
    truth = np.array([[0, 0, 1, 255], [1, 1, 1, 255]], np.uint8)
    predicted = np.array([[0, 1, 1, 0], [1, 1, 0, 1]])
    counts = confusion_counts(predicted, truth, 2)
    assert counts.tolist() == [[1, 1], [1, 3]]
    assert counts.dtype == np.int64
    figures = overlap_figures(counts)
    assert figures.iou.tolist() == pytest.approx([1 / 3, 3 / 5])
    assert figures.dice.tolist() == pytest.approx([1 / 2, 6 / 8])
    assert float(figures.miou) == pytest.approx((1 / 3 + 3 / 5) / 2)
    assert float(figures.pixel_accuracy) == pytest.approx(4 / 6)
    assert float(figures.mean_accuracy) == pytest.approx((1 / 2 + 3 / 4) / 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_equals_scikit_learn(dtype):
    predicted, truth = maps()
    counts = confusion_counts(torch.from_numpy(predicted), truth.astype(dtype), 4)
    kept = truth != 255
    y, guess = truth[kept], predicted[kept]
    assert counts.tolist() == sk.confusion_matrix(y, guess).tolist()
    figures = overlap_figures(counts)
    np.testing.assert_allclose(figures.iou, sk.jaccard_score(y, guess, average=None), rtol=0, atol=1e-15)
    np.testing.assert_allclose(figures.dice, sk.f1_score(y, guess, average=None), rtol=0, atol=1e-15)
    np.testing.assert_allclose(figures.precision, sk.precision_score(y, guess, average=None), rtol=0, atol=1e-15)
    np.testing.assert_allclose(figures.recall, sk.recall_score(y, guess, average=None), rtol=0, atol=1e-15)
    assert float(figures.pixel_accuracy) == pytest.approx(sk.accuracy_score(y, guess), abs=1e-15)
    assert float(figures.mean_accuracy) == pytest.approx(sk.balanced_accuracy_score(y, guess), abs=1e-15)


def test_what_does_not_exist_is_nan():
    # Class 1 is predicted and not true, class 2 is true and not predicted, class 3 is neither.
    figures = overlap_figures(confusion_counts(np.array([[0, 1, 0]]), np.array([[0, 0, 2]]), 4))
    nan = float("nan")
    assert figures.iou.tolist() == pytest.approx([1 / 3, 0, 0, nan], nan_ok=True)
    assert figures.dice.tolist() == pytest.approx([1 / 2, 0, 0, nan], nan_ok=True)
    assert figures.precision.tolist() == pytest.approx([1 / 2, 0, nan, nan], nan_ok=True)
    assert figures.recall.tolist() == pytest.approx([1 / 2, nan, 0, nan], nan_ok=True)
    assert float(figures.miou) == pytest.approx(1 / 9)
    assert float(figures.mean_dice) == pytest.approx(1 / 6)
    assert float(figures.mean_accuracy) == pytest.approx(1 / 4)
    void = overlap_figures(confusion_counts(np.zeros((2, 2), int), np.full((2, 2), 255), 2))
    assert all(np.isnan(part).all() for part in void)


def test_void_is_left_out_with_more_classes_than_it_has_room_for():
    truth = np.array([[254, 255, 256, 299]], np.uint16)
    counts = confusion_counts(np.array([[254, 3, 256, 0]]), truth, 300)
    assert counts.sum() == 3
    assert counts[254, 254] == counts[256, 256] == counts[299, 0] == 1


def test_resamples_equal_sets_of_images():
    confusion = np.stack([confusion_counts(*maps(seed, classes=5), 5) for seed in range(6)])
    confusion[:3, 4] = 0
    counts = resample_counts(6, 40, seed=1)
    figures = resampled_figures(confusion, counts)
    for row, drawn in enumerate(counts):
        whole = overlap_figures(confusion[np.repeat(np.arange(6), drawn)].sum(axis=0))
        for mine, wanted in zip(figures, whole, strict=True):
            np.testing.assert_array_equal(mine[row], wanted)


def test_means_of_what_is_known():
    values = np.array([[1.0, np.nan], [3.0, np.inf]])
    assert known_mean(values).tolist() == [1.0, 3.0]
    assert known_mean(values, axis=0).tolist() == pytest.approx([2.0, float("nan")], nan_ok=True)
    assert np.isnan(known_mean(np.zeros((0,))))


def test_what_does_not_fit_is_named():
    good = np.zeros((2, 3), int)
    high = good.copy()
    high[1, 2] = 7
    with pytest.raises(RangeError, match=r"a\.png: predicted: label 7 at row 1, column 2 \(and 0 more pixels\)"):
        confusion_counts(high, good, 3, where="a.png")
    with pytest.raises(RangeError, match=r"truth: label 7 .*expected 0 to 2, or 255 for pixels that do not count"):
        confusion_counts(good, high, 3)
    with pytest.raises(
        RangeError, match=r"predicted: label 255 at row 0, column 0 \(and 5 more pixels\); expected 0 to 2"
    ):
        confusion_counts(good + 255, good, 3)
    with pytest.raises(RangeError, match="label -1"):
        confusion_counts(good, good - 1, 3)
    with pytest.raises(RangeError, match="got float64; take the argmax"):
        class_map(np.zeros((2, 2)), 3, what="predicted")
    with pytest.raises(ShapeError, match="predicted is 2 x 3 pixels, truth 3 x 2"):
        confusion_counts(good, good.T, 3)
    with pytest.raises(ShapeError, match=r"truth: expected \(h, w\), got \(1, 2, 3\)"):
        confusion_counts(good, good[None], 3)
