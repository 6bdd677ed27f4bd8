"""Targets and terms by hand and by a loop over objects, and their normaliser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearsight.errors import RangeError
from clearsight.models.detect.centernet_loss import CenterNetLoss, centre_targets
from clearsight.types import Targets


def batch(rows: list[tuple], *, ignore: bool = True) -> Targets:
    """Rows of (left, top, right, bottom, label, image, ignored)."""
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 7)
    return Targets(
        boxes=table[:, :4],
        labels=table[:, 4].long(),
        image=table[:, 5].long(),
        ignore=table[:, 6].bool() if ignore else None,
    )


def looped_targets(rows: list[tuple], shape: tuple[int, int, int, int], stride: float, overlap: float) -> tuple:
    """The paper's targets, object by object: heat, cells that count, and a list of what is learnt where."""
    n, _, h, w = shape
    heat, counted, learnt = np.zeros(shape), np.ones((n, h, w), dtype=bool), []
    for left, top, right, bottom, label, image, ignored in rows:
        x0, x1 = (min(max(x / stride, 0), w) for x in (left, right))
        y0, y1 = (min(max(y / stride, 0), h) for y in (top, bottom))
        if x1 <= x0 or y1 <= y0:
            continue
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        px, py = math.floor(cx), math.floor(cy)
        if ignored:
            for y in range(h):
                for x in range(w):
                    if (x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1) or (x, y) == (px, py):
                        counted[image, y, x] = False
            continue
        wide, high = x1 - x0, y1 - y0
        root = 4 * (wide + high) ** 2 - 16 * (1 - overlap) * wide * high
        radius = math.floor((2 * (wide + high) - math.sqrt(root)) / 8 + 1e-9)
        for y in range(max(py - radius, 0), min(py + radius + 1, h)):
            for x in range(max(px - radius, 0), min(px + radius + 1, w)):
                spot = math.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * ((2 * radius + 1) / 6) ** 2))
                heat[image, label, y, x] = max(heat[image, label, y, x], spot)
        learnt.append((image, px, py, wide, high, cx - px, cy - py))
    return heat, counted, learnt


def looped_terms(
    logits: np.ndarray, size: np.ndarray, offset: np.ndarray, rows: list[tuple], stride: float, overlap: float
) -> tuple[float, float, float]:
    heat, counted, learnt = looped_targets(rows, logits.shape, stride, overlap)
    focal = sizes = offsets = 0.0
    for i, c, y, x in np.ndindex(logits.shape):
        p, truth = 1 / (1 + math.exp(-logits[i, c, y, x])), heat[i, c, y, x]
        if truth == 1:
            focal -= (1 - p) ** 2 * math.log(p)
        elif counted[i, y, x]:
            focal -= (1 - truth) ** 4 * p**2 * math.log(1 - p)
    for i, x, y, wide, high, dx, dy in learnt:
        sizes += (abs(size[i, 0, y, x] - wide) + abs(size[i, 1, y, x] - high)) / 2
        offsets += (abs(offset[i, 0, y, x] - dx) + abs(offset[i, 1, y, x] - dy)) / 2
    count = max(len(learnt), 1)
    return focal / count, sizes / count, offsets / count


ROWS = [
    (10, 6, 40, 50, 0, 0, 0),
    (12, 6, 41, 50, 0, 0, 0),  # its centre's cell is that of the one before
    (10, 6, 40, 50, 1, 0, 0),  # another class, the same box
    (20, 20, 20.2, 20.1, 2, 0, 0),  # below a pixel
    (0, 0, 30, 30, 1, 0, 1),  # ignored; the first ones' spots reach into it
    (-300, -200, 500, 400, 2, 1, 0),  # larger than the image
    (61, 45, 64, 48, 0, 1, 0),  # in the last cell
    (70, 10, 90, 30, 0, 1, 0),  # outside
    (5, 5, 5, 20, 1, 1, 0),  # without area
    (33, 33, 33.5, 33.5, 0, 1, 1),  # ignored, with no cell's middle in it
    (-9, 30, 20, 60, 0, 1, 1),  # ignored, cut by the border
]


