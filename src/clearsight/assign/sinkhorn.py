"""Optimal transport from objects and a background to points, for all images at once, on a list of allowed pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.assign.base import rank_in_group

__all__ = ["Plan", "Supply", "members", "sinkhorn"]


class Supply(NamedTuple):
    """A transport problem: suppliers are m objects and one background an image, demanders are points, of one unit each.

    Args:
        cost: `(p,)` of the allowed pairs of object and column; finite.
        row: `(p,)` int64 object, ascending; each of the m has a pair at least.
        column: `(p,)` int64 index of the point among the c that any object may reach.
        amount: `(m,)` units that each object gives, above 0.
        image: `(m,)` int64.
        background: `(c,)` cost of background at each column; finite.
        column_image: `(c,)` int64, ascending.
        free: `(n,)` points of each image that only background reaches.
    """

    cost: Tensor
    row: Tensor
    column: Tensor
    amount: Tensor
    image: Tensor
    background: Tensor
    column_image: Tensor
    free: Tensor


class Plan(NamedTuple):
    """Logarithms of the transported amounts.

    Args:
        pairs: `(p,)`.
        background: `(c,)`.
        free: `(n,)` at each of an image's points that only background reaches.
        error: `(n,)` largest distance from 1 of what a point of the image receives; suppliers give exactly their
            amounts.
    """

    pairs: Tensor
    background: Tensor
    free: Tensor
    error: Tensor


def members(group: Tensor, *, groups: int) -> Tensor:
    """A table of who belongs to each group.

    Args:
        group: `(p,)` int64, ascending.
        groups: how many there are.

    Returns:
        `(groups, k)` int64 indices into the elements, k the size of the largest group; p where a group has fewer.
    """
    count = torch.bincount(group, minlength=groups)
    first = count.cumsum(0) - count
    number = torch.arange(int(count.max()) if groups else 0, device=group.device)
    return torch.where(number < count[:, None], first[:, None] + number, len(group))


@torch.no_grad()
def sinkhorn(supply: Supply, *, epsilon: float, steps: int) -> Plan:
    """Entropic optimal transport by alternating scaling, in logarithms.

    The background gives what the objects do not: the image's points less their amounts, at least one unit. Where more
    is supplied than the allowed points can take there is no plan; the last iterate is given, and its error tells.

    Method: Cuturi 2013, arXiv:1306.0895, algorithm 1; a step scales the points and then the suppliers, so that after
    the last one the suppliers' amounts are exact. Points that only background reaches are alike and counted once.

    Args:
        supply: the problem.
        epsilon: of the entropy, above 0.
        steps: of both scalings.

    Returns:
        The plan, float64 (float32 on devices that have no float64).

    Cost: `steps` passes over the pairs, and as many small operations as the most contested point has objects.
    """
    exact = torch.float32 if supply.cost.device.type == "mps" else torch.float64
    cost, background = supply.cost.to(exact) / epsilon, supply.background.to(exact) / epsilon
    if not len(cost):
        none = torch.zeros(len(supply.free), dtype=exact, device=cost.device)
        return Plan(cost, background, none, none)
    # Columns stand by falling number of pairs, pairs by their rank within the column: the pairs of one rank then lie
    # beside the first columns, and no place is spent on columns that have fewer.
    columns = torch.bincount(supply.column, minlength=len(background)).argsort(descending=True, stable=True)
    slot_of = torch.empty_like(columns)
    slot_of[columns] = torch.arange(len(columns), device=columns.device)
    slot = slot_of[supply.column]
    rank = rank_in_group(supply.column, torch.zeros_like(cost))
    order = (rank * len(columns) + slot).argsort()
    widths = torch.bincount(rank).tolist()
    by_rank, row_by_rank = cost[order], supply.row[order]
    apart, image = background[columns], supply.column_image[columns]

    by_row, slot_by_row = _laid_out(supply.row, cost, slot, groups=len(supply.amount))
    by_image, slot_by_image = _laid_out(supply.column_image, background, slot_of, groups=len(supply.free))
    free, amount, rest = supply.free.to(exact).log(), supply.amount.to(exact).log(), _rest(supply).to(exact).log()

    of_object, of_background = torch.zeros_like(amount), torch.zeros_like(rest)
    before, of_point = of_background, torch.zeros_like(apart)
    for _ in range(steps):
        before = of_background
        of_point = -_over_ranks(of_object[row_by_rank] - by_rank, of_background[image] - apart, widths)
        of_object = amount - torch.logsumexp(of_point[slot_by_row] - by_row, dim=1)
        columns_take = torch.logsumexp(of_point[slot_by_image] - by_image, dim=1)
        of_background = rest - torch.logaddexp(columns_take, free - before)

    received = _over_ranks(of_object[row_by_rank] - by_rank, of_background[image] - apart, widths) + of_point
    error = torch.where(supply.free > 0, (of_background - before).expm1().abs(), 0.0)
    return Plan(
        pairs=of_object[supply.row] + of_point[slot] - cost,
        background=of_background[supply.column_image] + of_point[slot_of] - background,
        free=of_background - before,
        error=error.scatter_reduce(0, image, received.expm1().abs(), "amax"),
    )


def _over_ranks(pairs: Tensor, background: Tensor, widths: list[int]) -> Tensor:
    """Logarithm of the summed exponentials of each column: `(p,)` pairs by rank and column, `(c,)` → `(c,)`."""
    parts = pairs.split(widths)
    largest = background.clone()
    for part in parts:
        first = largest[: len(part)]
        torch.maximum(first, part, out=first)
    total = (background - largest).exp_()
    for part in parts:
        total[: len(part)] += (part - largest[: len(part)]).exp_()
    return total.log_().add_(largest)


def _laid_out(group: Tensor, cost: Tensor, slot: Tensor, *, groups: int) -> tuple[Tensor, Tensor]:
    """Costs and slots with one row a group (ascending), two of `(groups, k)`; what is left over costs infinity."""
    place = members(group, groups=groups)
    return torch.cat((cost, cost.new_tensor([torch.inf])))[place], torch.cat((slot, slot.new_zeros(1)))[place]


def _rest(supply: Supply) -> Tensor:
    """What the background of each image gives, `(n,)`."""
    images = len(supply.free)
    points = torch.bincount(supply.column_image, minlength=images) + supply.free
    amount = torch.cat((supply.amount, supply.amount.new_zeros(1)))[members(supply.image, groups=images)]
    return (points - amount.sum(dim=1)).clamp(min=1)
