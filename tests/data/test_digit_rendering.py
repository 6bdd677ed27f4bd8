from __future__ import annotations

import numpy as np
import pytest

from clearsight.data.digit_rendering import FEWEST, MAX_COVER, MIN_CONTRAST, MOST, digit_images, draw_scene
from clearsight.ops.masks import mask_to_box

POOL = np.arange(1797)
LUMA = np.array((0.299, 0.587, 0.114)) / 255


def scene_of(seed: int, size: tuple[int, int] = (128, 128)):
    return draw_scene(POOL, size, np.random.default_rng(seed))


def test_digits_are_those_of_scikit_learn() -> None:
    ink, labels = digit_images()
    assert ink.shape == (1797, 8, 8)
    assert (ink.min(), ink.max()) == (0.0, 1.0)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_a_scene_is_a_function_of_its_seed() -> None:
    one, same, other = scene_of(1), scene_of(1), scene_of(2)
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.instances, same.instances)
    assert one.labels == same.labels
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("seed", range(30))
def test_digits_can_be_seen(seed: int) -> None:
    scene = scene_of(seed)
    assert FEWEST <= len(scene.labels) <= MOST
    assert scene.labels == tuple(digit_images()[1][list(scene.sources)])
    luma = scene.image @ LUMA
    for number in range(1, len(scene.labels) + 1):
        mask = scene.instances == number
        box = mask_to_box(mask)
        assert box is not None
        height, width = box[3] - box[1], box[2] - box[0]
        assert 10 <= height <= 48
        assert 3 <= width <= 48
        around = np.zeros_like(mask)
        around[max(0, int(box[1]) - 2) : int(box[3]) + 2, max(0, int(box[0]) - 2) : int(box[2]) + 2] = True
        ground = around & (scene.instances == 0)
        contrast = abs(np.median(luma[mask]) - np.median(luma[ground]))
        assert contrast > MIN_CONTRAST * 0.45  # what pressure, grain and the edge of the stroke leave
    assert set(np.unique(scene.instances)) == set(range(len(scene.labels) + 1))
    boxes = np.array([mask_to_box(scene.instances == number + 1) for number in range(len(scene.labels))])
    low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    cover = shared / np.minimum(area[:, None], area)
    assert (cover[~np.eye(len(boxes), dtype=bool)] <= MAX_COVER * 1.25).all()  # boxes of what is visible are smaller


def test_scenes_are_unlike_each_other() -> None:
    scenes = [scene_of(seed) for seed in range(60)]
    counts = np.bincount([label for scene in scenes for label in scene.labels], minlength=10)
    assert counts.min() > 10
    brightness = [scene.image.mean() for scene in scenes]
    assert min(brightness) < 90 < 160 < max(brightness)
    texture = [scene.image[scene.instances == 0].std() for scene in scenes]
    assert min(texture) > 2


def test_only_the_pool_is_used() -> None:
    pool = np.array([3, 30, 300])
    used = {source for seed in range(10) for source in draw_scene(pool, (96, 96), np.random.default_rng(seed)).sources}
    assert used == {3, 30, 300}


@pytest.mark.parametrize("size", [(48, 48), (64, 200), (256, 128)])
def test_any_size(size: tuple[int, int]) -> None:
    scene = scene_of(5, size)
    assert scene.image.shape == (*size, 3)
    assert scene.instances.shape == size
    assert len(scene.labels) >= 1
