from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.dependence import InputIgnored, SamplesMixed


def ignored(evidence):
    return list(InputIgnored().check(evidence))


def mixed(evidence):
    return list(SamplesMixed().check(evidence))


def test_sound_networks_are_quiet(sound, evidence_of):
    assert mixed(evidence_of(sound)) == []


class Blind(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.net, self.share = nn.Linear(64, 10), share

    def forward(self, x):
        return self.net(x.flatten(1) * self.share)


@pytest.mark.parametrize(("share", "count"), [(0.0, 1), (1.0, 0)])
def test_an_input_that_is_not_used(evidence_of, share, count):
    findings = ignored(evidence_of(Blind(share), number=16))
    assert len(findings) == count
    for finding in findings:
        assert (finding.severity, finding.evidence["row"]) == ("warning", "P5")
        assert "different labels" in finding.explanation


def test_a_batch_of_one_image_again_and_again(mlp, evidence_of):
    evidence = evidence_of(mlp, number=16)
    evidence.images[:] = evidence.images[0]
    assert "All images of the batch are the same" in ignored(evidence)[0].explanation


class Shuffled(nn.Module):
    """Sees images, but each time others than those whose labels it learns."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        return self.net(torch.randn_like(x))


def test_noise_in_place_of_images(evidence_of):
    model = Shuffled()
    evidence = evidence_of(model, number=16)
    (finding,) = ignored(evidence)
    assert min(finding.evidence["swapped"], finding.evidence["blank"]) > 0.05


def test_one_label_is_no_evidence(mlp, evidence_of):
    evidence = evidence_of(Blind(0.0), number=16)
    evidence.targets[:] = 3
    assert ignored(evidence) == []


class OverBatch(nn.Module):
    """Batch and channels change places by a view."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x):
        maps = self.conv(x)
        return self.last(maps.transpose(0, 1).reshape(len(x), 8, -1).mean(2))


class Attended(nn.Module):
    def __init__(self, *, batch_first):
        super().__init__()
        self.embed, self.last = nn.Linear(8, 16), nn.Linear(16, 10)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=batch_first)

    def forward(self, x):
        tokens = self.embed(x.squeeze(1))
        return self.last(self.attend(tokens, tokens, tokens)[0].mean(1))


def test_images_that_are_mixed(evidence_of):
    (finding,) = mixed(evidence_of(OverBatch()))
    assert (finding.severity, finding.evidence["row"]) == ("error", "P6")
    assert len(mixed(evidence_of(Attended(batch_first=False)))) == 1
    assert mixed(evidence_of(Attended(batch_first=True))) == []
    normalised = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(dim=0))
    assert len(mixed(evidence_of(normalised))) == 1


def test_what_starts_at_zero_hides_nothing(evidence_of):
    model = OverBatch()
    nn.init.zeros_(model.last.weight)
    assert len(mixed(evidence_of(model))) == 1
    assert float(model.last.weight.detach().abs().max()) == 0


def test_norms_without_running_statistics_are_worth_knowing(evidence_of):
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    (finding,) = mixed(evidence_of(model))
    assert (finding.severity, finding.where) == ("info", "1")


def test_training_mode_of_a_norm_is_no_mixing(cnn_bn, evidence_of):
    assert mixed(evidence_of(cnn_bn.train())) == []
    assert cnn_bn.training


def test_integer_images(evidence_of):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(64, 10)

        def forward(self, x):
            return self.net(F.normalize(x.float().flatten(1)))

    images = torch.randint(0, 255, (8, 1, 8, 8), dtype=torch.uint8)
    evidence = evidence_of(Scaled(), images=images, targets=torch.arange(8))
    assert mixed(evidence) == []
    assert ignored(evidence) == []


def test_what_they_need(mlp, evidence_of):
    assert SamplesMixed().lacks(evidence_of(mlp, number=3)) == "a batch of four images"
    assert InputIgnored().lacks(evidence_of(mlp, number=1)) == "a batch of two images"
