"""The class cost against the loss."""

from __future__ import annotations

import math

import torch

from clearsight.assign.focal import finite, focal_of_no, focal_of_yes
from clearsight.losses.focal import sigmoid_focal_loss


def test_is_the_focal_loss() -> None:
    logits = torch.linspace(-30, 30, 121)
    before = logits.clone()
    for cost, truth in ((focal_of_yes, torch.ones(121)), (focal_of_no, torch.zeros(121))):
        torch.testing.assert_close(cost(logits), sigmoid_focal_loss(logits, truth, reduction="none"))
    assert torch.equal(logits, before)


def test_finite() -> None:
    found = finite(torch.tensor([1.5, math.nan, math.inf, 1e9, -2.0]))
    assert found.tolist() == [1.5, 1e6, 1e6, 1e6, -2.0]
