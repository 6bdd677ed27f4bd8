"""ViT: torchvision's and timm's names and numbers, at the size they were made for and at others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionViT

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.models.backbones.vit import VITS, VisionTransformer
from clearsight.nn.dropout import DropPath

TIMM = {"vit_ti_16": "vit_tiny_patch16_224", "vit_s_16": "vit_small_patch16_224"}


def torchvisions(side: int = 64, **options: float) -> TorchvisionViT:
    theirs = TorchvisionViT(side, 16, 3, 4, 48, 192, num_classes=10, **options)  # pyright: ignore[reportArgumentType]
    nn.init.normal_(theirs.heads.head.weight)  # pyright: ignore[reportArgumentType]  # it starts at zero
    nn.init.normal_(theirs.class_token)
    return theirs


def timms(name: str = "vit_tiny_patch16_224", **options: object) -> nn.Module:
    options = {"dynamic_img_size": True, "dynamic_img_pad": True, "depth": 3, **options}
    return timm.create_model(name, **options)


@pytest.mark.parametrize("train", [False, True])
def test_numbers_are_torchvisions(train: bool, same_as_peer: Callable[..., None]) -> None:
    same_as_peer(VisionTransformer(48, 3, 4, image_size=64), torchvisions(), size=(64, 64), batch=2, train=train)


@pytest.mark.parametrize("size", [(224, 224), (97, 65), (256, 128), (32, 400)])
def test_numbers_at_any_size_are_timms(size: tuple[int, int], same_as_peer: Callable[..., None]) -> None:
    same_as_peer(VisionTransformer(192, 3, 3), timms(), size=size)


def test_patches_of_32_are_timms_too(same_as_peer: Callable[..., None]) -> None:
    theirs = timms("vit_base_patch32_224", embed_dim=96, num_heads=2)
    same_as_peer(VisionTransformer(96, 3, 2, patch=32), theirs, size=(100, 64))


@pytest.mark.parametrize("name", VITS)
def test_names_and_counts_are_the_peers(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(TIMM[name]) if name in TIMM else getattr(torchvision.models, name)(weights=None)
        ours = VITS[name]()
    adapted, own = ours.adapt_weights(theirs.state_dict()), ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vit_ti_16", 5_717_416),
        ("vit_s_16", 22_050_664),
        ("vit_b_16", 86_567_656),
        ("vit_b_32", 88_224_232),
        ("vit_l_16", 304_326_632),
    ],
)
def test_parameters_are_the_published_number(name: str, count: int) -> None:
    with torch.device("meta"):
        model = VITS[name]()
    assert sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1) == count


def test_first_weights_are_drawn_as_torchvisions() -> None:
    ours, theirs = VisionTransformer(192, 2, 3), TorchvisionViT(224, 16, 2, 3, 192, 768)
    drawn = dict(ours.named_parameters())
    for name, value in theirs.named_parameters():
        if name.startswith("heads."):
            continue
        assert drawn[name].std().item() == pytest.approx(value.std().item(), rel=0.25, abs=1e-8), name
        assert drawn[name].mean().item() == pytest.approx(value.mean().item(), abs=0.01), name


def test_names_in_torchvisions_files_are_understood() -> None:
    ours = VisionTransformer(48, 1, 4, image_size=64)
    block, value = "encoder.layers.encoder_layer_0.mlp", torch.zeros(1)
    old = {f"{block}.linear_1.weight": value, f"{block}.linear_2.bias": value}
    assert list(ours.adapt_weights(old)) == [f"{block}.0.weight", f"{block}.3.bias"]


def test_weights_of_another_image_size_load_with_their_positions_resized() -> None:
    theirs = timms().eval()
    ours = VisionTransformer(192, 3, 3, image_size=(160, 96)).eval()
    adapted = ours.adapt_weights(theirs.state_dict())
    head = nn.Linear(192, 1000)
    head.load_state_dict({name: adapted.pop(f"head.{name}") for name in ("weight", "bias")})
    ours.load_state_dict(adapted)
    x = torch.randn(1, 3, 160, 96)
    with torch.no_grad():
        torch.testing.assert_close(head(ours.embed(x)), theirs(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("small_input", [False, True])
def test_levels(small_input: bool, has_levels: Callable[..., None]) -> None:
    for patch in (16, 32, 14, 8):
        model = VisionTransformer(24, 2, 2, patch=patch, channels=2, small_input=small_input)
        has_levels(model, (97, 65), (32, 32), (64, 33))
        assert model.strides["c5"] == (8 if small_input else {14: 28}.get(patch, 32))


def test_own_level_is_the_tokens_of_the_patches_in_their_places() -> None:
    model = VisionTransformer(24, 1, 2).eval()
    tokens = []
    model.encoder.register_forward_hook(lambda *seen: tokens.append(seen[2]))
    found = model.features(torch.randn(2, 3, 48, 64))
    expected = model.encoder.ln(tokens[0])[:, 1:].reshape(2, 3, 4, 24).permute(0, 3, 1, 2)
    torch.testing.assert_close(found["c4"], expected)


def test_small_input_keeps_the_grid_of_positions() -> None:
    small = VITS["vit_ti_16"](small_input=True)
    assert small.strides == {"c2": 1, "c3": 2, "c4": 4, "c5": 8}
    assert small.encoder.pos_embedding.shape == (1, 14 * 14 + 1, 192)
    assert VisionTransformer(24, 1, 2, small_input=True, image_size=32).encoder.resize.grid == (8, 8)


def test_dropout_and_paths() -> None:
    drops = [layer.drop_path.p for layer in VisionTransformer(24, 4, 2, drop_path=0.3).encoder.layers]
    assert drops == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert VisionTransformer(24, 1, 2, drop_path=0.3).encoder.layers[0].drop_path.p == 0.0
    x = torch.randn(1, 3, 32, 32)
    for options in ({"dropout": 0.5}, {"attention_dropout": 0.5}, {"drop_path": 0.9}):
        model = VisionTransformer(24, 3, 2, **options)
        assert not torch.equal(model.train().embed(x), model.embed(x))
        assert torch.equal(model.eval().embed(x), model.embed(x))
    layer = VisionTransformer(24, 1, 2, attention_dropout=0.2, dropout=0.1).encoder.layers[0]
    assert (layer.self_attention.dropout, layer.dropout.p, layer.mlp[2].p, layer.mlp[4].p) == (0.2, 0.1, 0.1, 0.1)
    assert [type(part) for part in layer.modules()].count(DropPath) == 1


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels_give_gradients(channels: int) -> None:
    model = VisionTransformer(24, 2, 2, channels=channels)
    (
        model.features(torch.randn(2, channels, 64, 48))["c5"].sum()
        + model.embed(torch.randn(1, channels, 32, 32)).sum()
    ).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_compiled_and_in_half_precision() -> None:
    model = VisionTransformer(24, 2, 2).eval()
    compiled = torch.compile(model.embed, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        x = torch.randn(2, 3, 65, 80)
        torch.testing.assert_close(compiled(x), model.embed(x), rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model.embed(x)
        assert (half - model.embed(x)).abs().max() < 0.1
        assert model.embed(x[:0]).shape == (0, 24)


class Embeds(nn.Module):
    def __init__(self, backbone: VisionTransformer) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.embed(images)


def test_exported_for_any_size() -> None:
    model, free = VisionTransformer(24, 1, 2).eval(), torch.export.Dim.DYNAMIC
    sizes = ({0: free, 2: free, 3: free},)
    exported = torch.export.export(Embeds(model), (torch.randn(2, 3, 97, 65),), dynamic_shapes=sizes).module()
    with torch.no_grad():
        for size in ((224, 224), (64, 100), (129, 33)):
            x = torch.randn(3, 3, *size)
            torch.testing.assert_close(exported(x), model.embed(x), rtol=1e-4, atol=1e-5)


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="leave `norm` out"):
        VITS["vit_ti_16"](norm="batch")
    with pytest.raises(ConfigError, match="heads"):
        VisionTransformer(24, 1, 5)
    with pytest.raises(ConfigError, match="image_size: must be a multiple of the patch, 16 pixels, got 100×100"):
        VisionTransformer(24, 1, 2, image_size=100)
    with pytest.raises(RangeError):
        VisionTransformer(24, 2, 2, drop_path=1.0)
    model = VisionTransformer(24, 1, 2)
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        model.features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="31×64 are smaller than its largest stride, 32"):
        model.embed(torch.zeros(1, 3, 31, 64))
