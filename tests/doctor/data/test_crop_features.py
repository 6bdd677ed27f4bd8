"""Descriptions of crops: what they see, what leaves them as they are, and that they tell classes apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from clearsight.doctor.data.crop_features import FEATURES, PATCH, cut_patch, describe_crop, describe_patches
from clearsight.errors import ShapeError

SHAPE, COLOUR = slice(0, 144), slice(144, 208)


def stripes(angle: float) -> np.ndarray:
    """Dark and light bands whose direction of change is `angle`."""
    rows, columns = np.mgrid[:64, :64]
    wave = np.cos(2 * np.pi / 16 * (columns * np.cos(angle) + rows * np.sin(angle)))
    return np.repeat(np.rint(127 + 100 * wave).astype(np.uint8)[..., None], 3, axis=2)


def test_gradients_fall_into_their_direction() -> None:
    for number in range(9):
        shape = describe_crop(stripes(number * np.pi / 9))[SHAPE].reshape(16, 9) ** 2
        assert shape.sum() == pytest.approx(1, abs=1e-5)
        assert shape.sum(axis=0).argmax() == number
        assert shape[:, number].sum() > 0.6
        opposite = describe_crop(255 - stripes(number * np.pi / 9))[SHAPE].reshape(16, 9) ** 2
        np.testing.assert_allclose(opposite, shape, atol=0.02)


def test_gradients_fall_into_their_cell() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[18:22, 26:30] = 255  # in the cell of the third row and the fourth column
    shape = describe_crop(image)[SHAPE].reshape(4, 4, 9) ** 2
    assert np.unravel_index(shape.sum(axis=2).argmax(), (4, 4)) == (2, 3)
    assert shape[2, 3].sum() == pytest.approx(shape.sum())


def test_colours_are_counted() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:8] = (255, 0, 64)  # levels 3, 0, 1
    colours = describe_crop(image)[COLOUR] ** 2
    assert colours[0] == pytest.approx(0.75)
    assert colours[3 * 16 + 1] == pytest.approx(0.25)
    assert colours.sum() == pytest.approx(1)


def test_mean_deviation_and_size() -> None:
    image = np.zeros((64, 32, 3), dtype=np.uint8)
    image[:, :, 1] = 255
    image[:32, :, 2] = 255
    mean, std, size = np.split(describe_crop(image)[208:], 3)
    np.testing.assert_allclose(mean, [0, 1, 0.5], atol=0.01)
    np.testing.assert_allclose(std, [0, 0, 0.5], atol=0.02)
    np.testing.assert_allclose(size, [0.6, 0.5, 0.1], atol=1e-6)


def test_a_flat_crop_has_no_shape() -> None:
    rng = np.random.default_rng(0)
    noise = (128 + rng.integers(0, 2, (40, 40, 3))).astype(np.uint8)
    assert (describe_crop(noise)[SHAPE] ** 2).sum() < 0.3
    flat = describe_crop(np.full((7, 9, 3), 90, dtype=np.uint8))
    assert np.isfinite(flat).all()
    assert not flat[SHAPE].any()


def test_a_box_is_the_crop() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)
    whole = describe_crop(np.ascontiguousarray(image[20:60, 30:90]))
    np.testing.assert_allclose(describe_crop(image, (30, 20, 90, 60)), whole, atol=0.04)
    assert np.abs(describe_crop(image, (10, 20, 70, 60)) - whole).max() > 0.05


@pytest.mark.parametrize("box", [(-20, -20, 10, 10), (99.5, 79.5, 140, 140), (50, 50, 50, 50), (300, 300, 310, 310)])
def test_any_box_gives_a_description(box: tuple[float, ...]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8))
    assert cut_patch(image, box).shape == (PATCH, PATCH, 3)


def test_grey_is_repeated_and_alpha_is_left_out() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (20, 20, 1), dtype=np.uint8)
    np.testing.assert_array_equal(describe_crop(grey), describe_crop(np.repeat(grey, 3, axis=2)))
    colour = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    np.testing.assert_array_equal(describe_crop(colour), describe_crop(colour[..., :3]))


def test_many_are_described_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    patches, sizes = rng.integers(0, 256, (6, PATCH, PATCH, 3), dtype=np.uint8), rng.uniform(1, 900, (6, 2))
    together = describe_patches(patches, sizes)
    assert together.shape == (6, FEATURES)
    assert together.dtype == np.float32
    for row in range(6):
        np.testing.assert_array_equal(describe_patches(patches[row : row + 1], sizes[row : row + 1])[0], together[row])
    assert describe_patches(patches[:0], sizes[:0]).shape == (0, FEATURES)


def test_they_tell_digits_apart() -> None:
    pictures, labels = load_digits(return_X_y=True)
    images = (np.asarray(pictures).reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    features = np.stack([describe_crop(image) for image in images])
    model = LogisticRegression(C=10, max_iter=300).fit(features[:1000], labels[:1000])
    assert model.score(features[1000:], labels[1000:]) > 0.93


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (0, 4, 3)])
def test_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected"):
        describe_crop(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ShapeError, match="float64"):
        describe_crop(np.zeros((4, 4, 3)))
