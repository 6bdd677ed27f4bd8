from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from clearsight.data.normalisation import Statistics
from clearsight.doctor.model.input_check import InputNotNormalised, WrongLayout, first_input
from clearsight.nn.input import InputNorm
from clearsight.types import Targets


def scaled(evidence, **thresholds):
    return list(InputNotNormalised(**thresholds).check(evidence))


def laid(evidence):
    return list(WrongLayout().check(evidence))


def test_sound_networks_are_quiet(sound, evidence_of):
    evidence = evidence_of(sound)
    assert scaled(evidence) == []
    assert laid(evidence) == []


@pytest.mark.parametrize(
    ("change", "severity"),
    [
        (lambda x: (x - x.min()) / (x.max() - x.min()), None),  # [0, 1]
        (lambda x: 16 * (x - x.min()) / (x.max() - x.min()), None),  # the grey levels of the digits
        (lambda x: 255 * (x - x.min()) / (x.max() - x.min()), "warning"),
        (lambda x: x / 30, "info"),
        (lambda x: x / 255, "warning"),
        (lambda x: x + 2, None),
        (lambda x: x + 4, "info"),
        (lambda x: x + 7, "warning"),
        (lambda x: x + 50, "warning"),
        (lambda x: x * 0 + 1, "warning"),
    ],
)
def test_scales_of_the_input(cnn, evidence_of, change, severity):
    evidence = evidence_of(cnn, recipe={"data": {"normalize": "unit"}})
    evidence.images = change(evidence.images)
    findings = scaled(evidence)
    assert [one.severity for one in findings] == ([] if severity is None else [severity])
    for finding in findings:
        assert (finding.where, finding.evidence["row"]) == ("0", "P8")
        assert finding.remedy == ({"data.normalize": "data"} if "threshold" in finding.evidence else {})


