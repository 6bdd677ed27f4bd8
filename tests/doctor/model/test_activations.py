from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from clearsight.doctor.model.activations import ActivationScale, output_scales


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


def test_sound_networks_are_quiet(sound, evidence_of):
    evidence = evidence_of(sound)
    assert scale_of(evidence) == []


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


def test_hooks_are_gone_after_an_error(mlp, evidence_of):
    evidence = evidence_of(mlp, forward=lambda m, x: m(torch.zeros(3)))
    with pytest.raises((RuntimeError, IndexError)):
        scale_of(evidence)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in mlp.modules())


@pytest.mark.parametrize(("shrinks", "severity"), [(9.0, ["info"]), (3.0, []), (1.0, [])])
def test_what_is_lost_on_the_whole_is_worth_knowing(evidence_of, shrinks, severity):
    """Not from layer to layer, which would be a drift, but in one step half-way and one at the end."""
    steps = [1.0, 1.0, shrinks, 1.0, shrinks, shrinks]
    layers = [part for _ in steps for part in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10))
    for layer, step in zip([one for one in model if isinstance(one, nn.Linear)], steps, strict=False):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.uniform_(layer.bias, -0.5, 0.5)
        layer.weight.data /= step
    findings = scale_of(evidence_of(model))
    assert [one.severity for one in findings] == severity
    assert all("from 1" in one.explanation and one.where == "13" for one in findings)


def with_norms(rescale) -> nn.Sequential:
    """Four convolutions, each behind a norm that takes up whatever scale it has."""
    parts = [part for _ in range(4) for part in (nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), *parts, nn.Flatten(), nn.Linear(576, 10))
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            rescale(layer.weight)
    return model


@pytest.mark.parametrize(
    ("rescale", "severity"),
    [
        (lambda weight: weight.data.mul_(10), ["warning"]),
        (lambda weight: nn.init.normal_(weight), ["warning"]),  # deviation 1 in all layers
        (lambda weight: nn.init.kaiming_uniform_(weight).data.mul_(2.5), ["warning"]),
        (lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out"), []),
        (lambda weight: nn.init.xavier_uniform_(weight), []),
        (lambda weight: nn.init.orthogonal_(weight), []),
        (lambda weight: nn.init.trunc_normal_(weight, std=0.02), []),
        (lambda weight: weight.data.mul_(0.1), ["info"]),  # the norms make up for it
    ],
)
def test_weights_behind_norms(evidence_of, rescale, severity):
    findings = scale_of(evidence_of(with_norms(rescale).train()))
    assert [one.severity for one in findings] == severity
    assert all("as large as He's rule would make them" in one.explanation for one in findings)


def test_weights_that_are_trained_or_made_up_for_are_no_start(evidence_of):
    model = with_norms(lambda weight: weight.data.mul_(10)).train()
    model(evidence_of(model).images)  # the norms have seen data
    assert scale_of(evidence_of(model)) == []
    tails = with_norms(lambda weight: weight.data.mul_(10).mul_(weight.data.square()))  # as training makes them
    assert scale_of(evidence_of(tails.train())) == []


class Equalised(nn.Module):
    """Weights of deviation 1 whose input is scaled down instead; Karras et al. 2018."""

    def __init__(self, *, scaled):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(1 if n == 0 else 32, 32, 3) for n in range(3))
        self.norm, self.last, self.scaled = nn.GroupNorm(1, 32), nn.Linear(32, 10), scaled
        for layer in self.layers:
            nn.init.normal_(layer.weight)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x * math.sqrt(2 / layer.weight[0].numel()) if self.scaled else x)
            x = F.relu(x if self.scaled else self.norm(x))
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize("scaled", [True, False])
def test_an_equalised_rate(evidence_of, scaled):
    assert [one.severity for one in scale_of(evidence_of(Equalised(scaled=scaled)))] == ([] if scaled else ["warning"])


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
def test_published_starts_are_quiet(evidence_of, name):
    model = getattr(torchvision.models, name)(weights=None, num_classes=4)
    evidence = evidence_of(model, images=torch.randn(4, 3, 64, 64), targets=torch.arange(4))
    assert scale_of(evidence) == []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= 10
    assert [one.severity for one in scale_of(evidence)] == ["warning"]
