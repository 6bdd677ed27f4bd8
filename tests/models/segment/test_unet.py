"""U-Net: the paper's numbers, tiles without seams, any size, and that it learns real membranes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from clearsight.data.normalisation import Statistics
from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.models.segment.backbone_unet import BackboneUNet
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import IGNORED, SemanticLoss
from clearsight.models.segment.unet import UNet, build_unet
from clearsight.models.segment.unet_sizes import mirror_pad, valid_input_size
from clearsight.types import Targets

GREY = Statistics(mean=(0.5,), std=(0.2,))
SIZES = [(1, 1), (3, 5), (33, 47), (64, 64)]


def mapped(semantic: Tensor) -> Targets:
    none = torch.zeros(0).long()
    return Targets(boxes=torch.zeros(0, 4), labels=none, image=none, semantic=semantic)


def small(**options: Any) -> UNet:
    return UNet(1, 2, **{"width": 4, "depth": 3, **options})


def settled(model: nn.Module) -> nn.Module:
    """In use, with norms that have seen something."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)  # pyright: ignore[reportOptionalMemberAccess]
            layer.running_var.uniform_(0.8, 1.2)  # pyright: ignore[reportOptionalMemberAccess]
    return model.eval()


def test_parameters_are_the_papers() -> None:
    # figure 1, convolutions with biases and no norm: 9 i o + o for 3×3, 4 i o + o for the 2×2 of the way up
    def double(before: int, after: int) -> int:
        return 9 * before * after + after + 9 * after * after + after

    widths = (64, 128, 256, 512, 1024)
    down = sum(double(a, b) for a, b in zip((1, *widths), widths, strict=False))
    up = sum(4 * 2 * b * b + b + double(2 * b, b) for b in widths[:-1])
    count = down + up + 64 * 2 + 2
    with torch.device("meta"):
        model = UNet(1, 2, norm=None, padding="valid", dropout=0.5)
        twin = UNet(1, 2, norm=None)
    assert sum(p.numel() for p in model.parameters()) == count == 31_030_658
    assert sum(p.numel() for p in twin.parameters()) == count
    assert sum(1 for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)) == 23  # section 2


def test_the_papers_sizes() -> None:
    model = UNet(1, 2, width=1, norm=None, padding="valid").eval()
    with torch.no_grad():
        assert model.cropped(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
        assert model(torch.zeros(1, 1, 388, 388)).shape == (1, 2, 388, 388)
    assert (model.margin, model.step) == (92, 16)
    with pytest.raises(ShapeError, match="got 570; the next that fits is 572"):
        model.cropped(torch.zeros(1, 1, 572, 570))


def test_skips_are_cut_from_the_middle() -> None:
    # a net of sums of non-negative weights sees exactly its receptive field: symmetric, around the pixel it is said of
    model = UNet(1, 1, width=1, depth=2, norm=None, padding="valid").double().eval()
    for p in model.parameters():
        p.data.fill_(0.1 if p.ndim > 1 else 0.0)
    side = valid_input_size(9, 2)
    x = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    out = model.cropped(x)
    direct = [name for name, _ in model.named_modules() if name.startswith("up.") and name.count(".") == 1]
    for name in direct:  # past the skips alone
        for p in model.get_submodule(name).parameters():
            p.data.zero_()
    shallow = model.cropped(x)
    for found, reach in ((out, None), (shallow, 4)):
        (seen,) = torch.autograd.grad(found[0, 0, 4, 4], x, retain_graph=True)
        rows = seen[0, 0].abs().sum(1).nonzero().flatten()
        centre = 4 + model.margin
        assert rows[0] <= centre <= rows[-1]
        if reach is not None:
            assert (rows[0].item(), rows[-1].item()) == (centre - reach, centre + reach)


@pytest.mark.parametrize("norm", [None, "batch"])
def test_two_tiles_are_the_whole(norm: str | None) -> None:
    model = settled(small(padding="valid", norm=norm, depth=2))
    assert isinstance(model, UNet)
    image = torch.randn(1, 1, 40, 61)
    whole = model(image)
    high, wide = valid_input_size(40, 2), valid_input_size(32, 2)
    padded = mirror_pad(image, model.margin, 60, model.margin, 60)
    left, right = (padded[..., :high, start : start + wide] for start in (0, 32))  # at a multiple of the step
    tiled = torch.cat((model.cropped(left)[..., :40, :32], model.cropped(right)[..., :40, :29]), dim=3)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6 * whole.abs().max().item())
    off = model.cropped(padded[..., :high, 31 : 31 + wide])[..., :40, 1:30]  # on another pooling grid
    assert (off - whole[..., 32:]).abs().max() > 1e-3 * whole.abs().max()