# ------------------------------------------------------------------------------------------------ targets
def test_targets_by_hand() -> None:
    rows = [(8, 4, 28, 24, 1, 0, 0), (0, 0, 9, 9, 0, 0, 1)]  # centre (18, 14) at stride 4: cell (4, 3), 2 by 2 pixels
    found = centre_targets(batch(rows), (1, 2, 6, 8), stride=4, min_overlap=0.36)  # 5 · 5 cells, inside them 3 · 3
    assert found.image.tolist() == [0]
    assert (found.x.tolist(), found.y.tolist()) == ([4], [3])
    assert found.size.tolist() == [[5.0, 5.0]]
    assert found.offset.tolist() == [[0.5, 0.5]]
    assert found.heat[0, 1, 3, 4] == 1
    assert found.heat[0, 1, 3, 5].item() == pytest.approx(math.exp(-2))  # radius 1, σ = 1 / 2
    assert found.heat[0, 1, 4, 5].item() == pytest.approx(math.exp(-4))
    assert found.heat[0, 1].count_nonzero() == 9
    assert found.heat[0, 0].count_nonzero() == 0
    assert found.weight is not None
    assert found.weight[0, 0, :3, :3].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 1]]  # of the third, 10 is the middle
    assert found.weight.sum() == 6 * 8 - 4


@pytest.mark.parametrize("stride", [4, 3.5])
@pytest.mark.parametrize("overlap", [0.7, 0.2])
def test_targets_as_a_loop_makes_them(stride: float, overlap: float) -> None:
    shape = (2, 3, math.ceil(48 / stride), math.ceil(64 / stride))
    heat, counted, learnt = looped_targets(ROWS, shape, stride, overlap)
    found = centre_targets(batch(ROWS), shape, stride=stride, min_overlap=overlap)
    np.testing.assert_allclose(found.heat.numpy(), heat, rtol=1e-5, atol=1e-9)
    assert found.weight is not None
    assert np.array_equal(found.weight[:, 0].bool().numpy(), counted)
    rows = zip(found.image.tolist(), found.x.tolist(), found.y.tolist(), *found.size.T, *found.offset.T, strict=True)
    for mine, expected in zip(rows, learnt, strict=True):
        assert [float(value) for value in mine] == pytest.approx(expected, abs=1e-5)


