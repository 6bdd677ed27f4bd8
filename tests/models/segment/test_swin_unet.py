"""Swin-Unet: the published structure and count, torchvision's numbers, the order of pixels, and real membranes."""

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
from torchvision.models import SwinTransformer as TorchvisionSwin
from torchvision.models.swin_transformer import SwinTransformerBlock

from clearsight.data.normalisation import Statistics
from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.models.segment.swin_unet import SwinUnet, UpStage, build_swin_unet
from clearsight.models.weights import load_weights
from clearsight.nn.transformer import WindowBlock
from clearsight.nn.upsample import PatchExpand, PatchMerging
from clearsight.recipe.segment_sections import SwinUnetConfig

SMALL = {"width": 16, "depths": (1, 1, 1, 1), "heads": (1, 2, 4, 8), "window": 4, "patch": 4, "drop_path": 0.0}


def small(classes: int = 2, **options: object) -> SwinUnet:
    return SwinUnet(classes, **(SMALL | {"channels": 1} | options))  # pyright: ignore[reportArgumentType]


def louder(net: nn.Module) -> None:
    """Weights so large that every layer shows."""
    for name, parameter in net.named_parameters():
        nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.1)


def published_count(classes: int) -> int:
    """The parameters of Swin-Unet on Swin-T's width and window, layer by layer."""

    def stage(c: int, heads: int) -> int:
        attention = 3 * c**2 + 3 * c + c**2 + c + heads * (2 * 7 - 1) ** 2  # and a bias for every offset
        mlp = 4 * c**2 + 4 * c + 4 * c**2 + c
        return 2 * (2 * c + attention + 2 * c + mlp)  # two blocks

    patches = 3 * 4**2 * 96 + 96 + 2 * 96
    merging = sum(4 * c * 2 * c + 2 * 4 * c for c in (96, 192, 384))
    encoder = patches + merging + sum(stage(c, c // 32) for c in (96, 192, 384, 768)) + 2 * 768
    expanding = sum(c * 2 * c + 2 * c // 2 for c in (768, 384, 192))
    joining = sum(2 * c * c + c for c in (384, 192, 96))
    decoder = expanding + joining + sum(stage(c, c // 32) for c in (384, 192, 96)) + 2 * 96
    return encoder + decoder + (96 * 16 * 96 + 2 * 96) + 96 * classes


@pytest.mark.parametrize(("classes", "count"), [(9, 27_168_900), (4, 27_168_420)])
def test_parameters_are_the_published_number(classes: int, count: int) -> None:
    """27.17 M at 224² and nine classes; 27.15 M in tables whose tool leaves the tables of offsets out.

    Encoder 20,413,386 + decoder 6,607,002 + last expanding 147,648 + head 864 (nine classes, no bias); the tables of
    offsets are 22,308 of these.
    """
    with torch.device("meta"):
        net = SwinUnet(classes)
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    assert sum(sizes.values()) == published_count(classes) == count
    assert round(count / 1e6, 2) == 27.17
    tables = sum(size for name, size in sizes.items() if name.endswith("relative_position_bias_table"))
    assert tables == 22_308
    assert round((count - tables) / 1e6, 2) == 27.15


def test_maps_are_those_of_the_paper() -> None:
    """Figure 1 at 224²: 56² tokens of 96 channels, 28² of 192, 14² of 384, 7² of 768, and back up; then 224² of 96."""
    seen: list[tuple[int, ...]] = []
    with torch.device("meta"):
        net = SwinUnet(9)
        for layer in (*list(net.features)[1::2], net.norm, *net.decoder, net.norm_up, net.up):
            layer.register_forward_hook(lambda _layer, _args, out: seen.append(tuple(out.shape[1:])))
        assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 9, 224, 224)
    down = [(56, 56, 96), (28, 28, 192), (14, 14, 384), (7, 7, 768)]
    assert seen == [*down, down[3], *down[2::-1], down[0], (224, 224, 96)]
    blocks = [layer for layer in net.modules() if isinstance(layer, WindowBlock)]
    assert [block.attn.heads for block in blocks] == [3, 3, 6, 6, 12, 12, 24, 24, 12, 12, 6, 6, 3, 3]
    assert [block.attn.shift for block in blocks] == [(0, 0), (3, 3)] * 7
    assert {block.attn.window for block in blocks} == {(7, 7)}
    shares = [0.2 * i / 7 for i in range(8)]
    assert [block.drop_path.p for block in blocks] == pytest.approx([*shares, *shares[4:6], *shares[2:4], *shares[:2]])


# ------------------------------------------------------------------------------------------------ peers
def test_the_encoder_has_torchvisions_numbers() -> None:
    theirs = TorchvisionSwin([4, 4], 24, [2, 2, 6, 2], [1, 2, 4, 8], [7, 7], stochastic_depth_prob=0.0).eval()
    louder(theirs)
    net = SwinUnet(3, width=24, heads=(1, 2, 4, 8)).eval()
    adapted = net.adapt_weights(theirs.state_dict())
    net.load_state_dict(adapted, strict=False)
    theirs.features[5] = theirs.features[5][:2]  # its two blocks of six
    x = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        found = net.features(x)
        for number, level in enumerate(("c2", "c3", "c4", "c5")):
            expected = theirs.features[: 2 * number + 2](x).permute(0, 3, 1, 2)
            torch.testing.assert_close(found[level], expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        normed = net.norm(found["c5"].permute(0, 2, 3, 1))
        torch.testing.assert_close(normed, theirs.norm(theirs.features(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("peer", ["torchvision", "timm"])
def test_published_weights_are_those_of_encoder_and_mirror(peer: str) -> None:
    with torch.device("meta"):
        net = SwinUnet(2)
        theirs = (
            torchvision.models.swin_t(weights=None)
            if peer == "torchvision"
            else timm.create_model("swin_tiny_patch4_window7_224")
        )
    own, adapted = net.state_dict(), net.adapt_weights(theirs.state_dict())
    missing = {name.rsplit(".", 1)[0] for name in own.keys() - adapted.keys()}
    ours_alone = {f"decoder.{i}.{part}" for i in range(3) for part in ("expand.expand", "expand.norm", "join")}
    assert missing == ours_alone | {"norm_up", "up.expand", "up.norm", "head"}
    assert adapted.keys() <= own.keys()
    assert all(adapted[name].shape == own[name].shape for name in adapted)
    for number, stage in enumerate((2, 1, 0)):  # 14² tokens, 28², 56²
        for block in range(2):
            inside = f"features.{2 * stage + 1}.{block}.attn.qkv.weight"
            assert adapted[f"decoder.{number}.blocks.{block}.attn.qkv.weight"] is adapted[inside]


def test_own_weights_load(tmp_path: Path) -> None:
    net, other = small(2), small(5)
    assert net.adapt_weights(net.state_dict()).keys() == net.state_dict().keys()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    report = load_weights(other, tmp_path / "net.pt")
    assert [line.split(":")[0] for line in report.reinitialised] == list(SwinUnet.class_layer)
    assert not report.missing
    assert not report.unexpected
    torch.testing.assert_close(other.up.expand.weight, net.up.expand.weight)


def test_a_stage_of_the_decoder_is_torchvisions_blocks_behind_numpys_arrangement() -> None:
    stage = UpStage(16, 4, 4, (0.0, 0.0)).eval()
    louder(stage)
    x, skip = torch.randn(2, 3, 5, 32), torch.randn(2, 6, 10, 16)
    part = {name: p.detach().numpy() for name, p in stage.named_parameters()}
    made = (x.numpy() @ part["expand.expand.weight"].T).reshape(2, 3, 5, 2, 2, 16)
    laid = made.transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 10, 16)  # rows of a block beside the rows of tokens
    normed = (laid - laid.mean(-1, keepdims=True)) / np.sqrt(laid.var(-1, keepdims=True) + 1e-5)
    normed = normed * part["expand.norm.weight"] + part["expand.norm.bias"]
    joined = np.concatenate((normed, skip.numpy()), -1) @ part["join.weight"].T + part["join.bias"]
    expected = torch.from_numpy(joined)
    for number, block in enumerate(stage.blocks):
        theirs = SwinTransformerBlock(16, 4, [4, 4], [2 * number] * 2).eval()
        theirs.load_state_dict(block.state_dict())
        expected = theirs(expected)
    with torch.no_grad():
        torch.testing.assert_close(stage(x, skip), expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------ the order of pixels
def test_expanding_by_hand() -> None:
    """A token's channels 1, 2, 3, 4 become the block with 1 and 2 above, 3 and 4 below."""
    layer = PatchExpand(4, out_channels=1)
    layer.norm = nn.Identity()
    nn.init.eye_(layer.expand.weight)
    tokens = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]).view(1, 1, 2, 4)
    expected = torch.tensor([[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]])
    torch.testing.assert_close(layer(tokens)[0, ..., 0], expected)


def test_expanding_undoes_merging() -> None:
    """Merging lays out a block's columns first, as Swin does, expanding its rows: but for that it is undone."""
    merging, expanding = PatchMerging(3), PatchExpand(12, out_channels=3)
    merging.norm = merging.reduction = expanding.norm = nn.Identity()
    order = torch.arange(12).view(2, 2, 3).transpose(0, 1).flatten()
    with torch.no_grad():
        expanding.expand.weight.copy_(torch.eye(12)[order])
    x = torch.randn(2, 6, 4, 3)
    torch.testing.assert_close(expanding(merging(x)), x)


# ------------------------------------------------------------------------------------------------ sizes and forms
@pytest.mark.parametrize("patch", [2, 4])
def test_any_size_is_mirrored_and_cut(patch: int) -> None:
    net = small(3, patch=patch).eval()
    louder(net)
    with torch.no_grad():
        for size in ((33, 47), (1, 1), (224, 224), (256, 256), (1, 40), (64, 15)):
            found = net(torch.randn(2, 1, *size))
            assert found.shape == (2, 3, *size)
            assert found.isfinite().all()
        x = torch.randn(1, 1, 33, 47)
        below, right = (31, 17) if patch == 4 else (15, 1)
        whole = net(F.pad(x, (0, right, 0, below), mode="reflect"))
        again = net(x)  # after other sizes: nothing is left of them
        torch.testing.assert_close(again, whole[..., :33, :47])
        net(torch.randn(1, 1, 64, 64))
        assert torch.equal(net(x), again)


def test_each_level_reaches_its_own_place() -> None:
    """A pixel of a skip that is changed changes the logits around it: no level is turned or swapped on its way."""
    net = small(1, window=2).eval()
    louder(net)
    x = torch.randn(1, 1, 128, 128)
    other = x.clone()
    other[..., 96:100, 24:28] += 3  # one patch, of a window of 2×2 tokens at every level
    with torch.no_grad():
        moved = (net(other) - net(x)).abs()[0, 0]
    row, column = divmod(int(moved.argmax()), 128)
    assert 96 <= row < 104
    assert 24 <= column < 32
    assert moved[:64].max() < 1e-6 * moved.max()  # the upper half shares no window with it


def test_all_is_learned_also_with_one_output_and_many_channels() -> None:
    net = small(1, channels=5, depths=(2, 2, 2, 2), drop_path=0.1)
    net(torch.randn(2, 5, 40, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_compiled_in_half_precision_and_channels_last() -> None:
    net, x = small().eval(), torch.randn(2, 1, 40, 52)
    louder(net)
    with torch.no_grad():
        full = net(x)
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)(x)
        torch.testing.assert_close(compiled, full, rtol=1e-4, atol=1e-4 * float(full.abs().max()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = net(x)
        assert half.dtype == torch.bfloat16
        assert (half - full).abs().max() < 0.1 * full.abs().max()
        torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)), full)


@pytest.mark.long
def test_exported_it_agrees(tmp_path: Path) -> None:
    net, x = small(depths=(2, 1, 1, 1)).eval(), torch.randn(1, 1, 40, 56)
    louder(net)
    torch.onnx.export(net, (x,), dynamo=True, verbose=False).save(tmp_path / "net.onnx")  # pyright: ignore
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    with torch.no_grad():
        expected = net(x).numpy()
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="four stages"):
        small(depths=(2, 2))
    with pytest.raises(ConfigError, match="heads: found 3, which does not divide 16"):
        small(heads=(3, 3, 3, 3))
    with pytest.raises(ConfigError, match="factor: must be a whole number from 2 on, got 1"):
        small(patch=1)
    with pytest.raises(RangeError):
        small(drop_path=1.0)
    with pytest.raises(ShapeError, match=r"images \(n, 1, h, w\), got \(1, 3, 64, 64\)"):
        small()(torch.zeros(1, 3, 64, 64))


# ------------------------------------------------------------------------------------------------ the segmenter
def build(classes: int, **options: object) -> Segmenter:
    return build_swin_unet(
        SwinUnetConfig.model_validate(SMALL | options),
        num_classes=classes,
        channels=1,
        statistics=Statistics(mean=(0.5,), std=(0.25,)),
    )


def test_the_builder_gives_a_segmenter() -> None:
    model = build(3, patch=2, window=5, depths=(1, 2, 1, 1))
    assert model.class_layer == ("net.head.weight",)
    assert isinstance(model.objective, SemanticLoss)
    images = torch.randint(0, 256, (2, 1, 20, 30), dtype=torch.uint8)
    maps = model.eval().predict(images, torch.tensor([[20, 30], [17, 9]]))
    assert [tuple(each.probs.shape) for each in maps] == [(3, 20, 30), (3, 17, 9)]
    assert isinstance(model.net, SwinUnet)
    before = model.net.head.weight.clone()
    model.reset_classes()
    assert not torch.equal(model.net.head.weight, before)
    assert model.net.features.patch == 2
    assert len(model.net.decoder[1].blocks) == 2  # pyright: ignore
    assert {layer.attn.window for layer in model.modules() if isinstance(layer, WindowBlock)} == {(5, 5)}


@pytest.mark.real
def test_it_learns_real_membranes(membrane_dice: Callable[..., float]) -> None:
    torch.manual_seed(0)
    model = build(2, width=24, depths=(2, 2, 2, 2), heads=(2, 4, 4, 8), window=6)
    assert membrane_dice(model, steps=36, lr=4e-3, warm=0.2) >= 0.9
