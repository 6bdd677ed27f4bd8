"""Convolution, norm and activation, in either order and in one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.ops.misc import Conv2dNormActivation, Conv3dNormActivation

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn import conv
from clearsight.nn.conv import ConvNormAct, ConvSequential, NormActConv, conv_block, conv_norm, norm_after
from clearsight.nn.cross_iteration_norm import CrossIterationBatchNorm
from clearsight.nn.frozen_norm import FrozenBatchNorm


@pytest.mark.parametrize(("kernel", "stride", "side"), [(1, 1, 9), (3, 1, 9), (3, 2, 5), (5, 2, 5), (1, 2, 5)])
@pytest.mark.parametrize("order", conv.ORDERS)
def test_shape(order: str, kernel: int, stride: int, side: int) -> None:
    for dims in (1, 2, 3):
        block = conv_block(4, 8, kernel, order=order, stride=stride, dims=dims)
        assert block(torch.randn(2, 4, *[9] * dims)).shape == (2, 8, *[side] * dims)
        assert block.out_channels == 8


def test_it_is_the_three_in_order() -> None:
    block = ConvNormAct(4, 8, 3, groups=2).eval()
    x = torch.randn(2, 4, 6, 6)
    convolution, norm = block[0], block[1]
    assert isinstance(convolution, nn.Conv2d)
    torch.testing.assert_close(block(x), norm(convolution(x)).relu())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "dilation": 3},
        {"kernel": (1, 5), "dilation": (1, 2)},
        {"kernel": 2, "stride": 2},
        {"padding": 0, "bias": True, "groups": 2},
        {"norm": None, "activation": None, "padding": (2, 1)},
    ],
)
def test_it_is_torchvisions_with_the_same_arguments(options: dict, same_block: Callable[..., None]) -> None:
    theirs = dict(options)
    renamed = {"kernel": "kernel_size", "norm": "norm_layer", "activation": "activation_layer"}
    theirs = {renamed.get(name, name): value for name, value in options.items()}
    same_block(ConvNormAct(4, 8, **options), Conv2dNormActivation(4, 8, **theirs), torch.randn(3, 4, 8, 9))


def test_three_axes_are_torchvisions() -> None:
    ours, theirs = ConvNormAct(2, 4, dims=3).eval(), Conv3dNormActivation(2, 4).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 2, 5, 6, 4)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("dilation", [1, 2, (3, 1)])
@pytest.mark.parametrize("order", conv.ORDERS)
def test_padding_keeps_the_size(order: str, dilation: int | tuple[int, int]) -> None:
    block = conv_block(4, 4, (5, 3), order=order, dilation=dilation)
    assert block(torch.randn(2, 4, 7, 8)).shape == (2, 4, 7, 8)


@pytest.mark.parametrize("norm", ["batch", "group", None])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "silu", "none"])
def test_norm_act_conv_is_the_three_in_its_order_and_leaves_the_input(norm: str | None, activation: str) -> None:
    block = NormActConv(4, 6, stride=2, groups=2, norm=norm, activation=activation)
    x = torch.randn(3, 4, 6, 5)
    before = x.clone()
    expected = x.clone()
    for layer in copy.deepcopy(block):
        expected = layer(expected)
    torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, before)
    kinds = [type(layer).__name__ for layer in block]
    assert kinds[-1] == "Conv2d"
    assert len(kinds) == 3 - (norm is None) - (activation == "none")
    assert (block[-1].bias is None) == (norm is not None)


@pytest.mark.parametrize("order", conv.ORDERS)
def test_gradients_are_those_of_finite_differences(order: str, right_gradients: Callable[..., None]) -> None:
    right_gradients(conv_block(4, 6, order=order, dilation=2, groups=2, activation="silu"), 3, 4, 5, 4)


# ------------------------------------------------------------------------------------------------ in one
@pytest.fixture
def always_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold small maps too."""
    monkeypatch.setattr(conv, "_PER_CALL", -1)
    monkeypatch.setattr(conv, "_PER_WEIGHT", 0)


