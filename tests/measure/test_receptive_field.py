"""Receptive fields in theory: published numbers, the support of gradients, branches, gates, attention."""

from __future__ import annotations

import pytest
import torch
import torchvision.models as zoo
from torch import nn

import clearsight as cs
from clearsight.errors import ConfigError, ShapeError
from clearsight.measure.reach_trace import trace
from clearsight.measure.receptive_field import Field, ReceptiveField, receptive_field
from receptive_field import MODELS, build, by_gradient, in_theory, transparent


@pytest.mark.parametrize(
    ("name", "layer", "pixels"),
    [
        ("resnet18", "layer4", 435),
        ("resnet50", "layer4", 427),
        ("vgg16", "features", 212),
        ("mobilenet_v2", "features", 491),
    ],
)
def test_published_fields(name, layer, pixels):
    found = receptive_field(zoo.get_model(name, weights=None))
    assert found[layer].size == (pixels, pixels)
    assert found[layer].stride == (32.0, 32.0)
    assert found.outputs[0].whole
    assert str(found.outputs[0]) == "whole image"
    assert (found.unknown, found.notes) == ({}, ())


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", "alexnet"])
def test_the_middle_place_sees_what_it_has_a_gradient_for(name):
    layer, size, _ = MODELS[name]
    model = build(name)
    assert in_theory(model, layer, size) == by_gradient(transparent(model), layer, size)


