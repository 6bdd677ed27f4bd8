"""TransUNet: the published structure and count, timm's numbers, positions on a grid, and real membranes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from clearsight.data.normalisation import Statistics
from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.models.segment.transunet import CascadedUpsampler, TransUNet, UpBlock, build_transunet
from clearsight.models.weights import load_weights
from clearsight.recipe.segment_sections import TransUnetConfig
from clearsight.reference.batch_norm import batch_norm_eval
from clearsight.reference.convolution import convolution
from clearsight.reference.upsampling import upsample_bilinear

SMALL = {
    "layers": 2,
    "width": 32,
    "heads": 4,
    "backbone_width": 8,
    "backbone_blocks": (1, 1, 2),
    "decoder": (32, 16, 16, 8, 8),
    "image_size": 64,
}


def small(classes: int = 2, **options: object) -> TransUNet:
    net = TransUNet(classes, **(SMALL | {"channels": 1} | options))  # pyright: ignore[reportArgumentType]
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):  # statistics under which a norm that is left out shows
            layer.running_mean.normal_(std=0.1)  # pyright: ignore[reportOptionalMemberAccess]
            layer.running_var.uniform_(0.3, 0.6)  # pyright: ignore[reportOptionalMemberAccess]
    return net


def published_count(classes: int, image_size: int) -> int:
    """The parameters of R50-ViT-B/16 TransUNet, layer by layer."""

    def bottleneck(channels: int, width: int, *, shortcut: bool = False) -> int:
        convolutions = channels * width + 9 * width**2 + 4 * width**2 + shortcut * channels * 4 * width
        return convolutions + 2 * (width + width + 4 * width + shortcut * 4 * width)  # a scale and a shift a channel

    def up(channels: int, out: int) -> int:
        return 9 * channels * out + 2 * out + 9 * out**2 + 2 * out

    resnet = (
        3 * 64 * 7**2
        + 2 * 64
        + (bottleneck(64, 64, shortcut=True) + 2 * bottleneck(256, 64))
        + (bottleneck(256, 128, shortcut=True) + 3 * bottleneck(512, 128))
        + (bottleneck(512, 256, shortcut=True) + 8 * bottleneck(1024, 256))
    )
    patches = 1024 * 768 + 768
    positions = (image_size // 16) ** 2 * 768
    attention, mlp, norms = 4 * (768**2 + 768), (768 * 3072 + 3072) + (3072 * 768 + 768), 2 * 2 * 768
    transformer = 12 * (attention + mlp + norms) + 2 * 768
    decoder = 9 * 768 * 512 + 2 * 512 + up(512 + 512, 256) + up(256 + 256, 128) + up(128 + 64, 64) + up(64, 16)
    return resnet + patches + positions + transformer + decoder + 9 * 16 * classes + classes


@pytest.mark.parametrize(
    ("classes", "image_size", "count"), [(9, 224, 105_277_081), (2, 224, 105_276_066), (2, 256, 105_322_146)]
)
def test_parameters_are_the_published_number(classes: int, image_size: int, count: int) -> None:
    """105.28 M at 224², 105.32 M at 256², as tables of later papers have it (the paper itself gives no number).

    ResNet 11,894,848 + patches 787,200 + positions 150,528 (of 14² tokens; 16² make 196,608) + transformer 85,056,000
    (12 layers of 7,087,872, and a norm) + decoder 7,387,200 + head 1,305 (nine classes).
    """
    with torch.device("meta"):
        net = TransUNet(classes, image_size=image_size)
    assert sum(p.numel() for p in net.parameters()) == published_count(classes, image_size) == count
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    assert parts["resnet"] == 11_894_848
    assert parts["decoder"] == 7_387_200


def test_maps_are_those_of_the_paper() -> None:
    """Figure 1 at 224²: skips of 1/8, 1/4 and 1/2 with 512, 256 and 64 channels, 14² tokens, widths 256 to 16."""
    with torch.device("meta"):
        net = TransUNet(9)
        x, skips = net.encode(torch.zeros(1, 3, 224, 224))
        assert x.shape == (1, 768, 14, 14)
        assert [tuple(each.shape[1:]) for each in skips] == [(64, 112, 112), (256, 56, 56), (512, 28, 28)]
        x = net.decoder.conv_more(x)
        assert x.shape == (1, 512, 14, 14)
        found = []
        for block, skip in zip(net.decoder.blocks, (*skips[::-1], None), strict=True):
            x = block(x, skip)
            found.append(tuple(x.shape[1:]))
        assert found == [(256, 28, 28), (128, 56, 56), (64, 112, 112), (16, 224, 224)]
        assert net(torch.zeros(2, 3, 224, 224)).shape == (2, 9, 224, 224)
    assert len(net.encoder.layers) == 12
    dropped = [net.encoder.dropout, *(layer.mlp[i] for layer in net.encoder.layers for i in (2, 4))]  # pyright: ignore
    assert [layer.p for layer in dropped] == [0.1] * 25
    assert {layer.p for layer in net.modules() if isinstance(layer, nn.Dropout) and layer not in dropped} == {0.0}


# ------------------------------------------------------------------------------------------------ peers
def test_the_encoder_has_timms_numbers() -> None:
    theirs = timm.create_model(
        "vit_base_r50_s16_224", depth=2, img_size=(64, 96), class_token=False, global_pool="avg", fc_norm=False
    ).eval()
    for name, parameter in theirs.named_parameters():
        if "norm" in name:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    ours = TransUNet(3, layers=2, image_size=(64, 96)).eval()
    left = ours.load_state_dict(ours.adapt_weights(theirs.state_dict()), strict=False)
    assert left.unexpected_keys == []
    assert all(name.startswith(("decoder.", "head.")) for name in left.missing_keys)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found = ours.encode(x)[0].flatten(2).transpose(1, 2)
        torch.testing.assert_close(found, theirs.forward_features(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_base_r50_s16_224", "vit_base_r50_s16_384"])
def test_published_names_and_shapes_fit(name: str) -> None:
    with torch.device("meta"):
        net, theirs = TransUNet(2), timm.create_model(name)
    own, state = net.state_dict(), theirs.state_dict()
    state["pos_embed"] = torch.randn(state["pos_embed"].shape)
    adapted = net.adapt_weights(state)
    assert adapted.keys() == {key for key in own if not key.startswith(("decoder.", "head."))}
    assert all(adapted[key].shape == own[key].shape for key in adapted)
    if name.endswith("224"):
        torch.testing.assert_close(adapted["encoder.pos_embedding"], state["pos_embed"][:, 1:])
    else:
        placed = state["pos_embed"][:, 1:].unflatten(1, (24, 24)).permute(0, 3, 1, 2)
        resized = F.interpolate(placed, (14, 14), mode="bicubic", antialias=True)
        torch.testing.assert_close(adapted["encoder.pos_embedding"], resized.flatten(2).mT, rtol=0, atol=1e-5)


def test_a_plain_vits_transformer_and_own_weights(tmp_path: Path) -> None:
    theirs = torchvision.models.VisionTransformer(64, 16, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=128)
    net = small()
    adapted = net.adapt_weights(theirs.state_dict())
    assert adapted.pop("conv_proj.weight").shape == (32, 3, 16, 16)  # of its patches: here they are convolutions
    left = net.load_state_dict(adapted, strict=False)
    assert left.unexpected_keys == []
    assert not [name for name in left.missing_keys if name.startswith("encoder.")]
    assert net.adapt_weights(net.state_dict()).keys() == net.state_dict().keys()
    other = small(5)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    report = load_weights(other, tmp_path / "net.pt")
    assert [line.split(":")[0] for line in report.reinitialised] == sorted(TransUNet.class_layer)
    assert not report.missing
    assert not report.unexpected


def test_the_decoders_block_is_numpys() -> None:
    """Half-pixel centres, the encoder's channels behind, and twice convolution, norm and ReLU."""
    block = UpBlock(3, 2, 4).eval()
    for layer in (block.conv1[1], block.conv2[1]):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    x, skip = torch.randn(2, 3, 4, 5), torch.randn(2, 2, 8, 10)
    expected = np.concatenate((upsample_bilinear(x.numpy(), 2), skip.numpy()), 1)
    for part in (block.conv1, block.conv2):
        norm = [getattr(part[1], name).detach().numpy() for name in ("weight", "bias", "running_mean", "running_var")]
        expected = convolution(expected, part[0].weight.detach().numpy(), padding=1)
        expected = np.maximum(batch_norm_eval(expected, *norm), 0)
    with torch.no_grad():
        np.testing.assert_allclose(block(x, skip).numpy(), expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ positions and sizes
def test_positions_are_resized_as_a_grid() -> None:
    """Without layers and patches the tokens are the positions: those of 2×4 patches on 4×2, the other way round."""
    net = small(layers=0, image_size=(32, 64)).eval()
    nn.init.zeros_(net.conv_proj.weight)
    nn.init.zeros_(net.conv_proj.bias)  # pyright: ignore[reportArgumentType]
    table = net.encoder.pos_embedding.detach().unflatten(1, (2, 4)).permute(0, 3, 1, 2)
    for size in ((2, 4), (4, 2), (3, 7), (1, 1)):
        expected = F.interpolate(table, size, mode="bicubic", antialias=True).permute(0, 2, 3, 1)
        expected = F.layer_norm(expected, (32,), eps=1e-6).permute(0, 3, 1, 2)
        with torch.no_grad():
            found, _ = net.encode(torch.randn(1, 1, 16 * size[0], 16 * size[1]))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_positions_by_hand() -> None:
    """A table that says its row is, resized to twice as many columns, the same row by row."""
    net = small(image_size=(32, 32))
    row = torch.tensor([1.0, 1.0, 5.0, 5.0]).view(1, 4, 1).expand(1, 4, 32)  # tokens (0, 0), (0, 1), (1, 0), (1, 1)
    found = net.encoder.resize(row, (2, 4))[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0]))