def randomised(norm: nn.Module) -> nn.Module:
    norm = copy.deepcopy(norm).double().eval()
    state = norm.state_dict()
    norm.load_state_dict({name: 0.5 + torch.rand_like(value.double()) for name, value in state.items()})
    return norm


NORMS = [
    nn.BatchNorm2d(8),
    nn.BatchNorm2d(8, affine=False),
    nn.SyncBatchNorm(8),
    FrozenBatchNorm(8),
    CrossIterationBatchNorm(nn.Conv2d(4, 8, 3, bias=False)),
]


@pytest.mark.usefixtures("always_fold")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
def test_a_norm_with_fixed_statistics_is_folded_with_the_same_values_and_gradients(norm: nn.Module, bias: bool) -> None:
    convolution, norm = nn.Conv2d(4, 8, 3, 2, 1, groups=2, bias=bias).double(), randomised(norm)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    leaves = [x, *convolution.parameters(), *norm.parameters()]
    plain = torch.autograd.grad(norm(convolution(x)).square().sum(), leaves)
    folded = conv_norm(convolution, norm, x)
    assert folded.grad_fn.name() == "ConvolutionBackward0"
    for one, other in zip(plain, torch.autograd.grad(folded.square().sum(), leaves), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(conv_norm(convolution, norm, x), norm(convolution(x)))


@pytest.mark.usefixtures("always_fold")
@pytest.mark.parametrize("dims", [1, 3])
def test_one_and_three_axes_are_folded_too(dims: int) -> None:
    block = ConvNormAct(4, 6, dims=dims, activation=None).double()
    block[1].load_state_dict(randomised(block[1]).state_dict())
    x = torch.randn(2, 4, *[5] * dims, dtype=torch.float64)
    found = block.eval()(x)
    assert found.grad_fn.name() == "ConvolutionBackward0"
    torch.testing.assert_close(found, block[1](block[0](x)))


class Negated(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return -super().forward(input)


def circular() -> nn.Module:
    return nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular")


@pytest.mark.usefixtures("always_fold")
@pytest.mark.parametrize(
    ("convolution", "norm"),
    [
        (Negated(4, 8, 3), nn.BatchNorm2d(8)),
        (nn.Conv2d(4, 8, 3), BatchNormAct2d(8)),
        (circular(), nn.BatchNorm2d(8)),
        (nn.ConvTranspose2d(4, 8, 3), nn.BatchNorm2d(8)),
        (nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8)),
        (nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_is_not_just_a_scale_of_a_convolution_is_called_as_it_is(convolution: nn.Module, norm: nn.Module) -> None:
    convolution, norm = convolution.double(), randomised(norm)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(conv_norm(convolution, norm, x), norm(convolution(x)), rtol=0, atol=0)


@pytest.mark.usefixtures("always_fold")
def test_a_weight_that_is_computed_is_folded_or_called_with_the_same_result() -> None:
    convolution = parametrizations.weight_norm(nn.Conv2d(4, 8, 3))
    norm, x = randomised(nn.BatchNorm2d(8)).float(), torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(conv_norm(convolution, norm, x), norm(convolution(x)))


def test_folding_happens_only_where_it_saves_time() -> None:
    block = ConvNormAct(8, 8, activation=None).eval()
    large, small = torch.randn(2, 8, 128, 128), torch.randn(2, 8, 16, 16)
    assert block(large).grad_fn.name() == "ConvolutionBackward0"
    assert block(small).grad_fn.name() != "ConvolutionBackward0"  # the fixed time is more
    wide = ConvNormAct(512, 512, activation=None).eval()
    assert wide(torch.randn(1, 512, 32, 32)).grad_fn.name() != "ConvolutionBackward0"  # 18 weights an output
    strided = ConvNormAct(8, 8, stride=2, activation=None).eval()
    assert strided(large).grad_fn.name() != "ConvolutionBackward0"  # a quarter of the outputs


@pytest.mark.usefixtures("always_fold")
def test_folding_happens_only_with_fixed_statistics_and_where_nobody_watches() -> None:
    block, x = ConvNormAct(4, 8), torch.randn(2, 4, 6, 6)
    block(x)
    assert block[1].num_batches_tracked == 1  # in training the norm itself ran
    block.eval()
    expected = block(x)
    for layer, watch in [
        (block[0], block[0].register_forward_hook),
        (block[1], block[1].register_forward_pre_hook),
        (block[1], block[1].register_full_backward_hook),
        (block[0], block[0].register_full_backward_pre_hook),
    ]:
        seen: list[nn.Module] = []
        handle = watch(lambda module, *_, seen=seen: seen.append(module))
        block[2].inplace = False  # PyTorch's own backward hooks do not stand it
        torch.testing.assert_close(block(x), expected)
        block(x.clone().requires_grad_()).sum().backward()
        handle.remove()
        assert seen
        assert set(seen) == {layer}


def test_a_norm_that_needs_its_convolution_gets_it() -> None:
    block = ConvNormAct(4, 8, norm="cross_iteration", activation=None)
    assert isinstance(block[1], CrossIterationBatchNorm)
    x = torch.randn(2, 4, 6, 6)
    expected = copy.deepcopy(block[1])(block[0](x), block[0], x)
    torch.testing.assert_close(block(x), expected)
    assert block[1].steps == 1
    assert isinstance(norm_after("cbn", nn.Conv2d(4, 8, 1, bias=False)), CrossIterationBatchNorm)


@pytest.mark.usefixtures("always_fold")
def test_a_sequence_folds_its_pairs_and_is_pytorchs() -> None:
    layers = [nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 4, 1)]
    ours, theirs = ConvSequential(*layers).double().eval(), nn.Sequential(*layers).double().eval()
    layers[1].load_state_dict(randomised(layers[1]).state_dict())
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).sum().backward()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ConvSequential(layers[0], layers[1])(x).grad_fn.name() == "ConvolutionBackward0"


# ------------------------------------------------------------------------------------------------ arguments
def test_a_bias_only_without_norm() -> None:
    with_norm, without = ConvNormAct(4, 8)[0], ConvNormAct(4, 8, norm=None)[0]
    assert isinstance(with_norm, nn.Conv2d)
    assert isinstance(without, nn.Conv2d)
    assert with_norm.bias is None
    assert without.bias is not None
    assert ConvNormAct(4, 8, bias=True)[0].bias is not None
    assert ConvNormAct(4, 8, norm=None, bias=False)[0].bias is None
    assert len(ConvNormAct(4, 8, norm=None, activation="none")) == 1


@pytest.mark.parametrize("order", conv.ORDERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, "groups: found 3, which does not divide 4 channels; use 1, 2, 4"),
        ({"dims": 4}, "dims: there are convolutions over 1, 2 and 3 axes, got 4"),
        ({"kernel": (3, 3, 3)}, r"kernel: expected one number or 2, got \(3, 3, 3\)"),
        ({"dilation": (1,)}, r"dilation: expected one number or 2, got \(1,\)"),
        ({"norm": "bacth"}, "did you mean 'batch'"),
        ({"activation": "rellu"}, "did you mean 'relu'"),
    ],
)
def test_bad_arguments_are_refused(order: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        conv_block(4, 8, order=order, **options)


def test_unknown_orders_and_wrong_ranks_are_refused() -> None:
    with pytest.raises(ConfigError, match="order: there is none named 'norm-conv-act'; did you mean"):
        conv_block(4, 8, order="norm-conv-act")
    with pytest.raises(ConfigError, match=r"order: .* choose one of conv-norm-act, norm-act-conv"):
        conv_block(4, 8, order="xyz")
    with pytest.raises(ShapeError, match=r"ConvNormAct: x: expected \(n, c, h, w\), got \(4, 6, 6\)"):
        ConvNormAct(4, 8)(torch.randn(4, 6, 6))
    with pytest.raises(ShapeError, match=r"NormActConv: x: expected \(n, c, w\), got \(1, 4, 6, 6\)"):
        NormActConv(4, 8, dims=1)(torch.randn(1, 4, 6, 6))
