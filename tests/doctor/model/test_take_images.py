"""Targets of some images are those that a batch of these images alone would have."""

from __future__ import annotations

import torch

from clearsight.doctor.model.take_images import take_images
from clearsight.types import Targets


def whole() -> Targets:
    """Three images with two, none and one object; the second object has two rings."""
    return Targets(
        boxes=torch.arange(12.0).reshape(3, 4),
        labels=torch.tensor([5, 6, 7]),
        image=torch.tensor([0, 0, 2]),
        ignore=torch.tensor([False, True, False]),
        masks=torch.stack([torch.full((2, 2), value) for value in (True, False, True)]),
        contours=torch.arange(4.0)[:, None, None].expand(4, 3, 2),
        ring_object=torch.tensor([0, 1, 1, 2]),
        semantic=torch.arange(3)[:, None, None].expand(3, 2, 2),
        label=torch.tensor([1, 2, 3]),
    )


def test_images_in_another_order() -> None:
    some = take_images(whole(), [2, 0])
    assert some.labels.tolist() == [7, 5, 6]
    assert some.image.tolist() == [0, 1, 1]
    assert some.ring_object is not None
    assert some.ring_object.tolist() == [0, 1, 2, 2]
    assert some.contours is not None
    assert some.contours[:, 0, 0].tolist() == [3, 0, 1, 2]
    assert some.semantic is not None
    assert some.semantic[:, 0, 0].tolist() == [2, 0]
    assert some.label is not None
    assert some.label.tolist() == [3, 1]
    assert some.ignore is not None
    assert some.ignore.tolist() == [False, False, True]
    assert some.boxes[0].tolist() == [8, 9, 10, 11]


def test_an_image_without_objects() -> None:
    some = take_images(whole(), [1])
    assert len(some.boxes) == len(some.image) == 0
    assert some.contours is not None
    assert len(some.contours) == 0
    assert some.semantic is not None
    assert some.semantic.shape == (1, 2, 2)


def test_what_is_not_there_stays_away() -> None:
    bare = Targets(boxes=torch.zeros(1, 4), labels=torch.zeros(1, dtype=torch.int64), image=torch.tensor([0]))
    some = take_images(bare, [0])
    assert some.masks is some.contours is some.semantic is some.label is None
