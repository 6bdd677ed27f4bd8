"""Sums of products: against loops that count their own arithmetic, closed forms, and PyTorch's counter."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import DeformConv2d

from clearsight.measure.count import count


def counted(function, *inputs):
    """What a function of tensors costs."""

    class Layer(nn.Module):
        def forward(self, *given):
            return function(*given)

    found = count(Layer(), inputs)
    assert found.uncounted == {}
    assert found.device == "meta"
    return found.multiply_adds, found.flops


def convolve_by_hand(number, layer, size):
    """A convolution in loops over zero-padded input, every number counting what is done with it."""
    stride, dilation, pad = layer.stride[0], layer.dilation[0], layer.padding[0]
    taps = list(itertools.product(range(layer.kernel_size[0]), repeat=2))
    side = (size + 2 * pad - dilation * (layer.kernel_size[0] - 1) - 1) // stride + 1
    padded = [[number() for _ in range(size + 2 * pad)] for _ in range(size + 2 * pad)]
    for _, y, x in itertools.product(range(layer.out_channels), range(side), range(side)):
        total = None
        for _, (dy, dx) in itertools.product(range(layer.in_channels // layer.groups), taps):
            product = padded[y * stride + dy * dilation][x * stride + dx * dilation] * number()
            total = product if total is None else total + product
        if layer.bias is not None:
            total = total + number()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"in_channels": 3, "out_channels": 5, "kernel_size": 3, "padding": 1},
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "stride": 2},
        {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "groups": 4, "padding": 2, "dilation": 2},
        {"in_channels": 4, "out_channels": 8, "kernel_size": 5, "groups": 4, "padding": 2},
        {"in_channels": 6, "out_channels": 2, "kernel_size": 1},
    ],
    ids=["plain", "grouped", "depthwise, dilated", "depthwise, two each", "1×1"],
)
def test_a_convolution_costs_what_its_loops_do(number, settings, bias):
    layer = nn.Conv2d(**settings, bias=bias)
    convolve_by_hand(number, layer, 7)
    found = count(layer, torch.empty(1, layer.in_channels, 7, 7))
    assert found.multiply_adds == number.done["multiply"]
    assert found.flops == sum(number.done.values())


def test_depthwise_and_linear_layers_follow_the_right_formulas_not_those_in_circulation():
    c, k, h, w = 8, 3, 5, 6
    depthwise = count(nn.Conv2d(c, c, k, padding=1, groups=c, bias=False), torch.empty(1, c, h, w))
    assert depthwise.multiply_adds == c * k * k * h * w
    assert depthwise.flops == c * (2 * k * k - 1) * h * w
    assert depthwise.flops != (2 * c * k * k - 1) * h * w
    linear = count(nn.Linear(7, 5, bias=False), torch.empty(1, 7))
    assert (linear.multiply_adds, linear.flops) == (7 * 5, (2 * 7 - 1) * 5)
    assert linear.flops != 2 * 7 * 5 - 1
    assert count(nn.Linear(7, 5), torch.empty(1, 7)).flops == 2 * 7 * 5


def test_everything_is_for_the_whole_batch():
    layer = nn.Conv2d(3, 4, 3)
    one, six = count(layer, torch.empty(1, 3, 8, 8)), count(layer, torch.empty(6, 3, 8, 8))
    assert (six.multiply_adds, six.flops) == (6 * one.multiply_adds, 6 * one.flops)
    assert count(layer, torch.empty(0, 3, 8, 8)).multiply_adds == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_multiplies_each_input_by_its_kernel(groups):
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=groups, bias=False)
    found = count(layer, torch.empty(2, 4, 5, 7))
    assert found.layers[""].outputs == ((2, 6, 10, 14),)
    products = 2 * 4 * 5 * 7 * (6 // groups) * 9
    assert found.multiply_adds == products
    assert found.flops == 2 * products - 2 * 6 * 10 * 14
    # kernels smaller than the stride leave places that nothing reaches; the others sum over the input's channels
    apart = count(nn.ConvTranspose2d(4, 3, 1, stride=3, bias=False), torch.empty(1, 4, 5, 5))
    assert (apart.multiply_adds, apart.flops) == (25 * 4 * 3, 25 * 3 * (2 * 4 - 1))


def test_one_and_three_dimensions():
    assert counted(F.conv1d, torch.empty(2, 3, 10), torch.empty(4, 3, 3)) == (2 * 4 * 8 * 9, 2 * 4 * 8 * 17)
    macs = 5 * 2 * 2 * 2 * 3 * 27
    assert counted(F.conv3d, torch.empty(1, 3, 4, 4, 4), torch.empty(5, 3, 3, 3, 3)) == (macs, 2 * macs - 40)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("function", "shapes", "macs", "sums"),
    [
        (torch.mm, [(3, 4), (4, 5)], 60, 15),
        (torch.matmul, [(2, 6, 3, 4), (4, 5)], 720, 180),
        (torch.matmul, [(3, 4), (4,)], 12, 3),
        (torch.bmm, [(7, 3, 4), (7, 4, 5)], 420, 105),
        (torch.dot, [(9,), (9,)], 9, 1),
        (F.linear, [(2, 3, 4), (5, 4)], 120, 30),
        (lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), [(2, 3, 5, 4), (2, 3, 6, 4)], 720, 180),
        (lambda a, b: torch.einsum("nchw,co->nohw", a, b), [(2, 3, 5, 4), (3, 6)], 720, 240),
    ],
)
def test_matrix_products_and_einsum(function, shapes, macs, sums, training):
    with torch.set_grad_enabled(training):
        assert counted(function, *(torch.empty(shape) for shape in shapes)) == (macs, 2 * macs - sums)


def test_what_is_added_to_a_product_counts():
    added, left, right = torch.empty(3, 5), torch.empty(3, 4), torch.empty(4, 5)
    assert counted(torch.addmm, added, left, right) == (60, 120)
    assert counted(lambda *x: torch.addmm(*x, beta=0), added, left, right) == (60, 105)
    # b products are added up to one
    assert counted(torch.addbmm, added, torch.empty(2, 3, 4), torch.empty(2, 4, 5)) == (120, 240)
    assert counted(F.bilinear, torch.empty(2, 3), torch.empty(2, 4), torch.empty(5, 3, 4)) == (120, 2 * 120 - 10 + 120)


def test_complex_products_are_four_real_ones():
    x, y = torch.empty(3, 4, dtype=torch.complex64), torch.empty(4, 5, dtype=torch.complex64)
    # (a + bi)(c + di): four multiplications and two additions; a complex addition is two
    assert counted(torch.mm, x, y) == (4 * 60, 6 * 60 + 2 * (60 - 15))


def test_deformable_convolution():
    x, offset = torch.empty(1, 4, 6, 6), torch.empty(1, 18, 6, 6)
    found = count(DeformConv2d(4, 8, 3, padding=1, bias=False), (x, offset))
    assert found.multiply_adds == 36 * 8 * 4 * 9


# ------------------------------------------------------------------------------------------------ attention
def attention_by_hand(number, rows, keys, deep, wide):
    """Scaled dot-product attention of some queries over some keys, in loops."""
    for _ in range(rows):
        scores = []
        for _ in range(keys):
            score = number() * number()
            for _ in range(deep - 1):
                score = score + number() * number()
            scores.append(score * 0.5)
        top = scores[0]
        for score in scores[1:]:
            top = top.largest(score)
        powers = [(score - top).exp() for score in scores]
        total = powers[0]
        for power in powers[1:]:
            total = total + power
        shares = [power / total for power in powers]
        for _ in range(wide):
            mixed = shares[0] * number()
            for share in shares[1:]:
                mixed = mixed + share * number()


def test_fused_attention_costs_what_its_loops_do(number):
    q, kv = torch.empty(2, 3, 4, 8), torch.empty(2, 3, 5, 8)
    attention_by_hand(number, 2 * 3 * 4, 5, 8, 8)
    macs, flops = counted(lambda *x: F.scaled_dot_product_attention(*x), q, kv, kv)
    assert macs == 2 * 3 * 4 * 5 * (8 + 8)
    assert macs == number.done["multiply"] - 2 * 3 * 4 * 5  # the scale is no product that is summed
    assert flops == sum(number.done.values())


@pytest.mark.parametrize("form", ["fused", "mask", "dropout", "wide values", "operation by operation"])
def test_every_form_of_attention_has_the_same_products(form):
    q, k, v = torch.empty(2, 3, 4, 8), torch.empty(2, 3, 5, 8), torch.empty(2, 3, 5, 6 if form == "wide values" else 8)
    options = {"mask": {"attn_mask": torch.empty(4, 5)}, "dropout": {"dropout_p": 0.1}}.get(form, {})

    def attend(q, k, v):
        if form == "operation by operation":
            return (q @ k.mT / 8**0.5).softmax(-1) @ v
        return F.scaled_dot_product_attention(q, k, v, **options)

    assert counted(attend, q, k, v)[0] == 2 * 3 * 4 * 5 * (8 + v.shape[-1])


def test_the_mask_and_the_causal_half_are_counted_like_the_rest():
    x = torch.empty(1, 2, 6, 8)
    plain = counted(lambda x: F.scaled_dot_product_attention(x, x, x), x)
    causal = counted(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), x)
    masked = counted(lambda x, m: F.scaled_dot_product_attention(x, x, x, attn_mask=m), x, torch.empty(6, 6))
    assert causal == plain
    assert masked == (plain[0], plain[1] + 2 * 6 * 6)


def test_attention_backward_computes_the_scores_again():
    class Attend(nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v)

    x = torch.empty(2, 3, 16, 8)
    found = count(Attend(), (x, x, x), training=True, input_gradient=True)
    assert found.backward_multiply_adds * 2 == found.multiply_adds * 5
    with FlopCounterMode(display=False) as peer:
        q = torch.randn(2, 3, 16, 8, requires_grad=True)
        F.scaled_dot_product_attention(q, q, q).sum().backward()
    both = found.multiply_adds + found.backward_multiply_adds
    assert 2 * both in (peer.get_total_flops(), peer.get_total_flops() + 2 * both)  # it does not know the CPU's kernel


# ------------------------------------------------------------------------------------------------ backward
@pytest.mark.parametrize("groups", [1, 2, 8], ids=["dense", "grouped", "depthwise"])
@pytest.mark.parametrize("transposed", [False, True])
def test_forward_and_backward_of_a_convolution_are_three_times_its_forward(groups, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer, x = kind(8, 8, 3, stride=2, groups=groups), torch.empty(2, 8, 9, 9)
    found = count(layer, x, training=True, input_gradient=True)
    assert found.backward_multiply_adds == 2 * found.multiply_adds
    # with nothing to compute for the inputs, the gradient of the weights is left
    assert count(layer, x, training=True).backward_multiply_adds == found.multiply_adds
    layer.weight.requires_grad_(False)
    assert count(layer, x, training=True, input_gradient=True).backward_multiply_adds == found.multiply_adds


def test_the_gradients_of_a_convolution_cost_what_their_sums_do():
    layer, x = nn.Conv2d(4, 6, 3, padding=1), torch.empty(2, 4, 5, 5)
    products = 2 * 6 * 5 * 5 * 4 * 9
    found = count(layer, x, training=True, input_gradient=True)
    to_input, to_weight = 2 * products - x.numel(), 2 * products - layer.weight.numel()
    assert found.backward_flops == to_input + to_weight + (2 * 6 * 25 - 6)


def test_dense_nets_agree_with_pytorchs_counter_forward_and_backward():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.LazyLinear(10), nn.Linear(10, 4)
    )
    x = torch.randn(2, 3, 11, 11)
    model(x)
    found = count(model, x, training=True)
    with FlopCounterMode(display=False) as peer:
        model(x).sum().backward()
    assert 2 * (found.multiply_adds + found.backward_multiply_adds) == peer.get_total_flops()


def test_pytorchs_counter_is_wrong_on_depthwise_convolutions_and_ours_is_not():
    layer, x = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False), torch.randn(1, 64, 8, 8, requires_grad=True)
    found = count(layer, x, training=True, input_gradient=True)
    with FlopCounterMode(display=False) as peer:
        layer(x).sum().backward()
    assert found.multiply_adds + found.backward_multiply_adds == 3 * 64 * 9 * 64
    assert peer.get_total_flops() > 10 * 2 * 3 * 64 * 9 * 64
