"""Semantic FPN: the paper's branch written out in plain PyTorch, any backbone and size, and real membranes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.data.normalisation import Statistics
from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones import build_backbone
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_fpn import LevelBranch, SemanticFpn, build_semantic_fpn
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.recipe.segment_sections import SemanticFpnConfig

GREY = Statistics(mean=(0.5,), std=(0.2,))


def small(classes: int = 2, *, backbone: str = "resnet18", channels: int = 1, **options: Any) -> SemanticFpn:
    return SemanticFpn(
        build_backbone(backbone, channels=channels, levels=("c5",)),
        classes,
        **{"fpn_channels": 16, "head_channels": 8, **options},
    )


def settle(model: nn.Module) -> None:
    """Norms that have seen something, and group norms that do something."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)  # pyright: ignore[reportOptionalMemberAccess]
            layer.running_var.uniform_(0.8, 1.2)  # pyright: ignore[reportOptionalMemberAccess]
        if isinstance(layer, nn.GroupNorm):
            nn.init.normal_(layer.weight, 1.0, 0.2)
            nn.init.normal_(layer.bias, 0.0, 0.2)


# ------------------------------------------------------------------------------------------------ the paper
def stage(in_channels: int, channels: int, *, doubles: bool = True) -> nn.Sequential:
    """One step of figure 3 in plain layers."""
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    layers = [convolution, nn.GroupNorm(2, channels), nn.ReLU()]
    return nn.Sequential(*layers, *[nn.Upsample(scale_factor=2, mode="bilinear")] * doubles)


def test_the_branch_is_the_papers() -> None:
    """Each level by itself to a quarter of the image, then the sum: as the text says, with the weights copied."""
    net = small(3).eval()
    settle(net)
    x = torch.randn(2, 1, 64, 96)
    total = torch.zeros(2, 8, 16, 24)
    levels = net.fpn(net.backbone.features(x))
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for level, doublings, branch in zip(levels, (0, 1, 2, 3), net.branches, strict=True):
        plain = nn.Sequential(*(stage(8 if k else 16, 8, doubles=doublings > 0) for k in range(max(1, doublings))))
        own = list(branch.state_dict().values())
        names = list(plain.state_dict())
        assert len(own) == len(names) == 3 * max(1, doublings)
        plain.load_state_dict(dict(zip(names, own, strict=True)))
        assert plain(level).shape == total.shape
        total = total + plain(level)
    logits = F.conv2d(total, net.head.weight, net.head.bias)
    expected = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_parameters_are_the_papers_widths() -> None:
    # 256 channels in the pyramid, 128 in the branches; convolutions without bias and two numbers a channel of a norm
    with torch.device("meta"):
        net = SemanticFpn(build_backbone("resnet50", levels=("c5",)), 19)
    convolutions = 4 * 9 * 256 * 128 + 3 * 9 * 128 * 128  # 1, 1, 2 and 3 of them
    assert sum(p.numel() for p in net.branches.parameters()) == convolutions + 7 * 2 * 128
    assert sum(p.numel() for p in net.head.parameters()) == 128 * 19 + 19
    assert [layer.num_groups for layer in net.branches.modules() if isinstance(layer, nn.GroupNorm)] == [32] * 7
    assert (net.scale, net.multiple) == (4, 32)


# ------------------------------------------------------------------------------------------------ sizes and forms
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_ti_16", "convmixer_768_32"])
def test_any_backbone_and_any_size(name: str) -> None:
    net = small(3, backbone=name, channels=2).eval()
    assert net.scale == (7 if name.startswith("convmixer") else 4)
    assert len(net.branches) == (3 if name.startswith("convmixer") else 4)
    with torch.no_grad():
        for size in ((1, 1), (33, 47)):
            out = net(torch.randn(1, 2, *size))
            assert out.shape == (1, 3, *size)
            assert torch.isfinite(out).all()


