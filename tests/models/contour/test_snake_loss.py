"""Deep Snake's loss by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clearsight.errors import RangeError
from clearsight.models.contour.snake_loss import SnakeLoss
from clearsight.models.contour.snake_targets import SnakeTargets


def truth(objects: int = 2, points: int = 20) -> SnakeTargets:
    draws = torch.Generator().manual_seed(0)
    boxes = torch.rand(objects, 4, generator=draws) * 50
    extremes = torch.rand(objects, 4, 2, generator=draws) * 50
    contours = torch.rand(objects, points, 2, generator=draws) * 50
    return SnakeTargets(torch.zeros(objects, dtype=torch.int64), boxes, extremes, contours)


def test_by_hand() -> None:
    wanted = truth()
    extremes, contours = wanted.extremes.clone(), [wanted.contours.clone() for _ in range(3)]
    assert all(term.item() == 0 for term in SnakeLoss()(extremes, contours, wanted, stride=4).values())
    extremes[0, 2, 1] += 2  # half a cell: ½ · ½² over 8 numbers, of two objects
    contours[0][1, 3] += 3  # 3 - ½ on both axes, over 40 numbers, two objects and three rounds
    contours[2][0, 0, 0] -= 0.5
    terms = SnakeLoss()(extremes, contours, wanted, stride=4)
    assert terms["extreme"].item() == pytest.approx(0.125 / 8 / 2, rel=1e-5)
    assert terms["contour"].item() == pytest.approx((2 * 2.5 + 0.125) / 40 / 2 / 3, rel=1e-5)
    weighted = SnakeLoss(extreme_weight=3.0, contour_weight=0.5)(extremes, contours, wanted, stride=4)
    assert weighted["extreme"].item() == pytest.approx(3 * terms["extreme"].item())
    assert weighted["contour"].item() == pytest.approx(terms["contour"].item() / 2)


def test_as_pytorchs_smooth_l1() -> None:
    wanted = truth(5, 32)
    extremes = wanted.extremes + torch.randn(5, 4, 2) * 6
    contours = [wanted.contours + torch.randn(5, 32, 2) * 2 for _ in range(3)]
    terms = SnakeLoss()(extremes, contours, wanted, stride=4)
    expected = torch.nn.functional.smooth_l1_loss(extremes / 4, wanted.extremes / 4)
    torch.testing.assert_close(terms["extreme"], expected)
    rounds = torch.stack([torch.nn.functional.smooth_l1_loss(each, wanted.contours) for each in contours])
    torch.testing.assert_close(terms["contour"], rounds.mean())


def test_no_objects() -> None:
    none = truth(0)
    extremes = torch.zeros(0, 4, 2, requires_grad=True)
    terms = SnakeLoss()(extremes, [torch.zeros(0, 20, 2)] * 3, none, stride=4)
    assert [term.item() for term in terms.values()] == [0.0, 0.0]


def test_labels_that_are_no_numbers_are_named() -> None:
    wanted = truth()
    contours: Tensor = wanted.contours.clone()
    contours[1, 2, 0] = torch.nan
    with pytest.raises(RangeError, match="target: expected finite numbers"):
        SnakeLoss()(wanted.extremes, [wanted.contours], wanted._replace(contours=contours), stride=4)


@pytest.mark.parametrize("name", ["extreme_weight", "contour_weight"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_what_is_refused(name: str, value: float) -> None:
    with pytest.raises(RangeError, match=f"{name}: must be at least 0"):
        SnakeLoss(**{name: value})
