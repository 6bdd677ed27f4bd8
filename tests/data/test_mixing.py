from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors

from clearsight.data.geometry import Rect, mask_boxes, plain
from clearsight.data.mixing import cutmix, cutout, mixup, mosaic
from clearsight.errors import ShapeError
from clearsight.types import Sample

MakeSample = Callable[..., Sample]


def flat(sample: Sample, value: int) -> Sample:
    image = torch.full_like(plain(sample.image), value)
    return replace(sample, image=tv_tensors.Image(image))


# ------------------------------------------------------------------------------------------------ mosaic
def test_four_halves_fill_the_canvas(make_sample: MakeSample) -> None:
    samples = [flat(make_sample((40, 60), n=2, seed=i), 10 * i + 10) for i in range(4)]
    result = mosaic(samples, size=(40, 60), centre=(20, 30), scales=[0.5] * 4)
    image = plain(result.image)[0]
    assert [int(image[r, c]) for r in (5, 35) for c in (5, 55)] == [10, 20, 30, 40]
    assert sorted(image.unique().tolist()) == [10, 20, 30, 40]
    # Whole images at half size: every box is halved and moved to its quadrant.
    expected = []
    for number, sample in enumerate(samples):
        shift = torch.tensor((30.0 * (number % 2), 20.0 * (number // 2))).repeat(2)
        expected.append(plain(sample.instances.boxes) / 2 + shift)
    torch.testing.assert_close(plain(result.instances.boxes), torch.cat(expected))
    assert result.meta is samples[0].meta
    assert result.label is None


def test_larger_images_are_cut_at_the_centre(make_sample: MakeSample) -> None:
    samples = [make_sample((40, 40), n=3, seed=i) for i in range(4)]
    result = mosaic(samples, size=(40, 40), centre=(15, 22), scales=[1.0] * 4)
    corners = [plain(s.image) for s in samples]
    assert torch.equal(plain(result.image)[:, :15, :22], corners[0][:, -15:, -22:])
    assert torch.equal(plain(result.image)[:, :15, 22:], corners[1][:, -15:, :18])
    assert torch.equal(plain(result.image)[:, 15:, :22], corners[2][:, :25, -22:])
    assert torch.equal(plain(result.image)[:, 15:, 22:], corners[3][:, :25, :18])
    instances = result.instances
    assert torch.equal(plain(instances.boxes), mask_boxes(plain(instances.masks)))
    assert torch.equal(plain(result.semantic)[:15, :22], plain(samples[0].semantic)[-15:, -22:])
    assert instances.boxes.canvas_size == (40, 40)
    assert int(instances.ring_object.max()) < len(instances)


def test_what_small_images_leave_is_filled(make_sample: MakeSample) -> None:
    samples = [flat(make_sample((10, 10), n=0, seed=i), 77) for i in range(4)]
    result = mosaic(samples, size=(40, 40), centre=(20, 20), scales=[1.0] * 4)
    assert bool((plain(result.image) == 77).all())
    assert bool((plain(result.semantic)[:10] == 255).all())
    assert bool((plain(result.semantic)[10:30, 10:30] == 0).all())


def test_mosaic_wants_four_samples_and_a_centre_inside(make_sample: MakeSample) -> None:
    samples = [make_sample()] * 4
    with pytest.raises(ShapeError, match="3 samples"):
        mosaic(samples[:3], size=(40, 40), centre=(20, 20), scales=[1.0] * 3)
    with pytest.raises(ShapeError, match="inside the canvas"):
        mosaic(samples, size=(40, 40), centre=(0, 20), scales=[1.0] * 4)


# ------------------------------------------------------------------------------------------------ mixup
def test_mixup_blends_pixels_and_keeps_objects(make_sample: MakeSample) -> None:
    a, b = flat(make_sample(n=2, seed=1), 100), flat(make_sample(n=3, seed=2), 200)
    mixed = mixup(a, b, 0.7, classes=4)
    assert plain(mixed.image).unique().tolist() == [130]
    assert mixed.instances.labels.tolist() == [0, 1, 0, 1, 2]
    assert mixed.label.tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0])
    other = mixup(a, replace(b, label=3), 0.7, classes=4)
    assert other.label.tolist() == pytest.approx([0.0, 0.7, 0.0, 0.3])


def test_an_image_that_hardly_shows_gives_no_objects(make_sample: MakeSample) -> None:
    a, b = make_sample(n=2, seed=1), make_sample(n=3, seed=2)
    assert len(mixup(a, b, 0.95, classes=2).instances) == 2
    assert len(mixup(a, b, 0.05, classes=2).instances) == 3
    whole = mixup(a, b, 1.0, classes=2)
    assert torch.equal(whole.image, a.image)
    assert torch.equal(whole.semantic, a.semantic)
    assert torch.equal(mixup(a, b, 0.0, classes=2).image, b.image)


def test_sizes_may_differ(make_sample: MakeSample) -> None:
    a, b = make_sample((40, 60), n=1), make_sample((50, 30), n=1, seed=1)
    mixed = mixup(a, b, 0.5, classes=2)
    assert mixed.image.shape == (3, 50, 60)
    assert mixed.instances.masks.shape == (2, 50, 60)


def test_mixup_of_uint16(make_sample: MakeSample) -> None:
    a, b = (make_sample(dtype=torch.uint16, seed=i) for i in range(2))
    mixed = mixup(a, b, 0.25, classes=2)
    expected = plain(a.image).float() * 0.25 + plain(b.image).float() * 0.75
    assert mixed.image.dtype == torch.uint16
    assert float((plain(mixed.image).float() - expected).abs().max()) <= 0.51


def test_channels_must_agree_and_indices_need_classes(make_sample: MakeSample) -> None:
    with pytest.raises(ShapeError, match="1 channels"):
        mixup(make_sample(), make_sample(channels=1), 0.5, classes=2)
    with pytest.raises(ShapeError, match="give `classes`"):
        mixup(make_sample(), make_sample(), 0.5)


# ------------------------------------------------------------------------------------------------ cutmix, cutout
@given(top=st.integers(-60, 60), left=st.integers(-80, 80), height=st.integers(0, 60), width=st.integers(0, 80))
def test_labels_are_the_shares_of_the_pixels(
    make_sample: MakeSample, top: int, left: int, height: int, width: int
) -> None:
    a, b = flat(make_sample(n=0), 1), replace(flat(make_sample(n=0, seed=1), 2), label=0)
    mixed = cutmix(a, b, Rect(top, left, top + height, left + width), classes=2)
    share = float((plain(mixed.image)[0] == 1).double().mean())
    assert mixed.label.tolist() == pytest.approx([1 - share, share], abs=1e-6)


def test_the_window_shows_the_same_place_of_the_other_image(make_sample: MakeSample) -> None:
    a, b = make_sample(seed=1), make_sample(seed=2)
    mixed = plain(cutmix(a, b, Rect(5, 6, 20, 30), classes=2).image)
    inside = torch.zeros(48, 64, dtype=torch.bool)
    inside[5:20, 6:30] = True
    assert torch.equal(mixed[:, inside], plain(b.image)[:, inside])
    assert torch.equal(mixed[:, ~inside], plain(a.image)[:, ~inside])


def test_soft_labels_can_be_mixed_again(make_sample: MakeSample) -> None:
    a = replace(make_sample(), label=torch.tensor([0.5, 0.5]))
    mixed = cutmix(a, make_sample(seed=1), Rect(0, 0, 24, 64), classes=2)
    assert mixed.label.tolist() == pytest.approx([0.25, 0.75])


def test_cutout_fills_and_drops_what_it_hides(make_sample: MakeSample) -> None:
    sample = make_sample()
    box = plain(sample.instances.boxes)[0].int().tolist()
    result = cutout(sample, Rect(box[1], box[0], box[3], box[2]))
    window = plain(result.image)[:, box[1] : box[3], box[0] : box[2]]
    assert bool((window == window[:, :1, :1]).all())
    assert 0 not in result.instances.labels.tolist()
    half = cutout(sample, Rect(box[1], box[0], (box[1] + box[3]) // 2, box[2]))
    assert 0 in half.instances.labels.tolist()
    outside = cutout(sample, Rect(-30, -30, -1, -1))
    assert torch.equal(outside.image, sample.image)
    assert len(outside.instances) == 4


def test_inputs_are_not_changed(make_sample: MakeSample) -> None:
    a, b = make_sample(seed=1), make_sample(seed=2)
    mixup(a, b, 0.5, classes=2)
    cutmix(a, b, Rect(0, 0, 20, 20), classes=2)
    cutout(a, Rect(0, 0, 20, 20))
    mosaic([a, b, a, b], size=(48, 64), centre=(20, 20), scales=[0.7] * 4)
    assert torch.equal(a.image, make_sample(seed=1).image)
    assert torch.equal(a.instances.boxes, make_sample(seed=1).instances.boxes)
    assert torch.equal(a.instances.masks, make_sample(seed=1).instances.masks)
