"""Norms, pools and transforms; and that the tables name operations that exist."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision  # noqa: F401 - registers its operations
from torch import nn
from torchvision.ops import roi_align

from clearsight.measure.count import count
from clearsight.measure.operations import COSTS, MOVES, rule_of

aten = torch.ops.aten


class Layer(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def flops(layer, *inputs, training=False):
    found = count(layer if isinstance(layer, nn.Module) else Layer(layer), inputs, training=training)
    assert found.uncounted == {}
    assert found.multiply_adds == 0
    return found.flops


def test_every_name_in_the_tables_is_an_operation_or_the_form_that_works_elsewhere():
    def exists(name):
        space, _, base = name.rpartition(".")
        within = getattr(torch.ops, space or "aten")
        return any(hasattr(within, form) for form in (base, f"{base}_"))

    assert [name for name in [*COSTS, *MOVES] if not exists(name)] == []
    assert set(COSTS) & set(MOVES) == set()


@pytest.mark.parametrize(
    ("operation", "reads"),
    [
        (aten.view.default, "nothing"),
        (aten.squeeze_.dim, "nothing"),
        (aten.empty.memory_format, "nothing"),
        (aten.cat.default, "all"),
        (aten.embedding.default, "chosen"),
        (aten.copy_.default, "others"),
        (aten.zeros.default, "others"),
    ],
)
def test_what_computes_nothing(operation, reads):
    rule = rule_of(operation)
    assert rule is not None
    assert (rule.cost, rule.reads) == (None, reads)


@pytest.mark.parametrize("operation", [aten.topk.default, aten.sort.default, aten.linalg_svd.default])
def test_what_nobody_knows_has_no_rule(operation):
    assert rule_of(operation) is None


def test_in_place_and_other_overloads_have_the_same_rule():
    for one, other in ((aten.sigmoid_, aten.sigmoid), (aten.hardswish_, aten.hardswish)):
        assert rule_of(one.default).cost.__qualname__ == rule_of(other.default).cost.__qualname__
    assert rule_of(aten.add.Scalar) is not None
    assert rule_of(aten.bernoulli_.float).cost is None


# ------------------------------------------------------------------------------------------------ norms
def test_batch_norm_by_its_formula(number):
    values, channels = 2 * 5 * 5, 4
    x = torch.empty(2, channels, 5, 5)

    def affine(mean, variance, row):
        deviation = number() / (variance + 1e-5).sqrt()
        scale = number() * deviation
        shift = number() - mean * scale
        return [one * scale + shift for one in row]

    affine(number(), number(), [number() for _ in range(values)])
    assert flops(nn.BatchNorm2d(channels), x) == channels * sum(number.done.values())

    number.done.clear()
    row = [number() for _ in range(values)]
    mean = row[0]
    for one in row[1:]:
        mean = mean + one
    mean = mean / values
    gaps = [one - mean for one in row]
    squares = gaps[0] * gaps[0]
    for gap in gaps[1:]:
        squares = squares + gap * gap
    affine(mean, squares / values, row)
    found = count(nn.BatchNorm2d(channels, track_running_stats=False), x, training=True)
    assert found.flops == channels * sum(number.done.values())


@pytest.mark.parametrize("affine", [True, False])
def test_layer_and_group_norm_count_alike(affine):
    x = torch.empty(2, 6, 4)
    each = 8 if affine else 6
    assert flops(nn.LayerNorm(4, elementwise_affine=affine), x) == each * 48 + 3 * 12
    assert flops(nn.GroupNorm(3, 6, affine=affine), x) == each * 48 + 3 * 6


# ------------------------------------------------------------------------------------------------ pools
def test_pools_count_their_windows():
    x = torch.empty(1, 2, 8, 8)
    assert flops(nn.MaxPool2d(2), x) == 3 * 2 * 16
    assert flops(nn.MaxPool2d(3, 2, padding=1), x) == 8 * 2 * 16
    assert flops(nn.AvgPool2d(2), x) == 4 * 2 * 16
    assert flops(nn.AvgPool1d(4), x[0]) == 4 * 2 * 8 * 2
    assert flops(nn.AvgPool3d(2), x) == 8 * 4 * 4 * 1
    assert flops(nn.AdaptiveAvgPool2d(1), x) == 64 * 2
    # 8 to 3: windows of 3, 4 and 3 that overlap
    assert flops(nn.AdaptiveAvgPool2d(3), x) == 2 * (100 - 9) + 2 * 9
    assert flops(nn.AdaptiveMaxPool2d(3), x) == 2 * (100 - 9)


def test_gradients_of_pools_and_choices_are_added_where_they_belong():
    x = torch.empty(1, 2, 8, 8)

    def back(layer, *inputs):
        return count(layer, inputs, training=True, input_gradient=True).backward_flops

    assert back(nn.MaxPool2d(2), x) == 2 * 16
    assert back(nn.AvgPool2d(2), x) == (1 + 4) * 2 * 16
    assert back(nn.AdaptiveAvgPool2d(3), x) == 2 * 9 + 2 * 100
    assert back(nn.Embedding(10, 4), torch.empty(3, 5, dtype=torch.int64)) == 3 * 5 * 4
    assert back(nn.ReflectionPad2d(1), x) == 2 * 100


# ------------------------------------------------------------------------------------------------ others
def test_fourier_transforms_count_5_n_log_n_and_half_where_one_side_is_real():
    z, x = torch.empty(3, 16, dtype=torch.complex64), torch.empty(3, 16)
    assert flops(torch.fft.fft, z) == 3 * 5 * 16 * 4
    assert flops(torch.fft.rfft, x) == 3 * 5 * 16 * 4 / 2
    assert flops(lambda z: torch.fft.irfft(z, n=16), z[:, :9]) == 3 * 5 * 16 * 4 / 2
    assert flops(torch.fft.fft2, torch.empty(8, 4, dtype=torch.complex64)) == 5 * 32 * 5


def test_samples_of_a_grid_and_of_regions():
    x, grid = torch.empty(1, 4, 6, 6), torch.empty(1, 5, 5, 2)
    assert flops(lambda x, g: F.grid_sample(x, g, align_corners=False), x, grid) == 9 * 100 + 3 * 50
    boxes = torch.empty(7, 5)
    assert flops(lambda x, b: roi_align(x, b, 2, sampling_ratio=2), x, boxes) == 7 * 4 * 4 * 10 * 4
    found = count(Layer(lambda x, b: roi_align(x, b, 2)), (x, boxes))  # as many samples as a box is large
    assert (found.flops, found.uncounted) == (0, {"torchvision.roi_align": 1})


def test_dropout_counts_in_training_only():
    layer, x = nn.Dropout(0.5), torch.empty(4, 5)
    assert flops(layer, x) == 0
    assert count(layer, x, training=True).flops == 2 * 20  # the mask scaled, and the product with it
