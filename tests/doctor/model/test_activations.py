from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.activations import ActivationScale, DeadAtStart, output_scales, silent_channels


def deep(scale, *, depth=8, last=None):
    """Linear layers whose outputs have `scale` times the deviation of their inputs, behind a ReLU that keeps half."""
    layers = [nn.Flatten()]
    for number in range(depth):
        layer = nn.Linear(64, 64, bias=False)
        gain = scale if number < depth - 1 or last is None else last
        nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / 64))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def scale_of(evidence):
    return list(ActivationScale().check(evidence))


def dead_of(evidence):
    return list(DeadAtStart().check(evidence))


def test_sound_networks_are_quiet(sound, evidence_of):
    evidence = evidence_of(sound)
    assert scale_of(evidence) == []
    assert dead_of(evidence) == []


@pytest.mark.parametrize(
    ("scale", "severity"),
    [(0.25, "warning"), (4.0, "warning"), (2.3, "warning"), (0.45, "warning"), (0.6, None), (1.7, None), (1.0, None)],
)
def test_drift_through_the_depth(evidence_of, scale, severity):
    findings = scale_of(evidence_of(deep(scale)))
    assert [one.severity for one in findings] == ([] if severity is None else [severity])
    if findings:
        assert findings[0].evidence["count"] == 8
        assert findings[0].where.isdigit()
        assert ("grows" in findings[0].explanation) == (scale > 1)


def test_a_mild_drift_is_worth_knowing(evidence_of):
    assert [one.severity for one in scale_of(evidence_of(deep(0.4, depth=5)))] == ["info"]


def test_one_small_last_layer_is_no_drift(evidence_of):
    assert scale_of(evidence_of(deep(1.0, last=1e-4))) == []


def test_an_output_that_is_not_finite(cnn, evidence_of):
    cnn[3].weight.data.fill_(math.nan)
    (finding,) = scale_of(evidence_of(cnn))
    assert (finding.severity, finding.where) == ("error", "3")


def test_scales_are_those_of_the_outputs(mlp, evidence_of):
    evidence = evidence_of(mlp)
    scales, signals = map(dict, output_scales(evidence))
    assert list(scales) == list(signals) == ["1", "3", "5"]
    assert scales["1"] == pytest.approx(float(mlp[1](evidence.images.flatten(1)).detach().std()), rel=1e-5)
    first = mlp[1](evidence.images.flatten(1)).detach()
    assert signals["1"] == pytest.approx(float(first.var(0, correction=0).mean().sqrt()), rel=1e-5)
    assert not mlp[1]._forward_hooks


@pytest.mark.parametrize(
    ("gain", "severity"), [(0.01, "warning"), (0.1, "warning"), (0.7, None), (1.0, None), (2.0, None), (10, "warning")]
)
def test_weights_that_are_too_small_or_large(mlp, cnn, cnn_bn, evidence_of, gain, severity):
    for model in (mlp, cnn):
        for layer in model:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.data *= gain  # the biases stay, and hide what is lost
        findings = scale_of(evidence_of(model))
        assert [one.severity for one in findings] == ([] if severity is None else [severity])
        assert all(("differs between images" in one.explanation) == (gain < 1) for one in findings)
    for layer in cnn_bn:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= gain
    assert scale_of(evidence_of(cnn_bn.train())) == []  # norms take it up


def test_sigmoids_lose_the_image_from_layer_to_layer(evidence_of):
    def net(active, depth):
        hidden = [part for _ in range(depth) for part in (nn.Linear(64, 64), active())]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))

    assert [one.severity for one in scale_of(evidence_of(net(nn.Sigmoid, 5)))] == ["warning"]
    assert scale_of(evidence_of(net(nn.Sigmoid, 1))) == []
    assert scale_of(evidence_of(net(nn.Tanh, 5))) == []
    assert scale_of(evidence_of(net(nn.ReLU, 3))) == []


def test_a_unit_that_is_silent_by_chance_is_no_drift(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 10))
    model[1].weight.data.abs_()
    model[1].bias.data.fill_(-5)
    assert scale_of(evidence_of(model)) == []


@pytest.mark.parametrize(("share", "severity"), [(0.1, []), (0.4, ["info"]), (0.9, ["warning"])])
def test_dead_channels(evidence_of, share, severity):
    layer = nn.Conv2d(1, 128, 3, padding=1)
    layer.bias.data.fill_(0.5)
    layer.bias.data[: int(128 * share)] = -100.0
    findings = dead_of(evidence_of(nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(128 * 64, 10))))
    assert [one.severity for one in findings] == severity
    assert [(one.where, one.evidence["dead"]) for one in findings] == [("1", int(128 * share))] * len(severity)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 40), nn.Linear(40, 10)
        self.first.bias.data[:35] = -100.0

    def forward(self, x):
        return self.second(F.relu(self.first(x.flatten(1))))


def test_a_relu_that_is_no_module_is_seen(evidence_of):
    model = nn.Sequential(Functional())
    (finding,) = dead_of(evidence_of(model))
    assert (finding.where, finding.evidence["channels"]) == ("0", 40)


def test_zeros_are_not_dead_channels(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 10))
    evidence = evidence_of(model)
    zeros = float((model[:3](evidence.images) == 0).float().mean())
    assert zeros > 0.4
    assert dead_of(evidence) == []


def test_each_use_of_a_relu_counts_by_itself(evidence_of):
    relu = nn.ReLU()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), relu, nn.Linear(8, 6), relu, nn.Linear(6, 10))
    layers = silent_channels(evidence_of(model))
    assert {name: channels for name, (_, channels, _) in layers.items()} == {"2": 8, "2#2": 6}
    six = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU6(), nn.Hardtanh(), nn.Linear(8, 10))
    assert list(silent_channels(evidence_of(six))) == ["2"]


def test_few_units_are_dead_by_chance(evidence_of):
    gate = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    gate[1].bias.data[:3] = -100.0
    assert dead_of(evidence_of(gate)) == []


def test_few_images_say_nothing(mlp, evidence_of):
    assert "16 images, found 8" in DeadAtStart().lacks(evidence_of(mlp, number=8))
    assert DeadAtStart().lacks(evidence_of(mlp, number=16)) == ""


def test_hooks_are_gone_after_an_error(mlp, evidence_of):
    evidence = evidence_of(mlp, forward=lambda m, x: m(torch.zeros(3)))
    for rule in (ActivationScale(), DeadAtStart()):
        with pytest.raises((RuntimeError, IndexError)):
            list(rule.check(evidence))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in mlp.modules())
