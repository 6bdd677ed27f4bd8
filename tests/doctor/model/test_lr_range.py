from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from clearsight.doctor.model.lr_range import LearningRateOutOfBand, lr_range_test, peak_rate
from clearsight.doctor.model.probing import loss_of, subset

QUICK = {"steps": 50, "repetitions": 2}


def found(evidence):
    return list(LearningRateOutOfBand(**QUICK).check(evidence))


def batches_of(evidence, size=16):
    return [subset(evidence, range(i, i + size)) for i in range(0, len(evidence.images), size)]


@pytest.mark.parametrize("name", ["mlp", "cnn", "cnn_bn"])
def test_usual_rates_are_quiet(request, evidence_of, name):
    model = request.getfixturevalue(name)
    for optimizer in (torch.optim.SGD(model.parameters(), 0.03), torch.optim.AdamW(model.parameters(), 3e-3)):
        assert found(evidence_of(model, optimizer=optimizer)) == []


@pytest.mark.parametrize(
    ("optimizer", "rate", "severity"),
    [
        (torch.optim.SGD, 30.0, "warning"),
        (torch.optim.SGD, 1e-7, "warning"),
        (torch.optim.Adam, 1e-7, "warning"),
        (torch.optim.Adam, 5.0, "warning"),
    ],
)
def test_rates_that_cannot_train(cnn, evidence_of, optimizer, rate, severity):
    evidence = evidence_of(cnn, optimizer=optimizer(cnn.parameters(), rate), recipe={"optimizer": {"lr": rate}})
    (finding,) = found(evidence)
    assert (finding.severity, finding.where, finding.evidence["row"]) == (severity, "optimizer.lr", "P10")
    assert finding.evidence["low"] <= finding.remedy["optimizer.lr"] * 1.05
    assert finding.remedy["optimizer.lr"] <= finding.evidence["high"] * 1.05


def trained(model, images, labels, optimizer, rate):
    """Mean loss of the last of 150 steps with a rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    losses = []
    for step in range(150):
        part = slice(step % 8 * 32, step % 8 * 32 + 32)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images[part]), labels[part])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses[-8:]))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_the_band_holds_in_training(cnn, digit_images, evidence_of, kind):
    optimizer = kind(cnn.parameters(), 1e-3)
    evidence = evidence_of(cnn, number=128, optimizer=optimizer)
    band = lr_range_test(evidence, optimizer, batches_of(evidence, 32), steps=60, repetitions=2)
    assert band is not None
    assert band.diverges is not None
    assert band.low <= band.suggested <= band.high
    images, labels = digit_images
    after = {}
    for rate in (band.suggested, band.low / 10, 3 * band.diverges):
        twin = copy.deepcopy(cnn)
        after[rate] = trained(twin, images, labels, kind(twin.parameters(), rate), rate)
    suggested, slow, wild = after.values()
    assert suggested < 0.7 * np.log(10)
    assert slow > suggested
    assert not wild < suggested


def test_model_optimiser_and_random_streams_are_as_before(cnn_bn, evidence_of):
    optimizer = torch.optim.Adam(cnn_bn.parameters(), 1e-3)
    evidence = evidence_of(cnn_bn, optimizer=optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(evidence).backward()
        optimizer.step()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1)
    gradients = [p.grad.clone() for p in cnn_bn.parameters()]
    weights, state = copy.deepcopy(cnn_bn.state_dict()), copy.deepcopy(optimizer.state_dict())
    torch.manual_seed(5)
    stream = torch.get_rng_state()
    band = lr_range_test(evidence, optimizer, batches_of(evidence), steps=30, repetitions=1)
    assert band is not None
    assert torch.equal(stream, torch.get_rng_state())
    assert all(torch.equal(weights[name], value) for name, value in cnn_bn.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, cnn_bn.parameters(), strict=True))
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    for key, entry in state["state"].items():
        assert all(torch.equal(entry[name], after["state"][key][name]) for name in entry)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_the_rate_is_the_one_after_warm_up(mlp):
    optimizer = torch.optim.SGD([{"params": [mlp[1].weight], "lr": 0.1}, {"params": [mlp[3].weight]}], lr=0.3)
    assert peak_rate(optimizer) == 0.3
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.01)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.003)
    assert peak_rate(optimizer) == 0.3


def test_a_loss_that_never_falls_has_no_band(mlp, evidence_of):
    optimizer = torch.optim.SGD(mlp.parameters(), 0.1)
    evidence = evidence_of(mlp, optimizer=optimizer, loss=lambda m, x, t: 1 + 0 * m(x).sum())
    assert lr_range_test(evidence, optimizer, batches_of(evidence), steps=20, repetitions=1) is None
    assert found(evidence) == []


def test_no_sweep_in_time_is_no_band(mlp, evidence_of):
    optimizer = torch.optim.SGD(mlp.parameters(), 0.1)
    evidence = evidence_of(mlp, optimizer=optimizer)
    assert lr_range_test(evidence, optimizer, batches_of(evidence), seconds=1e-3) is None


def test_what_it_needs(mlp, evidence_of):
    rule = LearningRateOutOfBand
    assert rule().lacks(evidence_of(mlp)) == "an optimiser"
    assert "one evaluation a step" in rule().lacks(evidence_of(mlp, optimizer=torch.optim.LBFGS(mlp.parameters())))
    evidence = evidence_of(mlp, optimizer=torch.optim.SGD(mlp.parameters(), 0.1))
    assert rule().lacks(evidence) == ""
    assert "less than 0.0001 s" in rule(seconds=1e-4).lacks(evidence)
