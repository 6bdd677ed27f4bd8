from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from clearsight.data.geometry import (
    MIN_VISIBLE,
    Flips,
    Rect,
    drop_hidden,
    fitted_size,
    mask_boxes,
    mean_colour,
    place,
    plain,
    resize_image,
    resize_map,
    wrap_instances,
)
from clearsight.data.turning import flip_horizontal, flip_vertical
from clearsight.ops.masks import mask_to_box
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Instances, Sample

MakeSample = Callable[..., Sample]


def boxes_only(*boxes: tuple[float, float, float, float], size: tuple[int, int] = (100, 100)) -> Instances:
    made = Instances(boxes=torch.tensor(boxes).view(-1, 4), labels=torch.arange(len(boxes)))
    return wrap_instances(made, size)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("size", [(24, 32), (100, 90), (48, 32), (1, 1), (5, 1), (1, 9)])
def test_resize_is_that_of_transforms_v2(make_sample: MakeSample, channels: int, size: tuple[int, int]) -> None:
    image = plain(make_sample(channels=channels).image)
    expected = v2.resize(image.float().contiguous(), list(size), antialias=True)
    # The byte kernel rounds after each of its two passes.
    assert (resize_image(image, size).float() - expected).abs().max() < 1.01


def test_resize_keeps_uint16_precision() -> None:
    ramp = torch.arange(0, 65536, 256, dtype=torch.int32).repeat(8, 1)[None].to(torch.uint16)
    half = resize_image(ramp, (4, 128))
    assert half.dtype == torch.uint16
    # The triangle of antialiasing weighs symmetrically, so inside a ramp the mean of the two middle pixels remains.
    middle = torch.arange(128) * 512 + 128
    torch.testing.assert_close(half[0, 0, 4:-4].int(), middle[4:-4].int(), atol=1, rtol=0)


def test_results_are_channels_last_in_memory(make_sample: MakeSample) -> None:
    resized = resize_image(make_sample().image, (24, 32))
    assert resized.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize(
    ("size", "into", "fit", "expected"),
    [
        ((480, 640), (320, 320), "letterbox", (240, 320)),
        ((640, 480), (320, 320), "letterbox", (320, 240)),
        ((10, 1000), (64, 64), "letterbox", (1, 64)),
        ((1000, 1), (64, 64), "letterbox", (64, 1)),
        ((30, 30), (60, 90), "letterbox", (60, 60)),
        ((480, 640), (320, 320), "stretch", (320, 320)),
    ],
)
def test_fitted_size(size: tuple[int, int], into: tuple[int, int], fit: str, expected: tuple[int, int]) -> None:
    assert fitted_size(size, into, fit) == expected


def test_maps_take_the_value_under_the_centre() -> None:
    values = torch.arange(6).view(1, 1, 6)
    assert resize_map(values, (1, 3)).tolist() == [[[1, 3, 5]]]
    assert resize_map(values, (2, 12)).tolist() == [[sorted([*range(6)] * 2)] * 2]


def test_placing_the_whole_changes_nothing(make_sample: MakeSample) -> None:
    sample = make_sample()
    placed = place(sample, Rect(0, 0, 48, 64), Rect(0, 0, 48, 64), (48, 64))
    assert torch.equal(placed.image, sample.image)
    assert torch.equal(placed.semantic, sample.semantic)
    for name in ("boxes", "masks", "contours", "labels", "ring_object"):
        assert torch.equal(getattr(placed.instances, name), getattr(sample.instances, name)), name


def test_place_by_hand(make_sample: MakeSample) -> None:
    sample = make_sample(n=0)
    instances = boxes_only((20, 10, 30, 20), (0, 0, 10, 10), (38, 10, 60, 12), size=(48, 64))
    sample = replace(sample, instances=instances, semantic=None)
    # Rows 5 to 25 and columns 10 to 40, enlarged twice, at (3, 2) of a larger canvas.
    placed = place(sample, Rect(5, 10, 25, 40), Rect(3, 2, 43, 62), (50, 70))
    # The second lies outside; of the third a tenth is left.
    assert plain(placed.instances.boxes).tolist() == [[22.0, 13.0, 42.0, 33.0]]
    assert placed.instances.labels.tolist() == [0]
    assert placed.instances.boxes.canvas_size == (50, 70)
    assert isinstance(placed.image, tv_tensors.Image)
    assert placed.image.shape == (3, 50, 70)
    expected = resize_image(plain(sample.image)[:, 5:25, 10:40], (40, 60))
    colour = mean_colour(expected)
    outside = torch.ones(50, 70, dtype=torch.bool)
    outside[3:43, 2:62] = False
    assert bool((plain(placed.image)[:, outside] == colour[:, None]).all())
    assert torch.equal(plain(placed.image)[:, 3:43, 2:62], expected)


@pytest.mark.parametrize("flips", [Flips(horizontal=True), Flips(vertical=True), Flips(horizontal=True, vertical=True)])
@pytest.mark.parametrize("target", [Rect(0, 0, 48, 64), Rect(3, 5, 27, 37), Rect(0, 0, 96, 128)])
def test_flipping_on_the_way_is_flipping_first(make_sample: MakeSample, flips: Flips, target: Rect) -> None:
    sample, canvas = make_sample(), (max(48, target.bottom), max(64, target.right))
    first = flip_horizontal(sample) if flips.horizontal else sample
    first = flip_vertical(first) if flips.vertical else first
    source = Rect(4, 10, 44, 60)
    mirrored = Rect(4, 4 if flips.horizontal else 10, 44, 54 if flips.horizontal else 60)  # 4 to 44 of 48 mirror alike
    at_once, one_by_one = place(sample, source, target, canvas, flips=flips), place(first, mirrored, target, canvas)
    assert float((plain(at_once.image).float() - plain(one_by_one.image).float()).abs().max()) <= 1
    torch.testing.assert_close(plain(at_once.instances.boxes), plain(one_by_one.instances.boxes), atol=1e-4, rtol=0)
    assert torch.equal(at_once.instances.labels, one_by_one.instances.labels)
    differ = (at_once.semantic != one_by_one.semantic).float().mean()
    assert float(differ) < 0.02  # the value under a centre, where the centre lies on an edge


