from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from clearsight.doctor.model.weight_scale import as_drawn, times_he


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 36, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def test_by_hand(evidence_of):
    model = net()
    found = times_he(evidence_of(model))
    assert list(found) == ["0", "4", "7", "9"]  # neither the transposed one nor the last one
    assert found["0"] == pytest.approx(float(model[0].weight.detach().std()) * math.sqrt(9 / 2), rel=1e-5)
    assert found["4"] == pytest.approx(float(model[4].weight.detach().std()) * math.sqrt(8 * 9 / 2), rel=1e-5)
    assert found["9"] == pytest.approx(float(model[9].weight.detach().std()) * math.sqrt(32 / 2), rel=1e-5)
    nn.init.zeros_(model[4].weight)
    assert list(times_he(evidence_of(model))) == ["0", "7", "9"]
    nn.init.zeros_(model[7].weight)
    assert times_he(evidence_of(model)) == {}


@pytest.mark.parametrize(
    "rule",
    [
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out"),
        nn.init.xavier_normal_,
        nn.init.xavier_uniform_,
        nn.init.orthogonal_,
    ],
)
def test_usual_rules_give_1_at_most(evidence_of, rule):
    model = net()
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rule(layer.weight)
    assert max(times_he(evidence_of(model)).values()) < 1.15  # a few per cent by chance


def test_a_model_that_cannot_be_copied_is_judged_with_its_last_layer(evidence_of):
    model = net()
    model.handle = (one for one in ())  # a generator
    assert list(times_he(evidence_of(model))) == ["0", "4", "7", "9", "11"]


def test_what_looks_drawn():
    model = net()
    names = ["0", "4", "7", "9"]
    weights = {name: dict(model.named_parameters())[f"{name}.weight"] for name in names}
    assert as_drawn(model, names)
    for name in names:  # whatever the size, and of one deviation in all layers
        weights[name].data *= 12
    assert as_drawn(model, names)
    for name in names:
        nn.init.normal_(weights[name], std=0.3)
    assert as_drawn(model, names)
    with torch.no_grad():
        weights["7"] *= weights["7"].abs()  # tails
    assert not as_drawn(model, names)
    nn.init.normal_(weights["7"], std=0.3 * 12)  # one of a size of its own
    assert not as_drawn(model, names)


def test_norms_tell_a_trained_model():
    model = nn.Sequential(net()[:6], nn.BatchNorm2d(8))
    assert as_drawn(model, ["0.0", "0.4"])
    model.train()(torch.randn(4, 1, 8, 8))
    assert not as_drawn(model, ["0.0", "0.4"])