def test_more_sizes_and_an_empty_batch() -> None:
    net = small(1).eval()
    with torch.no_grad():
        for size in ((1, 40), (3, 5), (64, 64), (65, 31)):
            assert net(torch.randn(1, 1, *size)).shape == (1, 1, *size)
        assert net(torch.zeros(0, 1, 33, 47)).shape == (0, 1, 33, 47)
        x = torch.randn(1, 1, 33, 47)
        whole = net(F.pad(x, (0, 17, 0, 31), mode="reflect"))
        torch.testing.assert_close(net(x), whole[..., :33, :47])


def test_every_parameter_learns() -> None:
    net = small(2)
    net(torch.randn(2, 1, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.ndim == 4)
    own, other = ({name: p.shape for name, p in small(k).named_parameters()} for k in (2, 7))
    assert {name for name in own if own[name] != other[name]} == set(net.class_layer)
    before = net.head.weight.clone()
    net.reset_classes()
    assert not torch.equal(net.head.weight, before)


def test_published_weights_go_to_the_backbone() -> None:
    net, other = small(), build_backbone("resnet18", channels=1)
    classifier = {**other.state_dict(), "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}  # pyright: ignore[reportAttributeAccessIssue]
    adapted = net.adapt_weights(classifier)
    assert adapted.keys() == {name for name in net.state_dict() if name.startswith("backbone.")}
    net.load_state_dict(adapted, strict=False)
    torch.testing.assert_close(net.state_dict()["backbone.layer4.1.conv2.weight"], classifier["layer4.1.conv2.weight"])
    assert net.adapt_weights(net.state_dict()).keys() == net.state_dict().keys()


def test_channels_last_half_precision_and_compiled() -> None:
    net = small().eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        full = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = net(x)
        assert (half - full).abs().max() < 0.1 * full.abs().max()
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), full, rtol=1e-4, atol=1e-4)


def test_exported_it_agrees(tmp_path: Path) -> None:
    net = small(3)
    settle(net)
    model = Segmenter(net, statistics=GREY, loss=SemanticLoss(3)).eval()
    images = torch.randint(0, 256, (1, 1, 45, 64), dtype=torch.uint8)
    path = tmp_path / "net.onnx"
    torch.onnx.export(model, (images,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    expected = model(images).detach()
    assert expected.shape == (1, 3, 45, 64)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


# ------------------------------------------------------------------------------------------------ the segmenter
def test_built_from_a_section() -> None:
    config = SemanticFpnConfig.model_validate({"norm": "group", "fpn_channels": 24, "head_channels": 12})
    model = build_semantic_fpn(config, num_classes=3, channels=1, statistics=GREY)
    net = model.net
    assert isinstance(net, SemanticFpn)
    assert model.class_layer == ("net.head.weight", "net.head.bias")
    assert (net.fpn.channels, net.head.in_channels) == (24, 12)
    assert not [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    images = torch.randint(0, 256, (2, 1, 40, 33), dtype=torch.uint8)
    maps = model.eval().predict(images, torch.tensor([[40, 33], [17, 9]]))
    assert [tuple(each.probs.shape) for each in maps] == [(3, 40, 33), (3, 17, 9)]


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="classes: must be at least 1"):
        small(0)
    with pytest.raises(ConfigError, match="head_channels: must be at least 1"):
        small(head_channels=0)
    with pytest.raises(ShapeError, match="SemanticFpn: x"):
        small()(torch.zeros(1, 32, 32))
    odd, none = build_backbone("resnet18"), build_backbone("resnet18")
    odd.strides["c3"] = 12
    with pytest.raises(ConfigError, match="by factors of two, which strides of 4, 12, 16, 32 do not allow"):
        SemanticFpn(odd, 2)
    none.channels = {}
    with pytest.raises(ConfigError, match="it has none"):
        SemanticFpn(none, 2)
    assert [len(LevelBranch(4, 4, doublings=each)) for each in (0, 1, 2)] == [1, 1, 2]


@pytest.mark.real
def test_it_learns_real_membranes(membrane_dice: Callable[..., float]) -> None:
    torch.manual_seed(0)
    model = Segmenter(small(2, fpn_channels=64, head_channels=32), statistics=GREY, loss=SemanticLoss(2))
    assert membrane_dice(model, steps=45, lr=3e-3) >= 0.9
