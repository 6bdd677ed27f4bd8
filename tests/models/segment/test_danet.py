"""DANet: its head and its dilated backbone against plain PyTorch and torchvision, any size, and real nuclei."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from clearsight.data.normalisation import Statistics
from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.models.backbones import build_backbone
from clearsight.models.segment.danet import Danet, DualAttentionHead, build_danet, dilate
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.recipe.segment_sections import DanetConfig
from clearsight.types import Targets

GREY = Statistics(mean=(0.5,), std=(0.2,))


def small(classes: int = 2, *, channels: int = 1, stride: Any = 8, **options: Any) -> Danet:
    backbone = dilate(build_backbone("resnet18", channels=channels), stride)
    return Danet(backbone, classes, **{"head_channels": 16, **options})


def settle(model: nn.Module) -> None:
    """Norms that have seen something, and attention that counts."""
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.7)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)  # pyright: ignore[reportOptionalMemberAccess]
            layer.running_var.uniform_(0.8, 1.2)  # pyright: ignore[reportOptionalMemberAccess]


# ------------------------------------------------------------------------------------------------ the paper
def written_out(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Figure 2 in functions, positions and channels one by one, in evaluation mode."""

    def layer(x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, state[f"{name}.0.weight"], padding=1)
        of = [state[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *of).relu()

    def convolved(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"]).flatten(1)  # c hw, of one image

    a = layer(x, "to_positions")
    query, key, value = (
        convolved(a, f"positions.{part}_conv").unflatten(1, (-1, a.shape[2] * a.shape[3]))[0]
        for part in ("query", "key", "value")
    )
    taken = torch.zeros_like(value)
    for j in range(value.shape[1]):
        scores = torch.stack([torch.dot(query[:, j], key[:, i]) for i in range(value.shape[1])]).softmax(0)
        for i, score in enumerate(scores):
            taken[:, j] += score * value[:, i]
    a = state["positions.gamma"] * taken.view_as(a[0]) + a
    b = layer(x, "to_channels")
    rows = b[0].flatten(1)
    energy = torch.stack([torch.stack([torch.dot(one, other) for other in rows]) for one in rows])
    mixed = (energy.amax(1, keepdim=True) - energy).softmax(1) @ rows
    b = state["channels.gamma"] * mixed.view_as(b[0]) + b
    total = layer(a, "from_positions") + layer(b, "from_channels")
    return F.conv2d(total, state["out.weight"], state["out.bias"])


def test_the_head_is_the_papers() -> None:
    head = DualAttentionHead(6, 3, channels=8).double().eval()
    settle(head)
    x = torch.randn(1, 6, 4, 5, dtype=torch.float64)
    expected = written_out(head.state_dict(), x)
    torch.testing.assert_close(head(x), expected, rtol=1e-9, atol=1e-9)
    for name in ("positions.gamma", "channels.gamma"):  # each of the two counts
        state = head.state_dict()
        assert (written_out({**state, name: torch.zeros(1).double()}, x) - expected).abs().max() > 1e-3


def test_whole_channels_are_dropped_before_the_last_layer() -> None:
    head = DualAttentionHead(8, 2, channels=16, dropout=0.5)
    seen: list[Tensor] = []
    head.dropout.register_forward_hook(lambda _layer, given, out: seen.extend((given[0], out)))
    head(torch.randn(4, 8, 6, 6))
    given, out = (x.flatten(2) for x in seen)
    gone = (out == 0).all(2) & given.any(2)
    assert 0.2 < gone.float().mean() < 0.8
    torch.testing.assert_close(out[~gone], 2 * given[~gone])
    assert DualAttentionHead(8, 2, channels=16).dropout.p == 0.1
    head.eval()
    torch.testing.assert_close(head(x := torch.randn(1, 8, 3, 3)), head(x), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "stride"), [("resnet50", 8), ("resnet50", 16), ("resnext50_32x4d", 8)])
def test_the_dilated_backbone_is_torchvisions(name: str, stride: Any) -> None:
    theirs = torchvision.models.get_model(name, replace_stride_with_dilation=[False, stride == 8, True]).eval()
    settle(theirs)
    ours = dilate(build_backbone(name, levels=("c5",)), stride)
    ours.load_state_dict(ours.adapt_weights(theirs.state_dict()), strict=False)  # pyright: ignore[reportAttributeAccessIssue]
    ours.eval()  # pyright: ignore[reportAttributeAccessIssue]
    assert ours.strides == {"c2": 4, "c3": 8, "c4": stride, "c5": stride}
    x = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        found = ours.features(x)
        expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for number, level in enumerate(("c2", "c3", "c4", "c5"), start=1):
            expected = getattr(theirs, f"layer{number}")(expected)
            assert found[level].shape == expected.shape
            torch.testing.assert_close(found[level], expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_dilated_blocks_of_two_convolutions() -> None:
    """Torchvision has no dilated ResNet-18: the rates are those of its larger ones, 1 and 2, then 2 and 4."""
    net = dilate(build_backbone("seresnet18"), 8)
    rates = [
        (layer.dilation[0], layer.padding[0], layer.stride[0])
        for stage in (net.layer3, net.layer4)  # pyright: ignore[reportAttributeAccessIssue]
        for layer in stage.modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    assert rates == [(1, 1, 1)] * 2 + [(2, 2, 1)] * 2 + [(2, 2, 1)] * 2 + [(4, 4, 1)] * 2
    assert net.features(torch.randn(2, 3, 40, 24))["c5"].shape == (2, 512, 5, 3)


# ------------------------------------------------------------------------------------------------ sizes and forms
@pytest.mark.parametrize("stride", [8, 16])
def test_any_size_and_an_empty_batch(stride: int) -> None:
    net = small(3, channels=2, stride=stride).eval()
    settle(net)
    assert (net.scale, net.multiple) == (stride, stride)
    with torch.no_grad():
        for size in ((1, 1), (3, 5), (33, 47), (64, 64)):
            out = net(torch.randn(1, 2, *size))
            assert out.shape == (1, 3, *size)
            assert torch.isfinite(out).all()
        assert net(torch.zeros(0, 2, 33, 47)).shape == (0, 3, 33, 47)
        x = torch.randn(1, 2, 33, 47)
        below, right = -33 % stride, -47 % stride
        padded = F.pad(x, (0, right, 0, below), mode="reflect")
        coarse = net.head(net.backbone.features(padded)["c5"])
        whole = F.interpolate(coarse, padded.shape[2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(net(x), whole[..., :33, :47])


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "swin_t", "convmixer_768_32"])
def test_other_backbones_keep_their_stride(name: str) -> None:
    with torch.no_grad():
        net = Danet(build_backbone(name, channels=2, levels=("c5",)), 3, head_channels=16).eval()
        assert net.scale == (28 if name.startswith("convmixer") else 32)
        assert net(torch.randn(1, 2, 33, 47)).shape == (1, 3, 33, 47)


def test_every_parameter_learns() -> None:
    net = small(2)
    settle(net)
    net(torch.randn(2, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    # of a key's bias softmax sees nothing: it adds the same to all scores of a position
    idle = [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().sum() < 1e-12]
    assert set(idle) <= {"head.positions.key_conv.bias"}
    own, other = ({name: p.shape for name, p in small(k).named_parameters()} for k in (2, 7))
    assert {name for name in own if own[name] != other[name]} == set(net.class_layer)
    before = net.head.out.weight.clone()
    net.reset_classes()
    assert not torch.equal(net.head.out.weight, before)


def test_published_weights_go_to_the_backbone() -> None:
    net = small(channels=3)
    classifier = torchvision.models.resnet18().state_dict()
    adapted = net.adapt_weights(classifier)
    assert adapted.keys() == {name for name in net.state_dict() if name.startswith("backbone.")}
    assert all(adapted[name].shape == net.state_dict()[name].shape for name in adapted)
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
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


# ------------------------------------------------------------------------------------------------ the segmenter
def test_built_from_a_section() -> None:
    model = build_danet(
        DanetConfig.model_validate({"norm": "group", "head_channels": 24}), num_classes=3, channels=1, statistics=GREY
    )
    net = model.net
    assert isinstance(net, Danet)
    assert net.scale == 8  # the paper's
    assert net.head.out.in_channels == 24
    assert model.class_layer == ("net.head.out.weight", "net.head.out.bias")
    assert not [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    images = torch.randint(0, 256, (2, 1, 40, 33), dtype=torch.uint8)
    maps = model.eval().predict(images, torch.tensor([[40, 33], [17, 9]]))
    assert [tuple(each.probs.shape) for each in maps] == [(3, 40, 33), (3, 17, 9)]
    plain = DanetConfig.model_validate({"backbone": "mobilenet_v3_small", "output_stride": None})
    other = build_danet(plain, num_classes=2, channels=1, statistics=GREY).net
    assert isinstance(other, Danet)
    assert other.scale == 32


def test_bad_arguments() -> None:
    for name in ("mobilenet_v3_small", "acnet18"):
        with pytest.raises(ConfigError, match=r"only ResNets can be dilated, not a .*; set output_stride to null"):
            dilate(build_backbone(name), 8)
    with pytest.raises(ConfigError, match="output_stride: expected 8, 16, or None"):
        small(stride=4)
    with pytest.raises(ConfigError, match="found 8, which does not divide 12 channels"):
        small(head_channels=12)
    with pytest.raises(ConfigError, match="classes: must be at least 1"):
        small(0)
    with pytest.raises(RangeError, match="dropout"):
        small(dropout=1.0)
    with pytest.raises(ShapeError, match="Danet: x"):
        small()(torch.zeros(1, 32, 32))
    short = build_backbone("resnet18")
    del short.channels["c5"]
    with pytest.raises(ConfigError, match="reads its level c5; it has c2, c3, c4"):
        Danet(short, 2)


@pytest.mark.real
def test_it_learns_real_nuclei(shared_data: Path) -> None:
    """Corners of two images by heart, nucleus or not: mean IoU at least 0.9.

    Not membranes, which are a few pixels wide: at stride 8 nothing is enlarged back to such lines (Dice 0.8).
    """
    from clearsight.data.decode import read_image

    names = sorted((shared_data / "nuclei" / "instances").glob("*.png"))[5:7]
    semantic = torch.stack(
        [torch.from_numpy((read_image(name, channels=1)[:96, :96, 0] > 0).astype("int64")) for name in names]
    )
    photos = [read_image(shared_data / "nuclei" / "images" / name.name, channels=3)[:96, :96].copy() for name in names]
    images, none = torch.stack([torch.from_numpy(photo).permute(2, 0, 1) for photo in photos]), torch.zeros(0).long()
    targets = Targets(boxes=torch.zeros(0, 4), labels=none, image=none, semantic=semantic)
    net = small(2, channels=3, head_channels=64)
    model = Segmenter(net, statistics=Statistics(mean=(0.5,) * 3, std=(0.2,) * 3), loss=SemanticLoss(2))
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=25)
    for _ in range(25):
        loss = sum(model.loss(images, targets).values(), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    found = torch.stack([each.labels for each in model.eval().predict(images, torch.tensor([[96, 96]] * 2))])
    overlaps = [((found == k) & (semantic == k)).sum() / ((found == k) | (semantic == k)).sum() for k in (0, 1)]
    assert 0.1 < semantic.float().mean() < 0.5
    assert torch.stack(overlaps).mean() >= 0.9
