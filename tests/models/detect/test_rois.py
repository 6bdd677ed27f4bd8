"""What regions hold, against a loop over images; samples; ignored objects."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from clearsight.errors import ConfigError
from clearsight.models.detect.rois import RoiSampler, match_boxes
from clearsight.models.detect.rpn import Proposals
from clearsight.types import Targets


def some_boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2) * 60
    return torch.cat((corner, corner + 2 + torch.rand(count, 2) * 40), dim=1)


def objects(boxes: Tensor, image: Tensor, ignore: Tensor | None = None) -> Targets:
    return Targets(boxes=boxes, labels=torch.arange(len(boxes)) % 3, image=image, ignore=ignore)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 4), st.integers(0, 12), st.integers(0, 30))
def test_matches_are_torchvisions(seed: int, images: int, count: int, regions: int) -> None:
    torch.manual_seed(seed)
    image = torch.randint(0, images, (count,)).sort().values
    targets = objects(some_boxes(count), image)
    boxes, where = some_boxes(regions), torch.randint(0, images, (regions,))
    found = match_boxes(boxes, where, targets, images=images, iou=0.5)
    for row in range(regions):
        mine = (image == where[row]).nonzero().flatten()
        expected = -1
        if len(mine):
            match = int(Matcher(0.5, 0.5)(box_iou(targets.boxes[mine], boxes[row : row + 1])))
            expected = int(mine[match]) if match >= 0 else -1
        assert found.object[row] == expected
        assert found.background[row] == (expected < 0)


def test_the_order_of_objects_does_not_matter() -> None:
    image = torch.tensor([0] * 8 + [1] * 8)
    targets, regions = objects(some_boxes(16), image), some_boxes(200)
    where = torch.randint(0, 2, (200,))
    order = torch.cat((torch.randperm(8), 8 + torch.randperm(8)))
    found = match_boxes(regions, where, targets, images=2, iou=0.3).object
    other = match_boxes(regions, where, objects(targets.boxes[order], image), images=2, iou=0.3).object
    assert (found >= 0).sum() > 10
    assert torch.where(other >= 0, order[other], -1).tolist() == found.tolist()


def test_ignored_objects_are_neither() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 60, 60], [0, 0, 5, 5]])
    targets = objects(boxes, torch.tensor([0, 0, 1]), torch.tensor([False, True, True]))
    regions = torch.tensor([[0.0, 0, 10, 9], [20, 20, 60, 60], [30, 30, 34, 34], [70, 70, 80, 80], [1, 1, 4, 4]])
    found = match_boxes(regions, torch.tensor([0, 0, 0, 0, 1]), targets, images=2, iou=0.5)
    assert found.object.tolist() == [0, -1, -1, -1, -1]
    assert found.background.tolist() == [False, False, False, True, False]


def test_all_ignored() -> None:
    targets = objects(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0]), torch.tensor([True]))
    found = match_boxes(some_boxes(3) + 50, torch.zeros(3).long(), targets, images=1, iou=0.5)
    assert found.object.tolist() == [-1, -1, -1]
    assert found.background.all()


def test_identical_objects_go_to_the_first_and_empty_ones_to_none() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 9]])
    targets = objects(boxes, torch.zeros(3).long())
    found = match_boxes(boxes, torch.zeros(3).long(), targets, images=1, iou=0.5)
    assert found.object.tolist() == [0, 0, -1]


def test_samples_come_image_by_image_with_their_objects() -> None:
    targets = objects(some_boxes(5), torch.tensor([0, 0, 2, 2, 2]))
    boxes = some_boxes(3 * 20).view(3, 20, 4)
    scores = torch.rand(3, 20)
    scores[:, 15:] = 0
    rois = RoiSampler(samples=12)(Proposals(boxes, scores), targets)
    assert torch.bincount(rois.image, minlength=3).tolist() == [12, 12, 12]
    assert rois.image.tolist() == sorted(rois.image.tolist())
    held = rois.object >= 0
    assert torch.bincount(rois.image[held], minlength=3)[1] == 0
    assert torch.bincount(rois.image[held], minlength=3).max() <= 3
    assert (targets.image[rois.object[held]] == rois.image[held]).all()
    padding = boxes[:, 15:].flatten(0, 1)
    assert not (rois.boxes[:, None] == padding).all(dim=-1).any()
    expected = match_boxes(rois.boxes, rois.image, targets, images=3, iou=0.5).object
    assert rois.object.tolist() == expected.tolist()


def test_without_proposals_the_objects_themselves_are_drawn() -> None:
    targets = objects(some_boxes(3), torch.tensor([0, 1, 1]))
    rois = RoiSampler(samples=8, share=1.0)(Proposals(torch.zeros(2, 4, 4), torch.zeros(2, 4)), targets)
    torch.testing.assert_close(rois.boxes, targets.boxes)
    assert rois.object.tolist() == [0, 1, 2]


@pytest.mark.parametrize("images", [0, 2])
def test_nothing(images: int) -> None:
    none = objects(torch.zeros(0, 4), torch.zeros(0).long())
    rois = RoiSampler()(Proposals(torch.zeros(images, 0, 4), torch.zeros(images, 0)), none)
    assert rois.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive": 0.0}, r"positive must be in \(0, 1\]"),
        ({"positive": 1.1}, r"positive must be in \(0, 1\]"),
        ({"samples": 0}, "regions: the sample"),
        ({"share": 1.5}, "regions: the sample"),
    ],
)
def test_samplers_that_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RoiSampler(**options)  # pyright: ignore[reportArgumentType]
