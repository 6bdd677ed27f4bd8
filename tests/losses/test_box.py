"""Box losses against torchvision and torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision.ops as tv
from torch import Tensor

from clearsight.errors import RangeError
from clearsight.losses.box import ciou_loss, diou_loss, giou_loss, iou_loss, l1_loss, smooth_l1_loss

ALL = [iou_loss, giou_loss, diou_loss, ciou_loss, l1_loss, smooth_l1_loss]


def random_boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2, dtype=torch.float64) * 50
    return torch.cat((corner, corner + torch.rand(count, 2, dtype=torch.float64) * 40 + 1), dim=1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (giou_loss, tv.generalized_box_iou_loss),
        (diou_loss, tv.distance_box_iou_loss),
        (ciou_loss, tv.complete_box_iou_loss),
    ],
)
def test_is_torchvisions(ours: Callable, theirs: Callable) -> None:
    pred, target = random_boxes(30).requires_grad_(), random_boxes(30)
    reference = theirs(pred, target, reduction="sum")
    torch.testing.assert_close(ours(pred, target), reference)
    (mine,) = torch.autograd.grad(ours(pred, target), pred)
    (other,) = torch.autograd.grad(reference, pred)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_codes_are_torchs() -> None:
    pred, target = torch.randn(20, 4), torch.randn(20, 4)
    torch.testing.assert_close(l1_loss(pred, target), F.l1_loss(pred, target, reduction="sum"))
    for beta in (0.11, 1.0):
        reference = F.smooth_l1_loss(pred, target, reduction="sum", beta=beta)
        torch.testing.assert_close(smooth_l1_loss(pred, target, beta=beta), reference)


def test_disjoint_boxes_still_attract() -> None:
    pred = torch.tensor([[0.0, 0.0, 1.0, 1.0]], requires_grad=True)
    far = torch.tensor([[5.0, 5.0, 6.0, 6.0]])
    (plain,) = torch.autograd.grad(iou_loss(pred, far), pred)
    (general,) = torch.autograd.grad(giou_loss(pred, far), pred)
    assert plain.abs().max() == 0
    assert general.abs().max() > 0


@pytest.mark.parametrize("loss", ALL)
def test_weights_no_pairs_and_gradients(loss: Callable) -> None:
    pred, target = random_boxes(5).requires_grad_(), random_boxes(5)
    weight = torch.tensor([0.0, 1.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    by_pair = sum(weight[i] * loss(pred[i : i + 1], target[i : i + 1]) for i in range(5))
    torch.testing.assert_close(loss(pred, target, weight=weight), by_pair)
    none = loss(pred[:0], target[:0])
    assert none.item() == 0
    assert none.requires_grad
    assert loss is ciou_loss or torch.autograd.gradcheck(loss, (pred, target))  # CIoU holds its weight constant


def test_beta_out_of_range() -> None:
    with pytest.raises(RangeError, match="beta: must be above 0"):
        smooth_l1_loss(torch.zeros(1, 4), torch.zeros(1, 4), beta=0.0)
