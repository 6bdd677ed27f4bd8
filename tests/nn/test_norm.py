"""Normalisation by name: against the derivations in `clearsight.reference`, PyTorch, and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.nn.cross_iteration_norm import CrossIterationBatchNorm
from clearsight.nn.cross_mini_batch_norm import CrossMiniBatchNorm
from clearsight.nn.frozen_norm import FrozenBatchNorm
from clearsight.nn.instance_norm import InstanceNorm
from clearsight.nn.layer_norm import LayerNorm2d
from clearsight.nn.local_response_norm import LocalResponseNorm
from clearsight.nn.norm import NORM_ALIASES, NORMS, batch_norms, hold_statistics, norm
from clearsight.reference.batch_norm import batch_norm_eval, batch_norm_train, batch_norm_train_backward
from clearsight.reference.normalisation import (
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
)

CLASSES = {
    "batch": nn.BatchNorm2d,
    "sync_batch": nn.SyncBatchNorm,
    "frozen_batch": FrozenBatchNorm,
    "cross_iteration": CrossIterationBatchNorm,
    "cross_mini_batch": CrossMiniBatchNorm,
    "group": nn.GroupNorm,
    "layer": nn.GroupNorm,
    "layer_channels": LayerNorm2d,
    "instance": InstanceNorm,
    "local_response": LocalResponseNorm,
}
ALIASES = {"bn", "gn", "ln", "in", "lrn", "frozen_bn", "sync_bn", "cbn", "cmbn", "ln2d"}

shapes = st.tuples(st.integers(0, 3), st.sampled_from([1, 3, 4, 6]), st.integers(1, 5), st.integers(1, 4))
several = settings(max_examples=30, deadline=None)


def convolution(channels: int) -> nn.Conv2d:
    return nn.Conv2d(3, channels, 3, bias=False)


def arrays(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """An input away from zero mean and unit variance, and a gradient."""
    x, grad = torch.randn(2, *shape, dtype=torch.float64).numpy()
    return 2 * x + 1, grad


def affine_of(layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift, drawn at random and put into the layer."""
    scale, shift = torch.rand(layer.weight.shape).double() + 0.5, torch.randn(layer.weight.shape).double()
    with torch.no_grad():
        layer.weight.copy_(scale)
        layer.bias.copy_(shift)
    return scale.numpy(), shift.numpy()


def run(layer: nn.Module, x: np.ndarray, grad: np.ndarray) -> list[np.ndarray]:
    """Output, gradient of x, and those of the parameters."""
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    output = layer(leaf)
    found = torch.autograd.grad(output, [leaf, *layer.parameters()], torch.from_numpy(grad))
    return [tensor.detach().numpy() for tensor in (output, *found)]


def assert_all_close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-7)


# ------------------------------------------------------------------------------------------------ the factory
@pytest.mark.parametrize("name", NORMS)
def test_every_name_gives_its_layer_and_each_call_a_new_one(name: str) -> None:
    after = {"after": convolution(8)} if name == "cross_iteration" else {}
    layer = norm(name, 8, **after)
    assert type(layer) is CLASSES[name]
    assert norm(name, 8, **after) is not layer


def test_short_names_mean_the_long_ones() -> None:
    assert set(NORM_ALIASES) == ALIASES
    assert set(NORM_ALIASES.values()) == set(NORMS) == set(CLASSES)
    for short, long in NORM_ALIASES.items():
        after = {"after": convolution(8)} if long == "cross_iteration" else {}
        assert repr(norm(short, 8, **after)) == repr(norm(long, 8, **after))