BOXES = st.lists(
    st.tuples(st.integers(-8, 60), st.integers(-8, 44), st.integers(0, 40), st.integers(0, 40), st.integers(0, 2)),
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@given(boxes=BOXES)
def test_order_does_not_matter_nor_does_the_scale(boxes: list[tuple[int, int, int, int, int]]) -> None:
    rows = [(x, y, x + w, y + h, label, 0, k % 3 == 2) for k, (x, y, w, h, label) in enumerate(boxes)]
    found = centre_targets(batch(rows), (1, 3, 12, 16), stride=4)
    backwards = centre_targets(batch(rows[::-1]), (1, 3, 12, 16), stride=4)
    twice = batch(rows)
    twice.boxes = twice.boxes * 2
    larger = centre_targets(twice, (1, 3, 12, 16), stride=8)
    for other, turned in ((backwards, True), (larger, False)):
        assert torch.equal(other.heat, found.heat)
        assert torch.equal(other.weight, found.weight)  # pyright: ignore[reportArgumentType]
        for mine, theirs in zip(found[2:], other[2:], strict=True):
            assert torch.equal(theirs.flip(0) if turned else theirs, mine)  # pyright: ignore


# ------------------------------------------------------------------------------------------------ terms
def test_terms_by_hand() -> None:
    targets = batch([(8, 4, 28, 24, 0, 0, 0)], ignore=False)  # 5 · 5 cells around (4.5, 3.5); radius 0
    logits = torch.zeros(1, 1, 6, 8)
    terms = CenterNetLoss()(logits, torch.full((1, 2, 6, 8), 2.0), torch.zeros(1, 2, 6, 8), targets, stride=4)
    assert list(terms) == ["heat", "size", "offset"]
    assert terms["heat"].item() == pytest.approx(48 * math.log(2) / 4)
    assert terms["size"].item() == pytest.approx(0.1 * 3.0)
    assert terms["offset"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("stride", [4, 3.5])
def test_terms_as_a_loop_adds_them(stride: float) -> None:
    shape = (2, 3, math.ceil(48 / stride), math.ceil(64 / stride))
    logits, size, offset = (torch.randn(2, c, *shape[2:], dtype=torch.float64, requires_grad=True) for c in (3, 2, 2))
    loss = CenterNetLoss(min_overlap=0.3, size_weight=0.7, offset_weight=1.5)
    terms = loss(logits, size, offset, batch(ROWS), stride=stride)
    arrays = (x.detach().numpy() for x in (logits, size, offset))
    heat, sizes, offsets = looped_terms(*arrays, ROWS, stride, 0.3)
    assert terms["heat"].item() == pytest.approx(heat, rel=1e-5)
    assert terms["size"].item() == pytest.approx(0.7 * sizes, rel=1e-5)
    assert terms["offset"].item() == pytest.approx(1.5 * offsets, rel=1e-5)


def test_gradients() -> None:
    shape = (2, 3, 4, 5)
    rows = [(1, 2, 12, 9, 0, 0, 0), (3, 2, 12, 9, 2, 0, 0), (8, 3, 18, 15, 1, 1, 0), (0, 0, 7, 7, 1, 1, 1)]
    logits, size, offset = (torch.randn(2, c, *shape[2:], dtype=torch.float64, requires_grad=True) for c in (3, 2, 2))

    def total(*outputs: torch.Tensor) -> torch.Tensor:
        return sum(CenterNetLoss()(*outputs, batch(rows), stride=4).values(), torch.zeros(()))

    assert torch.autograd.gradcheck(total, (logits, size, offset))


def test_objects_in_one_cell_pull_at_its_size_together() -> None:
    rows = [(8, 8, 16, 16, 0, 0, 0), (4, 4, 20, 20, 0, 0, 0)]  # centres at (12, 12), 2 and 4 cells wide
    size = torch.zeros(1, 2, 8, 8, requires_grad=True)
    terms = CenterNetLoss(size_weight=1.0)(
        torch.zeros(1, 1, 8, 8), size, torch.zeros(1, 2, 8, 8), batch(rows), stride=4
    )
    assert terms["size"].item() == 3.0
    terms["size"].backward()
    assert size.grad is not None
    assert size.grad[0, :, 3, 3].tolist() == [-0.5, -0.5]
    assert size.grad.count_nonzero() == 2
    heat = centre_targets(batch(rows), (1, 1, 8, 8), stride=4).heat
    assert (heat == 1).sum() == 1


def test_ignored_objects_count_neither_way() -> None:
    loss, zeros = CenterNetLoss(), torch.zeros(1, 2, 8, 8)
    everywhere = batch([(-5, -5, 50, 50, 0, 0, 1)])
    terms = loss(torch.randn(1, 3, 8, 8), zeros, zeros, everywhere, stride=4)
    assert [term.item() for term in terms.values()] == [0, 0, 0]
    found = batch([(-5, -5, 50, 50, 0, 0, 1), (10, 10, 13, 13, 1, 0, 0)])  # an object within is learnt
    terms = loss(torch.zeros(1, 3, 8, 8), zeros, zeros, found, stride=4)
    assert terms["heat"].item() == pytest.approx(math.log(2) / 4)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_any_number_of_objects_has_finite_gradients(count: int) -> None:
    drawn = torch.rand(count, 4) * 100
    boxes = torch.cat((drawn[:, :2], drawn[:, :2] + drawn[:, 2:] ** 2 / 50), dim=1)
    targets = Targets(boxes=boxes, labels=torch.arange(count) % 3, image=torch.arange(count) * 2 // max(count, 1))
    outputs = [torch.randn(2, c, 25, 25, requires_grad=True) for c in (3, 2, 2)]
    terms = CenterNetLoss()(*outputs, targets, stride=4)
    sum(terms.values()).backward()
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in outputs)
    assert (terms["size"] > 0) == (count > 0)


def test_what_is_no_number() -> None:
    zeros, targets = torch.zeros(1, 2, 8, 8), batch([(8, 8, 16, 16, 0, 0, 0)])
    terms = CenterNetLoss()(torch.full((1, 3, 8, 8), math.nan), zeros, zeros * math.nan, targets, stride=4)
    assert terms["heat"].isnan()
    assert terms["offset"].isnan()
    assert terms["size"].isfinite()
    targets.boxes[0, 0] = math.nan
    with pytest.raises(RangeError, match="boxes: expected finite numbers"):
        CenterNetLoss()(torch.zeros(1, 3, 8, 8), zeros, zeros, targets, stride=4)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(RangeError, match="min_overlap: must be in"):
        CenterNetLoss(min_overlap=1.5)
    with pytest.raises(RangeError, match="size_weight: must be at least 0, got -1"):
        CenterNetLoss(size_weight=-1.0)
    with pytest.raises(RangeError, match="offset_weight: must be at least 0, got inf"):
        CenterNetLoss(offset_weight=math.inf)
