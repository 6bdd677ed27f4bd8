from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from clearsight.data.geometry import mask_boxes, plain, wrap_instances
from clearsight.data.turning import flip_horizontal, flip_vertical, rotate, rotate90
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Instances, Sample

MakeSample = Callable[..., Sample]
TURNS = {
    "horizontal": flip_horizontal,
    "vertical": flip_vertical,
    "quarter": lambda sample: rotate90(sample, 1),
    "half": lambda sample: rotate90(sample, 2),
    "three": lambda sample: rotate90(sample, -1),
}
BACK = {"horizontal": 2, "vertical": 2, "quarter": 4, "half": 2, "three": 4}


def assert_same(a: Sample, b: Sample) -> None:
    assert torch.equal(_int(a.image), _int(b.image))
    assert torch.equal(a.semantic, b.semantic)
    for name in ("boxes", "masks", "contours", "labels", "ring_object"):
        assert torch.equal(getattr(a.instances, name), getattr(b.instances, name)), name
    assert a.instances.boxes.canvas_size == b.instances.boxes.canvas_size


def _int(image: torch.Tensor) -> torch.Tensor:
    return plain(image).to(torch.int32)


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_turning_back_is_the_identity(make_sample: MakeSample, name: str, dtype: torch.dtype) -> None:
    sample = make_sample(dtype=dtype)
    turned = TURNS[name](sample)
    assert not torch.equal(_int(turned.image).flatten(), _int(sample.image).flatten())
    for _ in range(BACK[name] - 1):
        turned = TURNS[name](turned)
    assert_same(turned, sample)


@pytest.mark.parametrize("name", TURNS)
def test_boxes_masks_contours_and_map_stay_together(make_sample: MakeSample, name: str) -> None:
    turned = TURNS[name](make_sample())
    instances = turned.instances
    assert torch.equal(plain(instances.boxes), mask_boxes(plain(instances.masks)))
    size = tuple(turned.image.shape[-2:])
    for number in range(len(instances)):
        rings = [plain(ring).double().numpy() for ring in instances.contours[instances.ring_object == number]]
        assert np.array_equal(polygons_to_mask(rings, size), instances.masks[number].numpy())
    last = instances.masks[-1]
    assert bool((turned.semantic[last] == len(instances)).all())


@pytest.mark.parametrize(("name", "kernel"), [("horizontal", v2.horizontal_flip), ("vertical", v2.vertical_flip)])
def test_flips_are_those_of_transforms_v2(make_sample: MakeSample, name: str, kernel: Callable) -> None:
    sample = make_sample()
    turned = TURNS[name](sample)
    assert torch.equal(turned.image, kernel(sample.image))
    assert torch.equal(turned.semantic, kernel(sample.semantic))
    assert torch.equal(turned.instances.boxes, kernel(sample.instances.boxes))
    assert torch.equal(turned.instances.masks, kernel(sample.instances.masks))
    # Transforms v2 takes contours for pixel indices, which is one pixel off our corners.
    off = torch.tensor((1.0, 0.0) if name == "horizontal" else (0.0, 1.0))
    assert torch.equal(plain(turned.instances.contours), plain(kernel(sample.instances.contours)) + off)


def test_quarter_turns_are_those_of_numpy(make_sample: MakeSample) -> None:
    sample = make_sample()
    for turns in range(-3, 5):
        turned = rotate90(sample, turns)
        expected = np.rot90(plain(sample.image).numpy(), turns % 4, axes=(1, 2))
        assert np.array_equal(plain(turned.image).numpy(), expected)


@pytest.mark.parametrize("degrees", [-170.0, -30.0, 12.0, 90.0, 145.0])
def test_rotation_moves_everything_the_same_way(make_sample: MakeSample, degrees: float) -> None:
    sample = make_sample((96, 96), n=3)
    turned = rotate(sample, degrees)
    instances = turned.instances
    assert len(instances) > 0
    assert torch.equal(plain(instances.boxes), mask_boxes(plain(instances.masks)))
    for number in range(len(instances)):
        rings = [plain(ring).double().numpy() for ring in instances.contours[instances.ring_object == number]]
        outline, mask = polygons_to_mask(rings, (96, 96)), instances.masks[number].numpy()
        assert (outline & mask).sum() / (outline | mask).sum() > 0.85
    expected = v2.rotate(sample.semantic[None], degrees, fill=[255.0])[0]
    assert torch.equal(turned.semantic, expected)


def test_rotation_of_images_is_that_of_transforms_v2(make_sample: MakeSample) -> None:
    image = plain(make_sample().image)
    fill = [float(value) for value in image[:, ::8, ::8].float().mean(dim=(1, 2)).round()]
    expected = v2.rotate(image, 20.0, interpolation=v2.InterpolationMode.BILINEAR, fill=fill)
    assert torch.equal(plain(rotate(make_sample(), 20.0).image), expected)


def test_boxes_alone_become_those_of_their_ellipse(make_sample: MakeSample) -> None:
    wide = Instances(boxes=torch.tensor([[20.0, 40.0, 60.0, 60.0]]), labels=torch.tensor([0]))
    sample = replace(make_sample((100, 100), n=0), instances=wrap_instances(wide, (100, 100)), semantic=None)
    # A quarter turn, counter-clockwise as seen: what was left of the middle comes below it.
    quarter = plain(rotate(sample, 90.0).instances.boxes)
    torch.testing.assert_close(quarter, torch.tensor([[40.0, 40.0, 60.0, 80.0]]), atol=1e-3, rtol=0)
    half = plain(rotate(sample, 45.0).instances.boxes)[0]
    side = 2 * ((20.0**2 + 10.0**2) / 2) ** 0.5  # both axes at 45 degrees
    assert float(half[2] - half[0]) == pytest.approx(side, abs=1e-3)
    assert float(half[3] - half[1]) == pytest.approx(side, abs=1e-3)


def test_boxes_without_masks_follow_contours(make_sample: MakeSample) -> None:
    sample = make_sample((96, 96), n=3)
    masked = rotate(sample, 25.0).instances
    sample.instances.masks = None
    ringed = rotate(sample, 25.0).instances
    assert len(ringed) == len(masked)
    assert float((plain(ringed.boxes) - plain(masked.boxes)).abs().max()) <= 1.5


def test_types_survive(make_sample: MakeSample) -> None:
    for turn in (*TURNS.values(), lambda sample: rotate(sample, 10.0)):
        turned = turn(make_sample(dtype=torch.uint16))
        assert turned.image.dtype == torch.uint16
        assert isinstance(turned.image, tv_tensors.Image)
        assert isinstance(turned.instances.boxes, tv_tensors.BoundingBoxes)
        assert isinstance(turned.instances.masks, tv_tensors.Mask)
        assert turned.instances.masks.dtype == torch.bool
        assert isinstance(turned.instances.contours, tv_tensors.KeyPoints)
        assert turned.semantic.dtype == torch.int64