def test_options_reach_the_layer() -> None:
    assert repr(norm("gn", 64, groups=8, eps=1e-3)) == repr(nn.GroupNorm(8, 64, eps=1e-3))
    assert repr(norm("bn", 4, momentum=0.03, affine=False)) == repr(nn.BatchNorm2d(4, momentum=0.03, affine=False))
    assert norm("lrn", 4, size=3).size == 3
    assert norm("cmbn", 4, window=3).window == 3
    layer = norm("cbn", 4, after=convolution(4), window=5, burn_in=7, eps=1e-3, momentum=0.2)
    assert (layer.window, layer.burn_in, layer.eps, layer.momentum) == (5, 7, 1e-3, 0.2)
    assert norm("in", 4, affine=True).weight is not None
    assert norm("in", 4).weight is None
    assert norm("ln2d", 4).eps == 1e-6


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (24, 8), (48, 16), (7, 1)])
def test_group_norm_divides_the_channels(channels: int, groups: int) -> None:
    layer = norm("group", channels)
    assert isinstance(layer, nn.GroupNorm)
    assert layer.num_groups == groups
    assert layer(torch.randn(1, channels, 2, 2)).shape == (1, channels, 2, 2)


@pytest.mark.parametrize(
    "name", ["batch", "sync_batch", "frozen_batch", "group", "layer", "instance", "local_response"]
)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_one_to_three_axes(name: str, dims: int) -> None:
    x = torch.randn(2, 4, *[3] * dims)
    assert norm(name, 4, dims=dims)(x).shape == x.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "bach"}, r"none named 'bach'; did you mean 'batch'\?"),
        ({"name": "batch", "groups": 2}, "'batch' takes no groups; it is for group"),
        ({"name": "lrn", "eps": 1e-3}, "'local_response' takes no eps; it is for batch, sync_batch, frozen_batch"),
        ({"name": "gn", "momentum": 0.1}, "'group' takes no momentum; it is for batch, sync_batch, cross_iteration"),
        ({"name": "bn", "size": 5}, "takes no size; it is for local_response"),
        ({"name": "bn", "window": 5}, "takes no window; it is for cross_iteration, cross_mini_batch"),
        ({"name": "gn", "groups": 3}, "groups: found 3, which does not divide 8 channels; use 1, 2, 4, 8"),
        ({"name": "gn", "groups": 0}, "groups: found 0"),
        ({"name": "bn", "dims": 4}, "dims must be 1, 2 or 3 spatial axes, got 4"),
        ({"name": "ln2d", "dims": 1}, "'layer_channels' is for images, dims=2, got dims=1"),
        ({"name": "cmbn", "dims": 3}, "'cross_mini_batch' is for images"),
        ({"name": "cbn"}, "give that: after=convolution"),
        ({"name": "cbn", "after": nn.Conv2d(3, 4, 3, bias=False)}, "expected the 4 channels of the convolution"),
        ({"name": "bn", "channels": 0}, "channels: must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        norm(**{"channels": 8, **options})


# ------------------------------------------------------------------------------------------------ what they compute
@several
@given(shapes)
def test_batch_norm_is_the_derived_one(shape: tuple[int, ...]) -> None:
    if shape[0] * shape[2] * shape[3] == 1:  # one value a channel is refused
        return
    layer = norm("batch", shape[1]).double()
    scale, shift = affine_of(layer)
    x, grad = arrays(*shape)
    start = np.zeros(shape[1]), np.ones(shape[1])
    y, mean, var = batch_norm_train(x, scale, shift, *start)
    assert_all_close(run(layer, x, grad), [y, *batch_norm_train_backward(grad, x, scale)])
    assert_all_close([layer.running_mean.numpy(), layer.running_var.numpy()], [mean, var])
    again = layer.eval()(torch.from_numpy(x)).detach().numpy()
    assert_all_close([again], [batch_norm_eval(x, scale, shift, mean, var)])


def test_a_training_batch_is_normalised_by_its_own_statistics_and_the_running_ones_are_only_gathered() -> None:
    layer, x = norm("batch", 3), torch.randn(4, 3, 5, 5) * 3 + 2
    y = layer(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(layer.running_mean, 0.1 * x.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * x.var((0, 2, 3), correction=1))  # the unbiased one
    evaluated = layer.eval()(x)
    assert evaluated.mean().abs() > 1  # by the running statistics, which one step has hardly moved


@several
@given(shapes, st.sampled_from([1, 2, 3]))
def test_group_norm_is_the_derived_one(shape: tuple[int, ...], part: int) -> None:
    groups = {1: 1, 2: np.gcd(2, shape[1]).item(), 3: shape[1]}[part]
    if shape[0] * shape[2] * shape[3] * shape[1] // groups == 1:  # PyTorch refuses one value a group
        return
    layer = norm("group", shape[1], groups=groups).double()
    scale, shift = affine_of(layer)
    x, grad = arrays(*shape)
    expected = [group_norm(x, groups, scale, shift), *group_norm_backward(grad, x, groups, scale)]
    assert_all_close(run(layer, x, grad), expected)


@several
@given(shapes)
def test_instance_norm_is_the_derived_one_with_and_without_an_affine_step(shape: tuple[int, ...]) -> None:
    if shape[2] * shape[3] == 1:
        return
    x, grad = arrays(*shape)
    layer = norm("instance", shape[1], affine=True).double()
    scale, shift = affine_of(layer)
    expected = [instance_norm(x, scale, shift), *instance_norm_backward(grad, x, scale)]
    assert_all_close(run(layer, x, grad), expected)
    assert_all_close(run(norm("instance", shape[1]), x, grad), [instance_norm(x), instance_norm_backward(grad, x)[0]])


@several
@given(shapes)
def test_channel_layer_norm_is_the_derived_one_on_rows_of_channels(shape: tuple[int, ...]) -> None:
    layer = norm("layer_channels", shape[1]).double()
    scale, shift = affine_of(layer)
    x, grad = arrays(*shape)
    rows, grad_rows = np.moveaxis(x, 1, -1), np.moveaxis(grad, 1, -1)
    dx, *affine = layer_norm_backward(grad_rows, rows, scale, eps=1e-6)
    y = layer_norm(rows, scale, shift, eps=1e-6)
    assert_all_close(run(layer, x, grad), [np.moveaxis(y, -1, 1), np.moveaxis(dx, -1, 1), *affine])


def per_channel(layer: nn.Module, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return layer(x) * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def test_one_group_is_layer_norm_and_a_group_a_channel_is_instance_norm_not_the_other_way_round() -> None:
    x = torch.randn(2, 6, 5, 4) * 3 + 1
    scale, shift = torch.rand(6) + 0.5, torch.randn(6)
    layer_wise = per_channel(nn.LayerNorm((6, 5, 4), elementwise_affine=False), x, scale, shift)
    instance_wise = per_channel(nn.InstanceNorm2d(6), x, scale, shift)
    one, each = norm("gn", 6, groups=1), norm("gn", 6, groups=6)
    for layer in (one, each, ln := norm("ln", 6), own := norm("in", 6, affine=True)):
        with torch.no_grad():
            layer.weight.copy_(scale)
            layer.bias.copy_(shift)
    for found, expected in ((one, layer_wise), (ln, layer_wise), (each, instance_wise), (own, instance_wise)):
        torch.testing.assert_close(found(x), expected)
    assert (one(x) - instance_wise).abs().max() > 0.1
    assert (each(x) - layer_wise).abs().max() > 0.1


# ------------------------------------------------------------------------------------------------ in a model
def test_held_statistics_stay_and_scale_and_shift_learn() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.SyncBatchNorm(4))
    first, second = batch_norms(model)
    hold_statistics(model)
    assert (model.training, model[2].training, first.training, second.training) == (True, True, False, False)
    before = first.running_mean.clone()
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    assert torch.equal(before, first.running_mean)
    assert first.weight.grad is not None
    model.train()
    assert first.training


def test_norms_over_several_batches_count_as_batch_norms() -> None:
    conv = convolution(4)
    model = nn.Sequential(conv, norm("cbn", 4, after=conv), norm("cmbn", 4), norm("frozen_bn", 4), norm("in", 4))
    assert batch_norms(model) == [model[1], model[2]]
