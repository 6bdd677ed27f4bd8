"""ACNet: in use it is a ResNet."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from clearsight.deploy.fuse import fuse
from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones.acnet import ACNETS, AcNet
from clearsight.nn.reparam import AsymmetricConv


def test_every_square_kernel_has_its_cross() -> None:
    model = ACNETS["acnet18"]()
    crosses = [layer for layer in model.modules() if isinstance(layer, AsymmetricConv)]
    alone = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and not name.endswith(("square_conv", "ver_conv", "hor_conv"))
    ]
    assert len(crosses) == 17
    assert len(alone) == 3
    assert all(layer.kernel_size == (1, 1) for layer in alone)
    assert [crosses[0].square_conv.kernel_size, crosses[1].square_conv.kernel_size] == [(7, 7), (3, 3)]


def test_in_use_it_is_torchvisions_resnet() -> None:
    model = ACNETS["acnet18"]()
    model.train()(torch.randn(2, 3, 64, 64))  # statistics of something
    report = fuse(model)
    assert len(report.fused) == 20
    assert report.kept == ()
    theirs = torchvision.models.resnet18(weights=None).eval()
    theirs.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    state = {}
    for name, value in report.model.state_dict().items():
        norm = name.replace("reparam_conv.", "").replace("conv", "bn").replace("downsample.0", "downsample.1")
        if name.endswith(".weight"):
            state[name.replace("reparam_conv.", "")] = value
        else:
            state[norm] = value  # as the shift of a norm that does nothing else
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all("bn" in name or "downsample.1" in name for name in missing)
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0
    x = torch.randn(1, 3, 65, 47)
    with torch.no_grad():
        expected, found = theirs(x), model.eval().embed(x)
    torch.testing.assert_close(found / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=1e-5)


def test_parameters() -> None:
    # 3×3 and 7×7 kernels have 6/9 and 14/49 more; two more norms for each of the 17
    resnet = sum(p.numel() for p in torchvision.models.resnet18().parameters())
    kernels = [p.numel() for n, p in torchvision.models.resnet18().named_parameters() if p.ndim == 4]
    shortcuts = (64 * 128, 128 * 256, 256 * 512)
    stem, others = kernels[0], sum(kernels[1:]) - sum(shortcuts)
    norms = 4 * (64 + 4 * (64 + 128 + 256 + 512))
    model = ACNETS["acnet18"]()
    found = sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1)
    assert found == resnet + stem * 14 // 49 + others * 6 // 9 + norms


@pytest.mark.parametrize("small_input", [False, True])
def test_levels(small_input: bool, has_levels: Callable[..., None]) -> None:
    has_levels(AcNet(18, channels=2, small_input=small_input), (97, 65), (32, 32), (64, 33))


@pytest.mark.parametrize("norm", ["batch", "group", "frozen_batch"])
def test_any_norm_and_channels_give_gradients(norm: str) -> None:
    model = AcNet(18, norm=norm, channels=5, drop_path=0.1)
    model.features(torch.randn(2, 5, 64, 64))["c5"].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="there is no ACNet-50; choose one of 18, 34"):
        AcNet(50)
    with pytest.raises(ShapeError, match="31×64 are smaller than its largest stride, 32"):
        AcNet(18).embed(torch.zeros(1, 3, 31, 64))
