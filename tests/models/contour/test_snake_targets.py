"""What Deep Snake learns from: outlines by hand, and those that teach nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clearsight.errors import DataError
from clearsight.models.contour.snake_targets import largest_rings, snake_targets
from clearsight.ops.rings import octagon, resample_rings, ring_areas, ring_boxes
from clearsight.types import Targets


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def outlined(
    rings: list[list[list[float]]], owner: list[int], image: list[int], *, ignore: list[bool] | None = None
) -> Targets:
    """Rings padded to one length; an object's box is that around all its rings."""
    longest = max(len(ring) for ring in rings)
    contours = torch.tensor([ring + ring[-1:] * (longest - len(ring)) for ring in rings])
    objects = torch.tensor(owner)
    boxes = [ring_boxes(contours[objects == each].reshape(1, -1, 2))[0] for each in range(len(image))]
    return Targets(
        boxes=torch.stack(boxes),
        labels=torch.zeros(len(image), dtype=torch.int64),
        image=torch.tensor(image),
        ignore=None if ignore is None else torch.tensor(ignore),
        contours=contours,
        ring_object=objects,
    )


def test_a_square_by_hand() -> None:
    ring = square(2, 4, 8)
    for given in (ring, ring[::-1], ring[2:] + ring[:2]):
        found = snake_targets(outlined([given], [0], [0]), points=32)
        assert found.image.tolist() == [0]
        assert found.boxes.tolist() == [[2, 4, 10, 12]]
        assert found.extremes[0].tolist() == [[6, 4], [2, 8], [6, 12], [10, 8]]
        # A vertex a pixel, clockwise from the middle of the upper side.
        assert found.contours[0, :6].tolist() == [[6, 4], [7, 4], [8, 4], [9, 4], [10, 4], [10, 5]]
        assert found.contours[0, 16].tolist() == [6, 12]
        assert found.contours[0, -1].tolist() == [5, 4]
        assert torch.equal(found.contours[:, 0], resample_rings(octagon(found.extremes), 32)[:, 0])


def test_the_largest_part_stands_for_the_object() -> None:
    parts = [square(0, 0, 3), square(10, 0, 6), square(11, 1, 4)[::-1], square(30, 3, 2)]
    found = snake_targets(outlined(parts, [0, 0, 0, 1], [0, 1]), points=24)
    assert found.image.tolist() == [0, 1]
    assert found.boxes[0].tolist() == [0, 0, 16, 6]  # of the whole object
    assert ring_boxes(found.contours).tolist() == [[10, 0, 16, 6], [30, 3, 32, 5]]
    assert bool((ring_areas(found.contours, signed=True) > 0).all())


def test_the_order_of_the_rings_does_not_matter() -> None:
    areas, owner = torch.tensor([3.0, 0.0, 7.0, 7.0, 1.0, 2.0, 0.0]), torch.tensor([2, 4, 0, 0, 2, 1, 1])
    assert largest_rings(areas, owner).tolist() == [2, 5, 0]  # object 3 has no ring, object 4 none with an area
    order = torch.tensor([6, 2, 4, 0, 3, 5, 1])
    assert order[largest_rings(areas[order], owner[order])].tolist() == [2, 5, 0]
    assert largest_rings(torch.tensor([]), torch.tensor([], dtype=torch.int64)).tolist() == []


def test_what_teaches_nothing() -> None:
    rings: list[list[list[float]]] = [
        square(1, 1, 5),
        [[3.0, 3.0]],
        [[1.0, 1.0], [9.0, 5.0]],
        [[1.0, 1.0], [5.0, 5.0], [9.0, 9.0], [4.0, 4.0]],
        [[0.0, 0.0], [4.0, 4.0], [4.0, 0.0], [0.0, 4.0]],
        square(20, 20, 1),
        square(2, 2, 9),
    ]
    ignore = [False] * 6 + [True]
    found = snake_targets(outlined(rings, list(range(7)), [0, 0, 0, 0, 1, 1, 1], ignore=ignore), points=20)
    assert found.image.tolist() == [0, 1]
    assert found.boxes.tolist() == [[1, 1, 6, 6], [20, 20, 21, 21]]
    for tensor in found:
        assert bool(tensor.isfinite().all())
    flat = outlined([square(1, 1, 5)], [0], [0])
    flat.boxes[0, 2] = 1.0
    assert len(snake_targets(flat, points=20).image) == 0


def test_a_ring_that_crosses_itself_keeps_its_length() -> None:
    loops = [[0.0, 0.0], [8.0, 0.0], [8.0, 8.0], [0.0, 8.0], [0.0, 4.0], [12.0, 4.0], [12.0, 6.0], [0.0, 6.0]]
    found = snake_targets(outlined([loops], [0], [0]), points=128)
    assert len(found.image) == 1
    assert ring_boxes(found.contours)[0].tolist() == pytest.approx([0, 0, 12, 8], abs=0.5)


def test_no_objects_and_no_outlines() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    none = Targets(boxes=torch.zeros(0, 4), labels=empty, image=empty, contours=torch.zeros(0, 0, 2), ring_object=empty)
    shapes = [tuple(tensor.shape) for tensor in snake_targets(none, points=20)]
    assert shapes == [(0,), (0, 4), (0, 4, 2), (0, 20, 2)]
    with pytest.raises(DataError, match="learns from outlines"):
        snake_targets(Targets(boxes=torch.zeros(0, 4), labels=empty, image=empty))


def test_of_too_many_some_are_drawn() -> None:
    rings = [square(i, i, 2 + i) for i in range(30)]
    targets = outlined(rings, list(range(30)), [0] * 12 + [1] * 18)

    def drawn(seed: int, most: int) -> Tensor:
        torch.manual_seed(seed)
        return snake_targets(targets, points=20, max_objects=most).boxes[:, 0]

    assert drawn(0, 30).tolist() == list(range(30))
    some = drawn(0, 10)
    assert len(some.unique()) == 10
    assert torch.equal(some, some.sort().values)
    assert torch.equal(some, drawn(0, 10))
    assert not torch.equal(some, drawn(1, 10))
