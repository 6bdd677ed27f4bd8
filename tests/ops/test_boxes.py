"""Box geometry by hand, against torchvision, and by finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor

from clearsight.errors import ShapeError
from clearsight.ops.boxes import (
    box_area,
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    clip_boxes,
    paired_ciou,
    paired_diou,
    paired_giou,
    paired_iou,
)


def random_boxes(count: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    corner = torch.rand(count, 2, dtype=dtype) * 50
    return torch.cat((corner, corner + torch.rand(count, 2, dtype=dtype) * 40 + 1), dim=1)


def test_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[2.0, 1.0, 6.0, 5.0]])
    assert box_area(a).item() == 8
    iou = 2 / (8 + 16 - 2)
    torch.testing.assert_close(box_iou(a, b), torch.tensor([[iou]]))
    torch.testing.assert_close(paired_iou(a, b), torch.tensor([iou]))
    torch.testing.assert_close(paired_giou(a, b), torch.tensor([iou - (30 - 22) / 30]))
    distance = (2**2 + 2**2) / (6**2 + 5**2)
    torch.testing.assert_close(paired_diou(a, b), torch.tensor([iou - distance]))
    aspect = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    expected = iou - distance - aspect**2 / (1 - iou + aspect)
    torch.testing.assert_close(paired_ciou(a, b), torch.tensor([expected]))


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (1, 1), (17, 23)])
def test_iou_is_torchvisions(n: int, m: int) -> None:
    a, b = random_boxes(n), random_boxes(m)
    torch.testing.assert_close(box_iou(a, b), torchvision.ops.box_iou(a, b))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (paired_iou, torchvision.ops.box_iou),
        (paired_giou, torchvision.ops.generalized_box_iou),
        (paired_diou, torchvision.ops.distance_box_iou),
        (paired_ciou, torchvision.ops.complete_box_iou),
    ],
)
def test_pairs_are_torchvisions_diagonal(ours: Callable, theirs: Callable) -> None:
    a, b = random_boxes(40, dtype=torch.float64), random_boxes(40, dtype=torch.float64)
    torch.testing.assert_close(ours(a, b), theirs(a, b).diagonal(), rtol=1e-5, atol=1e-6)


def test_overlap_is_symmetric_and_one_with_itself() -> None:
    a, b = random_boxes(9), random_boxes(7)
    torch.testing.assert_close(box_iou(a, b), box_iou(b, a).T)
    torch.testing.assert_close(box_iou(a, a).diagonal(), torch.ones(9))


def test_empty_boxes_give_zero_not_nan() -> None:
    empty = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert box_iou(empty, empty).item() == 0
    assert paired_iou(empty, empty).item() == 0
    for overlap in (paired_giou, paired_diou, paired_ciou):
        assert torch.isfinite(overlap(empty, empty)).all()


@pytest.mark.parametrize("overlap", [paired_iou, paired_giou, paired_diou])
def test_gradients(overlap: Callable) -> None:
    a = random_boxes(6, dtype=torch.float64).requires_grad_()
    b = random_boxes(6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(overlap, (a, b))


def test_the_gradient_of_all_pairs() -> None:
    a = random_boxes(4, dtype=torch.float64).requires_grad_()
    b = random_boxes(5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(box_iou, (a, b))


def test_clipping_by_image() -> None:
    boxes = torch.tensor([[-5.0, -5.0, 50.0, 50.0], [10.0, 10.0, 20.0, 90.0]])
    sizes = torch.tensor([[30, 40], [60, 15]])  # height, width
    expected = torch.tensor([[0.0, 0.0, 40.0, 30.0], [10.0, 10.0, 15.0, 60.0]])
    torch.testing.assert_close(clip_boxes(boxes, sizes), expected)
    torch.testing.assert_close(clip_boxes(boxes[:1], (30, 40)), expected[:1])
    assert boxes[0, 0] == -5  # the argument is left alone


def test_formats_there_and_back() -> None:
    boxes = random_boxes(8)
    torch.testing.assert_close(box_cxcywh_to_xyxy(box_xyxy_to_cxcywh(boxes)), boxes)
    torch.testing.assert_close(
        box_xyxy_to_cxcywh(torch.tensor([[1.0, 2.0, 5.0, 8.0]])), torch.tensor([[3.0, 5.0, 4.0, 6.0]])
    )


@pytest.mark.parametrize("call", [box_area, box_cxcywh_to_xyxy, box_xyxy_to_cxcywh, lambda b: box_iou(b, b)])
def test_wrong_shape(call: Callable) -> None:
    with pytest.raises(ShapeError, match=r"expected \(\.\.\., 4\) as xyxy pixels, got \(2, 5\)"):
        call(torch.zeros(2, 5))
