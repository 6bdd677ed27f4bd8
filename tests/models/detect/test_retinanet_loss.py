"""The two terms by hand, and their normalisers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clearsight.assign.assignment import Points
from clearsight.assign.simota import SimOta
from clearsight.errors import RangeError
from clearsight.losses.focal import sigmoid_focal_loss
from clearsight.models.detect.dense import make_points
from clearsight.models.detect.retinanet_loss import RetinaNetLoss
from clearsight.ops.box_codes import encode_deltas
from clearsight.types import Targets


@pytest.fixture
def grid() -> Points:
    return make_points([(2, 2)], (8,), anchors=[torch.tensor([[-4.0, -4.0, 4.0, 4.0]])])


def one_object() -> Targets:
    return Targets(boxes=torch.tensor([[0.0, 0.0, 8.0, 7.0]]), labels=torch.tensor([1]), image=torch.tensor([0]))


def test_by_hand(grid: Points) -> None:
    logits, deltas = torch.randn(2, 4, 3), torch.randn(2, 4, 4)
    found = RetinaNetLoss()(logits, deltas, grid, one_object())
    wanted = torch.zeros(2, 4, 3)
    wanted[0, 0, 1] = 1  # the first anchor is (0, 0, 8, 8): overlap 7/8; the others do not touch the object
    torch.testing.assert_close(found["class"], sigmoid_focal_loss(logits, wanted))
    code = encode_deltas(torch.tensor([0.0, 0.0, 8.0, 7.0]), torch.tensor([0.0, 0.0, 8.0, 8.0]))
    torch.testing.assert_close(found["box"], (deltas[0, 0] - code).abs().sum())


def test_where_smooth_l1_bends(grid: Points) -> None:
    code = encode_deltas(torch.tensor([0.0, 0.0, 8.0, 7.0]), torch.tensor([0.0, 0.0, 8.0, 8.0]))
    deltas = torch.zeros(1, 4, 4)
    deltas[0, 0] = code + torch.tensor([0.05, -0.1, 0.3, -1.5])
    far = 0.5 * 0.05**2 / 0.1 + 0.05 + (0.3 - 0.05) + (1.5 - 0.05)  # with a bend at 0.1
    one = 0.5 * (0.05**2 + 0.1**2 + 0.3**2) + 1.0  # and at 1
    for loss, wanted in (
        (RetinaNetLoss(box_loss="smooth_l1", beta=0.1), far),
        (RetinaNetLoss(box_loss="smooth_l1"), one),
    ):
        found = loss(torch.zeros(1, 4, 3), deltas, grid, one_object())
        assert found["box"].item() == pytest.approx(wanted, rel=1e-4)
    pairs, anchors, boxes = deltas[0, :1], grid.boxes[:1], one_object().boxes
    each = RetinaNetLoss(box_loss="smooth_l1", beta=0.1)._each_box(pairs, anchors, boxes)
    assert each.tolist() == pytest.approx([far], rel=1e-4)
    with pytest.raises(RangeError, match="beta: must be above 0, got 0"):
        RetinaNetLoss(beta=0.0)


def test_normalisers() -> None:
    grid = make_points([(3, 3)], (8,), anchors=[torch.tensor([[-4.0, -4.0, 4.0, 4.0]])])
    logits, deltas = torch.randn(2, 9, 1), torch.randn(2, 9, 4)
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 8.0, 16.0, 16.0], [16.0, 0.0, 24.0, 8.0], [0.0, 0.0, 8.0, 8.0]])
    targets = Targets(boxes=boxes, labels=torch.zeros(4, dtype=torch.int64), image=torch.tensor([0, 0, 0, 1]))

    def alone(image: int) -> dict[str, Tensor]:
        mine = targets.image == image
        one = Targets(boxes=boxes[mine], labels=targets.labels[mine], image=targets.image[mine] - image)
        return RetinaNetLoss()(logits[image : image + 1], deltas[image : image + 1], grid, one)

    first, second = alone(0), alone(1)
    batch = RetinaNetLoss()(logits, deltas, grid, targets)
    image = RetinaNetLoss(normalise="image")(logits, deltas, grid, targets)
    for name in ("class", "box"):
        torch.testing.assert_close(batch[name], (3 * first[name] + second[name]) / 4)
        torch.testing.assert_close(image[name], (first[name] + second[name]) / 2)


def test_a_dynamic_assigner_gives_soft_targets(grid: Points) -> None:
    logits, deltas = torch.zeros(1, 4, 3), torch.zeros(1, 4, 4)
    found = RetinaNetLoss(assigner=SimOta(candidates=1))(logits, deltas, grid, one_object())
    wanted = torch.zeros(1, 4, 3)
    wanted[0, 0, 1] = 7 / 8  # the undisturbed anchor's overlap
    torch.testing.assert_close(found["class"], sigmoid_focal_loss(logits, wanted))