def test_any_size_is_mirrored_and_cut() -> None:
    net = small(3).eval()
    with torch.no_grad():
        for size in ((33, 47), (1, 1), (224, 224), (256, 256), (1, 40), (64, 15)):
            found = net(torch.randn(2, 1, *size))
            assert found.shape == (2, 3, *size)
            assert found.isfinite().all()
        x = torch.randn(1, 1, 33, 47)
        whole = net(F.pad(x, (0, 1, 0, 15), mode="reflect"))
        assert whole.shape == (1, 3, 48, 48)
        again = net(x)  # after other sizes: nothing is left of them
        torch.testing.assert_close(again, whole[..., :33, :47])
        net(torch.randn(1, 1, 64, 64))
        assert torch.equal(net(x), again)


def test_all_is_learned_also_with_one_output_and_many_channels() -> None:
    net = small(1, channels=5)
    net(torch.randn(2, 5, 40, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


def test_compiled_in_half_precision_and_channels_last() -> None:
    net, x = small().eval(), torch.randn(2, 1, 40, 52)
    with torch.no_grad():
        full = net(x)
        assert full.std() > 0.01
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)(x)
        torch.testing.assert_close(compiled, full, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = net(x)
        assert half.dtype == torch.bfloat16
        assert (half - full).abs().max() < 0.1 * full.abs().max()
        last = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        found = last(torch.randn(2, 1, 48, 64).contiguous(memory_format=torch.channels_last))
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_exported_it_agrees(tmp_path: Path) -> None:
    net, x = small(layers=1, backbone_blocks=(1, 1, 1)).eval(), torch.randn(1, 1, 40, 56)
    torch.onnx.export(net, (x,), dynamo=True, verbose=False).save(tmp_path / "net.onnx")  # pyright: ignore
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    with torch.no_grad():
        expected = net(x).numpy()
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0], expected, atol=1e-5)


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="decoder: expected five widths"):
        small(decoder=(32, 16, 8, 8))
    with pytest.raises(ConfigError, match="expected five widths"):
        CascadedUpsampler(8, (1, 2, 4), (8, 8, 8, 8, 0))
    with pytest.raises(ConfigError, match="heads: found 5, which does not divide 32"):
        small(heads=5)
    with pytest.raises(ConfigError, match="image_size: must be a multiple of the patch, 16"):
        small(image_size=100)
    with pytest.raises(RangeError):
        small(dropout=1.0)
    with pytest.raises(ShapeError, match=r"images \(n, 1, h, w\), got \(1, 3, 64, 64\)"):
        small()(torch.zeros(1, 3, 64, 64))


