"""Regions: against loops over pixels, against torchvision, and on a ramp whose values are places."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision import ops

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.roi import RoIAlign, fpn_level, roi_align, roi_pool

STRIDES = (4, 8, 16, 32)
LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last}  # channels last: the table is used
# inside, over each edge, wholly outside, less than a pixel of the map, without area, the whole image
BOXES = torch.tensor(
    [
        [3.0, 5, 30, 22],
        [-9.5, -7, 12, 9],
        [25, 20, 52, 47],
        [60, 60, 70, 75],
        [9.2, 9.1, 10.4, 9.9],
        [7, 8, 7, 8],
        [0, 0, 40, 36],
    ],
    dtype=torch.float64,
)
IMAGE = torch.tensor([0, 1, 1, 0, 1, 0, 0])


def bilinear(plane: np.ndarray, y: float, x: float) -> np.ndarray:
    """One sample of `(c, h, w)`, 0 further than a pixel outside."""
    height, width = plane.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(plane))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    below, across = y - top, x - left
    upper = plane[:, top, left] * (1 - across) + plane[:, top, right] * across
    lower = plane[:, bottom, left] * (1 - across) + plane[:, bottom, right] * across
    return upper * (1 - below) + lower * below


def align_by_loops(
    features: Tensor, size: tuple[int, int], *, stride: float, samples: int, aligned: bool, reduce: str = "average"
) -> Tensor:
    out = np.zeros((len(BOXES), features.shape[1], *size))
    for k, (box, image) in enumerate(zip(BOXES.numpy() / stride, IMAGE.tolist(), strict=True)):
        left, top, right, bottom = box - (0.5 if aligned else 0)
        least = 0 if aligned else 1
        bins = max(bottom - top, least) / size[0], max(right - left, least) / size[1]
        counts = [samples or math.ceil(side) for side in bins]
        for i, j in np.ndindex(*size):
            seen = [
                bilinear(
                    features[image].numpy(),
                    top + (i + (a + 0.5) / counts[0]) * bins[0],
                    left + (j + (b + 0.5) / counts[1]) * bins[1],
                )
                for a, b in np.ndindex(*counts)
            ]
            if seen:
                out[k, :, i, j] = np.mean(seen, axis=0) if reduce == "average" else np.max(seen, axis=0)
    return torch.from_numpy(out)


def pool_by_loops(features: Tensor, boxes: Tensor, size: tuple[int, int], *, stride: float) -> Tensor:
    out = np.zeros((len(boxes), features.shape[1], *size))
    height, width = features.shape[2:]
    for k, (box, image) in enumerate(zip(boxes.numpy() / stride, IMAGE.tolist(), strict=True)):
        left, top, right, bottom = np.floor(box + 0.5).astype(int)
        cells = max(bottom - top, 1), max(right - left, 1)
        for i, j in np.ndindex(*size):
            rows = range(top + i * cells[0] // size[0], top + -(-(i + 1) * cells[0] // size[0]))
            columns = range(left + j * cells[1] // size[1], left + -(-(j + 1) * cells[1] // size[1]))
            rows, columns = [y for y in rows if 0 <= y < height], [x for x in columns if 0 <= x < width]
            if rows and columns:
                out[k, :, i, j] = features[image].numpy()[:, rows][:, :, columns].max(axis=(1, 2))
    return torch.from_numpy(out)


def feature_map(layout: str = "first", *shape: int) -> Tensor:
    return torch.randn(shape or (2, 3, 9, 10), dtype=torch.float64).contiguous(memory_format=LAYOUTS[layout])


# ------------------------------------------------------------------------------------------------ one level
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("samples", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [True, False])
def test_align_is_the_loop(layout: str, samples: int, aligned: bool) -> None:
    features = feature_map(layout)
    for size, stride in (((3, 2), 4), ((5, 5), 5.3)):
        out = roi_align(features, BOXES, IMAGE, size, stride=stride, samples=samples, aligned=aligned)
        expected = align_by_loops(features, size, stride=stride, samples=samples, aligned=aligned)
        torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("samples", [1, 2])
def test_the_maximum_is_an_option_and_not_the_rule(layout: str, samples: int) -> None:
    features = feature_map(layout)
    out = roi_align(features, BOXES, IMAGE, (3, 2), stride=4, samples=samples, reduce="max")
    expected = align_by_loops(features, (3, 2), stride=4, samples=samples, aligned=True, reduce="max")
    torch.testing.assert_close(out, expected)
    averaged = roi_align(features, BOXES, IMAGE, (3, 2), stride=4)
    assert (averaged < roi_align(features, BOXES, IMAGE, (3, 2), stride=4, reduce="max")).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_aligned_reads_a_place_where_it_is(layout: str) -> None:
    """On a map whose pixels hold the places of their centres, the bins of a box must hold theirs."""
    stride, (height, width) = 4, (20, 24)
    down = (torch.arange(height, dtype=torch.float64) + 0.5) * stride
    across = (torch.arange(width, dtype=torch.float64) + 0.5) * stride
    ramp = torch.stack(torch.meshgrid(down, across, indexing="ij"))[None].contiguous(memory_format=LAYOUTS[layout])
    boxes, image = torch.tensor([[10.0, 13, 60, 47], [33, 33, 36, 35]], dtype=torch.float64), torch.tensor([0, 0])
    out = roi_align(ramp, boxes, image, 5, stride=stride)
    part = (torch.arange(5, dtype=torch.float64) + 0.5) / 5
    for k, (left, top, right, bottom) in enumerate(boxes):
        torch.testing.assert_close(out[k, 0], (top + part * (bottom - top))[:, None].expand(5, 5))
        torch.testing.assert_close(out[k, 1], (left + part * (right - left)).expand(5, 5))
    off = roi_align(ramp, boxes, image, 5, stride=stride, aligned=False)
    torch.testing.assert_close(off[0], out[0] + stride / 2)  # half a pixel of the map


def test_pool_is_the_loop() -> None:
    features = feature_map()
    for size, stride in (((3, 2), 4), ((7, 7), 5.3), ((1, 1), 8)):
        out = roi_pool(features, BOXES, IMAGE, size, stride=stride)
        torch.testing.assert_close(out, pool_by_loops(features, BOXES, size, stride=stride))


def test_a_half_open_box_covers_no_pixel_beyond_its_edge() -> None:
    features = torch.arange(16.0).view(1, 1, 4, 4)
    boxes, image = torch.tensor([[0.0, 0, 16, 16], [16, 16, 48, 48]]), torch.tensor([0, 0])
    assert roi_pool(features, boxes, image, 1, stride=16).flatten().tolist() == [0, 10]
    theirs = ops.roi_pool(features, [boxes], 1, 1 / 16)  # which counts the last pixel in
    assert theirs.flatten().tolist() == [5, 15]


def test_pool_is_torchvisions_but_for_the_last_pixel() -> None:
    features = torch.randn(2, 3, 12, 12, requires_grad=True)
    corner = torch.randint(0, 30, (50, 2)).float()
    boxes = torch.cat([corner, corner + torch.randint(4, 30, (50, 2))], dim=1)
    image = torch.arange(50) % 2
    out = roi_pool(features, boxes, image, (4, 3), stride=4)
    rois = torch.cat([image[:, None], boxes - torch.tensor([0, 0, 4, 4])], dim=1)
    expected = ops.roi_pool(features, rois, (4, 3), 1 / 4)
    torch.testing.assert_close(out, expected)
    sent = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, features, sent)[0], torch.autograd.grad(expected, features, sent)[0]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduce", ["average", "max"])
def test_gradients_by_finite_differences(layout: str, reduce: Any) -> None:
    features = feature_map(layout, 2, 2, 5, 4).requires_grad_()

    def run(features: Tensor) -> Tensor:
        features = features.contiguous(memory_format=LAYOUTS[layout])
        return roi_align(features, BOXES, IMAGE, (2, 3), stride=9.1, reduce=reduce)

    assert torch.autograd.gradcheck(run, features)
    assert torch.autograd.gradcheck(lambda x: roi_pool(x, BOXES, IMAGE, (2, 3), stride=9.1), features)


# ------------------------------------------------------------------------------------------------ a pyramid
def pyramid(layout: str, n: int, side: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    maps = [torch.randn(n, 3, side // stride, side // stride, dtype=dtype) for stride in STRIDES]
    return [x.contiguous(memory_format=LAYOUTS[layout]).requires_grad_() for x in maps]


def random_boxes(m: int, side: int) -> Tensor:
    corner = torch.rand(m, 2, dtype=torch.float64) * side * 0.8
    boxes = torch.cat([corner, (corner + (torch.rand(m, 2) * 5 + 1).exp()).clamp(max=side)], dim=1)
    boxes[0] = torch.tensor([0, 0, side, side])
    return boxes


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("m", [3, 400])
@pytest.mark.parametrize("samples", [0, 2])
def test_a_pyramid_is_read_as_torchvision_does(layout: str, m: int, samples: int) -> None:
    levels, boxes, image = pyramid(layout, 2, 512), random_boxes(m, 512), torch.arange(m) * 2 // m
    out = RoIAlign(3, STRIDES, samples=samples, aligned=False)(levels, boxes, image)
    peer = ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 3, samples)
    named = {str(i): x for i, x in enumerate(levels)}
    expected = peer(named, [boxes[image == i] for i in range(2)], [(512, 512)] * 2)
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=LAYOUTS[layout])
    sent = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad(x, levels, sent) for x in (out, expected))
    for mine, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, their)
    if m > 3:
        assert all(g.abs().sum() > 0 for g in ours)  # every level is read
    aligned = RoIAlign(3, STRIDES, samples=samples)(levels, boxes, image)
    assert not torch.allclose(aligned, out)


def test_levels_by_hand() -> None:
    sides = torch.tensor([0.0, 10, 111.9, 112, 223.9, 224, 447.9, 448, 5000])
    boxes = torch.cat([torch.zeros(9, 2), sides[:, None].expand(-1, 2)], dim=1)
    assert fpn_level(boxes, STRIDES).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert fpn_level(boxes, (8, 16)).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    long = torch.tensor([[0.0, 0, 56, 896], [0, 0, 896, 56]])  # of the area of 224 × 224
    assert fpn_level(long, STRIDES).tolist() == [2, 2]
    assert fpn_level(torch.tensor([[5.0, 5, 4, 4]]), STRIDES).tolist() == [0]
    assert fpn_level(boxes[1::2].half(), STRIDES).tolist() == [0, 1, 2, 3]  # whose areas half cannot hold
    assert fpn_level(boxes.long(), STRIDES).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert fpn_level(boxes, STRIDES, canonical_size=112, canonical_level=3).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_levels_are_torchvisions_at_every_side() -> None:
    sides = torch.arange(1.0, 1200)
    boxes = torch.cat([torch.full((len(sides), 2), 3.0), 3 + sides[:, None].expand(-1, 2)], dim=1)
    assert torch.equal(fpn_level(boxes, STRIDES), ops.poolers.LevelMapper(2, 5)([boxes]))
    corner = (torch.arange(500) * 4.1)[:, None].expand(-1, 2)
    boxes = torch.cat([corner, corner + 224], dim=1)  # of which rounding makes some a little smaller
    assert (boxes[:, 2] - boxes[:, 0]).min() < 224
    assert (fpn_level(boxes, STRIDES) == 2).all()


# ------------------------------------------------------------------------------------------------ what all must stand
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [0, 2])
def test_no_boxes_no_regions_and_a_gradient_of_zero(layout: str, n: int) -> None:
    levels, boxes, image = pyramid(layout, n, 64), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    readers = [
        lambda: RoIAlign((2, 3), STRIDES)(levels, boxes, image),
        lambda: RoIAlign((2, 3), STRIDES, reduce="max")(levels, boxes, image),
        lambda: roi_align(levels[0], boxes, image, (2, 3), stride=4),
        lambda: roi_align(levels[0], boxes, image, (2, 3), stride=4, samples=0),
        lambda: roi_pool(levels[0], boxes, image, (2, 3), stride=4),
    ]
    for read in readers:
        out = read()
        assert out.shape == (0, 3, 2, 3)
        gradient = torch.autograd.grad(out.sum(), levels[0])[0]
        assert gradient.shape == levels[0].shape
        assert not gradient.any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_features_but_no_places(layout: str, dtype: torch.dtype) -> None:
    """A coordinate of 1501.5 would be 1504 in bfloat16."""
    features = torch.randn(1, 4, 100, 100).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    boxes, image = torch.tensor([[1501.5, 1401.5, 1550.5, 1423.5]]), torch.tensor([0])
    for read in (roi_align, roi_pool):
        out = read(features, boxes, image, 3, stride=16)
        assert out.dtype == dtype
        torch.testing.assert_close(out, read(features.float(), boxes, image, 3, stride=16).to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert RoIAlign(3, (16,))([features], boxes, image).dtype == dtype


def test_boxes_get_no_gradient_and_nan_boxes_no_crash() -> None:
    features = feature_map("last").requires_grad_()
    boxes = BOXES.clone().requires_grad_()
    roi_align(features, boxes, IMAGE, 3, stride=4).sum().backward()
    assert boxes.grad is None
    out = roi_align(features, torch.full((1, 4), math.nan, dtype=torch.float64), IMAGE[:1], 2, stride=4)
    assert out.isnan().all()


class Readers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.average, self.maximum = RoIAlign(3, STRIDES), RoIAlign(2, STRIDES, reduce="max")

    def forward(self, levels: list[Tensor], boxes: Tensor, image: Tensor) -> list[Tensor]:
        return [
            self.average(levels, boxes, image),
            self.maximum(levels, boxes, image),
            roi_align(levels[0], boxes, image, (2, 3), stride=4, samples=0),
            roi_pool(levels[0], boxes, image, (2, 3), stride=4),
        ]


class OneLevel(nn.Module):
    def forward(self, features: Tensor, boxes: Tensor, image: Tensor) -> list[Tensor]:
        return [read(features, boxes, image, (2, 3), stride=9.1) for read in (roi_align, roi_pool)]


def test_exported_in_plain_operations() -> None:
    """Which are other ones than those that run here."""
    inputs = feature_map(), BOXES, IMAGE
    exported = torch.export.export(OneLevel(), inputs).module()
    for found, expected in zip(exported(*inputs), OneLevel()(*inputs), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_compiled_and_exported_for_any_size() -> None:
    layer = Readers().eval()
    inputs = pyramid("first", 2, 128, torch.float32), BOXES.float() * 2, IMAGE
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for found, expected in zip(compiled(*inputs), layer(*inputs), strict=True):
        torch.testing.assert_close(found, expected)
    any_size = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    shapes = ([any_size] * 4, {0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC})
    program = torch.onnx.export(layer, inputs, dynamo=True, verbose=False, dynamic_shapes=shapes)
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    levels, boxes, image = pyramid("first", 3, 192, torch.float32), random_boxes(40, 192).float(), torch.arange(40) % 3
    fed = [*(x.detach() for x in levels), boxes, image]
    found = session.run(None, {spot.name: x.numpy() for spot, x in zip(session.get_inputs(), fed, strict=True)})
    for out, expected in zip(found, layer(levels, boxes, image), strict=True):
        torch.testing.assert_close(torch.from_numpy(out), expected.detach(), rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    features, boxes, image = torch.zeros(2, 3, 8, 8), torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64)
    for read in (roi_align, roi_pool):
        for wrong in (boxes[:, :3], boxes[0], boxes[:3]):
            with pytest.raises(ShapeError, match=r"expected boxes \(m, 4\) and image \(m,\), got"):
                read(features, wrong, image, 3, stride=4)
        with pytest.raises(ShapeError, match=r"roi: features: expected \(n, c, h, w\), got \(3, 8, 8\)"):
            read(features[0], boxes, image, 3, stride=4)
        for index in (2, -1):
            with pytest.raises(RangeError, match=f"image: indices must be from 0 to 1, got {min(index, 0)} to"):
                read(features, boxes, torch.tensor([0, 0, index, 0]), 3, stride=4)
        with pytest.raises(ConfigError, match="stride: must be above 0, got 0"):
            read(features, boxes, image, 3, stride=0)
        with pytest.raises(ConfigError, match="size: must be at least 1, got 0"):
            read(features, boxes, image, (3, 0), stride=4)
    with pytest.raises(ConfigError, match="reduce: expected 'average' or 'max', got 'mean'"):
        roi_align(features, boxes, image, 3, stride=4, reduce="mean")
    for options in ({"samples": -1}, {"samples": 0, "reduce": "max"}):
        with pytest.raises(ConfigError, match="samples: must be at least 1"):
            roi_align(features, boxes, image, 3, stride=4, **options)
    for strides in ((4, 8, 32), (3, 6), (), (8, 4), (0, 0)):
        with pytest.raises(ConfigError, match="strides: expected powers of two that double"):
            RoIAlign(3, strides)
    with pytest.raises(ShapeError, match=r"fpn_level: boxes: expected \(m, 4\), got \(4,\)"):
        fpn_level(boxes[0], (4, 8))
    with pytest.raises(ShapeError, match="expected 2 levels, one a stride, got 1"):
        RoIAlign(3, (4, 8))([features], boxes, image)
    assert "strides=(4, 8), samples=2, aligned=True" in str(RoIAlign(3, (4, 8)))
