"""Transport on a list of pairs against dense scaling, image by image, and against linear programming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from assigner_loops import sinkhorn_dense
from clearsight.assign.sinkhorn import Plan, Supply, members, sinkhorn


def dense_problem(objects: list[int], points: int, *, reach: float, classes: int = 3) -> tuple[list[Tensor], Supply]:
    """Costs with the background last, one matrix an image (infinite out of reach), and the same as a list of pairs."""
    matrices, parts, row0, column0 = [], [], 0, 0
    for image, count in enumerate(objects):
        cost = torch.rand(count + 1, points, dtype=torch.float64) * 3
        allowed = torch.rand(count, points) < reach
        allowed[:, : count + 1] |= torch.eye(count, count + 1, dtype=torch.bool)  # each object has a point
        cost[:-1].masked_fill_(~allowed, torch.inf)
        matrices.append(cost)
        reached = allowed.any(dim=0)
        row, point = allowed.nonzero(as_tuple=True)
        parts.append(
            {
                "cost": cost[row, point],
                "row": row + row0,
                "column": reached.cumsum(0)[point] - 1 + column0,
                "amount": torch.randint(1, 3, (count,)).double(),
                "image": torch.full((count,), image),
                "background": cost[-1, reached],
                "column_image": torch.full((int(reached.sum()),), image),
                "free": (~reached).sum()[None],
            }
        )
        row0, column0 = row0 + count, column0 + int(reached.sum())
    return matrices, Supply(*(torch.cat([part[name] for part in parts]) for name in Supply._fields))


def dense_plan(plan: Plan, supply: Supply, matrices: list[Tensor], image: int) -> Tensor:
    """The plan of one image as a matrix."""
    whole = torch.full_like(matrices[image], -torch.inf)
    reached = matrices[image][:-1].isfinite().any(dim=0)
    pairs = supply.image[supply.row] == image
    row, point = matrices[image][:-1].isfinite().nonzero(as_tuple=True)
    whole[row, point] = plan.pairs[pairs]
    whole[-1, reached] = plan.background[supply.column_image == image]
    whole[-1, ~reached] = plan.free[image]
    return whole


@pytest.mark.parametrize("objects", [[3, 0, 5], [1], [0, 0], [9, 2]])
@pytest.mark.parametrize("reach", [0.2, 1.0])
def test_equals_dense_scaling(objects: list[int], reach: float) -> None:
    matrices, supply = dense_problem(objects, 30, reach=reach)
    plan = sinkhorn(supply, epsilon=0.1, steps=7)
    for image, cost in enumerate(matrices):
        mine = supply.image == image
        amount = torch.cat((supply.amount[mine], 30 - supply.amount[mine].sum()[None]))
        expected = sinkhorn_dense(cost, amount, epsilon=0.1, steps=7)
        if not mine.any():  # background only
            assert plan.free[image] == 0 or not sum(objects)
            assert plan.error[image] == 0
            continue
        found = dense_plan(plan, supply, matrices, image)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.exp().sum(dim=1), amount)  # suppliers give exactly
        missed = (found.exp().sum(dim=0) - 1).abs().max()
        torch.testing.assert_close(plan.error[image], missed)
        assert missed > 1e-6


def test_the_error_falls_with_the_steps() -> None:
    _, supply = dense_problem([6, 4], 40, reach=0.3)
    errors = [float(sinkhorn(supply, epsilon=0.1, steps=steps).error.max()) for steps in (1, 10, 100, 2000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6 < errors[0]


def test_little_entropy_gives_the_cheapest_plan() -> None:
    matrices, supply = dense_problem([4], 9, reach=0.6)
    cost = matrices[0].numpy()
    amount = np.append(supply.amount.numpy(), 9 - float(supply.amount.sum()))
    allowed = np.isfinite(cost)
    equal = np.zeros((5 + 9, 45))
    for s in range(5):
        equal[s, s * 9 : (s + 1) * 9] = 1
    for p in range(9):
        equal[5 + p, p::9] = 1
    best = linprog(
        np.where(allowed, cost, 0.0).ravel(),
        A_eq=equal,
        b_eq=np.concatenate((amount, np.ones(9))),
        bounds=[(0, None if yes else 0) for yes in allowed.ravel()],
    )
    plan = sinkhorn(supply, epsilon=0.005, steps=4000)
    assert float(plan.error.max()) < 1e-3
    found = dense_plan(plan, supply, matrices, 0).exp().numpy()
    assert (found * np.where(allowed, cost, 0.0)).sum() == pytest.approx(best.fun, rel=2e-3)


def test_more_supplied_than_points_can_take() -> None:
    """Three objects of two labels each, and one point for all: no plan, but numbers."""
    two, none = torch.zeros(2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    supply = Supply(
        cost=torch.tensor([0.1, 0.2, 0.3]),
        row=torch.arange(3),
        column=none,
        amount=torch.full((3,), 2.0),
        image=none,
        background=torch.zeros(1),
        column_image=none[:1],
        free=two[:1],
    )
    plan = sinkhorn(supply, epsilon=0.1, steps=50)
    assert float(plan.error) > 1
    assert torch.isfinite(plan.pairs).all()
    assert torch.isfinite(plan.background).all()


def test_members() -> None:
    table = members(torch.tensor([0, 0, 2, 2, 2]), groups=4)
    assert table.tolist() == [[0, 1, 5], [5, 5, 5], [2, 3, 4], [5, 5, 5]]
    assert members(torch.zeros(0, dtype=torch.int64), groups=0).shape == (0, 0)
    assert members(torch.zeros(0, dtype=torch.int64), groups=2).shape == (2, 0)
