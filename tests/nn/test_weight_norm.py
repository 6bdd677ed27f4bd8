"""Weights as length times direction: against the derivation, and through a layer's life."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, RangeError
from clearsight.nn.weight_norm import remove_weight_norm, weight_norm
from clearsight.reference.weight_norm import weight_norm as reference
from clearsight.reference.weight_norm import weight_norm_backward

LAYERS = [
    lambda: nn.Conv2d(4, 6, 3, groups=2),
    lambda: nn.Conv1d(4, 6, 3),
    lambda: nn.Linear(5, 7),
    lambda: nn.Conv3d(2, 3, 2, bias=False),
]


def parts(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.get_parameter("parametrizations.weight.original0"), layer.get_parameter(
        "parametrizations.weight.original1"
    )


@pytest.mark.parametrize("make", LAYERS)
def test_weight_and_gradients_are_the_derived_ones(make: object) -> None:
    layer = weight_norm(make().double())
    lengths, directions = parts(layer)
    with torch.no_grad():
        lengths.uniform_(0.5, 2)
        directions.normal_()
    g, v = lengths.detach().flatten().numpy(), directions.detach().numpy()
    np.testing.assert_allclose(layer.weight.detach().numpy(), reference(v, g), rtol=1e-12)
    grad = torch.randn_like(directions)
    d_length, d_direction = torch.autograd.grad(layer.weight, [lengths, directions], grad)
    dv, dg = weight_norm_backward(grad.numpy(), v, g)
    np.testing.assert_allclose(d_direction.numpy(), dv, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(d_length.flatten().numpy(), dg, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close((d_direction * directions).flatten(1).sum(1), torch.zeros(len(g)).double())


@pytest.mark.parametrize("make", LAYERS)
def test_the_layer_computes_what_it_did_before_with_and_after_it(make: object) -> None:
    layer = make()
    x = (
        torch.randn(2, 5)
        if isinstance(layer, nn.Linear)
        else torch.randn(2, layer.in_channels, *[5] * (layer.weight.ndim - 2))
    )
    expected, names = layer(x), list(layer.state_dict())
    assert weight_norm(layer) is layer
    torch.testing.assert_close(layer(x), expected)
    assert {"parametrizations.weight.original0", "parametrizations.weight.original1"} < {*layer.state_dict(), "bias"}
    torch.testing.assert_close(copy.deepcopy(layer)(x), expected)
    assert remove_weight_norm(layer) is layer
    torch.testing.assert_close(layer(x), expected)
    assert sorted(layer.state_dict()) == sorted(names)
    assert isinstance(layer.weight, nn.Parameter)


@pytest.mark.parametrize(("dim", "kept"), [(0, (4, 1, 1, 1)), (1, (1, 6, 1, 1)), (-1, (1, 1, 1, 3)), (None, ())])
def test_the_axis_that_keeps_its_lengths(dim: int | None, kept: tuple[int, ...]) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3)
    before = layer.weight.detach().clone()
    lengths, _ = parts(weight_norm(layer, dim=dim))
    assert lengths.shape == kept
    axes = [axis for axis in range(4) if dim is None or axis != dim % 4]
    torch.testing.assert_close(lengths.flatten(), before.square().sum(axes).sqrt().flatten())
    torch.testing.assert_close(layer.weight, before)


def test_a_step_along_the_gradient_makes_directions_longer_and_lengths_stay_apart() -> None:
    layer = weight_norm(nn.Linear(5, 7))
    lengths, directions = parts(layer)
    before = directions.detach().norm(dim=1)
    (gradient,) = torch.autograd.grad(layer(torch.randn(3, 5)).square().sum(), directions)
    with torch.no_grad():
        directions -= 0.1 * gradient
    assert (directions.norm(dim=1) > before).all()
    torch.testing.assert_close(layer.weight.norm(dim=1), lengths.flatten())


def test_checkpoints_of_older_pytorch_load() -> None:
    layer = weight_norm(nn.Linear(5, 7))
    old = {"weight_g": torch.rand(7, 1) + 0.5, "weight_v": torch.randn(7, 5), "bias": torch.randn(7)}
    layer.load_state_dict(old)
    np.testing.assert_allclose(
        layer.weight.detach().numpy(), reference(old["weight_v"].numpy(), old["weight_g"][:, 0].numpy()), rtol=1e-6
    )


def test_another_parameter_by_name() -> None:
    layer = nn.LSTM(3, 4)
    weight_norm(layer, name="weight_hh_l0")
    assert layer(torch.randn(2, 1, 3))[0].shape == (2, 1, 4)


def test_what_cannot_be_is_refused() -> None:
    layer = nn.Linear(5, 7)
    with pytest.raises(ConfigError, match=r"weight_norm: Linear has no parameter 'wieght'; did you mean 'weight'\?"):
        weight_norm(layer, name="wieght")
    with pytest.raises(ConfigError, match="ReLU has no parameter 'weight'; it has no parameters of its own"):
        weight_norm(nn.ReLU())
    with pytest.raises(ConfigError, match="dim must be one of the 2 axes of 'weight' or None, got 2"):
        weight_norm(layer, dim=2)
    with pytest.raises(ConfigError, match="remove_weight_norm: 'weight' of Linear is not normalised"):
        remove_weight_norm(layer)
    with pytest.raises(ConfigError, match="remove_weight_norm: Linear has no parameter 'wieght'"):
        remove_weight_norm(layer, name="wieght")
    weight_norm(layer)
    with pytest.raises(ConfigError, match="'weight' of ParametrizedLinear is normalised already"):
        weight_norm(layer)
    zeros = nn.Linear(5, 7)
    nn.init.zeros_(zeros.weight[2])
    with pytest.raises(RangeError, match="1 of 7 lengths of 'weight' are 0, and a zero weight has no direction"):
        weight_norm(zeros)
    assert isinstance(zeros.weight, nn.Parameter)
