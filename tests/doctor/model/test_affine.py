from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.doctor.model.affine import affine_outputs


def test_sound_networks_are_not_linear(sound, evidence_of):
    assert affine_outputs(evidence_of(sound)) == 0


def test_a_linear_map_is_one_whatever_it_is_made_of(evidence_of):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    deep = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, 10)
    )
    for model in (flat, deep.train()):
        assert affine_outputs(evidence_of(model)) == 10
    assert affine_outputs(evidence_of(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten()))) == 108


@pytest.mark.parametrize("active", [nn.Tanh(), nn.GELU(), nn.Softplus()])
def test_almost_linear_is_not_linear(evidence_of, active):
    first = nn.Linear(64, 16)
    first.weight.data *= 1e-4
    assert affine_outputs(evidence_of(nn.Sequential(nn.Flatten(), first, active, nn.Linear(16, 10)))) == 0


def test_a_bend_that_single_precision_does_not_show(evidence_of):
    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(64, 10)

        def forward(self, x):
            x = self.net(x.flatten(1))
            return x + 1e-6 * x.tanh()

    assert affine_outputs(evidence_of(Bent())) == 0


@pytest.mark.parametrize("bias", [100.0, -100.0])
def test_units_that_are_all_open_or_all_dead(evidence_of, bias):
    """Of the images as they are, and of thirty times as strong ones, this is one linear map, or a constant."""
    first = nn.Linear(64, 16)
    first.bias.data.fill_(bias)
    assert affine_outputs(evidence_of(nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(16, 10)))) == 0


def test_outputs_that_do_not_depend_on_the_image_are_no_evidence(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    assert affine_outputs(evidence_of(model)) == 0
    assert affine_outputs(evidence_of(model, number=1)) == 0


def test_all_outputs_have_to_be(evidence_of):
    class Two(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.net, self.last = nn.Linear(64, 10), last
            self.register_buffer("places", torch.rand(10))

        def forward(self, x):
            scores = self.net(x.flatten(1))
            return {"scores": scores, "more": self.last(scores), "places": self.places.expand_as(scores)}

    assert affine_outputs(evidence_of(Two(nn.Identity()), forward=lambda m, x: m(x))) == 30
    assert affine_outputs(evidence_of(Two(nn.Sigmoid()), forward=lambda m, x: m(x))) == 0


def test_random_numbers_go_on_as_before(evidence_of):
    evidence = evidence_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    state = torch.get_rng_state()
    assert affine_outputs(evidence) == 10
    assert torch.equal(torch.get_rng_state(), state)
