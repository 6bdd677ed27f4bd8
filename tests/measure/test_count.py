"""Whole models: torchvision's published multiply-adds, the same in either mode, and no trace left on the model."""

from __future__ import annotations

import random

import pytest
import torch
import torchvision.models as zoo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clearsight.errors import ConfigError, ShapeError
from clearsight.measure.count import Count, call, count, count_both, count_replica
from clearsight.measure.replica import replicate

LIMIT = 9.0


def published():
    """Name, side of the image and billions of multiply-adds of every classifier of torchvision below the limit."""
    for name in zoo.list_models(module=zoo):
        for weights in zoo.get_model_weights(name):
            if "_ops" in weights.meta and weights.meta["_ops"] < LIMIT:
                yield name, weights.transforms().crop_size[0], weights.meta["_ops"]
                break


PUBLISHED = list(published())


def build(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("regnet"):  # reads numbers off tensors while it is built
        return zoo.get_model(name)
    with torch.device("meta"):
        return zoo.get_model(name, **options)


def test_there_are_at_least_48_published_figures():
    assert len(PUBLISHED) >= 48


@pytest.mark.parametrize(("name", "side", "giga"), PUBLISHED, ids=[name for name, _, _ in PUBLISHED])
def test_multiply_adds_are_those_that_torchvision_publishes(name, side, giga):
    found = count(build(name), torch.empty(1, 3, side, side, device="meta"))
    assert found.uncounted == {}
    assert round(found.multiply_adds / 1e9, 3) == giga  # published with three decimals
    # 0.1 %, where three decimals say as much
    assert abs(found.multiply_adds / 1e9 - giga) <= max(0.001 * giga, 0.0005)


SPREAD = (
    "resnet18",
    "vit_b_32",
    "swin_t",
    "swin_v2_t",
    "maxvit_t",
    "convnext_tiny",
    "mobilenet_v3_small",
    "densenet121",
)


@pytest.mark.parametrize("name", [*SPREAD, "googlenet", "inception_v3"])
def test_training_has_the_same_multiply_adds_and_backward_about_twice_as_many(name):
    model, side = build(name), {"vit_b_32": 224, "maxvit_t": 224, "inception_v3": 299}.get(name, 64)
    used, trained = count_both(model, torch.empty(2, 3, side, side, device="meta"))
    assert isinstance(trained, Count)
    for part, tally in used.layers.items():
        assert trained.layers[part].multiply_adds == tally.multiply_adds, part
    # heads that only training has are work that only training does
    extra = {part.partition(".")[0] for part in set(trained.layers) - set(used.layers)}
    if name in ("googlenet", "inception_v3"):
        assert extra <= {"aux1", "aux2", "AuxLogits"}
        assert trained.multiply_adds > used.multiply_adds
    else:
        assert extra == set()
        assert trained.multiply_adds == used.multiply_adds
    assert trained.uncounted == {}
    assert 1.6 < trained.backward_multiply_adds / trained.multiply_adds < 2.1
    assert used.backward_multiply_adds == used.saved_bytes == trained.live_bytes == 0


@pytest.mark.parametrize("name", ["vit_b_32", "resnet18", "swin_t", "mobilenet_v3_small"])
def test_without_data_everything_is_counted_as_with_it(name):
    side = 224 if name == "vit_b_32" else 64
    model, x = zoo.get_model(name), torch.rand(2, 3, side, side)
    for training in (False, True):
        real = count_replica(replicate(model, meta=False), x, training=training)
        assert real.device == "cpu"
        assert count(model, x, training=training).layers == real.layers


def test_the_fast_path_of_attention_hides_nothing():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    encoder, x = nn.TransformerEncoder(layer, 2), torch.randn(2, 10, 32)
    tokens = 2 * 10
    by_hand = 2 * (tokens * (3 * 32 * 32 + 32 * 32 + 2 * 32 * 64) + 2 * 4 * 10 * 10 * (8 + 8))
    for model in (encoder.train(), encoder.eval()):
        assert count(model, x).multiply_adds == by_hand
        assert count(model, x, training=True).multiply_adds == by_hand
        assert count_replica(replicate(model, meta=False), x, training=False).multiply_adds == by_hand
    attention = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    found = count(attention, (x, x, x))
    assert found.multiply_adds == tokens * 4 * 32 * 32 + 2 * 4 * 10 * 10 * 16
    with FlopCounterMode(display=False) as peer, torch.no_grad():
        attention(x, x, x)
    assert peer.get_total_flops() < 2 * found.multiply_adds  # what goes the fast path is not seen there


def test_recurrent_layers_are_counted_step_by_step():
    found = count(nn.LSTM(6, 5, num_layers=2, batch_first=True), torch.empty(3, 7, 6))
    assert found.multiply_adds == 3 * 7 * (4 * 5 * (6 + 5) + 4 * 5 * (5 + 5))
    assert found.uncounted == {}


class Deciding(nn.Module):
    """Does more where its input is bright: its course depends on values."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        x = self.norm(self.layer(x))
        return self.layer(x) if x.detach().abs().max().item() >= 0 else x


def test_a_model_whose_course_depends_on_values_is_counted_while_it_runs():
    model, x = Deciding(), torch.randn(3, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = count(model, x)
    assert (found.multiply_adds, found.device) == (2 * 48, "cpu")
    trained = count(model, x, training=True)
    assert (trained.multiply_adds, trained.backward_multiply_adds) == (2 * 48, 3 * 48)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.layer.weight.grad is None


def test_tensors_that_a_model_makes_on_its_way_are_without_data_too():
    class Positions(nn.Module):
        def forward(self, x):
            return x + torch.arange(4.0) * torch.tensor([1.0, 2.0, 3.0, 4.0])

    found = count(Positions(), torch.empty(3, 4))
    assert (found.device, found.flops) == ("meta", 4 + 12)


def test_nothing_is_left_behind_on_the_model_or_its_surroundings():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(inplace=True)).train()
    model[1].eval()
    x = torch.rand(2, 3, 6, 6)
    state, image = {name: value.clone() for name, value in model.state_dict().items()}, x.clone()
    streams = torch.get_rng_state(), random.getstate()
    count(model, x)
    count(model, x, training=True, input_gradient=True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [one.training for one in model.modules()] == [True, True, False, True, True]
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert all(one.grad is None for one in model.parameters())
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]
    assert torch.equal(x, image)
    assert not x.requires_grad


def test_inputs_come_in_three_forms():
    class Named(nn.Module):
        def forward(self, image, weight, *, scale=1.0):
            return (image @ weight * scale).sum()

    a, b = torch.ones(2, 3), torch.ones(3, 4)
    assert (
        count(Named(), (a, b)).multiply_adds
        == count(Named(), {"image": a, "weight": b, "scale": 2.0}).multiply_adds
        == 24
    )
    assert count(nn.ReLU(), a).flops == 6
    assert call(Named(), {"image": a, "weight": b, "scale": 2.0}).item() == 48
    assert call(Named(), [a, b]).item() == 24


def test_frozen_models_have_no_backward_pass():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).requires_grad_(False)
    found = count(model, torch.empty(1, 3, 5, 5), training=True)
    assert (found.backward_multiply_adds, found.saved_bytes) == (0, 0)
    model[0].bias.requires_grad_(True)
    assert count(model, torch.empty(1, 3, 5, 5), training=True).backward_multiply_adds == 0
    assert count(model, torch.empty(1, 3, 5, 5), training=True).backward_flops == 36 + 36 - 4


def test_half_precision_halves_the_bytes_and_nothing_else():
    model, x = zoo.resnet18(), torch.empty(1, 3, 64, 64)
    model.maxpool = nn.AvgPool2d(2)  # the largest's places are whole numbers of eight bytes
    whole, half = count(model, x), count(model.bfloat16(), x.bfloat16())
    assert (half.multiply_adds, half.flops) == (whole.multiply_adds, whole.flops)
    assert 2 * half.moved_bytes == whole.moved_bytes
    assert 2 * half.live_bytes == whole.live_bytes


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Conv2d(3, 4, 3), (1, 5, 8, 8), r"Conv2d: does not take inputs of shape \(1, 5, 8, 8\): .*channels"),
        (nn.Conv2d(3, 4, 3), (1, 3, 2, 2), "Kernel size can't be greater"),
        (nn.Linear(3, 4), (2, 5), "shapes cannot be multiplied"),
        (nn.Sequential(nn.Flatten(), nn.Bilinear(2, 2, 2)), (1, 2), "missing 1 required positional argument"),
    ],
)
def test_inputs_that_do_not_fit_are_a_shape_error_with_the_reason(model, shape, message):
    with pytest.raises(ShapeError, match=message):
        count(model, torch.empty(shape))


def test_models_without_shapes_and_totals_without_a_name_are_errors():
    with pytest.raises(ConfigError, match="a lazy layer has no shape"):
        count(nn.LazyLinear(3), torch.empty(1, 2))
    with pytest.raises(AttributeError, match="Count has no attribute 'outputs'"):
        _ = Count(layers={}).outputs
    assert Count(layers={}).flops == Count(layers={}).live_bytes == 0


def test_what_cannot_be_trained_is_counted_in_use_and_says_why():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
    used, trained = count_both(model, torch.empty(1, 3, 5, 5))
    assert used.multiply_adds == 4 * 27 * 9
    assert isinstance(trained, ShapeError)
    assert "Expected more than 1 value per channel when training" in str(trained)
    with pytest.raises(ShapeError, match="channels"):
        count_both(model, torch.empty(1, 2, 5, 5))
