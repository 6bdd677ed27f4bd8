"""What every assigner answers has the form that the docstring of `Assignment` promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clearsight.assign import ASSIGNERS
from clearsight.assign.assignment import Assignment, BagOptions, Points, Predictions
from clearsight.types import Targets


def within(values: Tensor, low: float, high: float) -> bool:
    return bool(((values >= low) & (values <= high)).all())


@pytest.mark.parametrize("name", ASSIGNERS)
def test_every_assigner_keeps_the_form(
    name: str,
    anchors: Points,
    make_targets: Callable[..., Targets],
    make_predictions: Callable[..., Predictions],
) -> None:
    images, classes = 3, 3
    targets = make_targets(4, 0, 6, ignored=True, classes=classes)
    options = {"num_classes": classes} if name == "auto_assign" else {}
    found = ASSIGNERS[name](**options)(
        anchors, targets, make_predictions(anchors, images, classes=classes), images=images
    )
    pairs, places = len(found.object), len(anchors.xy)
    assert pairs > 0
    assert {len(part) for part in (found.object, found.point, found.weight)} == {pairs}
    assert within(found.object, 0, len(targets.labels) - 1)
    assert within(found.point, 0, places - 1)
    assert found.background.shape == (images, places)
    assert within(found.background.detach(), 0, 1)
    assert targets.ignore is not None
    assert not targets.ignore[found.object].any()
    for part in (found.quality, found.class_background):
        assert part is None or (len(part) == pairs and within(part.detach(), 0, 1))
    if found.combine == "each":
        assert (found.weight > 0).all()
        place = targets.image[found.object] * places + found.point
        assert (place.diff() > 0).all()  # by image and point, one object each
        assert (found.background.flatten()[place] == 0).all()
    else:
        assert (found.object.diff() >= 0).all()
        assert (found.weight >= 0).all()


def test_hard_and_equal_unless_said_otherwise() -> None:
    one = torch.zeros(1, dtype=torch.int64)
    plain = Assignment(object=one, point=one, weight=torch.ones(1), background=torch.zeros(1, 1))
    assert plain.combine == "each"
    assert (plain.quality, plain.class_background, plain.bag) == (None, None, None)
    # Zhang et al. 2019, section 4.1: alpha 0.5, gamma 2, and beta 0.75 of the box loss.
    assert BagOptions()[:3] == (0.75, 0.5, 2.0)
