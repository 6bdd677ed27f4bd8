from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearsight.data.geometry import plain
from clearsight.data.joining import join_flags, join_instances, join_rings, soft_label
from clearsight.errors import ShapeError
from clearsight.types import Instances, Sample


def test_objects_come_one_after_the_other(make_sample: Callable[..., Sample]) -> None:
    a, b, empty = (make_sample(n=n, seed=n).instances for n in (2, 3, 0))
    joined = join_instances([a, empty, b], (48, 64))
    assert joined.labels.tolist() == [0, 1, 0, 1, 2]
    assert torch.equal(plain(joined.boxes), torch.cat((plain(a.boxes), plain(b.boxes))))
    assert torch.equal(plain(joined.masks)[2:], plain(b.masks))
    assert joined.boxes.canvas_size == (48, 64)
    assert joined.ring_object.tolist() == [*a.ring_object.tolist(), *(b.ring_object + 2).tolist()]
    # A longer list of vertices is the same ring: its last vertex is repeated.
    for ring, own in zip(joined.contours[len(a.contours) :], b.contours, strict=True):
        assert torch.equal(plain(ring)[: own.shape[0]], plain(own))
        assert bool((plain(ring)[own.shape[0] :] == plain(own)[-1]).all())


def test_what_one_part_lacks_the_whole_lacks(make_sample: Callable[..., Sample]) -> None:
    a, b = make_sample(seed=1).instances, make_sample(seed=2).instances
    b.masks = b.contours = b.ring_object = None
    joined = join_instances([a, b], (48, 64))
    assert joined.masks is None
    assert joined.contours is None
    assert joined.ring_object is None
    assert join_rings([a, b]) == (None, None)


def test_flags() -> None:
    plainly = Instances(boxes=torch.zeros(2, 4), labels=torch.zeros(2, dtype=torch.int64))
    flagged = Instances(
        boxes=torch.zeros(1, 4), labels=torch.zeros(1, dtype=torch.int64), ignore=torch.ones(1, dtype=torch.bool)
    )
    assert join_flags([plainly, plainly]) is None
    assert join_flags([plainly, flagged]).tolist() == [False, False, True]


def test_soft_label() -> None:
    assert soft_label(1, 3).tolist() == [0.0, 1.0, 0.0]
    already = torch.tensor([0.5, 0.5])
    assert soft_label(already, 3) is already
    with pytest.raises(ShapeError, match="classes"):
        soft_label(1, None)
