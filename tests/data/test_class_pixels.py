from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from clearsight.data.class_pixels import ClassPixels, class_pixel_counts, class_weights
from clearsight.data.dataset import Dataset
from clearsight.data.read import read_dataset
from clearsight.errors import ConfigError, DataError, RangeError
from clearsight.types import Record


def dataset(folder: Path, maps, classes=("a", "b", "c"), kind="index"):
    records = []
    for number, values in enumerate(maps):
        Image.fromarray(np.asarray(values, np.uint8)).save(folder / f"{number}.png")
        record = Record(image=Path(f"{number}.jpg"), semantic=folder / f"{number}.png", attributes={"mask": kind})
        records.append(record)
    return Dataset(records=records, classes=classes, task="semantic", root=folder, format="mask_png")


def counted(pixels, around=None, images=None):
    pixels = np.array(pixels)
    return ClassPixels(
        pixels=pixels,
        around=np.where(pixels > 0, pixels.sum(), 0) if around is None else np.array(around),
        images=(pixels > 0).astype(int) if images is None else np.array(images),
    )


# ------------------------------------------------------------------------------------------------ counting
def test_counts_by_hand(tmp_path):
    counts = class_pixel_counts(dataset(tmp_path, [[[0, 0, 255], [1, 1, 1]], [[0, 0, 0], [0, 0, 255]]]), workers=2)
    assert counts.pixels.tolist() == [7, 3, 0]
    assert counts.around.tolist() == [10, 5, 0]
    assert counts.images.tolist() == [2, 1, 0]
    none = class_pixel_counts(dataset(tmp_path, []))
    assert none.pixels.tolist() == [0, 0, 0]


def test_binary_masks_have_no_void(tmp_path):
    counts = class_pixel_counts(dataset(tmp_path, [[[0, 255], [255, 255]]], ("out", "in"), "binary"))
    assert counts.pixels.tolist() == [1, 3]


def test_a_value_outside_the_classes_is_named(tmp_path):
    with pytest.raises(DataError, match=r"1\.png: 2 pixels have the value 3; expected classes 0 to 2, or 255"):
        class_pixel_counts(dataset(tmp_path, [[[0, 1]], [[3, 3]]]))
    bare = Dataset(records=[Record(image=Path("x.jpg"))], classes=("a",), task="semantic", root=tmp_path, format="")
    with pytest.raises(DataError, match=r"x\.jpg: the record has no semantic map"):
        class_pixel_counts(bare)


@pytest.mark.real
def test_on_real_membranes(shared_data):
    data = read_dataset(shared_data / "membrane", images="skip")
    counts = class_pixel_counts(data)
    labels = np.stack([np.asarray(Image.open(path)) for path in (shared_data / "membrane" / "label").glob("*.png")])
    assert counts.pixels.tolist() == [(labels == 0).sum(), (labels == 255).sum()]
    assert counts.images.tolist() == [30, 30]
    weights = class_weights(counts)
    assert weights[0] > weights[1]  # membranes are rarer


# ------------------------------------------------------------------------------------------------ weights
def test_weights_by_hand():
    counts = counted([100, 400])
    assert class_weights(counts, method="inverse").tolist() == pytest.approx([1.6, 0.4])
    assert class_weights(counts, method="inverse_sqrt").tolist() == pytest.approx([4 / 3, 2 / 3])
    assert class_weights(counts, method="median").tolist() == pytest.approx([1.6, 0.4])
    # Of 1 - 0.5^n: 1/2, 3/4 and 15/16, whose inverses are 2, 4/3 and 16/15.
    raw = np.array([2, 4 / 3, 16 / 15])
    effective = class_weights(counted([1, 2, 4]), method="effective", beta=0.5)
    assert effective.tolist() == pytest.approx((raw / raw.mean()).tolist())


def test_the_median_looks_only_at_images_that_have_the_class():
    # Class 2 fills a quarter of the one image that has it, and a fortieth of all pixels.
    counts = counted([700, 275, 25], around=[1000, 1000, 100], images=[10, 10, 1])
    share = np.array([0.7, 0.275, 0.25])
    wanted = 0.275 / share
    assert class_weights(counts).tolist() == pytest.approx((wanted / wanted.mean()).tolist())
    assert class_weights(counts)[2] < 2 < class_weights(counts, method="inverse")[2]


def test_inverse_weights_are_those_of_scikit_learn():
    y = np.repeat([0, 1, 2], [50, 30, 5])
    wanted = compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=y)
    np.testing.assert_allclose(class_weights(counted([50, 30, 5]), method="inverse"), wanted / wanted.mean())


def test_effective_numbers_lie_between_level_and_inverse():
    counts = counted([10_000_000, 1_000_000, 20_000])
    np.testing.assert_allclose(class_weights(counts, method="effective", beta=0.999), 1)  # levelled: far too few
    np.testing.assert_array_equal(class_weights(counts, method="effective", beta=0), [1, 1, 1])
    nearly = class_weights(counts, method="effective", beta=1 - 1e-12)
    np.testing.assert_allclose(nearly, class_weights(counts, method="inverse"), rtol=1e-4)
    own = class_weights(counts, method="effective")
    ratio, inverse = own[2] / own[0], 500
    assert 1 < ratio < inverse
    share = counts.pixels / counts.pixels.sum()
    raw = 1 / (1 - np.exp(-share))  # the limit for many pixels
    np.testing.assert_allclose(own, raw / raw.mean(), rtol=1e-6)


@pytest.mark.parametrize("method", ["inverse", "inverse_sqrt", "median", "effective"])
def test_an_absent_class_weighs_nothing_and_is_in_no_mean(method):
    weights = class_weights(counted([100, 0, 400]), method=method)
    assert weights[1] == 0
    assert weights[[0, 2]].mean() == pytest.approx(1)
    assert weights[0] > weights[2]
    np.testing.assert_allclose(weights[[0, 2]], class_weights(counted([100, 400]), method=method))
    assert class_weights(counted([0, 1]), method=method).tolist() == [0, 1]


def test_what_does_not_fit_is_named():
    with pytest.raises(ConfigError, match="there is no method 'inverze'; did you mean 'inverse'"):
        class_weights(counted([1, 2]), method="inverze")
    with pytest.raises(ConfigError, match="beta: only the method 'effective' has one"):
        class_weights(counted([1, 2]), beta=0.9)
    with pytest.raises(RangeError, match=r"beta: must be in \[0, 1\), got 1"):
        class_weights(counted([1, 2]), method="effective", beta=1)
    with pytest.raises(DataError, match="no class has a counted pixel"):
        class_weights(counted([0, 0]))