# ------------------------------------------------------------------------------------------------ the segmenter
def build(classes: int, **options: object) -> Segmenter:
    return build_transunet(
        TransUnetConfig.model_validate(SMALL | {"dropout": 0.0} | options),
        num_classes=classes,
        channels=1,
        statistics=Statistics(mean=(0.5,), std=(0.25,)),
    )


def test_the_builder_gives_a_segmenter() -> None:
    model = build(3)
    assert model.class_layer == ("net.head.weight", "net.head.bias")
    assert isinstance(model.objective, SemanticLoss)
    images = torch.randint(0, 256, (2, 1, 20, 30), dtype=torch.uint8)
    maps = model.eval().predict(images, torch.tensor([[20, 30], [17, 9]]))
    assert [tuple(each.probs.shape) for each in maps] == [(3, 20, 30), (3, 17, 9)]
    before = model.net.head.weight.clone()  # pyright: ignore
    model.reset_classes()
    assert not torch.equal(model.net.head.weight, before)  # pyright: ignore
    assert isinstance(model.net, TransUNet)
    assert model.net.decoder.blocks[3].conv2[0].weight.shape == (8, 8, 3, 3)  # pyright: ignore
    with torch.device("meta"):
        big = build(9, layers=12, width=768, heads=12, backbone_width=64, backbone_blocks=(3, 4, 9))
        assert len(big.net.encoder.layers) == 12  # pyright: ignore


@pytest.mark.real
def test_it_learns_real_membranes(membrane_dice: Callable[..., float]) -> None:
    torch.manual_seed(0)
    model = build(2, width=96, backbone_width=16, decoder=(96, 64, 32, 16, 16), image_size=96)
    assert membrane_dice(model, steps=36, lr=2e-3, crops=3, warm=0.2) >= 0.9
