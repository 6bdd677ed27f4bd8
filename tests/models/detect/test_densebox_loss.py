"""DenseBox's cells and terms: by hand, and against loops over objects and cells written from the paper."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import make_points
from clearsight.models.detect.densebox_loss import DenseBoxLoss, disc_cells, mine_background
from clearsight.types import Targets


def one(*boxes: tuple[float, ...], image: int = 0) -> Targets:
    zeros = torch.zeros(len(boxes), dtype=torch.int64)
    return Targets(boxes=torch.tensor(boxes).view(-1, 4), labels=zeros, image=zeros + image)


def grid(height: int, width: int, *, stride: int = 4) -> Points:
    points = make_points([(height, width)], (stride,))
    return points._replace(xy=points.xy.double(), stride=points.stride.double())


def drawn(found: Assignment, shape: tuple[int, int], image: int = 0) -> list[str]:
    """The map of an image: `#` positive, `.` background, `-` neither."""
    cells = [["." if value else "-" for value in row] for row in found.background[image].view(shape).tolist()]
    for point in found.point.tolist():
        cells[point // shape[1]][point % shape[1]] = "#"
    return ["".join(row) for row in cells]


def owner(targets: Targets, image: int, x: float, y: float, stride: float, radius: float) -> int | None:
    """The object that the cell with this middle, in cells, answers for."""
    claims = []
    for i, (left, top, right, bottom) in enumerate(targets.boxes.tolist()):
        if targets.image[i] != image or (targets.ignore is not None and targets.ignore[i]):
            continue
        u, v = (left + right) / 2 / stride, (top + bottom) / 2 / stride
        far = (x - u) ** 2 + (y - v) ** 2
        reach = radius * max(min(right - left, bottom - top), 0) / stride
        if far <= reach**2 or (math.floor(u), math.floor(v)) == (math.floor(x), math.floor(y)):
            claims.append((far, (right - left) * (bottom - top), i))
    return min(claims)[2] if claims else None


def is_ignored(targets: Targets, image: int, x: float, y: float) -> bool:
    """Whether the pixel lies in an ignored object."""
    return targets.ignore is not None and any(
        left < x < right and top < y < bottom
        for i, (left, top, right, bottom) in enumerate(targets.boxes.tolist())
        if targets.image[i] == image and targets.ignore[i]
    )


def by_loops(
    points: Points, shape: tuple[int, int], targets: Targets, radius: float, images: int
) -> tuple[dict[tuple[int, int], int], list[list[bool]]]:
    """The object of each positive cell, by image and cell; and whether each cell is background."""
    stride = float(points.stride[0])
    cells = [(x, y) for y in range(shape[0]) for x in range(shape[1])]
    taken: dict[tuple[int, int], int] = {}
    background = []
    for image in range(images):
        owners = [owner(targets, image, x + 0.5, y + 0.5, stride, radius) for x, y in cells]
        taken |= {(image, cell): i for cell, i in enumerate(owners) if i is not None}
        discs = [cells[cell] for cell, i in enumerate(owners) if i is not None]
        background.append(
            [
                all(math.dist(cell, other) > 2 for other in discs)
                and not is_ignored(targets, image, (cell[0] + 0.5) * stride, (cell[1] + 0.5) * stride)
                for cell in cells
            ]
        )
    return taken, background


def same_as_the_loops(points: Points, shape: tuple[int, int], targets: Targets, radius: float, images: int) -> None:
    found = disc_cells(points, shape, targets, radius=radius, images=images)
    taken, background = by_loops(points, shape, targets, radius, images)
    image = targets.image[found.object].tolist()
    assert list(zip(image, found.point.tolist(), found.object.tolist(), strict=True)) == [
        (n, cell, taken[n, cell]) for n, cell in sorted(taken)
    ]
    assert found.background.tolist() == background
    assert bool((found.weight == 1).all())


# ------------------------------------------------------------------------------------------------ cells
def test_a_disc_by_hand() -> None:
    """Side 20, so a radius of 6 pixels, 1.5 cells, around the middle of cell (4, 4)."""
    found = disc_cells(grid(9, 10), (9, 10), one((8, 8, 28, 28)), images=1)
    assert drawn(found, (9, 10)) == [
        "..........",
        "...---....",
        "..-----...",
        ".--###--..",
        ".--###--..",
        ".--###--..",
        "..-----...",
        "...---....",
        "..........",
    ]


@pytest.mark.parametrize("box", [(9.0, 5.0, 9.5, 5.5), (9.0, 5.0, 9.0, 5.0)])
def test_an_object_below_a_cell_has_its_centres_cell(box: tuple[float, ...]) -> None:
    found = disc_cells(grid(5, 6), (5, 6), one(box), images=1)
    assert drawn(found, (5, 6)) == [".---..", "--#--.", ".---..", "..-...", "......"]


def test_the_shorter_side_counts() -> None:
    """16 of 44 pixels: 1.2 cells around the corner of four; by the height it would be 3.3."""
    found = disc_cells(grid(12, 8), (12, 8), one((8, 2, 24, 46)), images=1)
    assert found.point.tolist() == [5 * 8 + 3, 5 * 8 + 4, 6 * 8 + 3, 6 * 8 + 4]


def test_the_nearest_centre_takes_a_cell() -> None:
    """Discs of 3 cells around cells 3 and 6 of a row: cells 4 and 5 go to the nearer."""
    targets = one((-6.5, 9.5, 34.5, 50.5), (5.5, 9.5, 46.5, 50.5))
    found = disc_cells(grid(15, 12), (15, 12), targets, images=1)
    row = [(int(p) % 12, int(o)) for p, o in zip(found.point, found.object, strict=True) if int(p) // 12 == 7]
    assert row == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 1), (7, 1), (8, 1), (9, 1)]


def test_of_equal_centres_the_smaller_takes_a_cell() -> None:
    for order in (1, -1):
        boxes = [(2, 2, 34, 34), (14, 14, 22, 22)][::order]
        found = disc_cells(grid(10, 10), (10, 10), one(*boxes), images=1)
        assert found.point[found.object == boxes.index((14, 14, 22, 22))].tolist() == [4 * 10 + 4]
        assert len(found.point) > 10
    same = disc_cells(grid(10, 10), (10, 10), one((14, 14, 22, 22), (14, 14, 22, 22)), images=1)
    assert same.object.tolist() == [0]


def test_centres_outside_the_map() -> None:
    found = disc_cells(grid(6, 6), (6, 6), one((-60, -4, 40, 28)), images=1)  # 0.3 · 32 around x = -10
    assert len(found.point) == 0
    found = disc_cells(grid(6, 6), (6, 6), one((-42, -22, 38, 58)), images=1)  # 0.3 · 80 = 24 around (-2, 18)
    assert found.point.tolist()
    assert set((found.point % 6).tolist()) == {0, 1, 2, 3, 4, 5}
    for box in ((math.nan, 0.0, 9.0, 9.0), (0.0, 0.0, math.inf, 9.0), (900.0, 900.0, 990.0, 990.0), (20, 20, 4, 4)):
        found = disc_cells(grid(6, 6), (6, 6), one(box), images=1)
        assert len(found.point) == (box == (20, 20, 4, 4))  # an inverted one has its centre's cell
        assert found.background.sum() == (36 if len(found.point) == 0 else 36 - 13)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.3, 0.6]))
def test_cells_equal_the_loops(seed: int, radius: float) -> None:
    """Objects of any size and place, some equal, some ignored, of several images."""
    torch.manual_seed(seed)
    shape = (int(torch.randint(1, 14, ())), int(torch.randint(1, 14, ())))
    counts = torch.randint(0, 5, (3,))
    count = int(counts.sum())
    centre = torch.rand(count, 2, dtype=torch.float64) * 70 - 10
    half = torch.exp2(torch.rand(count, 2, dtype=torch.float64) * 8 - 3)
    boxes = torch.cat((centre - half, centre + half), dim=1)
    boxes[1:4:2] = boxes[0:3:2][: len(boxes[1:4:2])]
    targets = Targets(
        boxes=boxes,
        labels=torch.zeros(count, dtype=torch.int64),
        image=torch.arange(3).repeat_interleave(counts),
        ignore=torch.rand(count) < 0.3 if seed % 2 else None,
    )
    same_as_the_loops(grid(*shape), shape, targets, radius, 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_order_and_scale_of_objects_change_nothing(seed: int) -> None:
    torch.manual_seed(seed)
    centre, half = torch.rand(12, 2) * 60, torch.exp2(torch.rand(12, 2) * 5)
    image = torch.arange(2).repeat_interleave(6)
    targets = Targets(boxes=torch.cat((centre - half, centre + half), 1), labels=image, image=image)
    found = disc_cells(grid(15, 15), (15, 15), targets, images=2)
    order = torch.cat((torch.randperm(6), 6 + torch.randperm(6)))
    again = disc_cells(grid(15, 15), (15, 15), Targets(boxes=targets.boxes[order], labels=image, image=image), images=2)
    assert again.point.tolist() == found.point.tolist()
    assert order[again.object].tolist() == found.object.tolist()
    larger = Targets(boxes=targets.boxes * 2, labels=image, image=image)
    twice = disc_cells(grid(15, 15, stride=8), (15, 15), larger, images=2)
    assert twice.point.tolist() == found.point.tolist()
    assert torch.equal(twice.background, found.background)


def test_a_thousand_objects() -> None:
    torch.manual_seed(0)
    centre, half = torch.rand(1000, 2) * 400, torch.rand(1000, 2) * 200
    zeros = torch.zeros(1000, dtype=torch.int64)
    targets = Targets(boxes=torch.cat((centre - half, centre + half), 1), labels=zeros, image=zeros)
    found = disc_cells(make_points([(100, 100)], (4,)), (100, 100), targets, images=1)
    assert len(found.point) == len(found.point.unique()) > 9000


# ------------------------------------------------------------------------------------------------ background
def test_half_of_the_background_is_hard() -> None:
    """1,000 cells: the ten of highest loss are hard; of either kind ranks lie evenly."""
    loss = torch.arange(1000.0)[torch.randperm(1000)].view(2, 500)
    rank = 999 - loss.flatten()
    chosen = mine_background(loss, torch.ones(2, 500), count=10)
    assert rank[chosen].tolist() == [0, 2, 4, 6, 8, 10, 208, 406, 604, 802]
    chosen = mine_background(loss, torch.ones(2, 500), count=40)  # no more than ten are hard
    assert sorted(rank[chosen].tolist())[:11] == list(range(11))
    assert len(chosen) == len(chosen.unique()) == 40
    assert mine_background(loss, torch.ones(2, 500), count=3000).sort().values.tolist() == list(range(1000))
    assert mine_background(loss, torch.ones(2, 500), count=0).tolist() == []
    assert rank[mine_background(loss, torch.ones(2, 500), count=1)].tolist() == [0]


def test_what_is_no_background_is_never_taken() -> None:
    loss, background = torch.rand(3, 40), (torch.rand(3, 40) < 0.5).float()
    chosen = mine_background(loss, background, count=999)
    assert chosen.sort().values.tolist() == background.flatten().nonzero().squeeze(1).tolist()
    assert mine_background(loss, torch.zeros(3, 40), count=5).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 500))
def test_as_many_as_wanted(cells: int, count: int) -> None:
    chosen = mine_background(torch.zeros(1, cells), torch.ones(1, cells), count=count)
    assert len(chosen) == len(chosen.unique()) == min(cells, count)


# ------------------------------------------------------------------------------------------------ terms
def terms_by_hand(class_loss: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """One object below a cell on a map of 3 × 7, so one positive cell and one of background, the worst."""
    scores, distances = torch.zeros(1, 21, 2), torch.zeros(1, 21, 4)
    scores[0, 8] = torch.tensor([0.25, 0.5])
    scores[0, 20] = torch.tensor([0.5, -2.0])  # far from the object, in the last column
    scores[0, 10] = 9.0  # two cells from it, so neither
    distances[0, 8] = torch.tensor([0.5, -0.5, 1.0, 0.0])
    targets = one((5.0, 5.0, 7.0, 6.0))
    targets.labels = torch.tensor([1])
    loss = DenseBoxLoss(class_loss=class_loss)  # pyright: ignore[reportArgumentType]
    points = make_points([(3, 7)], (4,))
    return loss(scores, distances, points, targets, shape=(3, 7)), scores, distances


def test_squared_errors_by_hand() -> None:
    """Middle of the cell (6, 6): sides 1, 1, 1 and 0 pixels away, in units of 50."""
    found, _, _ = terms_by_hand("l2")
    assert list(found) == ["class", "box"]
    assert found["class"].item() == pytest.approx(0.25**2 + 0.5**2 + 0.5**2 + 2.0**2)
    assert found["box"].item() == pytest.approx(3 * (0.48**2 + 0.52**2 + 0.98**2), rel=1e-5)


def test_cross_entropy_by_hand() -> None:
    found, _, _ = terms_by_hand("bce")
    positive = math.log1p(math.exp(0.25)) + math.log1p(math.exp(-0.5))
    others = {(0.5, -2.0): math.log1p(math.exp(0.5)) + math.log1p(math.exp(-2)), (0.0, 0.0): 2 * math.log(2)}
    assert found["class"].item() == pytest.approx(positive + max(others.values()), rel=1e-5)


def test_terms_are_shared_out_over_positives() -> None:
    """A batch twice over has the same terms."""
    torch.manual_seed(0)
    points, shape = make_points([(12, 12)], (4,)), (12, 12)
    scores, distances = torch.randn(1, 144, 3), torch.randn(1, 144, 4)
    boxes = torch.tensor([[4.0, 4.0, 40.0, 40.0]])
    once = Targets(boxes=boxes, labels=torch.tensor([2]), image=torch.tensor([0]))
    twice = Targets(boxes=boxes.repeat(2, 1), labels=torch.tensor([2, 2]), image=torch.tensor([0, 1]))
    loss = DenseBoxLoss(negatives=100.0)  # all the background, so that ranks make no difference
    single = loss(scores, distances, points, once, shape=shape)
    double = loss(scores.repeat(2, 1, 1), distances.repeat(2, 1, 1), points, twice, shape=shape)
    for term, value in single.items():
        torch.testing.assert_close(double[term], value)


@pytest.mark.parametrize("class_loss", ["l2", "bce"])
def test_gradients(class_loss: str) -> None:
    torch.manual_seed(0)
    points = make_points([(6, 6)], (4,))
    targets = one((2, 2, 20, 20), (1.2, 1.2, 1.4, 1.4))
    loss = DenseBoxLoss(class_loss=class_loss)  # pyright: ignore[reportArgumentType]
    scores, distances = torch.rand(1, 36, 2).double(), torch.randn(1, 36, 4).double()

    def both(scores: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
        found = loss(scores, distances, points, targets, shape=(6, 6))
        return found["class"], found["box"]

    assert torch.autograd.gradcheck(both, (scores.requires_grad_(), distances.requires_grad_()))


@pytest.mark.parametrize("class_loss", ["l2", "bce"])
def test_edge_cases_are_finite(class_loss: str, as_targets: Callable[..., Targets]) -> None:
    points, shape = make_points([(9, 12)], (4,)), (9, 12)
    loss = DenseBoxLoss(class_loss=class_loss)  # pyright: ignore[reportArgumentType]
    same = torch.tensor([[3.0, 3.0, 30.0, 30.0]])
    cases = [
        torch.zeros(0, 4),
        same,
        same.repeat(1000, 1),
        torch.tensor([[5.3, 5.1, 5.4, 5.2], [5.0, 5.0, 5.0, 5.0]]),
        torch.tensor([[-500.0, -500.0, 500.0, 500.0]]),
        torch.tensor([[900.0, 900.0, 950.0, 950.0]]),
    ]
    for boxes in cases:
        scores, distances = torch.randn(2, 108, 3).requires_grad_(), torch.randn(2, 108, 4).requires_grad_()
        targets = as_targets([torch.zeros(0, 4), boxes], [torch.zeros(0).long(), torch.zeros(len(boxes)).long()])
        for ignore in (None, torch.ones(len(boxes), dtype=torch.bool)):
            targets.ignore = ignore
            found = loss(scores, distances, points, targets, shape=shape)
            assert all(term.isfinite() and term.dtype == torch.float32 for term in found.values())
            gradients = torch.autograd.grad(sum(found.values(), torch.zeros(())), (scores, distances))
            assert all(bool(gradient.isfinite().all()) for gradient in gradients)
            assert bool(gradients[0].any())  # the background of any batch teaches
    everywhere = as_targets([torch.tensor([[-9.0, -9.0, 99.0, 99.0]])] * 2, [torch.tensor([0])] * 2)
    everywhere.ignore = torch.tensor([True, True])
    found = loss(torch.randn(2, 108, 3), torch.randn(2, 108, 4), points, everywhere, shape=shape)
    assert [term.item() for term in found.values()] == [0.0, 0.0]


def test_what_is_no_number_is_named() -> None:
    points = make_points([(6, 6)], (4,))
    scores, distances = torch.zeros(1, 36, 1), torch.zeros(1, 36, 4)
    scores[0, 0] = torch.nan
    found = DenseBoxLoss()(scores, distances, points, one((10, 10, 20, 20)), shape=(6, 6))
    assert found["class"].isnan()
    distances[:] = torch.inf
    found = DenseBoxLoss()(scores, distances, points, one((10, 10, 20, 20)), shape=(6, 6))
    assert not found["box"].isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_loss": "l1"}, "class_loss: there is none named 'l1'"),
        ({"radius": -0.1}, "radius: must be at least 0"),
        ({"box_weight": math.nan}, "box_weight: must be at least 0"),
        ({"negatives": math.inf}, "negatives: must be at least 0"),
        ({"box_scale": 0.0}, "box_scale: must be above 0"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DenseBoxLoss(**options)
