"""Blocks against torchvision's, timm's and PyTorch's on the same weights, with their gradients."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformerBlock
from torchvision.models.vision_transformer import EncoderBlock, VisionTransformer

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.attention import SelfAttention
from clearsight.nn.fourier import FourierMixing, fourier_mix
from clearsight.nn.transformer import LayerScale, Mlp, TransformerBlock, WindowBlock
from clearsight.nn.window_attention import WindowAttention


def stir(layer: nn.Module) -> None:
    """Weights that are nowhere 0 or 1, so that a lost one is seen."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def compare(ours: nn.Module, theirs: nn.Module, x: Tensor, names: dict[str, str]) -> None:
    """Outputs and gradients are the same; `names` turns their parameters' names to ours."""
    x.requires_grad_()
    found, expected = ours(x), theirs(x)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    weight = torch.randn_like(found)
    named = {renamed(name, names): parameter for name, parameter in theirs.named_parameters()}
    mine = torch.autograd.grad((found * weight).sum(), (x, *dict(sorted(ours.named_parameters())).values()))
    other = torch.autograd.grad((expected * weight).sum(), (x, *dict(sorted(named.items())).values()))
    torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-8)


def renamed(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def weights_of(theirs: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    return {renamed(name, names): value for name, value in theirs.state_dict().items()}


# ------------------------------------------------------------------------------------------------ peers
def test_norm_first_is_torchvisions_vit() -> None:
    theirs = EncoderBlock(3, 12, 20, 0.0, 0.0).double()
    stir(theirs)
    ours = TransformerBlock(12, SelfAttention(12, 3), Mlp(12, 20)).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    compare(ours, theirs, torch.randn(2, 5, 12, dtype=torch.float64), {})


def test_weights_of_a_whole_vit_load_by_name() -> None:
    vit = VisionTransformer(8, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16).eval()
    stir(vit)
    blocks = nn.ModuleDict(
        {f"encoder_layer_{i}": TransformerBlock(8, SelfAttention(8, 2), Mlp(8, 16)) for i in range(2)}
    ).eval()
    blocks.load_state_dict(vit.encoder.layers.state_dict(), strict=True)
    x = torch.randn(3, 5, 8)
    expected = vit.encoder.layers(x)
    for block in blocks.values():
        x = block(x)
    torch.testing.assert_close(x, expected)


TORCH_NAMES = {"self_attn.": "self_attention.", "linear1.": "mlp.0.", "linear2.": "mlp.3.", "norm": "ln_"}


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_either_order_is_torchs(norm_first: bool, activation: str) -> None:
    theirs = nn.TransformerEncoderLayer(
        12, 3, 20, dropout=0.0, activation=activation, batch_first=True, norm_first=norm_first
    ).double()
    stir(theirs)
    ours = TransformerBlock(
        12, SelfAttention(12, 3), Mlp(12, 20, activation=activation), norm_first=norm_first, eps=1e-5
    ).double()
    ours.load_state_dict(weights_of(theirs, TORCH_NAMES), strict=True)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    compare(ours, theirs, x, TORCH_NAMES)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    keep = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    expected = theirs(x, src_mask=~causal, src_key_padding_mask=~keep)
    torch.testing.assert_close(ours(x, mask=causal, keep=keep), expected, rtol=1e-8, atol=1e-9)


TIMM_NAMES = {
    "norm1.": "ln_1.",
    "norm2.": "ln_2.",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj.": "self_attention.out_proj.",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.3.",
}


def test_layer_scale_is_timms() -> None:
    theirs = Block(12, 3, mlp_ratio=2.0, qkv_bias=True, init_values=0.3, norm_layer=nn.LayerNorm).double()
    stir(theirs)
    ours = TransformerBlock(12, SelfAttention(12, 3), Mlp(12, 24), layer_scale=0.1, eps=1e-5).double()
    ours.load_state_dict(weights_of(theirs, TIMM_NAMES), strict=True)
    compare(ours, theirs, torch.randn(2, 5, 12, dtype=torch.float64), TIMM_NAMES)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 6), (4, 4)])
def test_windows_are_torchvisions_swin(size: tuple[int, int], shift: int) -> None:
    theirs = SwinTransformerBlock(12, 3, [4, 4], [shift, shift], mlp_ratio=2.0).double()
    stir(theirs)
    ours = WindowBlock(12, WindowAttention(12, 3, 4, shift=shift), Mlp(12, 24)).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    compare(ours, theirs, torch.randn(2, *size, 12, dtype=torch.float64), {})