class PlusPosition(nn.Module):
    """A norm behind the first layer, and a way around it."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(288, 10)

    def forward(self, x):
        x = self.first(x)
        return self.last((x + self.norm(x)).flatten(1))


def test_a_norm_takes_up_the_scale_but_not_the_offset(cnn_bn, evidence_of):
    for model, change, severity in (
        (cnn_bn, lambda x: 255 * x, "info"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 10)), lambda x: 255 * x, "info"),
        (PlusPosition(), lambda x: 255 * x, "warning"),
        (cnn_bn, lambda x: x + 50, "warning"),
        (cnn_bn, lambda x: x / 255, "warning"),  # the norm's eps is as large as what it is given
    ):
        evidence = evidence_of(model)
        evidence.images = change(evidence.images)
        assert [one.severity for one in scaled(evidence)] == [severity]
    losses = [F.cross_entropy(cnn_bn.train()(s * evidence_of(cnn_bn).images), evidence.targets) for s in (1, 255)]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)


def test_values_that_are_not_finite(cnn, evidence_of):
    evidence = evidence_of(cnn)
    evidence.images[0, 0, 0, 0] = torch.nan
    assert scaled(evidence)[0].severity == "error"


def test_a_model_that_normalises_integer_pixels_is_sound(evidence_of):
    images = torch.randint(0, 255, (16, 3, 8, 8), dtype=torch.uint8)
    body = [nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10)]
    norm = InputNorm(Statistics(mean=(0.5,) * 3, std=(0.29,) * 3))
    assert scaled(evidence_of(nn.Sequential(norm, *body), images=images)) == []

    class Floats(nn.Module):
        def forward(self, x):
            return x.float()

    assert scaled(evidence_of(nn.Sequential(Floats(), *body), images=images))[0].severity == "warning"


def test_a_channel_that_says_nothing(evidence_of):
    images = torch.randn(16, 3, 8, 8)
    images[:, 1] = 0.5
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10))
    (finding,) = scaled(evidence_of(model, images=images))
    assert (finding.severity, finding.evidence["channels"]) == ("info", [1])


def test_the_first_layer_with_weights(cnn, evidence_of):
    evidence = evidence_of(cnn)
    found = first_input(evidence)
    assert found is not None
    name, module, given = found
    assert (name, module) == ("0", cnn[0])
    assert torch.equal(given, evidence.images)
    assert first_input(evidence_of(nn.Flatten())) is None


@pytest.fixture
def photos(shared_data):
    """Real photos of cells, `(4, 3, 120, 160)` in [0, 1]."""
    files = sorted((shared_data / "bccd" / "JPEGImages").glob("*.jpg"))[:4]
    pixels = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return F.avg_pool2d(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255, 4)


@pytest.mark.real
def test_channels_last(photos, evidence_of):
    last = photos.permute(0, 2, 3, 1)
    (finding,) = laid(evidence_of(nn.Conv2d(120, 4, 3), images=last))
    assert (finding.severity, finding.evidence["shape"]) == ("error", [4, 120, 160, 3])
    assert laid(evidence_of(nn.Conv2d(3, 4, 3), images=photos)) == []
    flat = nn.Sequential(nn.Flatten(), nn.Linear(120 * 160 * 3, 10))
    assert laid(evidence_of(flat, images=last)) == []  # a linear layer does not care
    memory = photos.contiguous(memory_format=torch.channels_last)
    assert laid(evidence_of(nn.Conv2d(3, 4, 3), images=memory)) == []


@pytest.mark.real
def test_channels_that_were_viewed_and_not_permuted(photos, evidence_of):
    viewed = photos.permute(0, 2, 3, 1).reshape(4, 3, 120, 160)
    (finding,) = laid(evidence_of(nn.Conv2d(3, 4, 3), images=viewed))
    assert "lie side by side" in finding.explanation
    assert finding.evidence["ratio"] < 0.5
    flat = nn.Sequential(nn.Flatten(), nn.Linear(120 * 160 * 3, 10))
    assert laid(evidence_of(flat, images=viewed)) == []  # a linear layer does not care


def torn(images):
    return images.permute(0, 2, 3, 1).reshape(images.shape)


@pytest.mark.real
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("normal", [False, True])
def test_viewed_memory_at_other_sizes(photos, evidence_of, factor, grey, normal):
    images = F.avg_pool2d(photos, factor)
    images = images.mean(1, keepdim=True).expand_as(images) if grey else images
    for given, count in ((images, 0), (torn(images), 1)):
        shown = (given - given.mean((0, 2, 3), keepdim=True)) / given.std((0, 2, 3), keepdim=True) if normal else given
        findings = laid(evidence_of(nn.Conv2d(3, 4, 3), images=shown))
        assert len(findings) == count
        assert all(finding.evidence["ratio"] < 0.7 for finding in findings)


@pytest.mark.parametrize("period", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("upright", [False, True])
def test_stripes_are_no_colours(evidence_of, period, upright):
    stripes = torch.sin(2 * torch.pi * torch.arange(32) / period + 0.3).expand(8, 3, 32, 32)
    stripes = (stripes if upright else stripes.mT) * torch.rand(8, 1, 1, 1)
    images = stripes + 0.05 * torch.randn(8, 3, 32, 32)
    assert laid(evidence_of(nn.Conv2d(3, 4, 3), images=images)) == []


def test_noise_and_constants_have_no_layout(evidence_of):
    for images in (torch.randn(8, 3, 16, 16), torch.rand(8, 4, 16, 16), torch.ones(8, 3, 16, 16)):
        assert laid(evidence_of(nn.Conv2d(images.shape[1], 4, 3), images=images)) == []


def boxes(right, below):
    return Targets(
        boxes=torch.tensor([[1.0, 1.0, right, below]]), labels=torch.zeros(1).long(), image=torch.zeros(1).long()
    )


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (boxes(60.0, 30.0), 0),
        (boxes(30.0, 60.0), 1),
        (boxes(60.5, 40.5), 0),
        (boxes(70.0, 70.0), 0),  # fits neither way: another fault
        (torch.zeros(2, 40, 64), 0),
        (torch.zeros(2, 64, 40), 1),
    ],
)
def test_height_and_width_against_targets(evidence_of, targets, count):
    images = torch.randn(2, 3, 40, 64)
    findings = laid(evidence_of(nn.Conv2d(3, 4, 3), images=images, targets=targets))
    assert [one.evidence["row"] for one in findings] == ["P9"] * count


def test_other_inputs_are_not_asked(mlp, evidence_of):
    evidence = evidence_of(mlp)
    evidence.images = evidence.images.flatten(1)
    assert WrongLayout().lacks(evidence) == "images (n, c, h, w)"
    assert scaled(evidence) == []