@pytest.mark.parametrize("options", [{}, {"padding": "valid"}, {"up": "bilinear"}, {"norm": None}, {"norm": "group"}])
def test_any_size(options: dict[str, Any]) -> None:
    model = small(**options).eval()
    for size in SIZES:
        with torch.no_grad():
            out = model(torch.randn(2, 1, *size))
            assert out.shape == (2, 2, *size)
            assert torch.isfinite(out).all()
            assert model(torch.randn(0, 1, *size)).shape == (0, 2, *size)
    assert model(torch.zeros(3, 1, 16, 16)).isfinite().all()


def test_a_multiple_is_not_touched() -> None:
    model = settled(small())
    assert isinstance(model, UNet)
    x = torch.randn(1, 1, 24, 32)
    torch.testing.assert_close(model(x), model.cropped(x), rtol=0, atol=0)
    cut = model(x[..., :19, :30])
    assert cut.shape[2:] == (19, 30)
    expected = model.cropped(mirror_pad(x[..., :19, :30], 0, 2, 0, 5))[..., :19, :30]
    torch.testing.assert_close(cut, expected, rtol=0, atol=0)


def test_dropout_ends_the_way_down() -> None:
    model = small(dropout=0.5, norm=None)
    x = torch.randn(1, 1, 16, 16)
    assert not torch.equal(model(x), model(x))
    seen: list[Tensor] = []
    handle = model.dropout.register_forward_hook(lambda layer, given, out: seen.append(given[0]))
    model(x)
    handle.remove()
    assert [each.shape[1] for each in seen] == [16, 32]  # the two deepest of 4, 8, 16, 32 channels
    model.eval()
    torch.testing.assert_close(model(x), model(x), rtol=0, atol=0)


def test_channels_last_half_precision_and_compiled() -> None:
    model = settled(small()).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        full = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert (half - full).abs().max() < 0.05 * full.abs().max()
    compiled = torch.compile(settled(small(padding="valid")), backend="aot_eager", fullgraph=True)
    assert compiled(torch.randn(1, 1, 9, 11)).shape == (1, 2, 9, 11)


def test_every_parameter_learns() -> None:
    for options in ({}, {"padding": "valid"}, {"up": "bilinear"}):
        model = small(**options)
        model(torch.randn(2, 1, 32, 32)).square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        weights = [p for p in model.parameters() if p.ndim == 4]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in weights)


