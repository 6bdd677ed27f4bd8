from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clearsight.data.collate import collate
from clearsight.data.geometry import plain
from clearsight.errors import ShapeError
from clearsight.types import Sample

MakeSample = Callable[..., Sample]


def test_images_are_padded_on_the_right_and_below(make_sample: MakeSample) -> None:
    samples = [make_sample((40, 60)), make_sample((48, 30), seed=1)]
    batch = collate(samples)
    assert batch.images.shape == (2, 3, 48, 60)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert type(batch.images) is torch.Tensor
    assert batch.sizes.tolist() == [[40, 60], [48, 30]]
    for image, sample, (height, width) in zip(batch.images, samples, batch.sizes.tolist(), strict=True):
        assert torch.equal(image[:, :height, :width], plain(sample.image))
        assert int(image[:, height:].sum()) == int(image[:, :, width:].sum()) == 0
    larger = collate(samples, size=(64, 64))
    assert larger.images.shape == (2, 3, 64, 64)
    assert int(larger.images[:, :, 48:].sum()) == int(larger.images[:, :, :, 60:].sum()) == 0
    assert [meta.index for meta in batch.meta] == [0, 1]


def test_targets_are_ragged_with_an_image_index(make_sample: MakeSample) -> None:
    samples = [make_sample((40, 60), n=2), make_sample((48, 30), n=0, seed=1), make_sample((48, 60), n=3, seed=2)]
    targets = collate(samples).targets
    assert targets.image.tolist() == [0, 0, 2, 2, 2]
    assert targets.labels.tolist() == [0, 1, 0, 1, 2]
    assert torch.equal(targets.boxes[2:], plain(samples[2].instances.boxes))
    assert type(targets.boxes) is torch.Tensor
    assert targets.masks.shape == (5, 48, 60)
    assert torch.equal(targets.masks[:2, :40], plain(samples[0].instances.masks))
    assert not bool(targets.masks[:2, 40:].any())
    assert targets.ring_object.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(
        targets.contours[2, : samples[2].instances.contours.shape[1]], plain(samples[2].instances.contours[0])
    )
    assert targets.semantic.shape == (3, 48, 60)
    assert int(targets.semantic[0, 40:].min()) == 255
    assert targets.ignore is None


def test_no_objects_at_all(make_sample: MakeSample) -> None:
    targets = collate([make_sample(n=0), make_sample(n=0, seed=1)]).targets
    assert targets.boxes.shape == (0, 4)
    assert targets.image.tolist() == []
    assert targets.masks.shape == (0, 48, 64)
    without = collate([replace(make_sample(), instances=None, semantic=None)]).targets
    assert without.boxes.shape == (0, 4)
    assert without.masks is None
    assert without.semantic is None


def test_flags_of_some_are_flags_of_all(make_sample: MakeSample) -> None:
    a, b = make_sample(n=2), make_sample(n=1, seed=1)
    b.instances.ignore = torch.tensor([True])
    assert collate([a, b]).targets.ignore.tolist() == [False, False, True]


def test_labels(make_sample: MakeSample) -> None:
    hard = [make_sample(), replace(make_sample(seed=1), label=0)]
    assert collate(hard).targets.label.tolist() == [1, 0]
    soft = [hard[0], replace(hard[1], label=torch.tensor([0.25, 0.75, 0.0]))]
    assert collate(soft).targets.label.tolist() == [[0.0, 1.0, 0.0], [0.25, 0.75, 0.0]]
    assert collate([replace(hard[0], label=None)]).targets.label is None


def test_uint16_travels_as_it_is(make_sample: MakeSample) -> None:
    sample = make_sample(dtype=torch.uint16)
    batch = collate([sample])
    assert batch.images.dtype == torch.uint16
    assert torch.equal(batch.images[0].int(), plain(sample.image).int())


def test_what_cannot_be_one_batch_names_the_file(make_sample: MakeSample) -> None:
    with pytest.raises(ShapeError, match="no samples"):
        collate([])
    with pytest.raises(ShapeError, match=r"1\.png: 1 channels .*from 0\.png"):
        collate([make_sample(), make_sample(channels=1, seed=1)])
    with pytest.raises(ShapeError, match=r"1\.png: 3 channels of torch.uint16"):
        collate([make_sample(), make_sample(dtype=torch.uint16, seed=1)])
    with pytest.raises(ShapeError, match="all or none"):
        collate([make_sample(), replace(make_sample(seed=1), instances=None)])
    with pytest.raises(ShapeError, match=r"1\.png: no image label"):
        collate([make_sample(), replace(make_sample(seed=1), label=None)])
