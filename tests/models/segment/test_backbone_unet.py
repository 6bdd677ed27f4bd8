"""A U-Net on backbones: the peer's names and numbers, any size, and that it learns real membranes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.data.normalisation import Statistics
from clearsight.errors import ConfigError, ShapeError
from clearsight.models.segment.backbone_unet import BackboneUNet, build_encoder
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss

GREY = Statistics(mean=(0.5,), std=(0.2,))
WIDTHS = (32, 24, 16, 12, 8)


def settle(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)  # pyright: ignore[reportOptionalMemberAccess]
            layer.running_var.uniform_(0.8, 1.2)  # pyright: ignore[reportOptionalMemberAccess]


def published(model: BackboneUNet) -> dict[str, Tensor]:
    """The state under segmentation-models-pytorch's names."""
    renamed = {}
    for name, value in model.state_dict().items():
        new = name.replace("head.", "segmentation_head.0.") if name.startswith("head.") else name
        renamed["encoder." + new.removeprefix("backbone.") if new.startswith("backbone.") else new] = value
    return renamed


def written_out(state: dict[str, Tensor], levels: list[Tensor]) -> Tensor:
    """The peer's decoder and head in functions: levels from the deepest to the finest, and evaluation mode."""

    def layer(x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, state[f"{name}.0.weight"], padding=1)
        of = [state[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *of).relu()

    x = levels[0]
    for k in range(5):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = torch.cat([x, *levels[k + 1 : k + 2]], dim=1)
        x = layer(layer(x, f"decoder.blocks.{k}.conv1"), f"decoder.blocks.{k}.conv2")
    return F.conv2d(x, state["segmentation_head.0.weight"], state["segmentation_head.0.bias"], padding=1)


def test_numbers_are_the_peers() -> None:
    model = BackboneUNet(build_encoder("resnet18", channels=1), 3).eval()
    settle(model)
    images = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        levels = list(model.backbone.features(images).values())[::-1]
        assert [level.shape[-1] for level in levels] == [3, 6, 12, 24, 48]
        expected = written_out(published(model), levels)
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_parameters_are_the_peers() -> None:
    # of the peer's Unet(encoder, classes=3): 14,328,499 on a ResNet-18 and 32,521,395 on a ResNet-50
    for name, count in (("resnet18", 14_328_499), ("resnet50", 32_521_395)):
        with torch.device("meta"):
            model = BackboneUNet(build_encoder(name), 3)
        assert sum(p.numel() for p in model.parameters()) == count


def test_published_weights_fit() -> None:
    model = BackboneUNet(build_encoder("resnet18"), 2, widths=WIDTHS)
    other = BackboneUNet(build_encoder("resnet18"), 2, widths=WIDTHS)
    assert other.load_state_dict(other.adapt_weights(published(model))) == ([], [])
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    classifier = {name.removeprefix("backbone."): v for name, v in model.state_dict().items() if "backbone." in name}
    adapted = other.adapt_weights({**classifier, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)})
    assert adapted.keys() == {name for name in model.state_dict() if name.startswith("backbone.")}
    assert other.adapt_weights(model.state_dict()).keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "fnet_ti_16"])
def test_any_backbone_and_any_size(name: str) -> None:
    model = BackboneUNet(build_encoder(name, channels=2), 3, widths=WIDTHS).eval()
    stem = isinstance(model.decoder.skips[-2], str)
    assert stem == (name == "resnet18")  # others have no level at stride 2
    with torch.no_grad():
        for size in ((1, 1), (3, 5), (33, 47), (64, 64)):
            out = model(torch.randn(1, 2, *size))
            assert out.shape == (1, 3, *size)
            assert torch.isfinite(out).all()
    assert model(torch.zeros(2, 2, 32, 32)).isfinite().all()


def test_an_empty_batch() -> None:
    model = BackboneUNet(build_encoder("resnet18"), 3, widths=WIDTHS).eval()
    assert model(torch.zeros(0, 3, 40, 33)).shape == (0, 3, 40, 33)


def test_every_parameter_learns() -> None:
    model = BackboneUNet(build_encoder("resnet18"), 2, widths=WIDTHS, norm="group")
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    own, other = (
        {name: p.shape for name, p in BackboneUNet(build_encoder("resnet18"), k, widths=WIDTHS).named_parameters()}
        for k in (2, 7)
    )
    assert {name for name in own if own[name] != other[name]} == set(model.class_layer)
    before = model.head.weight.clone()
    model.reset_classes()
    assert not torch.equal(model.head.weight, before)


def test_channels_last_half_precision_and_compiled() -> None:
    model = BackboneUNet(build_encoder("resnet18"), 2, widths=WIDTHS).eval()
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        full = model(x)
        assert full.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
        assert (half - full).abs().max() < 0.1 * full.abs().max()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), full, rtol=1e-4, atol=1e-4)


def test_export(tmp_path: Path) -> None:
    net = BackboneUNet(build_encoder("resnet18", channels=1), 2, widths=WIDTHS)
    settle(net)
    model = Segmenter(net, statistics=GREY, loss=SemanticLoss(2)).eval()
    images = torch.randint(0, 256, (1, 1, 45, 64), dtype=torch.uint8)
    path = tmp_path / "unet.onnx"
    torch.onnx.export(model, (images,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    expected = model(images).detach()
    assert expected.shape == (1, 2, 45, 64)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="never gets from stride 28 to 1"):
        BackboneUNet(build_encoder("convmixer_768_32"), 2)
    with pytest.raises(ConfigError, match=r"expected 5 or more"):
        BackboneUNet(build_encoder("resnet18"), 2, widths=(8, 8))
    with pytest.raises(ConfigError, match="classes: must be at least 1"):
        BackboneUNet(build_encoder("resnet18"), 0)
    with pytest.raises(ShapeError, match="BackboneUNet: x"):
        BackboneUNet(build_encoder("resnet18"), 2)(torch.zeros(3, 32, 32))


@pytest.mark.real
def test_it_learns_real_membranes(membrane_dice: Callable[..., float]) -> None:
    torch.manual_seed(0)
    net = BackboneUNet(build_encoder("resnet18", channels=1), 2, widths=(64, 64, 48, 32, 16))
    assert membrane_dice(Segmenter(net, statistics=GREY, loss=SemanticLoss(2)), steps=60, lr=3e-3) > 0.9
