import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import adapted_rand_error
from sklearn import metrics as sk

from clearsight.errors import RangeError, ShapeError
from clearsight.metrics.rand import foreground_rand, rand_scores


def regions(seed, size=(40, 50), cells=12):
    """A Voronoi diagram; 0 is a border where two cells meet."""
    draw = np.random.default_rng(seed)
    centres = draw.random((cells, 2)) * size
    place = np.stack(np.mgrid[: size[0], : size[1]], axis=-1)[:, :, None]
    labels = ((place - centres) ** 2).sum(-1).argmin(-1) + 1
    edge = (labels != np.roll(labels, 1, 0)) | (labels != np.roll(labels, 1, 1))
    return np.where(edge, 0, labels)


def oracle(predicted, truth, *, ignore=0, alpha=0.5, single=False):
    """The definitions, by the table of all pairs of pixels."""
    kept = truth.ravel() != ignore
    s, t = predicted.ravel()[kept].astype(np.int64), truth.ravel()[kept]
    if single:
        alone = s == ignore
        s[alone] = 10_000 + np.arange(alone.sum())
    same_s, same_t = s[:, None] == s, t[:, None] == t
    joint = (same_s & same_t).mean()
    h_s, h_t = (-np.log(same.mean(1)).mean() for same in (same_s, same_t))  # -log of each pixel's own region's share
    shared = h_s + h_t + np.log((same_s & same_t).mean(1)).mean()
    return {
        "rand": joint / (alpha * same_s.mean() + (1 - alpha) * same_t.mean()),
        "rand_split": joint / same_t.mean(),
        "rand_merge": joint / same_s.mean(),
        "info": shared / ((1 - alpha) * h_s + alpha * h_t),
        "info_split": shared / h_s,
        "info_merge": shared / h_t,
    }


def test_by_hand_a_merge_and_a_split():
    two, one = np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 1]])
    merged = rand_scores(one, two)
    # p = (1/2, 1/2), s = (1), t = (1/2, 1/2): Σp² = 1/2, Σs² = 1, Σt² = 1/2.
    assert (merged.rand_split, merged.rand_merge) == (1.0, 0.5)
    assert merged.rand == pytest.approx(2 / 3)
    assert (merged.info_split, merged.info_merge, merged.info) == (1.0, 0.0, 0.0)
    split = rand_scores(two, one)
    assert (split.rand_split, split.rand_merge) == (0.5, 1.0)
    # Of six pairs of different pixels the truth joins six, the prediction two: F = 2 · 2 / (6 + 2).
    assert split.adapted_error == pytest.approx(0.5)
    assert rand_scores(np.array([5, 5, 9, 9]), np.array([1, 1, 2, 2]))[:8] == (1, 1, 1, 1, 1, 1, 0, 0)


def test_by_hand_three_regions():
    # Overlaps 2, 1, 1, 2 of six pixels: Σp² = 10/36, Σs² = Σt² = 18/36.
    scores = rand_scores(np.array([1, 1, 2, 1, 2, 2]), np.array([1, 1, 1, 2, 2, 2]))
    assert scores.rand == scores.rand_split == scores.rand_merge == pytest.approx(10 / 18)
    shared = 2 * math.log(2) + (4 / 6) * math.log(2 / 6) + (2 / 6) * math.log(1 / 6)
    assert scores.info == pytest.approx(shared / math.log(2))
    assert scores.pixels == 6


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_equals_the_definitions(single, alpha):
    for seed in range(3):
        truth, predicted = regions(seed, (20, 24)), regions(seed + 7, (20, 24), 9)
        scores = rand_scores(predicted, truth, alpha=alpha, unassigned="single" if single else "region")
        for name, wanted in oracle(predicted, truth, alpha=alpha, single=single).items():
            assert getattr(scores, name) == pytest.approx(wanted, abs=1e-12), name


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_image_and_scikit_learn(seed):
    truth, predicted = regions(seed), regions(seed + 100, cells=5 + 4 * seed)
    scores = rand_scores(predicted, truth)
    error, of_true, of_found = adapted_rand_error(truth, predicted, ignore_labels=(0,))
    assert scores.adapted_error == pytest.approx(error, abs=1e-12)
    # Pairs of a pixel with itself are the only difference between the two scores. What scikit-image calls precision
    # divides by the pairs of the truth, as its rows are the truth; the cases by hand say which is which.
    y, guess = truth[truth > 0], predicted[truth > 0]
    for mine, theirs, labels in ((scores.rand_split, of_true, y), (scores.rand_merge, of_found, guess)):
        square = np.bincount(labels) @ np.bincount(labels)
        assert mine == pytest.approx((theirs * (square - len(y)) + len(y)) / square, abs=1e-12)
    assert scores.adjusted_error == pytest.approx(1 - sk.adjusted_rand_score(y, guess), abs=1e-12)
    (_, only_found), (only_true, both) = sk.pair_confusion_matrix(y, guess)
    assert scores.adapted_error == pytest.approx(1 - 2 * both / (2 * both + only_found + only_true), abs=1e-12)
    homogeneity, completeness, v = sk.homogeneity_completeness_v_measure(y, guess)
    assert [scores.info_merge, scores.info_split, scores.info] == pytest.approx(
        [homogeneity, completeness, v], abs=1e-12
    )