class Branches(nn.Module):
    """Dilation, a transposed convolution that leaves gaps, slices, upsampling, shuffles, concatenation, padding."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(2, 4, 3, 2, padding=3, dilation=3)
        self.grouped = nn.Conv2d(4, 4, (1, 5), padding=(0, 2), groups=4)
        self.up = nn.ConvTranspose2d(4, 4, 2, 3, output_padding=1)
        self.last = nn.Conv2d(8, 1, 3, padding=1, padding_mode="circular")

    def forward(self, x):
        a = self.dilated(x)
        first, second = a.chunk(2, dim=1)
        a = torch.cat([self.grouped(a)[:, :2], second.roll(2, dims=3)], dim=1)
        b = self.up(a)[:, :, 3:, 3:]
        b = nn.functional.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        c = nn.functional.pixel_shuffle(first.repeat(1, 2, 1, 1), 2)
        c = nn.functional.interpolate(c, size=b.shape[-2:], mode="nearest")
        d = nn.functional.avg_pool2d(
            nn.functional.pad(x[..., ::2, 1:], (2, 0, 1, 0), mode="reflect"), 3, 2, ceil_mode=True
        )
        d = nn.functional.interpolate(d, size=b.shape[-2:], mode="nearest")
        y = torch.cat([b, c, d, c.flip(1)], dim=1)
        y[:, :1] += y[:, 1:2]
        return self.last(y)


def test_every_place_of_a_graph_of_all_kinds_against_the_gradient():
    net = transparent(Branches())
    image = torch.rand(1, 2, 24, 30, dtype=torch.float64, requires_grad=True)
    out = net(image)
    found = trace(net.to("meta"), torch.empty(1, 2, 24, 30, dtype=torch.float64, device="meta")).modules[""][0]
    assert found.seen is not None
    for row in range(0, out.shape[2], 5):
        for column in range(0, out.shape[3], 7):
            (gradient,) = torch.autograd.grad(out[0, 0, row, column], image, retain_graph=True)
            seen = gradient.abs().sum((0, 1))
            rows, columns = seen.sum(1).nonzero().flatten(), seen.sum(0).nonzero().flatten()
            want = [-int(rows[0]), int(rows[-1]), -int(columns[0]), int(columns[-1])]
            assert [int(side[0, 0, row, column]) for side in found.seen.sides] == want, (row, column)


def test_gates_see_the_whole_image_and_the_local_field_is_told_as_well():
    net = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), cs_gate(8), nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8))
    found = receptive_field(net, size=96)
    assert (found["0"].whole, found["0"].size) == (False, (5, 5))
    assert (found["2"].whole, found["2"].size, found["2"].local_size) == (True, None, (9, 9))
    assert str(found["2"]) == "whole image (local 9)"
    assert found["3"].pixels == (9, 9)
    plain = receptive_field(nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.GroupNorm(2, 8)), size=96)
    assert (plain["1"].whole, plain["1"].local_size) == (True, (5, 5))


def cs_gate(channels):
    from torchvision.ops import SqueezeExcitation

    return SqueezeExcitation(channels, 4)


def test_attention_over_all_places_is_no_gate():
    found = receptive_field(zoo.VisionTransformer(32, 8, 1, 2, 16, 32), size=32)
    assert found.outputs[0].whole
    assert found["encoder"].local_whole
    assert found["conv_proj"].size == (8, 8)
    assert "does not take images" in found.notes[0]


def test_shifted_windows_see_their_neighbours():
    found = receptive_field(zoo.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4]), size=128)
    # windows of 4 tokens of 4 pixels; shifted by two tokens a token sees two windows, and through both 8 tokens
    assert found["features.1.0"].size == (16, 16)
    assert found["features.1.1"].size == (32, 32)
    assert found["features.1.1"].stride == (4.0, 4.0)


def test_levels_of_a_detector_with_strides():
    found = receptive_field(cs.create_model("retinanet", num_classes=3), size=256)
    fields = {one.name: (one.size[0], one.stride[0]) for one in found.levels}
    assert fields["c3"] == (99, 8.0)
    assert fields["c5"] == (435, 32.0)
    assert fields["p5"] == (435 + 2 * 32, 32.0)
    assert fields["p6"] == (499 + 2 * 32, 64.0)
    assert fields["p7"] == (563 + 2 * 64, 128.0)
    # p3 sees the neighbours of c5 as well: upsampled twice, then 3x3 at stride 8
    assert fields["p3"] == (435 + 32, 8.0)
    assert found.main == found.levels


def test_offsets_are_middles_of_first_fields():
    net = nn.Sequential(nn.Conv2d(1, 1, 2, 2), nn.Conv2d(1, 1, 3, 2))
    found = receptive_field(net, size=64, channels=1)
    assert found["0"].offset == (1.0, 1.0)
    assert found["1"].offset == (3.0, 3.0)
    assert found["1"].stride == (4.0, 4.0)


class Choosing(nn.Module):
    def forward(self, x):
        y = nn.functional.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False)
        return y + 1


def test_an_operation_without_a_rule_is_named_and_taken_to_see_everything():
    found = receptive_field(nn.Sequential(nn.Conv2d(3, 3, 3), Choosing()), size=32)
    assert found.unknown == {"grid_sampler_2d": 1}
    assert (found["0"].known, found["1"].known, found["1"].whole) == (True, False, True)
    assert "no rule, taken to see everything: grid_sampler_2d (1×)" in str(found)


class ByValue(nn.Module):
    def forward(self, x):
        return nn.functional.max_pool2d(x, 3) if x.max() > 5 else nn.functional.max_pool2d(x, 2)


def test_a_course_that_depends_on_values_is_run():
    assert receptive_field(ByValue(), size=16).outputs[0].size == (2, 2)


def test_the_model_is_as_before():
    model = cs.create_model("light", num_classes=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    receptive_field(model, size=64)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "features" not in vars(model.backbone)
    assert not any(module._forward_hooks for module in model.modules())


def test_what_is_found_comes_back_from_json_and_mistakes_are_named():
    found = receptive_field(nn.Sequential(nn.Conv2d(3, 3, 3)), size=(32, 40), name="net")
    assert ReceptiveField.from_json(found.to_json()) == found
    assert found.image == (32, 40)
    assert [one.name for one in found.main] == ["0"]
    with pytest.raises(ConfigError, match="net has no level or layer 'c5'"):
        found["c5"]
    with pytest.raises(ConfigError, match="must be at least 1, got 0x0 and 3"):
        receptive_field(nn.Identity(), size=0)
    with pytest.raises(ShapeError, match=r"Conv2d: does not take images of shape \(1, 3, 9, 9\)"):
        receptive_field(nn.Conv2d(4, 1, 1), size=9)


def test_sides_that_differ_and_fields_that_are_cut():
    assert str(Field(name="a", kind="layer", shape=(1,), size=(3, 9), local_size=(3, 9))) == "3×9"
    assert str(Field(name="a", kind="layer", shape=(1,), size=(9, 9), local_size=(9, 9), at_least=True)) == "≥ 9"
    assert str(Field(name="a", kind="layer", shape=(1,))) == "–"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "densenet121", "googlenet", "fcn_resnet50", "regnet_x_400mf"])
def test_more_models_against_the_gradient(name):
    layer, size, _ = MODELS[name]
    model = build(name)
    assert in_theory(model, layer, min(size, 320)) == by_gradient(transparent(model), layer, min(size, 320))
