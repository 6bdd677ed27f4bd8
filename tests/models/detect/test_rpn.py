"""Proposals: torchvision's head, cells and selection; suppression whatever the class; the loss by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image

from clearsight.assign import SimOta
from clearsight.assign.assignment import Points
from clearsight.errors import ConfigError
from clearsight.models.detect.rpn import Rpn, RpnHead, RpnLoss, RpnOutputs, anchors_of_cell, propose
from clearsight.types import Targets


def points_at(boxes: Tensor, counts: tuple[int, ...]) -> Points:
    level = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Points((boxes[:, :2] + boxes[:, 2:]) / 2, torch.full((len(boxes),), 8.0), level, boxes)


def outputs_of(boxes: Tensor, logits: Tensor, counts: tuple[int, ...]) -> RpnOutputs:
    return RpnOutputs(logits, torch.zeros((*logits.shape, 4)), points_at(boxes, counts), counts)


def objects(boxes: list[list[float]], image: list[int]) -> Targets:
    return Targets(
        boxes=torch.tensor(boxes).view(-1, 4), labels=torch.zeros(len(image)).long(), image=torch.tensor(image).long()
    )


@pytest.mark.parametrize("convs", [1, 2])
def test_head_is_torchvisions(convs: int) -> None:
    theirs, ours = RPNHead(16, 3, conv_depth=convs), RpnHead(16, 3, convs=convs)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    levels = [torch.randn(2, 16, 6, 9), torch.randn(2, 16, 3, 5)]
    logits, deltas = ours(levels)
    expected = theirs(levels)
    flat = [[x.view(2, 3, -1, *x.shape[2:]).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in part] for part in expected]
    torch.testing.assert_close(logits[..., None], torch.cat(flat[0], dim=1))
    torch.testing.assert_close(deltas, torch.cat(flat[1], dim=1))


@pytest.mark.parametrize("size", [12.0, 32.0, 100.0])
def test_cells_are_torchvisions(size: float) -> None:
    theirs = AnchorGenerator(((size,),), ((0.5, 1.0, 2.0),)).cell_anchors[0]
    torch.testing.assert_close(anchors_of_cell(size), theirs, rtol=0, atol=0)


def by_loop(outputs: RpnOutputs, size: tuple[int, int], *, count: int, nms_iou: float) -> list[tuple[Tensor, Tensor]]:
    """The same image by image, as the paper and torchvision have it; the deltas are zero."""
    found = []
    for logits in outputs.logits:
        index, level, start = [], [], 0
        for number, part in enumerate(logits.split(outputs.counts)):
            best = part.argsort(descending=True)[:count]
            index.append(best + start)
            level.append(torch.full_like(best, number))
            start += len(part)
        at, group = torch.cat(index), torch.cat(level)
        boxes, scores = clip_boxes_to_image(outputs.points.boxes[at], size), logits[at].sigmoid()
        large = ((boxes[:, 2:] - boxes[:, :2]) >= 1e-3).all(dim=1)
        boxes, scores, group = boxes[large], scores[large], group[large]
        kept = batched_nms(boxes, scores, group, nms_iou)[:count]
        found.append((boxes[kept], scores[kept]))
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.integers(0, 3),
    st.lists(st.integers(1, 30), min_size=1, max_size=3),
    st.integers(1, 40),
)
def test_a_batch_equals_a_loop(seed: int, images: int, counts: list[int], count: int) -> None:
    torch.manual_seed(seed)
    corner = torch.rand(sum(counts), 2) * 80 - 10
    boxes = torch.cat((corner, corner + torch.rand(sum(counts), 2) * 40), dim=1)
    outputs = outputs_of(boxes, torch.randn(images, sum(counts)), tuple(counts))
    found = propose(outputs, (50, 60), count=count, nms_iou=0.4)
    assert found.scores.shape == (images, min(count, sum(min(c, count) for c in counts)))
    for boxes, scores, (other, theirs) in zip(
        *found, by_loop(outputs, (50, 60), count=count, nms_iou=0.4), strict=True
    ):
        assert int((scores > 0).sum()) == len(theirs)
        torch.testing.assert_close(scores[: len(theirs)], theirs)
        torch.testing.assert_close(boxes[: len(theirs)], other)


def test_suppression_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 10]])
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0], [1.0, 2.0, 0.5, 0.0]])
    found = propose(outputs_of(boxes, logits, (3, 1)), (40, 40), count=4, nms_iou=0.7)
    for number, order in enumerate(([0, 2, 3], [1, 2, 3])):  # 3 lies on another level than what it overlaps
        torch.testing.assert_close(found.boxes[number, :3], boxes[order])
        torch.testing.assert_close(found.scores[number, :3], logits[number, order].sigmoid())
    assert found.scores[:, 3].tolist() == [0, 0]


def test_boxes_are_clipped_to_each_image() -> None:
    boxes = torch.tensor([[0.0, 0, 100, 100], [45, 45, 60, 60]])
    found = propose(
        outputs_of(boxes, torch.zeros(2, 2), (2,)), torch.tensor([[40, 30], [80, 90]]), count=2, nms_iou=1.0
    )
    assert found.boxes[0, 0].tolist() == [0, 0, 30, 40]
    assert (found.scores > 0).tolist() == [[True, False], [True, True]]
    assert found.boxes[1, :, 2].max() == 90


def test_what_is_no_number_is_no_proposal() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    outputs = outputs_of(boxes, torch.zeros(1, 2), (2,))
    outputs.deltas[0, 0] = torch.nan
    found = propose(outputs, (40, 40), count=2, nms_iou=0.7)
    assert (found.scores > 0).tolist() == [[True, False]]
    assert found.boxes[0, 0].tolist() == [20, 20, 30, 30]


def test_loss_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60], [70, 70, 80, 80]])
    logits = torch.tensor([[1.0, 2.0, -1.0, 0.5]], requires_grad=True)
    deltas = torch.full((1, 4, 4), 0.05)
    outputs = RpnOutputs(logits, deltas, points_at(boxes, (4,)), (4,))
    # anchor 0 overlaps by 1, 1 by a half (ignored), 2 and 3 by nothing
    terms = RpnLoss(samples=8)(outputs, objects([[0.0, 0, 10, 10]], [0]))
    assert list(terms) == ["rpn_class", "rpn_box"]
    expected = math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-1.0)) + math.log1p(math.exp(0.5))
    assert terms["rpn_class"].item() == pytest.approx(expected / 3, rel=1e-5)
    assert terms["rpn_box"].item() == pytest.approx(4 * 0.5 * 0.05**2 * 9 / 3, rel=1e-5)  # below the bend at 1/9
    terms["rpn_class"].backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0


def test_one_of_each_is_drawn() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9.9], [50, 50, 60, 60], [70, 70, 80, 80]])
    logits = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    outputs = outputs_of(boxes, logits, (4,))
    terms = RpnLoss(samples=2)(outputs, objects([[0.0, 0, 10, 10]], [0]))
    assert terms["rpn_class"].item() == pytest.approx(math.log1p(math.exp(-1.0)), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "rpn: the sample"),
        ({"share": -0.1}, "rpn: the sample"),
        ({"assigner": SimOta()}, "must not look at predictions"),
    ],
)
def test_losses_that_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RpnLoss(**options)  # pyright: ignore[reportArgumentType]


def test_networks_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected one a level, so 2"):
        Rpn(8, (4, 8), anchor_sizes=(32.0,))
    for iou in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="nms_iou must be in"):
            Rpn(8, (4,), anchor_sizes=(32.0,), nms_iou=iou)
    for counts in ({"proposals": 0}, {"train_proposals": 0}):
        with pytest.raises(ConfigError, match="there must be a proposal at least"):
            Rpn(8, (4,), anchor_sizes=(32.0,), **counts)


def test_more_proposals_to_learn_from() -> None:
    rpn = Rpn(8, (4,), anchor_sizes=(4.0,), proposals=3, train_proposals=5)
    outputs = rpn([torch.randn(1, 8, 4, 4)], (16, 16))
    assert outputs.counts == (48,)
    assert [rpn.propose(outputs, (16, 16), learning=learning).scores.shape[1] for learning in (False, True)] == [3, 5]
