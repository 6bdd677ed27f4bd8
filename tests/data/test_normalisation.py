from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.preprocessing import StandardScaler

from clearsight.data.dataset import Dataset
from clearsight.data.normalisation import (
    Statistics,
    fixed_statistics,
    measure_statistics,
    percentile_range,
    stretch_percentiles,
)
from clearsight.data.samples import SampleSet
from clearsight.errors import ConfigError, DataError
from clearsight.recipe.schema import DataConfig
from clearsight.types import Record


@pytest.fixture
def images(tmp_path: Path) -> Dataset:
    """Five images of unlike sizes, so that letterboxing pads them differently."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(5):
        size = (20 + 7 * number, 60 - 5 * number)
        pixels = rng.normal((40, 120, 200), (5, 20, 40), (*size, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
        records.append(Record(image=tmp_path / f"{number}.png"))
    return Dataset(records=records, classes=("a",), task="detection", root=tmp_path, format="coco")


def pixels_of(samples: SampleSet) -> np.ndarray:
    return np.concatenate([samples[i].image.numpy().reshape(3, -1).T for i in range(len(samples))])


def test_statistics_are_those_of_all_pixels_without_padding(images: Dataset) -> None:
    samples = SampleSet(images, data=DataConfig(size=(32, 32)))
    found = measure_statistics(samples)
    scaler = StandardScaler().fit(pixels_of(samples) / 255.0)
    assert found.mean == pytest.approx(scaler.mean_, rel=1e-12)
    assert found.std == pytest.approx(scaler.scale_, rel=1e-12)
    assert (found.scale, found.mode) == (255.0, "data")


def test_a_limit_takes_some_images_by_seed(images: Dataset) -> None:
    samples = SampleSet(images, data=DataConfig(size=(32, 32)))
    first = measure_statistics(samples, limit=2, seed=1)
    assert first == measure_statistics(samples, limit=2, seed=1)
    assert len({measure_statistics(samples, limit=2, seed=seed).mean for seed in range(6)}) > 1
    assert first.mean == pytest.approx(measure_statistics(samples).mean, rel=0.05)
    with pytest.raises(DataError, match="limit is 0"):
        measure_statistics(samples, limit=0)


def test_order_of_the_images_does_not_matter_to_the_last_bit(images: Dataset) -> None:
    data = DataConfig(size=(32, 32))
    turned = replace(images, records=images.records[::-1])
    assert measure_statistics(SampleSet(images, data=data)) == measure_statistics(SampleSet(turned, data=data))


def test_a_constant_channel_does_not_divide_by_zero(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9, 3), 7, dtype=np.uint8)).save(tmp_path / "flat.png")
    flat = Dataset(
        records=[Record(image=tmp_path / "flat.png")], classes=("a",), task="detection", root=tmp_path, format="coco"
    )
    found = measure_statistics(SampleSet(flat, data=DataConfig(size=(9, 9))))
    assert found.mean == pytest.approx((7 / 255,) * 3)
    assert found.std == pytest.approx((1 / 255,) * 3)


def test_fixed_statistics(images: Dataset) -> None:
    unit = measure_statistics(SampleSet(images, data=DataConfig(size=(32, 32), normalize="unit")))
    assert unit == Statistics(mean=(0.0,) * 3, std=(1.0,) * 3, scale=255.0, mode="unit")
    known = measure_statistics(SampleSet(images, data=DataConfig(size=(32, 32), normalize="imagenet")))
    assert known.mean == (0.485, 0.456, 0.406)
    assert known.std == (0.229, 0.224, 0.225)
    with pytest.raises(ConfigError, match=r"data\.channels is 4"):
        fixed_statistics("imagenet", channels=4)


def test_uint16_is_scaled_by_its_own_range(tmp_path: Path) -> None:
    pixels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    deep = Dataset(
        records=[Record(image=tmp_path / "deep.png")], classes=("a",), task="detection", root=tmp_path, format="coco"
    )
    found = measure_statistics(SampleSet(deep, data=DataConfig(size=(64, 64), channels=1)))
    assert found.scale == 65535.0
    assert found.mean == pytest.approx((0.5,), abs=1e-3)
    assert found.std == pytest.approx((12**-0.5,), rel=1e-2)
    stretched = SampleSet(deep, data=DataConfig(size=(64, 64), channels=1, normalize="percentile"))
    assert stretched[0].image.dtype == torch.uint16
    assert measure_statistics(stretched).mode == "percentile"


def test_percentiles_are_those_of_numpy() -> None:
    array = np.random.default_rng(0).integers(0, 65536, (40, 50, 2)).astype(np.uint16)
    low, high = percentile_range(array, low=2, high=97)
    for channel in range(2):
        expected = np.percentile(array[:, :, channel], (2, 97))
        assert (low[channel], high[channel]) == pytest.approx(tuple(expected))
    array[:20] = 0
    low, _ = percentile_range(array, ignore=0)
    assert low[0] == pytest.approx(np.percentile(array[20:, :, 0][array[20:, :, 0] != 0], 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stretching_saturates_and_fills_the_range(dtype: type) -> None:
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(0)
    array = rng.integers(top // 4, top // 2, (100, 100, 3)).astype(dtype)
    array[0, 0] = top  # one hot pixel must not squeeze the rest
    stretched = stretch_percentiles(array)
    assert stretched.dtype == dtype
    assert 0.9 < (stretched > 0).mean() < 0.995
    assert 0.9 < (stretched < top).mean() < 0.995
    assert stretched[0, 0].tolist() == [top] * 3
    order = np.argsort(array[:, :, 0].ravel(), kind="stable")
    assert bool((np.diff(stretched[:, :, 0].ravel()[order].astype(int)) >= 0).all())


def test_degenerate_ranges() -> None:
    flat = np.full((4, 4, 1), 9, dtype=np.uint8)
    assert not stretch_percentiles(flat).any()
    assert not stretch_percentiles(flat, ignore=9).any()
    with pytest.raises(ConfigError, match="low < high"):
        stretch_percentiles(flat, low=50, high=50)
    with pytest.raises(ConfigError, match="100"):
        percentile_range(flat, high=101)
