from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clearsight.data.copy_paste import copy_paste
from clearsight.data.geometry import mask_boxes, plain, wrap_instances
from clearsight.data.seeds import draws
from clearsight.types import Instances, Sample

MakeSample = Callable[..., Sample]


def overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    return float((high - low).clamp(min=0).prod())


def with_boxes(sample: Sample, *boxes: tuple[float, float, float, float]) -> Sample:
    size = tuple(sample.image.shape[-2:])
    made = Instances(boxes=torch.tensor(boxes).view(-1, 4), labels=torch.arange(len(boxes)))
    return replace(sample, instances=wrap_instances(made, size), semantic=None)


@pytest.mark.parametrize("seed", range(6))
def test_copies_are_true_and_cover_nothing(make_sample: MakeSample, seed: int) -> None:
    sample = make_sample((160, 160), n=4, seed=seed)
    small = (plain(sample.instances.masks).flatten(1).sum(1) < 900).tolist()
    with draws(0, "copy", seed):
        result = copy_paste(sample)
    boxes, masks = plain(result.instances.boxes), plain(result.instances.masks)
    copies = range(4, len(result.instances))
    assert torch.equal(boxes, mask_boxes(masks))
    for row in copies:
        label = int(result.instances.labels[row])
        source = plain(sample.instances.masks)[label]
        assert torch.equal(plain(result.image)[:, masks[row]], plain(sample.image)[:, source])
        assert bool((plain(result.semantic)[masks[row]] == plain(sample.semantic)[source]).all())
        assert all(overlap(boxes[row], boxes[other]) == 0 for other in range(len(boxes)) if other != row)
    changed = (plain(result.image) != plain(sample.image)).any(dim=0)
    assert not bool((changed & ~masks[4:].any(dim=0)).any())
    assert len(copies) <= sum(small) + 4
    assert set(result.instances.ring_object.tolist()) == set(range(len(result.instances)))


def test_some_are_pasted(make_sample: MakeSample) -> None:
    sample = with_boxes(make_sample((160, 160), n=0), (10, 10, 30, 26), (100.5, 100.5, 112.2, 120.0))
    with draws(0, "copy"):
        result = copy_paste(sample)
    assert result.instances.labels.tolist()[:2] == [0, 1]
    assert sorted(result.instances.labels.tolist()[2:]) == [0, 1]
    for row in (2, 3):
        source = plain(sample.instances.boxes)[int(result.instances.labels[row])]
        copy = plain(result.instances.boxes)[row]
        shift = (copy - source)[:2]
        assert torch.equal((copy - source)[2:], shift)
        assert torch.equal(shift, shift.round())  # whole pixels, so that pixels and box move alike
        left, top, right, bottom = copy.int().tolist()
        there = plain(result.image)[:, top:bottom, left:right]
        y, x = top - int(shift[1]), left - int(shift[0])
        assert torch.equal(there, plain(sample.image)[:, y : y + bottom - top, x : x + right - left])


def test_what_is_large_ignored_or_touched_is_not_copied(make_sample: MakeSample) -> None:
    large = with_boxes(make_sample((160, 160), n=0), (0, 0, 60, 60))
    touching = with_boxes(make_sample((160, 160), n=0), (10, 10, 30, 30), (25, 25, 40, 40))
    ignored = with_boxes(make_sample((160, 160), n=0), (10, 10, 30, 30))
    ignored.instances.ignore = torch.tensor([True])
    none = replace(large, instances=None)
    empty = with_boxes(make_sample((160, 160), n=0))
    for sample in (large, touching, ignored, none, empty):
        assert copy_paste(sample) is sample


def test_a_full_image_takes_no_copy(make_sample: MakeSample) -> None:
    sample = with_boxes(make_sample((40, 40), n=0), (0, 0, 10, 10), (10, 0, 40, 40), (0, 10, 10, 40))
    assert copy_paste(sample) is sample


def test_at_most_so_many(make_sample: MakeSample) -> None:
    boxes = [(20.0 * i, 0.0, 20.0 * i + 8, 8.0) for i in range(8)]
    sample = with_boxes(make_sample((160, 160), n=0), *boxes)
    with draws(0, "copy"):
        assert len(copy_paste(sample, most=3).instances) == 11