# ------------------------------------------------------------------------------------------------ the parts
def test_the_mixer_may_be_fourier() -> None:
    block = TransformerBlock(8, FourierMixing(), norm_first=False).double()  # FNet has its norms last
    assert not [name for name in block.state_dict() if name.startswith("self_attention")]
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    middle = block.ln_1(x + fourier_mix(x))
    torch.testing.assert_close(block(x), block.ln_2(middle + block.mlp(middle)))
    assert torch.autograd.gradcheck(block, (x,))


def test_a_norm_after_each_sum_leaves_normalised_tokens() -> None:
    block, x = TransformerBlock(16, SelfAttention(16, 2), norm_first=False), 5 * torch.randn(2, 4, 16)
    out = block(x)
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(-1, correction=0), torch.ones(2, 4))


def test_a_scale_of_zero_leaves_the_tokens_alone() -> None:
    x = torch.randn(2, 4, 8)
    assert torch.equal(TransformerBlock(8, SelfAttention(8, 2), layer_scale=0.0)(x), x)
    last = TransformerBlock(8, SelfAttention(8, 2), norm_first=False, layer_scale=0.0)
    assert torch.equal(last(x), last.ln_2(last.ln_1(x)))
    layer = LayerScale(8, 0.5)
    assert torch.equal(layer(x), 0.5 * x)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert (LayerScale(3).gamma == 1e-5).all()


@pytest.mark.parametrize("kind", ["tokens", "windows"])
def test_paths_drop_out_sample_by_sample_in_training_only(kind: str) -> None:
    if kind == "tokens":
        block, x = TransformerBlock(8, SelfAttention(8, 2), drop_path=0.5), torch.randn(400, 4, 8)
    else:
        block, x = WindowBlock(8, WindowAttention(8, 2, 2), drop_path=0.5), torch.randn(400, 2, 2, 8)
    out = block(x)
    untouched = (out == x).flatten(1).all(1).float().mean().item()
    assert untouched == pytest.approx(0.25, abs=0.06)  # both branches
    assert torch.equal(block.eval()(x), block(x))
    assert not (block(x) == x).any(-1).all()


def test_dropout_falls_on_the_mixers_output() -> None:
    block, x = TransformerBlock(8, SelfAttention(8, 2), Mlp(8), dropout=0.5, layer_scale=1.0), torch.randn(200, 4, 8)
    nn.init.zeros_(block.ls2.gamma)  # only the first branch is seen
    nn.init.constant_(block.self_attention.out_proj.bias, 1.0)
    assert (block(x) == x).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert not (block.eval()(x) == x).any()


def test_the_mlp_starts_as_torchvisions() -> None:
    mlp = Mlp(64)
    assert [name for name, _ in mlp.named_parameters()] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    bound = (6 / (64 + 256)) ** 0.5
    assert 0.98 * bound < mlp[0].weight.abs().max() <= bound
    assert 0 < mlp[3].bias.abs().max() < 1e-5
    assert mlp(torch.randn(2, 3, 4, 64)).shape == (2, 3, 4, 64)
    fallen = Mlp(64, dropout=0.5)(torch.randn(50, 64)) == 0
    assert fallen.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="TransformerBlock: FourierMixing mixes all tokens; a mask needs SelfAttention"
    ):
        TransformerBlock(8, FourierMixing())(torch.randn(2, 4, 8), keep=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ConfigError, match="FourierMixing mixes all tokens"):
        TransformerBlock(8, FourierMixing())(torch.randn(2, 4, 8), mask=torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"TransformerBlock: x: expected \(n, l, c\), got \(4, 8\)"):
        TransformerBlock(8, FourierMixing())(torch.randn(4, 8))
    with pytest.raises(ShapeError, match=r"WindowBlock: x: expected \(n, h, w, c\), got \(2, 4, 8\)"):
        WindowBlock(8, WindowAttention(8, 2))(torch.randn(2, 4, 8))
    with pytest.raises(ConfigError, match="Mlp: hidden: must be at least 1, got 0"):
        Mlp(8, 0)
    with pytest.raises(ConfigError, match="gelo"):
        Mlp(8, activation="gelo")
    for given in ({"dropout": 1.0}, {"drop_path": -0.1}):
        with pytest.raises(RangeError, match=r"in \[0, 1\)"):
            TransformerBlock(8, SelfAttention(8, 2), **given)
