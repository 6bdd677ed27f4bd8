"""DenseNet beside torchvision's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from clearsight.errors import ShapeError
from clearsight.models.backbones.densenet import DENSENETS, DenseNet

SMALL = {"growth": 8, "width": 12, "bottleneck": 2}


def small(**options: object) -> DenseNet:
    return DenseNet((2, 2, 1, 2), **{**SMALL, **options})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("size", [(64, 96), (97, 65)])
def test_numbers_are_torchvisions(size: tuple[int, int], same_as_peer: Callable[..., None]) -> None:
    same_as_peer(DENSENETS["densenet121"](), torchvision.models.densenet121(weights=None), size=size)


@pytest.mark.parametrize("recompute", [False, True])
def test_numbers_in_training_are_torchvisions(recompute: bool, same_as_peer: Callable[..., None]) -> None:
    theirs = torchvision.models.DenseNet(8, (2, 2, 1, 2), 12, bn_size=2, num_classes=5)
    same_as_peer(small(recompute=recompute), theirs, size=(65, 47), batch=2, train=True, double=True)


@pytest.mark.parametrize("name", DENSENETS)
def test_names_and_counts_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs, ours = getattr(torchvision.models, name)(weights=None), DENSENETS[name]()
    adapted = ours.adapt_weights(theirs.state_dict())
    own = ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(("name", "count"), [("densenet121", 7978856), ("densenet169", 14149480)])
def test_parameters_are_the_published_number(name: str, count: int) -> None:
    with torch.device("meta"):
        model = DENSENETS[name]()
    assert sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1) == count


def test_names_of_the_published_files_are_known() -> None:
    ours = small()
    state = {f"features.{name}": value for name, value in ours.features.state_dict().items()}
    old = {
        name.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.").replace("conv1.", "conv.1."): value
        for name, value in state.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert ours.adapt_weights(old).keys() == state.keys()


def test_levels(has_levels: Callable[..., None]) -> None:
    has_levels(small(channels=2), (97, 65), (32, 32), (64, 33), (47, 71))
    has_levels(small(small_input=True), (33, 29), (32, 32), (8, 9))
    assert DENSENETS["densenet121"]().channels == {"c2": 256, "c3": 512, "c4": 1024, "c5": 1024}
    assert small(small_input=True).strides == {"c2": 1, "c3": 2, "c4": 4, "c5": 8}


def test_levels_are_the_published_networks_where_nothing_is_rounded() -> None:
    ours, theirs = small().eval(), torchvision.models.DenseNet(8, (2, 2, 1, 2), 12, bn_size=2, num_classes=5).eval()
    ours.load_state_dict(ours.adapt_weights(theirs.state_dict()), strict=False)
    x, expected = torch.randn(2, 3, 64, 96), dict[str, Tensor]()
    levels = ours.features(x)
    for name, layer in theirs.features.named_children():
        x = layer(x)
        if name.startswith("denseblock"):
            expected[f"c{int(name[-1]) + 1}"] = x
    expected["c5"] = F.relu(x)
    assert list(levels) == list(expected)
    torch.testing.assert_close(levels, expected)
    torch.testing.assert_close(ours.embed(torch.ones(1, 3, 64, 96)), ours(torch.ones(1, 3, 64, 96)).mean((2, 3)))


def test_a_last_odd_row_is_averaged_with_what_there_is() -> None:
    model = small(small_input=True).eval()
    x = torch.randn(1, 3, 9, 9)
    levels = model.features(x)
    step = model.features.transition1
    ready = step.act(step.norm(levels["c2"]))
    assert isinstance(ready, Tensor)
    corner = F.conv2d(ready[..., -1:, -1:], step.conv.weight)
    found = model.features.denseblock2(F.conv2d(F.avg_pool2d(ready, 2, ceil_mode=True), step.conv.weight))
    torch.testing.assert_close(levels["c3"], found)
    torch.testing.assert_close(levels["c3"][:, : corner.shape[1], -1:, -1:], corner)


def test_new_features_are_dropped_in_training() -> None:
    model = small(drop=0.5, small_input=True)
    found = model.features(torch.randn(2, 3, 16, 16))["c2"][:, 12:]
    assert 0.4 < (found == 0).float().mean() < 0.6


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_any_norm_gives_gradients(norm: str) -> None:
    model = small(norm=norm, channels=1)
    model.embed(torch.randn(2, 1, 64, 64)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_initial_weights_are_torchvisions() -> None:
    ours, theirs = DENSENETS["densenet121"](), torchvision.models.densenet121(weights=None)
    other = theirs.state_dict()
    for name, value in ours.named_parameters():
        if value.numel() > 3000:
            torch.testing.assert_close(value.std(), other[name].std(), rtol=0.1, atol=0)
        elif "norm" in name:
            assert torch.equal(value, other[name])


def test_channels_last_and_half_precision() -> None:
    model = small().eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 65, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model.features(x)
        assert all(level.is_contiguous(memory_format=torch.channels_last) for level in full.values())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full["c5"]).abs().max() / full["c5"].abs().max() < 0.05


def test_bad_images_are_refused() -> None:
    model = nn.Module.eval(small())
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        model.features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="backbone: images of 31×64 are smaller than its largest stride, 32"):
        model.embed(torch.zeros(1, 3, 31, 64))
