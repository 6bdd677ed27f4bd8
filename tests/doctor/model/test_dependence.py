from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.dependence import ImagesNotLearned, InputUnread, SamplesMixed


def ignored(evidence):
    return list(ImagesNotLearned().check(evidence))


def unread(evidence):
    return list(InputUnread().check(evidence))


def mixed(evidence):
    return list(SamplesMixed().check(evidence))


def test_sound_networks_are_quiet(sound, evidence_of):
    assert mixed(evidence_of(sound)) == []
    assert unread(evidence_of(sound)) == []


class Blind(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.net, self.share = nn.Linear(64, 10), share

    def forward(self, x):
        return self.net(x.flatten(1) * self.share)


@pytest.mark.parametrize(("share", "count"), [(0.0, 1), (1.0, 0)])
def test_an_input_that_is_not_used(evidence_of, share, count):
    evidence = evidence_of(Blind(share), number=16)
    findings = unread(evidence)
    assert len(findings) == count
    for finding in findings:
        assert (finding.severity, finding.evidence["row"]) == ("error", "P5")
        assert "drawn anew" in finding.explanation
    assert ignored(evidence) == []  # told already, without training


class Inside(nn.Module):
    """A sound network around a part that drops what it is given."""

    def __init__(self, net, place):
        super().__init__()
        self.net = net
        layers = [one for one in net.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
        layers[place].register_forward_hook(lambda module, args, output: torch.zeros_like(output))

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize(("name", "place"), [("mlp", 0), ("mlp", 1), ("cnn", 0), ("cnn", 2), ("cnn_bn", 1)])
def test_a_layer_that_forgets_what_it_was_given(request, evidence_of, name, place):
    model = Inside(request.getfixturevalue(name), place)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evidence = evidence_of(model)
    assert len(unread(evidence)) == 1
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_dead_units_and_zeros_have_rules_of_their_own(mlp, cnn, cnn_bn, evidence_of):
    """All of a layer's units are dead, or all weights are zero: nothing passes, and the code is sound."""
    mlp[1].bias.data.fill_(-100)
    assert unread(evidence_of(mlp)) == []
    (finding,) = ignored(evidence_of(mlp, number=16))
    assert (finding.id, finding.severity) == ("images-not-learned", "warning")  # a symptom, and no fault of the code
    assert "dead units" in finding.explanation
    for parameter in cnn.parameters():
        nn.init.zeros_(parameter)
    assert unread(evidence_of(cnn)) == []
    nn.init.zeros_(cnn_bn[-1].weight)
    assert unread(evidence_of(cnn_bn)) == []


def test_many_squashing_layers_leave_a_little(evidence_of):
    """Less than single precision shows, but more than nothing; behind a zero there is nothing."""
    layers = [part for _ in range(9) for part in (nn.Sigmoid(), nn.Linear(32, 32))]
    squashed = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), *layers, nn.Sigmoid(), nn.Linear(32, 10))
    assert unread(evidence_of(squashed)) == []
    assert len(unread(evidence_of(nn.Sequential(Blind(0.0), nn.Linear(10, 32), *layers)))) == 1


def test_dropout_does_not_hide_it(evidence_of):
    blind = nn.Sequential(Blind(0.0), nn.Dropout(0.5), nn.Linear(10, 10))
    assert len(unread(evidence_of(blind))) == 1


def test_a_batch_of_one_image_again_and_again(mlp, evidence_of):
    evidence = evidence_of(mlp, number=16)
    evidence.images[:] = evidence.images[0]
    assert "16 images that were looked at are the same" in unread(evidence)[0].explanation


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
    evidence = evidence_of(Shuffled(), number=16)
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
    for rule in (ImagesNotLearned(), InputUnread()):
        assert rule.lacks(evidence_of(mlp, number=1)) == "a batch of two images"
