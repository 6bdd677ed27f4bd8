from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torchvision.transforms import v2

from clearsight.data.geometry import mask_boxes, plain
from clearsight.data.seeds import draws
from clearsight.data.transforms import apply_v2, build_transforms, resize_to
from clearsight.recipe.schema import AugmentConfig, DataConfig
from clearsight.types import Sample

MakeSample = Callable[..., Sample]
DATA = DataConfig(size=(64, 64))
OFF = {"flip_horizontal": 0.0}
EVERYTHING = AugmentConfig(
    flip_horizontal=0.5,
    flip_vertical=0.5,
    rotate90=0.5,
    rotate=30,
    zoom=(0.5, 2.0),
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
)


def test_nothing_switched_on_is_the_same_object(make_sample: MakeSample) -> None:
    sample = make_sample()
    assert build_transforms(AugmentConfig(**OFF), DATA, train=True)(sample) is sample
    assert build_transforms(EVERYTHING, DATA, train=False)(sample) is sample


@pytest.mark.parametrize(
    "change",
    [
        {"flip_horizontal": 1.0},
        {"flip_vertical": 1.0},
        {"rotate90": 1.0},
        {"rotate": 30.0},
        {"zoom": (1.5, 2.0)},
        {"zoom": (0.4, 0.6)},
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.5},
        {"hue": 0.3},
    ],
    ids=lambda change: "-".join(change),
)
def test_each_switch_changes_the_image_and_keeps_its_shape(make_sample: MakeSample, change: dict) -> None:
    sample = make_sample((64, 64))
    with draws(0, "test"):
        changed = build_transforms(AugmentConfig(**{**OFF, **change}), DATA, train=True)(sample)
    assert changed.image.shape == sample.image.shape
    assert not torch.equal(changed.image, sample.image)
    assert changed.meta is sample.meta


@pytest.mark.parametrize("seed", range(12))
def test_everything_together_keeps_targets_true(make_sample: MakeSample, seed: int) -> None:
    sample = make_sample((64, 64), n=5, seed=seed)
    with draws(0, "test", seed):
        changed = build_transforms(EVERYTHING, DATA, train=True)(sample)
    instances = changed.instances
    boxes, tight = plain(instances.boxes), mask_boxes(plain(instances.masks))
    assert bool(((boxes - tight).abs() <= 1.5).all())
    assert bool((boxes >= 0).all())
    assert bool((boxes <= 64).all())
    for mask, label in zip(plain(instances.masks), instances.labels.tolist(), strict=True):
        inside = plain(changed.semantic)[mask]
        covered = plain(sample.semantic)[plain(sample.instances.masks)[label]] == label + 1
        if bool(covered.all()):  # drawn last, so the map shows the whole object
            assert float((inside == label + 1).float().mean()) > 0.8


def test_draws_come_from_torch_alone(make_sample: MakeSample) -> None:
    transform = build_transforms(EVERYTHING, DATA, train=True)
    results = []
    for _ in range(2):
        with draws(3, "sample"):
            results.append(transform(make_sample()))
    assert torch.equal(results[0].image, results[1].image)
    assert torch.equal(results[0].instances.boxes, results[1].instances.boxes)


def test_probabilities_are_those_of_the_recipe(make_sample: MakeSample) -> None:
    sample = make_sample(n=0)
    transform = build_transforms(AugmentConfig(flip_horizontal=0.3), DATA, train=True)
    with draws(0, "count"):
        flipped = sum(transform(sample) is not sample for _ in range(1000))
    assert 250 < flipped < 350


def test_zoom_stays_in_its_range(make_sample: MakeSample) -> None:
    sample = make_sample((96, 96), n=1, seed=3)
    sample = replace(sample, semantic=None)
    transform = build_transforms(AugmentConfig(**OFF, zoom=(0.5, 1.0)), DATA, train=True)
    side = float(sample.instances.boxes[0, 2] - sample.instances.boxes[0, 0])
    with draws(0, "zoom"):
        scales = [float((b := transform(sample).instances.boxes[0])[2] - b[0]) / side for _ in range(300)]
    assert 0.49 < min(scales) < 0.52
    assert 0.97 < max(scales) <= 1.01
    below = sum(scale < 0.5**0.5 for scale in scales) / len(scales)
    assert 0.4 < below < 0.6  # even in the logarithm


def test_quarter_turns_keep_the_shape_of_oblong_images(make_sample: MakeSample) -> None:
    sample = make_sample((48, 64))
    transform = build_transforms(AugmentConfig(**OFF, rotate90=1.0), DATA, train=True)
    with draws(0, "turn"):
        assert transform(sample).image.shape == sample.image.shape
        turned = {tuple(plain(transform(make_sample((32, 32))).image)[0, 0, :4].tolist()) for _ in range(40)}
    assert len(turned) == 3


def test_colours_need_three_channels(make_sample: MakeSample) -> None:
    grey = make_sample(channels=1)
    transform = build_transforms(
        AugmentConfig(**OFF, saturation=0.5, hue=0.5), DataConfig(size=(64, 64), channels=1), train=True
    )
    assert transform(grey) is grey


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_resize_to_tells_the_scale(make_sample: MakeSample, fit: str) -> None:
    sample = make_sample((48, 96), n=3)
    once = resize_to(sample, (64, 64), fit)
    assert once.image.shape[-2:] == ((32, 64) if fit == "letterbox" else (64, 64))
    scale = torch.tensor((once.meta.scale[1], once.meta.scale[0]) * 2)
    back = plain(once.instances.boxes) / scale
    torch.testing.assert_close(back, plain(sample.instances.boxes), atol=1e-4, rtol=0)
    twice = resize_to(once, (24, 24), "stretch")
    assert twice.meta.scale == (24 / 48, 24 / 96)
    assert resize_to(twice, (24, 24), fit) is twice


def test_any_transform_v2_can_be_applied(make_sample: MakeSample) -> None:
    sample = make_sample((64, 64))
    flipped = apply_v2(v2.RandomVerticalFlip(p=1.0), sample)
    assert torch.equal(flipped.image, plain(sample.image).flip(1))
    assert torch.equal(plain(flipped.instances.boxes), mask_boxes(plain(flipped.instances.masks)))
    cropped = apply_v2(v2.CenterCrop((16, 16)), sample)
    assert torch.equal(cropped.image, plain(sample.image)[:, 24:40, 24:40])
    seen = mask_boxes(plain(sample.instances.masks)[:, 24:40, 24:40])
    kept = (seen[:, 2:] - seen[:, :2]).amin(dim=1) >= 2
    assert cropped.instances.labels.tolist() == kept.nonzero().flatten().tolist()
    assert 0 < len(cropped.instances) < 4
    with draws(0, "crop"):
        cropped = apply_v2(v2.RandomResizedCrop((40, 40), scale=(0.2, 0.3), antialias=True), sample)
    assert cropped.image.shape == (3, 40, 40)
    assert cropped.semantic.shape == (40, 40)
    boxes, tight = plain(cropped.instances.boxes), mask_boxes(plain(cropped.instances.masks))
    assert bool(((boxes - tight).abs() <= 2.5).all())