def test_the_numbers_of_regions_mean_nothing():
    truth, predicted = regions(1), regions(2)
    plain = rand_scores(predicted, truth)
    names = np.random.default_rng(0).integers(-(2**60), 2**60, 60)
    named = rand_scores(names[predicted], np.where(truth == 0, 0, names[truth]))
    assert named == pytest.approx(plain, abs=1e-14)
    assert rand_scores(torch.from_numpy(predicted), torch.from_numpy(truth)) == plain
    kept = rand_scores(predicted, truth, ignore=None)
    assert kept.pixels == truth.size
    assert kept.adapted_error == pytest.approx(adapted_rand_error(truth, predicted, ignore_labels=())[0], abs=1e-12)


def test_many_regions_at_once():
    # So many that their table would not fit: one region a pixel against rows.
    labels = np.arange(90_000).reshape(300, 300)
    rows = np.repeat(np.arange(1, 301), 300).reshape(300, 300)
    scores = rand_scores(labels, rows)
    assert scores.rand_merge == pytest.approx(1.0)
    assert scores.rand_split == pytest.approx(1 / 300)
    assert scores.info_split == pytest.approx(math.log(300) / math.log(90_000))


def test_ends():
    nothing = rand_scores(np.ones((3, 3), int), np.zeros((3, 3), int))
    assert nothing.pixels == 0
    assert all(math.isnan(value) for value in nothing[:8])
    assert rand_scores(np.zeros((0, 4), int), np.zeros((0, 4), int)).pixels == 0
    pixel = rand_scores(np.array([[3]]), np.array([[1]]))
    assert pixel.rand == pixel.info == 1.0
    assert pixel.adjusted_error == 0.0
    assert math.isnan(pixel.adapted_error)
    alone = rand_scores(np.zeros((1, 4), int), np.ones((1, 4), int), unassigned="single")
    assert (alone.rand_split, alone.rand_merge) == (0.25, 1.0)


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match=r"expected the shape of truth, \(2,\), got \(3,\)"):
        rand_scores(np.ones(3, int), np.ones(2, int))
    with pytest.raises(RangeError, match="truth: expected whole numbers, one a region, got float64"):
        rand_scores(np.ones(3, int), np.ones(3))
    with pytest.raises(RangeError, match=r"alpha: must be in \[0, 1\], got 2"):
        rand_scores(np.ones(3, int), np.ones(3, int), alpha=2)
    with pytest.raises(ShapeError, match=r"two maps \(h, w\) of one size, got \(3, 4\) and \(4, 3\)"):
        foreground_rand(np.ones((3, 4), bool), np.ones((4, 3), bool))


# ------------------------------------------------------------------------------------------------ cells
def test_a_hole_in_a_membrane_merges_two_cells():
    truth = np.ones((10, 11), bool)
    truth[:, 5] = False
    leak = truth.copy()
    leak[4, 5] = True
    assert foreground_rand(truth, truth).rand == 1.0
    scores = foreground_rand(leak, truth)
    assert (scores.rand_split, scores.rand_merge) == (1.0, 0.5)
    assert scores.pixels == 100  # the true membrane is left out
    corner = np.zeros((2, 2), bool)
    corner[0, 0] = corner[1, 1] = True
    assert foreground_rand(np.ones((2, 2), bool), corner).rand_merge == 0.5  # cells meet over four neighbours


def test_wide_borders_cost_nothing_once_they_are_thinned():
    truth = np.ones((20, 31), bool)
    truth[:, 15] = False
    wide = truth.copy()
    wide[:, 13:18] = False
    assert foreground_rand(wide, truth).rand == 1.0
    thick = foreground_rand(wide, truth, thin=False)
    # In each half 260 pixels together and 40 alone: Σp² = 2 · 260² + 80 of 600².
    assert thick.rand_split == pytest.approx((2 * 260**2 + 80) / (2 * 300**2))
    assert thick.rand_merge == 1.0
    nothing = foreground_rand(np.zeros_like(truth), truth)
    assert nothing.rand_split == pytest.approx(600 / (2 * 300**2))


def test_probabilities_are_cut_at_the_threshold():
    truth = np.ones((6, 9), bool)
    truth[:, 4] = False
    probability = np.where(truth, 0.9, 0.4)
    assert foreground_rand(probability, truth).rand == 1.0
    assert foreground_rand(torch.from_numpy(probability), torch.from_numpy(truth)).rand == 1.0
    assert foreground_rand(probability, truth, threshold=0.3).rand_merge == 0.5
    assert foreground_rand(truth.astype(np.uint8) * 255, truth.astype(np.uint8)).rand == 1.0


@pytest.mark.real
def test_on_real_membranes(shared_data):
    from PIL import Image

    labels = np.asarray(Image.open(shared_data / "membrane" / "label" / "24.png")) > 127
    image = np.asarray(Image.open(shared_data / "membrane" / "image" / "24.png").convert("L")).astype(np.float64)
    assert foreground_rand(labels, labels).rand == 1.0
    guess = ndimage.gaussian_filter(image, 2) > 110
    scores = foreground_rand(guess, labels, thin=False)
    found, there = (ndimage.label(one)[0] for one in (guess, labels))
    inside = there > 0
    single = np.where(found == 0, found.max() + 1 + np.arange(found.size).reshape(found.shape), found)
    error, _, _ = adapted_rand_error(there, single, ignore_labels=(0,))
    assert scores.adapted_error == pytest.approx(error, abs=1e-12)
    assert scores.pixels == inside.sum()
    assert 0 < scores.rand < 0.95
    eroded = ndimage.binary_erosion(labels, iterations=1)  # borders two pixels wider
    assert foreground_rand(eroded, labels, thin=False).rand < foreground_rand(eroded, labels).rand - 0.02
