from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.doctor.model.input_changed import InputChanged


class Centred(nn.Module):
    def __init__(self, net, *, in_place, in_training=True):
        super().__init__()
        self.net, self.in_place, self.in_training = net, in_place, in_training

    def forward(self, x):
        return self.net(x.sub_(0.5) if self.in_place and self.training == self.in_training else x - 0.5)


def found(evidence):
    return list(InputChanged().check(evidence))


def test_sound_networks_are_quiet(sound, evidence_of):
    assert found(evidence_of(sound)) == []


@pytest.mark.parametrize("in_training", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_model_that_centres_its_input(mlp, evidence_of, in_place, in_training):
    evidence = evidence_of(Centred(mlp, in_place=in_place, in_training=in_training))
    before = evidence.images.clone()
    findings = found(evidence)
    assert [finding.id for finding in findings] == ["input-changed"] * in_place
    assert torch.equal(evidence.images, before)
    for finding in findings:
        assert finding.evidence["share"] == 1.0
        assert finding.evidence["most"] == pytest.approx(0.5)


def test_in_place_activations_count_as_the_first_layer_only(evidence_of):
    last = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    first = found(evidence_of(nn.Sequential(nn.Hardtanh(0.4, 0.6, inplace=True), last)))
    later = found(evidence_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(inplace=True), nn.Linear(32, 10))))
    assert len(first) == 1
    assert 0 < first[0].evidence["share"] < 1
    assert later == []
