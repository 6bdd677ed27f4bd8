"""DenseNet's parts beside torchvision's; what is computed twice counts once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import DenseNet

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.dense import DenseBlock, DenseLayer, DenseTransition

THEIRS = DenseNet(8, (3, 1), 12, bn_size=2, num_classes=1).features


@pytest.mark.parametrize("recompute", [False, True])
def test_a_block_is_torchvisions(recompute: bool, same_block: Callable[..., None]) -> None:
    ours = DenseBlock(3, 12, 8, bottleneck=2, recompute=recompute)
    same_block(ours, copy.deepcopy(THEIRS.denseblock1), torch.randn(3, 12, 7, 5))


@pytest.mark.parametrize("recompute", [False, True])
def test_a_layer_is_torchvisions_on_a_list_too(recompute: bool, same_block: Callable[..., None]) -> None:
    ours = DenseLayer(20, 8, bottleneck=2, recompute=recompute)
    theirs = copy.deepcopy(THEIRS.denseblock1.denselayer2)
    x = torch.randn(3, 20, 7, 5)
    same_block(ours, theirs, x)
    torch.testing.assert_close(ours(x.double().split((12, 8), 1)), ours(x.double()))


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_a_transition_is_torchvisions(size: tuple[int, int], same_block: Callable[..., None]) -> None:
    same_block(DenseTransition(36, 18), copy.deepcopy(THEIRS.transition1), torch.randn(3, 36, *size))


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_finite_differences(recompute: bool, right_gradients: Callable[..., None]) -> None:
    block = DenseBlock(2, 4, 3, bottleneck=2, activation="silu", recompute=recompute)
    right_gradients(nn.Sequential(block, DenseTransition(10, 4, activation="silu")), 3, 4, 4, 5)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_that_is_computed_twice_counts_once(momentum: float | None) -> None:
    once = DenseBlock(3, 8, 4)
    for layer in once.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    twice = copy.deepcopy(once)
    for layer in twice.children():
        layer.recompute = True
    twice.recompute = True
    for _ in range(2):
        x = torch.randn(4, 8, 6, 6)
        for block in (once, twice):
            block(x).square().mean().backward()
    torch.testing.assert_close(twice.state_dict(), once.state_dict())
    assert twice.denselayer1.norm1.num_batches_tracked == 2
    assert twice.denselayer1.norm1.momentum == momentum


def kept(block: DenseBlock, x: Tensor) -> int:
    """Bytes that a training step keeps for its way back, each storage once."""
    storages: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        block(x)
    return sum(storages.values())


def test_recomputing_keeps_memory_from_growing_with_the_square_of_the_layers() -> None:
    x = torch.randn(2, 16, 16, 16)
    growth = [
        kept(DenseBlock(24, 16, 8, recompute=recompute), x) / kept(DenseBlock(6, 16, 8, recompute=recompute), x)
        for recompute in (False, True)
    ]
    assert growth[0] > 7
    assert growth[1] < 5  # four times the layers


def test_new_features_are_dropped_in_training_only() -> None:
    block = DenseBlock(2, 8, 16, drop=0.5)
    x = torch.randn(8, 8, 6, 6)
    y = block(x)
    assert torch.equal(y[:, :8], x)
    assert 0.4 < (y[:, 8:] == 0).float().mean() < 0.6
    assert (block.eval()(x)[:, 8:] == 0).sum() == 0


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="layers: must be at least 1, got 0"):
        DenseBlock(0, 8, 4)
    with pytest.raises(ConfigError, match="recompute: a norm over several mini-batches would count one twice"):
        DenseBlock(2, 8, 4, norm="cross_mini_batch", recompute=True)
    with pytest.raises(ShapeError, match=r"DenseLayer: features: expected \(n, c, h, w\), got \(8, 5, 5\)"):
        DenseLayer(16, 4)([torch.randn(2, 8, 5, 5), torch.randn(8, 5, 5)])
    with pytest.raises(ShapeError, match=r"DenseBlock: x: expected"):
        DenseBlock(2, 8, 4)(torch.randn(8, 5, 5))
