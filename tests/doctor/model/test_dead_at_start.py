from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.dead_at_start import DeadAtStart, silent_channels


def dead_of(evidence):
    return list(DeadAtStart().check(evidence))


def test_sound_networks_are_quiet(sound, evidence_of):
    assert dead_of(evidence_of(sound)) == []


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
    assert {name: seen.channels for name, seen in layers.items()} == {"2": 8, "2#2": 6}
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
    with pytest.raises((RuntimeError, IndexError)):
        dead_of(evidence_of(mlp, forward=lambda m, x: m(torch.zeros(3))))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in mlp.modules())


def several(bias, *, depth=4, width=16) -> nn.Sequential:
    """Layers too narrow to say much by themselves."""
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, width), *layers, nn.Linear(width, 10)).train()
    for norm in model:
        if isinstance(norm, nn.BatchNorm1d):
            norm.bias.data.copy_(bias(width))
    return model


def seven_dead(width):
    return torch.where(torch.arange(width) < 7, -100.0, 0.0)


def test_layers_that_say_too_little_are_taken_together(evidence_of):
    (finding,) = dead_of(evidence_of(several(seven_dead)))
    assert (finding.severity, finding.evidence["dead"], finding.evidence["channels"]) == ("warning", 28, 64)
    assert finding.evidence["layers"] == dict.fromkeys(("4", "7", "10", "13"), 7 / 16)
    assert finding.where == "4"
    assert dead_of(evidence_of(several(seven_dead, depth=2))) == []  # too few layers
    assert dead_of(evidence_of(several(lambda width: -0.5 * torch.rand(width)))) == []


def test_a_network_that_sees_only_its_biases_is_not_dead(evidence_of):
    """Half of the channels are zero for all images, and the other half are above zero for all."""

    def split(width):
        return torch.where(torch.arange(width) < 7, -100.0, 100.0)

    assert dead_of(evidence_of(several(split))) == []
    assert all(seen.dead == 7 and seen.open == 9 for seen in silent_channels(evidence_of(several(split))).values())


def test_one_layer_that_says_enough_is_told_by_itself(evidence_of):
    model = several(seven_dead)
    model[12].bias.data.fill_(-100.0)
    assert [(one.where, one.severity) for one in dead_of(evidence_of(model))] == [("13", "warning")]
