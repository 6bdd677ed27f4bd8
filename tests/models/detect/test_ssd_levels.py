"""Maps of every image size, and default boxes that are torchvision's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from clearsight.errors import ConfigError
from clearsight.models.detect.ssd_levels import RATIOS, SCALES, AtrousLevels, DefaultBoxes, ExtraLevels, default_shapes

PUBLISHED = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]


def features(size: tuple[int, int], channels: int = 8) -> dict[str, torch.Tensor]:
    strides = {"c3": 8, "c4": 16, "c5": 32}
    return {level: torch.randn(1, channels, -(-size[0] // s), -(-size[1] // s)) for level, s in strides.items()}


@pytest.mark.parametrize("size", [(300, 300), (301, 299), (64, 64), (32, 47), (512, 384)])
def test_default_boxes_stand_on_the_maps(size: tuple[int, int]) -> None:
    for neck in (
        AtrousLevels({"c3": 8, "c4": 8}),
        ExtraLevels({"c3": 8, "c4": 8, "c5": 8}, strides={"c3": 8, "c4": 16, "c5": 32}),
    ):
        with torch.no_grad():
            maps = neck(features(size))
        assert tuple(x.shape[1] for x in maps) == neck.channels
        points = DefaultBoxes(neck.strides, unpadded=neck.unpadded)(size, torch.device("cpu"))
        counts = torch.bincount(points.level).tolist()
        assert counts == [x.shape[2] * x.shape[3] * (2 + 2 * len(r)) for x, r in zip(maps, PUBLISHED, strict=True)]
        last = points.xy[points.level == 5]
        assert last.amin() >= 0
        assert (last.amax(dim=0) <= torch.tensor([size[1], size[0]]) + neck.strides[5]).all()


def test_default_boxes_are_torchvisions() -> None:
    theirs = DefaultBoxGenerator(PUBLISHED, scales=list(SCALES), steps=[8, 16, 32, 64, 100, 300])
    maps = [torch.zeros(1, 1, side, side) for side in (38, 19, 10, 5, 3, 1)]
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    ours = DefaultBoxes(AtrousLevels.strides, unpadded=2)((300, 300), torch.device("cpu"))
    assert len(ours.boxes) == 8732
    torch.testing.assert_close(ours.boxes, theirs(images, maps)[0], rtol=0, atol=2e-4)
    centre = (ours.boxes[:, :2] + ours.boxes[:, 2:]) / 2
    torch.testing.assert_close(centre, ours.xy, rtol=0, atol=1e-3)


def test_default_boxes_of_oblong_images_are_torchvisions() -> None:
    theirs = DefaultBoxGenerator(PUBLISHED, scales=list(SCALES), steps=[8, 16, 32, 64, 128, 256])
    maps = [torch.zeros(1, 1, 256 // s, 512 // s) for s in (8, 16, 32, 64, 128, 256)]
    images = ImageList(torch.zeros(1, 3, 256, 512), [(256, 512)])
    ours = DefaultBoxes((8, 16, 32, 64, 128, 256))((256, 512), torch.device("cpu"))
    torch.testing.assert_close(ours.boxes, theirs(images, maps)[0], rtol=0, atol=2e-4)


def test_shapes_by_hand() -> None:
    (first,) = default_shapes((0.25, 1.0), [[4.0]])
    torch.testing.assert_close(first, torch.tensor([[0.25, 0.25], [0.5, 0.5], [0.5, 0.125], [0.125, 0.5]]))
    (wide,) = default_shapes((0.9, 1.6), [[2.0]])
    assert wide[1].tolist() == [1.0, 1.0]  # sqrt(0.9 · 1.6) = 1.2 is more than the image
    assert [len(shapes) for shapes in default_shapes(SCALES, RATIOS)] == [4, 6, 6, 6, 4, 4]


def test_the_grid_remembers() -> None:
    grid, cpu = DefaultBoxes(AtrousLevels.strides, unpadded=2, remember=1), torch.device("cpu")
    first = grid((64, 64), cpu)
    assert grid((64, 64), cpu) is first
    grid((96, 64), cpu)
    assert grid((64, 64), cpu) is not first


def test_the_first_map_is_scaled_to_a_learned_length() -> None:
    neck = AtrousLevels({"c3": 8, "c4": 8})
    given = features((64, 64))
    scaled = neck(given)[0]
    torch.testing.assert_close(scaled.norm(dim=1), torch.full((1, 8, 8), 20.0))
    neck.scale.data = torch.arange(8.0)
    torch.testing.assert_close(neck(given)[0][:, 3], 3 * F.normalize(given["c3"], dim=1)[:, 3])
    zeros = {level: torch.zeros_like(x) for level, x in given.items()}
    assert torch.isfinite(neck(zeros)[0]).all()


def test_bad_scales() -> None:
    with pytest.raises(ConfigError, match="anchor_scales: expected 7 scales and 6 groups of ratios for 6 maps, got 6"):
        DefaultBoxes(AtrousLevels.strides, scales=SCALES[:6])
    with pytest.raises(ConfigError, match="anchor_scales: must be above 0, got 0"):
        DefaultBoxes((8,), scales=(0.0, 1.0), ratios=[[2.0]])
