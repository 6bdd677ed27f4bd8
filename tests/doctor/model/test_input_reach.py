from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.doctor.model.input_reach import UNCHANGED, input_reach, rows_of


def test_by_hand(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    evidence = evidence_of(model)
    rows = model(evidence.images[:16]).detach().double()
    expected = float((rows - rows[:1]).norm() / rows.norm())
    assert input_reach(evidence) == input_reach(evidence, 16) == pytest.approx(expected, rel=1e-6)


def test_zeros_are_drawn_anew_and_come_back(mlp, evidence_of):
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight)
    evidence = evidence_of(mlp)
    found = input_reach(evidence)
    assert found is not None
    assert found > UNCHANGED
    assert not mlp[1].weight.any()


def test_what_is_dropped_stays_away(evidence_of):
    dropped = evidence_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), forward=lambda m, x: m(0 * x))
    found = input_reach(dropped)
    assert found is not None
    assert found <= UNCHANGED
    assert input_reach(evidence_of(nn.Flatten(), forward=lambda m, x: x.mean())) is None


def test_rows_are_those_of_images():
    outputs = {"a": torch.zeros(3, 2), "b": [torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), torch.tensor(1.0)]}
    (row,) = rows_of(outputs, 3)
    assert row.dtype == torch.float64
    assert row.shape == (3, 2)
