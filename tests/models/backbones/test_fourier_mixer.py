"""The Fourier mixer: a forward pass by hand in NumPy, and what it shares with ViT."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones.fourier_mixer import FOURIER_MIXERS, FourierMixer
from clearsight.reference.activations import gelu
from clearsight.reference.convolution import convolution
from clearsight.reference.normalisation import layer_norm


def by_hand(model: FourierMixer, images: torch.Tensor) -> np.ndarray:
    """Tokens after the last norm, `(n, l, width)`, for images of the size that positions are learned for."""
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    x = convolution(images.numpy(), w["conv_proj.weight"], w["conv_proj.bias"], stride=model.patch)
    x = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1) + w["encoder.pos_embedding"]

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        return layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    for number in range(len(model.encoder.layers)):
        block = f"encoder.layers.encoder_layer_{number}"
        x = x + np.fft.fft2(normed(x, f"{block}.ln_1"), norm="ortho").real
        hidden = gelu(normed(x, f"{block}.ln_2") @ w[f"{block}.mlp.0.weight"].T + w[f"{block}.mlp.0.bias"])
        x = x + hidden @ w[f"{block}.mlp.3.weight"].T + w[f"{block}.mlp.3.bias"]
    return normed(x, "encoder.ln")


def randomise(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.LayerNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)


def test_it_is_the_forward_pass_by_hand() -> None:
    model = FourierMixer(24, 3, patch=8, channels=2, image_size=(32, 56)).double().eval()
    randomise(model)
    images = torch.randn(2, 2, 32, 56, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(model.embed(images).numpy(), by_hand(model, images).mean(1), atol=1e-12)


def test_levels_and_vector_are_of_the_tokens_by_hand() -> None:
    model = FourierMixer(24, 2, image_size=(64, 48)).eval()
    randomise(model)
    images = torch.randn(2, 3, 64, 48)
    tokens = by_hand(model, images)
    with torch.no_grad():
        np.testing.assert_allclose(model.embed(images).numpy(), tokens.mean(1), atol=1e-5)
        placed = model.features(images)["c4"].flatten(2).transpose(1, 2)
    np.testing.assert_allclose(placed.numpy(), tokens, atol=1e-5)


@pytest.mark.parametrize("name", FOURIER_MIXERS)
def test_parameters_are_vits_without_attention_and_class_token(name: str) -> None:
    with torch.device("meta"):
        model = FOURIER_MIXERS[name]()
    width, depth = model.embedding, 12
    mlp, norms = 8 * width**2 + 5 * width, 4 * width
    patches, positions, last = (3 * 16**2 + 1) * width, 14**2 * width, 2 * width
    expected = patches + positions + depth * (mlp + norms) + last
    assert sum(p.numel() for p in model.parameters()) == expected
    assert width == {"fnet_ti_16": 192, "fnet_s_16": 384, "fnet_b_16": 768}[name]


@pytest.mark.parametrize("small_input", [False, True])
def test_levels(small_input: bool, has_levels: Callable[..., None]) -> None:
    for patch in (16, 32, 14):
        has_levels(FourierMixer(24, 2, patch=patch, channels=2, small_input=small_input), (97, 65), (32, 32), (64, 33))


def test_weights_of_another_image_size_load_with_their_positions_resized() -> None:
    theirs, ours = FourierMixer(24, 2, image_size=64).eval(), FourierMixer(24, 2, image_size=96).eval()
    ours.load_state_dict(ours.adapt_weights(theirs.state_dict()))
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.embed(x), theirs.embed(x))
    assert ours.adapt_weights(ours.state_dict()).keys() == ours.state_dict().keys()


def test_magnitudes_stay_as_they_were() -> None:
    """Undivided, the transform of 196 tokens would outweigh all else by two orders of magnitude."""
    model = FOURIER_MIXERS["fnet_ti_16"]().eval()
    seen = []
    model.encoder.register_forward_hook(lambda *at: seen.append(at[2].std().item()))
    with torch.no_grad():
        model.embed(torch.randn(1, 3, 224, 224))
    assert 0.5 < seen[0] < 20


def test_gradients_dropout_and_paths() -> None:
    model = FourierMixer(24, 4, channels=5, dropout=0.1, drop_path=0.3)
    assert [layer.drop_path.p for layer in model.encoder.layers] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    model.features(torch.randn(4, 5, 64, 48))["c5"].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    x = torch.randn(1, 5, 32, 32)
    assert not torch.equal(model.embed(x), model.embed(x))


def test_compiled_and_in_half_precision() -> None:
    model, x = FourierMixer(24, 2).eval(), torch.randn(2, 3, 65, 80)
    with torch.no_grad():
        full = model.embed(x)
        compiled = torch.compile(model.embed, backend="aot_eager", fullgraph=True)(x)
        torch.testing.assert_close(compiled, full, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (model.embed(x) - full).abs().max() < 0.1


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match="leave `norm` out"):
        FOURIER_MIXERS["fnet_ti_16"](norm="batch")
    with pytest.raises(ConfigError, match="image_size: must be a multiple of the patch"):
        FourierMixer(24, 1, image_size=100)
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        FourierMixer(24, 1).features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="31×64 are smaller than its largest stride, 32"):
        FourierMixer(24, 1).embed(torch.zeros(1, 3, 31, 64))