def test_classes_start_anew() -> None:
    model = small()
    own = dict(model.named_parameters())
    other = dict(UNet(1, 5, width=4, depth=3).named_parameters())
    assert {name for name in own if own[name].shape != other[name].shape} == set(model.class_layer)
    before = model.out.weight.clone()
    model.reset_classes()
    assert not torch.equal(model.out.weight, before)
    assert model.adapt_weights(model.state_dict()).keys() == model.state_dict().keys()


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_export(padding: str, tmp_path: Path) -> None:
    model = Segmenter(settled(small(padding=padding, depth=2)), statistics=GREY, loss=SemanticLoss(2)).eval()  # pyright: ignore[reportArgumentType]
    images = torch.randint(0, 256, (1, 1, 21, 30), dtype=torch.uint8)
    path = tmp_path / "unet.onnx"
    torch.onnx.export(model, (images,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    expected = model(images).detach()
    assert found.shape == (1, 2, 21, 30)  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def section(**options: Any) -> Any:
    loss = SimpleNamespace(
        model_dump=lambda: {"name": "ce_dice", "dice_weight": 0.5, "label_smoothing": 0.1, "gamma": 2.0}
    )
    plain = {
        "backbone": None,
        "norm": "batch",
        "drop_path": 0.0,
        "padding": "same",
        "width": 8,
        "depth": 2,
        "dropout": 0.25,
        "up": "transposed",
        "decoder_channels": (16, 12, 8, 8, 4),
        "loss": loss,
    }
    return SimpleNamespace(**{**plain, **options})


def test_built_from_a_section() -> None:
    model = build_unet(section(), num_classes=3, channels=1, statistics=GREY)
    assert isinstance(model.net, UNet)
    assert (model.net.out.weight.shape[:2], model.net.depth, model.net.dropout.p) == ((3, 8), 2, 0.25)
    assert (model.objective.dice_weight, model.objective.label_smoothing) == (0.5, 0.1)
    assert model.class_layer == ("net.out.weight", "net.out.bias")
    on_backbone = build_unet(section(backbone="resnet18", norm=None), num_classes=3, channels=1, statistics=GREY)
    assert isinstance(on_backbone.net, BackboneUNet)
    assert on_backbone(torch.zeros(1, 1, 40, 33)).shape == (1, 3, 40, 33)
    for name in ("fnet_ti_16", "acnet18"):  # the one takes no batch norm, the other has another kind of stem
        with torch.device("meta"):
            other = build_unet(section(backbone=name), num_classes=3, channels=1, statistics=GREY)
        assert any(isinstance(layer, nn.BatchNorm2d) for layer in other.net.decoder.modules())  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="padding: valid needs backbone: null"):
        build_unet(section(backbone="resnet18", padding="valid"), num_classes=2, channels=1, statistics=GREY)


def test_nothing_labelled_and_not_a_number() -> None:
    model = build_unet(section(), num_classes=2, channels=1, statistics=GREY)
    images = torch.zeros(2, 1, 16, 16)
    total = sum(model.loss(images, mapped(torch.full((2, 16, 16), IGNORED))).values(), torch.zeros(()))
    total.backward()
    assert total.item() == 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    terms = model.loss(torch.full((1, 1, 16, 16), torch.nan), mapped(torch.zeros(1, 16, 16).long()))
    assert all(value.isnan() for value in terms.values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(
            value.dtype == torch.float32 for value in model.loss(images, mapped(torch.zeros(2, 16, 16).long())).values()
        )


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="padding: there is none named 'vald'; did you mean 'valid'"):
        small(padding="vald")
    with pytest.raises(ConfigError, match="up: there is none named"):
        small(up="nearest")
    with pytest.raises(ConfigError, match="bilinear makes up values at the border"):
        small(up="bilinear", padding="valid")
    with pytest.raises(ConfigError, match="depth: must be at least 1"):
        small(depth=0)
    with pytest.raises(RangeError, match="dropped"):
        small(dropout=1.0)
    with pytest.raises(ShapeError, match="UNet: x"):
        small()(torch.zeros(1, 16, 16))


def membranes(folder: Path, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Corners of real slices, `(n, 1, side, side)` uint8, and 1 where there is membrane."""
    from clearsight.data.decode import read_image

    images, labels = [], []
    for number in range(count):
        image, label = (
            torch.from_numpy(read_image(folder / part / f"{number}.png", channels=1).copy())[:side, :side, 0]
            for part in ("image", "label")
        )
        images.append(image[None])
        labels.append((label == 0).long())
    return torch.stack(images), torch.stack(labels)


@pytest.mark.real
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_learns_membranes(padding: str, membrane_dice: Callable[..., float]) -> None:
    net = UNet(1, 2, width=12, depth=2, padding=padding)  # pyright: ignore[reportArgumentType]
    model = Segmenter(net, statistics=GREY, loss=SemanticLoss(2))
    assert membrane_dice(model, steps=80, lr=1e-2) > 0.9
