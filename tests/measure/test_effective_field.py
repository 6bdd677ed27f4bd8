"""Effective fields: the closed form of uniform stacks, the theoretical box, what has no places."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import clearsight as cs
from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.measure.effective_field import effective_field


def stack(n, k):
    net = nn.Sequential(*[nn.Conv2d(1, 1, k, padding=k // 2, bias=False) for _ in range(n)]).double()
    for weight in net.parameters():
        nn.init.constant_(weight, 1 / k**2)
    return net


@pytest.mark.parametrize(("n", "k"), [(1, 3), (4, 3), (12, 3), (7, 5), (5, 7), (3, 11)])
def test_sigma_of_uniform_stacks_is_the_closed_form(n, k):
    side = n * (k - 1) + 7
    found = effective_field(stack(n, k), torch.rand(2, 1, side, side, dtype=torch.float64), level=str(n - 1))
    expected = math.sqrt(n * (k**2 - 1) / 12)  # Luo et al. 2016, section 2.2: variances add up
    assert found.sigma == pytest.approx((expected, expected), abs=1e-6)
    assert found.centre == pytest.approx((side / 2, side / 2), abs=1e-9)
    assert found.box[2] - found.box[0] == n * (k - 1) + 1
    assert found.inside == pytest.approx(1, abs=1e-12)
    assert float(found.weights.sum()) == pytest.approx(1)


def test_the_disc_of_a_wide_gaussian_is_five_sigma():
    found = effective_field(stack(40, 3), torch.rand(1, 1, 91, 91, dtype=torch.float64), level="39")
    # in two dimensions 95.45 % of a Gaussian lie within sqrt(-2 ln 0.0455) deviations
    radius = math.sqrt(-2 * math.log(1 - math.erf(math.sqrt(2)))) * found.sigma[0]
    assert found.diameter == pytest.approx(2 * radius, rel=0.02)
    assert found.size[0] == pytest.approx(4 * found.sigma[0])


def test_levels_modules_and_small_maps_of_a_detector():
    model = cs.create_model("retinanet", num_classes=2)
    images = torch.rand(1, 3, 128, 160)
    fields = {level: effective_field(model, images, level=level) for level in ("c3", "backbone.layer2", "p7")}
    assert torch.equal(fields["c3"].weights, fields["backbone.layer2"].weights)
    assert fields["c3"].box == (64 - 49, 80 - 49, 64 + 50, 80 + 50)
    assert fields["c3"].diameter < fields["p7"].diameter
    assert fields["p7"].place == (0, 1)
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
    assert "c3: effective field" in str(fields["c3"])
    assert set(fields["c3"].as_dict()) >= {"sigma", "diameter", "box", "size"}


def test_channels_last_tensors_have_their_places_elsewhere():
    class Turned(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    net = nn.Sequential(nn.Conv2d(1, 2, (3, 5), padding=(1, 2)), Turned())
    found = effective_field(net, torch.rand(1, 1, 12, 14), level="1")
    assert (found.place, found.box) == ((6, 7), (5, 5, 8, 10))


def test_mistakes_are_named():
    images = torch.rand(1, 1, 16, 16)
    with pytest.raises(ConfigError, match="there is no level or layer '9'"):
        effective_field(stack(1, 3).float(), images, level="9")
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(ConfigError, match="no rows and columns of places"):
        effective_field(net, images, level="1")
    with pytest.raises(ShapeError, match=r"expected \(n, c, h, w\) floats"):
        effective_field(net, torch.zeros(1, 1, 9, 9, dtype=torch.uint8), level="0")
    with pytest.raises(ShapeError, match="cannot be followed"):
        effective_field(net, torch.rand(1, 2, 9, 9), level="0")
    nn.init.zeros_(net[0].weight)
    with pytest.raises(RangeError, match="has no gradient"):
        effective_field(net, images, level="0")
