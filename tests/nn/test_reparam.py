"""The form for training and the form for use give the same."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.models.byobnet import RepVggBlock

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.reparam import AsymmetricConv, LargeKernelConv, Reparameterised, RepConv

LAYERS = {
    "rep": partial(RepConv, 4, 4),
    "rep of other channels": partial(RepConv, 4, 6),
    "rep with groups": partial(RepConv, 4, 4, groups=2),
    "rep with groups and more channels": partial(RepConv, 4, 8, groups=4),
    "rep with stride": partial(RepConv, 4, 4, stride=2),
    "rep with dilation": partial(RepConv, 4, 4, dilation=2),
    "rep of 5": partial(RepConv, 4, 4, 5, norm="frozen_batch", activation="silu"),
    "asymmetric": partial(AsymmetricConv, 4, 6),
    "asymmetric of 7 with stride": partial(AsymmetricConv, 4, 6, 7, stride=2, groups=2),
    "asymmetric with dilation": partial(AsymmetricConv, 4, 4, dilation=3),
    "large": partial(LargeKernelConv, 4, 13),
    "large with stride": partial(LargeKernelConv, 4, 9, small=3, stride=2),
    "large alone": partial(LargeKernelConv, 4, 9, small=None),
}


def ready(layer: Reparameterised) -> Reparameterised:
    """With norms that have learned something, in evaluation mode."""
    for norm in layer.modules():
        if hasattr(norm, "running_var"):
            for name, low, high in (("running_mean", -1, 1), ("running_var", 0.3, 3), ("weight", -1.5, 1.5)):
                getattr(norm, name).data.uniform_(low, high)
            norm.bias.data.uniform_(-1, 1)  # pyright: ignore
    return layer.eval()


@pytest.mark.parametrize("name", LAYERS)
def test_both_forms_give_the_same(name: str) -> None:
    layer = ready(LAYERS[name]())
    x = torch.randn(2, 4, 17, 14)
    expected = layer(x).detach()
    convolution = layer.merge()
    before = set(layer.state_dict())
    deployed = copy.deepcopy(layer)
    deployed.deploy()
    scale = expected.abs().max()
    for found in (deployed(x), deployed.act(convolution(x)) if isinstance(layer, RepConv) else convolution(x)):
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)
    assert set(layer.state_dict()) == before  # merging alone changes nothing
    assert set(deployed.state_dict()) == {"reparam_conv.weight", "reparam_conv.bias"}
    made = LAYERS[name](deployed=True)
    made.load_state_dict(deployed.state_dict())
    assert torch.equal(made.eval()(x), deployed(x))
    kept = deployed.reparam_conv
    deployed.deploy()
    assert deployed.reparam_conv is kept is deployed.merge()


@pytest.mark.parametrize(("out_channels", "stride", "groups"), [(8, 1, 1), (8, 2, 1), (6, 1, 1), (8, 1, 2)])
def test_repvggs_block_is_timms(out_channels: int, stride: int, groups: int) -> None:
    theirs = RepVggBlock(8, out_channels, stride=stride, group_size=8 // groups if groups > 1 else None)
    ours = RepConv(8, out_channels, stride=stride, groups=groups)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 9, 10)
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), rtol=1e-5, atol=1e-5)
    ours.deploy()
    theirs.reparameterize()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_the_cross_is_made_of_three_convolutions_with_norms_of_their_own() -> None:
    layer = AsymmetricConv(3, 5, 3, stride=2)
    x = torch.randn(2, 3, 9, 8)
    expected = sum(
        F.batch_norm(F.conv2d(x, weight, stride=2, padding=padding), None, None, training=True)
        for weight, padding in (
            (layer.square_conv.weight, (1, 1)),
            (layer.ver_conv.weight, (1, 0)),
            (layer.hor_conv.weight, (0, 1)),
        )
    )
    assert layer.ver_conv.kernel_size == (3, 1)
    assert layer.hor_conv.kernel_size == (1, 3)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_large_kernels_are_depthwise_and_named_as_published() -> None:
    layer = LargeKernelConv(6, 31, small=5)
    names = {name for name, _ in layer.named_parameters()}
    assert {"lkb_origin.conv.weight", "lkb_origin.bn.weight", "small_conv.conv.weight"} < names
    assert layer.lkb_origin[0].weight.shape == (6, 1, 31, 31)
    x = torch.randn(2, 6, 9, 9)
    large = F.batch_norm(F.conv2d(x, layer.lkb_origin[0].weight, padding=15, groups=6), None, None, training=True)
    small = F.batch_norm(F.conv2d(x, layer.small_conv[0].weight, padding=2, groups=6), None, None, training=True)  # pyright: ignore
    torch.testing.assert_close(layer(x), large + small, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["rep", "asymmetric", "large"])
@pytest.mark.parametrize("deployed", [False, True])
def test_gradients_types_and_memory(name: str, deployed: bool) -> None:
    layer = LAYERS[name](deployed=deployed).double()
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,), fast_mode=True)
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    layer = layer.float().to(memory_format=torch.channels_last).eval()
    images = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = layer(images)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = layer(images)
        assert (half - full).abs().max() < 0.05 * full.abs().max()
        assert layer(images[:0]).shape == (0, *full.shape[1:])


@pytest.mark.parametrize("name", ["rep", "asymmetric", "large"])
def test_both_forms_compile(name: str) -> None:
    x = torch.randn(2, 4, 8, 8)
    for deployed in (False, True):
        layer = LAYERS[name](deployed=deployed)
        layer.eval()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), layer(x), rtol=1e-5, atol=1e-5)


def test_without_running_statistics_it_trains_and_stays_in_that_form() -> None:
    layer = RepConv(4, 4, norm="group").eval()
    before = set(layer.state_dict())
    with pytest.raises(ConfigError, match="GroupNorm has no running statistics"):
        layer.deploy()
    assert set(layer.state_dict()) == before
    assert layer(torch.randn(1, 4, 5, 5)).shape == (1, 4, 5, 5)


def test_bad_arguments() -> None:
    for make in (partial(RepConv, 4, 4), partial(AsymmetricConv, 4, 4)):
        with pytest.raises(ConfigError, match="kernel: must be odd"):
            make(4)
        with pytest.raises(ConfigError, match="must be 3 or more"):
            make(1)
        with pytest.raises(ConfigError, match="does not divide 4 in_channels"):
            make(groups=3)
    with pytest.raises(ConfigError, match="does not divide 5 out_channels"):
        RepConv(4, 5, groups=2)
    with pytest.raises(ConfigError, match="below the kernel of 5"):
        LargeKernelConv(4, 5, small=5)
    with pytest.raises(ShapeError, match="RepConv: x"):
        RepConv(4, 4)(torch.zeros(4, 5, 5))
