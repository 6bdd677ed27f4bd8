import json
import math

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as sk

from clearsight.errors import ShapeError
from clearsight.metrics.bootstrap import percentile_interval, resample_counts
from clearsight.metrics.compare_maps import compare_maps
from clearsight.metrics.scores import Scores
from clearsight.metrics.semantic import score_semantic

NAMES = ("sky", "road", "car", "ghost")


def pair(seed, noise=0.2):
    """A true map of three of the four classes with some void, and a prediction with noise and a shift."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 3, (5, 6)).repeat(6, 0).repeat(6, 1)
    found = np.roll(truth, seed % 3, 1)
    found = np.where(ndimage.uniform_filter(draw.random(truth.shape), 3) < 0.3 + noise, (found + 1) % 3, found)
    return found, np.where(draw.random(truth.shape) < 0.05, 255, truth)


@pytest.fixture(scope="module")
def pairs():
    return [pair(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def results(pairs):
    return [
        compare_maps(found, truth, 4, path=f"{i}.png", cells=1 if i != 5 else None)
        for i, (found, truth) in enumerate(pairs)
    ]


def test_overlap_equals_scikit_learn_on_all_pixels_together(pairs, results):
    scores = score_semantic(results, NAMES)
    y, guess = (np.concatenate([one[part][one[1] != 255] for one in pairs]) for part in (1, 0))
    iou, dice = (score(y, guess, average=None) for score in (sk.jaccard_score, sk.f1_score))
    for k in range(3):
        row = scores.per_class[k]
        assert row["class"] == NAMES[k]
        assert row["pixels"] == (y == k).sum()
        assert [row["iou"], row["dice"]] == pytest.approx([iou[k], dice[k]], abs=1e-14)
        assert row["precision"] == pytest.approx(sk.precision_score(y, guess, average=None)[k], abs=1e-14)
        assert row["recall"] == pytest.approx(sk.recall_score(y, guess, average=None)[k], abs=1e-14)
    summary = scores.summary
    assert summary["miou"] == scores.main == pytest.approx(iou.mean(), abs=1e-14)
    assert summary["dice"] == pytest.approx(dice.mean(), abs=1e-14)
    assert summary["pixel_accuracy"] == pytest.approx((y == guess).mean(), abs=1e-14)
    assert summary["mean_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, guess), abs=1e-14)
    assert np.array(scores.confusion)[:3, :3].tolist() == sk.confusion_matrix(y, guess).tolist()
    assert all(isinstance(count, int) for row in scores.confusion for count in row)
    assert scores.mistakes == {"wrong class": int((y != guess).sum())}
    assert scores.confusion_names == NAMES


def test_boundaries_and_regions_are_means_over_images(results):
    scores = score_semantic(results, NAMES)
    of_class = np.array([[one.boundary_f[k] for one in results] for k in range(3)])
    assert [row["boundary_f"] for row in scores.per_class[:3]] == pytest.approx(of_class.mean(axis=1))
    assert scores.summary["boundary_f"] == pytest.approx(of_class.mean())
    assert scores.summary["hd95"] == pytest.approx(np.mean([one.hd95[:3] for one in results]))
    assert scores.summary["hd95"] > 1  # pixels
    rand = [one.rand for one in results if one.rand is not None]
    assert len(rand) == 11
    assert scores.summary["foreground_rand"] == pytest.approx(np.mean([one.rand for one in rand]))
    assert scores.summary["foreground_rand_split"] == pytest.approx(np.mean([one.rand_split for one in rand]))
    assert scores.summary["foreground_rand_merge"] == pytest.approx(np.mean([one.rand_merge for one in rand]))
    assert scores.summary["foreground_info"] == pytest.approx(np.mean([one.info for one in rand]))
    plain = score_semantic([compare_maps(*pair(0), 4, path="a")], NAMES)
    assert "foreground_rand" not in plain.summary


def test_a_boundary_on_one_side_only_is_counted_not_hidden():
    truth = np.zeros((20, 20), int)
    truth[5:12, 5:12] = 1
    good = compare_maps(np.roll(truth, 1, 0), truth, 2, path="a")
    missed = compare_maps(np.zeros_like(truth), truth, 2, path="b")
    row = score_semantic([good, missed], ["ground", "cell"]).per_class[1]
    assert row["boundary_missing"] == 1
    assert row["boundary_f"] == pytest.approx(good.boundary_f[1] / 2)
    assert row["hd95"] == 1.0


def test_a_class_that_is_nowhere_is_nan_and_in_no_mean(results):
    scores = score_semantic(results, NAMES, bootstrap=50)
    row = scores.per_class[3]
    assert row["pixels"] == 0
    assert row["boundary_missing"] == 0
    figures = (
        "iou",
        "dice",
        "precision",
        "recall",
        "boundary_f",
        "hd95",
        "iou_low",
        "iou_high",
        "dice_low",
        "dice_high",
    )
    assert all(math.isnan(row[name]) for name in figures)
    assert scores.summary["miou"] == pytest.approx(np.mean([row["iou"] for row in scores.per_class[:3]]))


def test_intervals_equal_scores_of_resampled_images(results):
    scores = score_semantic(results, NAMES, bootstrap=60, seed=3)
    drawn = resample_counts(len(results), 60, seed=3)
    again = [score_semantic([r for r, n in zip(results, row, strict=True) for _ in range(n)], NAMES) for row in drawn]
    assert set(scores.intervals) == set(scores.summary)
    for name, interval in scores.intervals.items():
        wanted = percentile_interval(np.array([one.summary[name] for one in again]))
        assert interval == pytest.approx(wanted, abs=1e-12), name
        assert interval[0] < scores.summary[name] < interval[1]
    for k in range(3):
        for name in ("iou", "dice"):
            wanted = percentile_interval(np.array([one.per_class[k][name] for one in again]))
            row = scores.per_class[k]
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(wanted, abs=1e-12)
    assert score_semantic(results, NAMES).intervals == {}


def test_worst_images_say_what_was_confused():
    truth = np.zeros((10, 10), int)
    truth[:, 4:] = 1
    right = compare_maps(truth, truth, 2, path="right.png")
    few = truth.copy()
    few[0, 0] = 1
    many = truth.copy()
    many[:, 4:7] = 0
    many[:5, 0] = 1
    void = compare_maps(truth, np.full_like(truth, 255), 2, path="void.png")
    listed = [right, compare_maps(few, truth, 2, path="few.png"), void, compare_maps(many, truth, 2, path="many.png")]
    scores = score_semantic(listed, ["membrane", "cell"])
    assert [row["path"] for row in scores.worst] == ["many.png", "few.png"]
    worst = scores.worst[0]
    assert worst["image"] == 3
    # Membrane: 35 right of 40 true and 65 called; cell: 30 right of 60 true and 35 called.
    overlap = (35 / 70 + 30 / 65) / 2
    assert worst["error"] == pytest.approx(1 - overlap)
    assert worst["why"] == (
        "30% of the pixels: cell taken for membrane (50% of cell); "
        "5.0% of the pixels: membrane taken for cell (12% of membrane); mean IoU 0.48"
    )
    assert [one["pixels"] for one in worst["mistakes"]] == [30, 5]
    assert worst["mistakes"][0]["truth"] == "cell"
    assert scores.worst[1]["why"].startswith("1.0% of the pixels: membrane taken for cell (2.5% of membrane)")
    assert [row["path"] for row in score_semantic(listed, ["a", "b"], worst=1).worst] == ["many.png"]


@pytest.mark.parametrize("bootstrap", [0, 20])
def test_empty_cases_are_nan_and_never_an_error(bootstrap):
    none = score_semantic([], NAMES, bootstrap=bootstrap)
    assert none.images == 0
    assert all(math.isnan(value) for value in none.summary.values())
    void = [compare_maps(np.zeros((3, 3), int), np.full((3, 3), 255), 4, path=f"{i}") for i in range(2)]
    all_void = score_semantic(void, NAMES, bootstrap=bootstrap)
    assert all(math.isnan(value) for value in all_void.summary.values())
    assert all_void.worst == []
    single = score_semantic([compare_maps(*pair(0), 4, path="a")], NAMES, bootstrap=bootstrap)
    assert single.intervals == {}
    for scores in (none, all_void, single):
        text = json.dumps(scores.to_dict(), allow_nan=False)
        assert Scores.from_dict(json.loads(text)).to_dict() == scores.to_dict()


def test_results_of_other_classes_are_refused(results):
    with pytest.raises(ShapeError, match=r"0.png: counts of 4 classes, and 2 are named"):
        score_semantic(results, ["a", "b"])


@pytest.mark.real
def test_on_real_membranes(shared_data):
    from PIL import Image

    listed, dices = [], []
    for number in range(24, 30):
        label = np.asarray(Image.open(shared_data / "membrane" / "label" / f"{number}.png")) > 127
        image = np.asarray(Image.open(shared_data / "membrane" / "image" / f"{number}.png").convert("L"))
        guess = ndimage.gaussian_filter(image.astype(np.float64), 1.5) > 100
        listed.append(compare_maps(guess.astype(int), label.astype(np.uint8), 2, path=f"{number}.png", cells=1))
        dices.append((guess, label))
    scores = score_semantic(listed, ["membrane", "cell"], bootstrap=100)
    guess, label = (np.stack([one[part] for one in dices]) for part in (0, 1))
    wanted = 2 * (~guess & ~label).sum() / ((~guess).sum() + (~label).sum())
    assert scores.per_class[0]["dice"] == pytest.approx(wanted, abs=1e-14)
    assert scores.per_class[0]["dice_low"] < wanted < scores.per_class[0]["dice_high"]
    assert 0.1 < scores.summary["foreground_rand"] < 1
    assert len(scores.worst) == 6