@pytest.mark.parametrize("target", [Rect(0, 0, 24, 32), Rect(0, 0, 96, 128)])
def test_colours_are_changed_where_there_are_fewer_pixels(make_sample: MakeSample, target: Rect) -> None:
    seen = []

    def darken(image: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(image.shape))
        return image // 2

    sample = make_sample()
    placed = place(sample, Rect(0, 0, 48, 64), target, (96, 128), recolour=darken)
    assert seen == [(3, min(48, target.height), min(64, target.width))]
    plainly = place(sample, Rect(0, 0, 48, 64), target, (96, 128))
    assert float((plain(placed.image) - plain(plainly.image).float() / 2).abs().max()) <= 1.5


def test_maps_are_filled_with_ignored(make_sample: MakeSample) -> None:
    sample = make_sample()
    placed = place(sample, Rect(0, 0, 48, 64), Rect(0, 0, 24, 32), (48, 64))
    assert bool((placed.semantic[24:] == 255).all())
    assert bool((placed.semantic[:24, :32] != 255).all())
    assert placed.semantic.dtype == torch.int64
    assert not bool(placed.instances.masks[:, 24:].any())


@given(
    seed=st.integers(0, 10_000),
    rows=st.tuples(st.integers(0, 47), st.integers(1, 48)),
    columns=st.tuples(st.integers(0, 63), st.integers(1, 64)),
    grow=st.sampled_from([0.5, 1.0, 1.7]),
)
def test_boxes_fit_masks_after_any_window(
    make_sample: MakeSample, seed: int, rows: tuple[int, int], columns: tuple[int, int], grow: float
) -> None:
    sample = make_sample(seed=seed % 7)
    bottom, right = min(48, rows[0] + rows[1]), min(64, columns[0] + columns[1])
    source = Rect(rows[0], columns[0], bottom, right)
    size = (max(1, round(source.height * grow)), max(1, round(source.width * grow)))
    placed = place(sample, source, Rect(0, 0, *size), size).instances
    boxes = plain(placed.boxes)
    tight = mask_boxes(plain(placed.masks))
    # A mask is cut to whole pixels, its box is not.
    assert bool(((boxes - tight).abs() <= 1.0 + 1e-4).all())
    assert bool((boxes[:, 2:] > boxes[:, :2]).all())
    limit = torch.tensor((size[1], size[0], size[1], size[0]))
    assert bool((boxes >= 0).all())
    assert bool((boxes <= limit + 1e-4).all())
    assert set(placed.ring_object.tolist()) <= set(range(len(placed)))


def test_contours_follow_masks_when_enlarged(make_sample: MakeSample) -> None:
    sample = make_sample()
    placed = place(sample, Rect(0, 0, 48, 64), Rect(0, 0, 96, 128), (96, 128)).instances
    for number in range(len(placed)):
        rings = [plain(ring).double().numpy() for ring in placed.contours[placed.ring_object == number]]
        assert np.array_equal(polygons_to_mask(rings, (96, 128)), placed.masks[number].numpy())


def test_little_that_is_left_is_dropped_with_all_that_belongs_to_it(make_sample: MakeSample) -> None:
    share = MIN_VISIBLE
    window, canvas = Rect(0, 0, 100, 100), (100, 100)
    kept = (100 - 40 * share - 0.1, 0.0, 140 - 40 * share - 0.1, 20.0)
    gone = (100 - 40 * share + 0.1, 0.0, 140 - 40 * share + 0.1, 20.0)
    thin = (0.0, 98.1, 50.0, 101.0)
    result = drop_hidden(boxes_only(kept, gone, thin), window, canvas)
    assert result.labels.tolist() == [0]
    assert plain(result.boxes)[0].tolist() == pytest.approx([kept[0], 0.0, 100.0, 20.0])
    sample = make_sample(n=5)
    placed = place(sample, Rect(0, 0, 24, 32), Rect(0, 0, 24, 32), (24, 32)).instances
    assert 0 < len(placed) < 5
    assert len(placed.masks) == len(placed.boxes) == len(placed)
    assert sorted(set(placed.ring_object.tolist())) == list(range(len(placed)))


def test_objects_without_pixels_in_view_are_dropped() -> None:
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    instances = boxes_only((0, 0, 10, 10), size=(10, 10))
    instances.masks = mask
    assert len(drop_hidden(instances, Rect(0, 0, 10, 10), (10, 10))) == 0


@given(st.integers(0, 2**16 - 1))
def test_mask_boxes_are_those_of_one_mask_after_the_other(bits: int) -> None:
    mask = np.array([bool(bits >> i & 1) for i in range(16)]).reshape(4, 4)
    masks = torch.from_numpy(np.stack((mask, mask.T)))
    expected = [mask_to_box(m.numpy()) or (0.0, 0.0, 0.0, 0.0) for m in masks]
    assert mask_boxes(masks).tolist() == [list(map(float, box)) for box in expected]


def test_mean_colour() -> None:
    image = torch.zeros(2, 16, 16, dtype=torch.uint8)
    image[1] = 201
    assert mean_colour(image).tolist() == [0, 201]
    assert mean_colour(torch.full((1, 3, 3), 60000, dtype=torch.int32).to(torch.uint16)).tolist() == [60000]
