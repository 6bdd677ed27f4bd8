"""Non-maximum suppression by groups: exactly torchvision's, however many groups."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.ops.nms import batched_nms


def scene(count: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    corner = torch.rand(count, 2) * 900
    boxes = torch.cat((corner, corner + torch.rand(count, 2) * 200 + 1), dim=1)
    return boxes, torch.rand(count), torch.randint(groups, (count,))


def group_by_group(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    kept = []
    for group in groups.unique():
        index = (groups == group).nonzero().squeeze(1)
        kept.append(index[torchvision.ops.nms(boxes[index], scores[index], iou)])
    index = torch.cat(kept)
    return index[scores[index].argsort(descending=True)]


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (50, 1), (400, 3), (3000, 20), (2000, 1280)])
@pytest.mark.parametrize("iou", [0.0, 0.3, 0.5, 1.0])
def test_exactly_torchvision(count: int, groups: int, iou: float) -> None:
    boxes, scores, group = scene(count, groups)
    kept = batched_nms(boxes, scores, group, iou=iou)
    assert kept.tolist() == group_by_group(boxes, scores, group, iou).tolist()
    assert kept.tolist() == torchvision.ops.boxes._batched_nms_vanilla(boxes, scores, group, iou).tolist()


def test_many_groups_do_not_cost_precision() -> None:
    """At group 100,000 a float32 corner is rounded to whole pixels: this overlap would be 0.6, not 0.605."""
    pair = torch.tensor([[0.0, 0.4, 100.0, 80.4], [0.0, 20.1, 100.0, 100.1]])
    groups = torch.tensor([100_000, 100_000])
    assert batched_nms(pair, torch.tensor([0.9, 0.8]), groups, iou=0.607).tolist() == [0, 1]
    assert batched_nms(pair, torch.tensor([0.9, 0.8]), groups, iou=0.603).tolist() == [0]


@pytest.mark.parametrize("count", [100, 1000])  # one call, and several
def test_equal_scores_keep_their_order(count: int) -> None:
    boxes, _, group = scene(count, 30)
    scores = torch.randint(4, (count,)).float()
    kept = batched_nms(boxes, scores, group, iou=0.5)
    for value in range(4):
        same = kept[scores[kept] == value].tolist()
        assert same == sorted(same)
    assert kept.tolist() == sorted(kept.tolist(), key=lambda i: -scores[i].item())
    alone = torch.cat(
        [one.nonzero().squeeze(1)[kept_of(boxes, scores, one)] for one in (group == g for g in range(30))]
    )
    assert sorted(kept.tolist()) == sorted(alone.tolist())


def kept_of(boxes: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    return torchvision.ops.nms(boxes[mask], scores[mask], 0.5)


def test_negative_corners_stay_apart() -> None:
    boxes = torch.tensor([[-90.0, -90.0, 10.0, 10.0], [-90.0, -90.0, 10.0, 10.0]])
    assert batched_nms(boxes, torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), iou=0.0).tolist() == [1, 0]


def test_nothing_in_nothing_out() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert batched_nms(torch.zeros(0, 4), torch.zeros(0), nothing, iou=0.5).shape == (0,)


def test_errors() -> None:
    boxes, scores, groups = scene(3, 1)
    with pytest.raises(ShapeError, match=r"expected boxes \(n, 4\), scores \(n,\), groups \(n,\)"):
        batched_nms(boxes, scores[:2], groups, iou=0.5)
    for iou in (-0.1, 1.1):
        with pytest.raises(RangeError, match=r"must be in \[0, 1\]"):
            batched_nms(boxes, scores, groups, iou=iou)
