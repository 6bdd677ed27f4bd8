from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.precision import PrecisionOverflow


def found(evidence, precision):
    return list(PrecisionOverflow(precision=precision).check(evidence))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_sound_networks_are_quiet(sound, evidence_of, precision):
    assert found(evidence_of(sound), precision) == []


class Scaled(nn.Module):
    """Features that grow beyond float16 and are normalised after."""

    def __init__(self, factor):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(64, 32), nn.LayerNorm(32), nn.Linear(32, 10)
        self.factor = factor

    def forward(self, x):
        return self.last(self.norm(self.first(x.flatten(1) * self.factor)))


def test_outputs_beyond_float16(evidence_of):
    (finding,) = found(evidence_of(Scaled(3e5)), "16-mixed")
    assert (finding.severity, finding.where) == ("error", "first")
    assert finding.remedy == {"trainer.precision": "bf16-mixed"}
    assert found(evidence_of(Scaled(3e3)), "16-mixed") == []
    assert found(evidence_of(Scaled(3e5)), "bf16-mixed") == []


def test_gradients_beyond_float16(mlp, evidence_of):
    (finding,) = found(evidence_of(mlp, loss=lambda m, x, t: 1e6 * F.cross_entropy(m(x), t)), "16-mixed")
    assert (finding.severity, finding.where) == ("warning", "gradients")


def test_a_loss_that_rounding_changes(evidence_of):
    """A difference of large numbers, of which bfloat16 keeps three digits."""
    model = nn.Linear(64, 1)

    def cancelled(m, x, t):
        score = m(x.flatten(1))
        return ((score + 1000) - 1000).float().square().mean()

    (finding,) = found(evidence_of(model, loss=cancelled), "bf16-mixed")
    assert finding.severity == "warning"
    assert finding.evidence["difference"] > 0.1
    assert finding.remedy == {"trainer.precision": "32-true"}


def test_the_recipe_says_which(mlp, evidence_of):
    evidence = evidence_of(mlp, recipe={"trainer": {"precision": "16-mixed"}})
    assert PrecisionOverflow().lacks(evidence) == ""
    evidence = evidence_of(Scaled(3e5), recipe={"trainer": {"precision": "16-mixed"}})
    assert len(list(PrecisionOverflow().check(evidence))) == 1
    assert PrecisionOverflow().lacks(evidence_of(mlp)) == "training in reduced precision"
    assert PrecisionOverflow(precision="32-true").lacks(evidence) != ""


def test_dropout_is_no_difference(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Dropout(0.9), nn.Linear(64, 10))
    torch.nn.init.normal_(model[3].weight)
    assert found(evidence_of(model), "bf16-mixed") == []
