from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearsight.data.augmenting import Augmenter
from clearsight.data.seeds import draws
from clearsight.recipe.schema import AugmentConfig, DataConfig
from clearsight.types import Sample

MakeSample = Callable[..., Sample]
DATA = DataConfig(size=(48, 64))
OFF = {"flip_horizontal": 0.0}


class Source:
    """Gives samples by index and remembers which were asked for."""

    def __init__(self, make_sample: MakeSample) -> None:
        self.make_sample, self.asked = make_sample, []

    def __call__(self, index: int) -> Sample:
        self.asked.append(index)
        return self.make_sample(seed=index)


def augmented(make_sample: MakeSample, task: str, *, open_: bool = True, seed: int = 0, **switches: float):
    source = Source(make_sample)
    augmenter = Augmenter(AugmentConfig(**{**OFF, **switches}), DATA, task=task, classes=5)
    with draws(0, "test", seed):
        return augmenter(source, 3, 20, mosaic=open_), source.asked


@pytest.mark.parametrize(
    ("task", "switches", "images"),
    [
        ("detection", {}, 1),
        ("detection", {"mosaic": 1.0}, 4),
        ("detection", {"mixup": 1.0}, 2),
        ("detection", {"mosaic": 1.0, "mixup": 1.0}, 8),
        ("detection", {"cutmix": 1.0}, 1),
        ("classification", {"mosaic": 1.0}, 1),
        ("classification", {"mixup": 1.0}, 2),
        ("classification", {"cutmix": 1.0}, 2),
        ("classification", {"mixup": 1.0, "cutmix": 1.0}, 2),
    ],
)
def test_partners_are_drawn_where_the_task_allows(
    make_sample: MakeSample, task: str, switches: dict, images: int
) -> None:
    sample, asked = augmented(make_sample, task, **switches)
    assert len(asked) == images
    assert asked[0] == 3
    assert all(0 <= index < 20 for index in asked)
    assert sample.image.shape == (3, 48, 64)
    assert sample.meta.index == 3


def test_closing_stops_mosaic_and_mixup_only(make_sample: MakeSample) -> None:
    switches = {"mosaic": 1.0, "mixup": 1.0, "cutmix": 1.0, "cutout": 1.0}
    sample, asked = augmented(make_sample, "detection", open_=False, **switches)
    assert asked == [3]
    assert not torch.equal(sample.image, make_sample(seed=3).image)  # the erased square
    _, asked = augmented(make_sample, "classification", open_=False, **switches)
    assert len(asked) == 2


def test_mixed_labels_have_one_form(make_sample: MakeSample) -> None:
    for seed in range(8):
        sample, _ = augmented(make_sample, "classification", seed=seed, mixup=0.5)
        assert sample.label.shape == (5,)
        assert float(sample.label.sum()) == pytest.approx(1.0)
    sample, _ = augmented(make_sample, "classification")
    assert sample.label == 1


def test_no_switch_no_change(make_sample: MakeSample) -> None:
    sample, _ = augmented(make_sample, "detection")
    assert torch.equal(sample.image, make_sample(seed=3).image)


def test_switching_one_off_leaves_the_draws_of_the_others(make_sample: MakeSample) -> None:
    closed, _ = augmented(make_sample, "detection", open_=False, mosaic=1.0, mixup=1.0, cutout=1.0)
    without, _ = augmented(make_sample, "detection", cutout=1.0)
    assert torch.equal(closed.image, without.image)


def test_masks_and_maps_are_not_blended(make_sample: MakeSample) -> None:
    source = Source(make_sample)
    augmenter = Augmenter(AugmentConfig(**OFF, mixup=1.0), DATA, task="semantic", classes=5)
    augmenter(lambda index: source(index).with_(instances=None), 3, 20, mosaic=True)
    assert source.asked == [3]


def test_beta_has_the_mean_and_spread_of_its_alpha(make_sample: MakeSample) -> None:
    weights, tiny = [], make_sample((8, 8), n=0)
    for seed in range(400):
        source = Source(lambda seed: tiny.with_(label=seed % 2))
        augmenter = Augmenter(AugmentConfig(**OFF, mixup=1.0, mixup_alpha=0.4), DATA, task="classification", classes=2)
        with draws(1, "beta", seed):
            sample = augmenter(source, 0, 2, mosaic=True)
        if source.asked[1] == 1:
            weights.append(float(sample.label[0]))
    lam = torch.tensor(weights)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert float(lam.mean()) == pytest.approx(0.5, abs=0.08)
    assert float(lam.var()) == pytest.approx(1 / (4 * 1.8), abs=0.03)
