"""Box voting against a hand-worked case and a loop."""

from __future__ import annotations

import math

import pytest
import torch

from clearsight.errors import RangeError
from clearsight.ops.boxes import box_iou
from clearsight.ops.voting import vote_boxes


def test_two_candidates_by_hand() -> None:
    kept = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    candidates = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0]])
    voted = vote_boxes(kept, torch.tensor([1]), candidates, torch.tensor([0.9, 0.6]), torch.tensor([1, 1]))
    second = 0.6 * math.exp(-(0.2**2) / 0.025)  # its overlap is 0.8
    expected = (0.9 * 10 + second * 8) / (0.9 + second)
    torch.testing.assert_close(voted, torch.tensor([[0.0, 0.0, 10.0, expected]]))


def test_other_classes_and_far_boxes_have_no_vote() -> None:
    kept = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    candidates = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [6.0, 0.0, 16.0, 10.0]])
    voted = vote_boxes(kept, torch.tensor([0]), candidates, torch.tensor([0.9, 0.9, 0.9]), torch.tensor([0, 1, 0]))
    torch.testing.assert_close(voted, kept)


def test_no_candidates_leave_the_box() -> None:
    kept = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    nothing = torch.zeros((0, 4))
    voted = vote_boxes(kept, torch.tensor([0]), nothing, torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    torch.testing.assert_close(voted, kept)


def test_equals_a_loop() -> None:
    corners = torch.rand(60, 2) * 30
    candidates = torch.cat((corners, corners + 10 + torch.rand(60, 2) * 5), dim=1)
    labels = torch.randint(3, (60,))
    scores = torch.rand(60) + 0.01
    voted = vote_boxes(candidates[:7], labels[:7], candidates, scores, labels, sigma=0.05, iou=0.4)
    for k in range(7):
        total, mean = 0.0, torch.zeros(4)
        for c in range(60):
            overlap = float(box_iou(candidates[k : k + 1], candidates[c : c + 1]))
            if labels[c] == labels[k] and overlap >= 0.4:
                weight = float(scores[c]) * math.exp(-((1 - overlap) ** 2) / 0.05)
                total, mean = total + weight, mean + weight * candidates[c]
        torch.testing.assert_close(voted[k], mean / total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("sigma", "iou"), [(0.0, 0.5), (0.1, 0.0), (0.1, 1.0)])
def test_values_out_of_range(sigma: float, iou: float) -> None:
    box, label = torch.zeros((1, 4)), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(RangeError, match="sigma must be above 0"):
        vote_boxes(box, label, box, torch.ones(1), label, sigma=sigma, iou=iou)
