"""Larger maps: against PyTorch, against the formulas, and as a chequerboard-free start."""

from __future__ import annotations

import io
import itertools

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import swin_transformer

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.upsample import (
    UPSAMPLERS,
    Interpolate,
    MaxUnpool,
    PatchExpand,
    PatchMerging,
    PixelShuffle,
    icnr,
    upsample,
)
from clearsight.reference.interpolation import resize, resize_backward
from clearsight.reference.pooling import max_pool
from clearsight.reference.unpooling import max_unpool, max_unpool_backward
from clearsight.reference.upsampling import upsample_nearest, upsample_nearest_backward

ON_IMAGES = [name for name in UPSAMPLERS if name != "unpool"]


def both_ways(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, the gradient that is sent back, and what arrives at x."""
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    sent = torch.randn_like(out)
    return out.detach(), sent, torch.autograd.grad(out, leaf, sent)[0]


# ------------------------------------------------------------------------------------------------ interpolation
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("factor", [2, 3])
def test_interpolation_is_the_reference_there_and_back(mode: str, corners: bool, factor: int) -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    layer = upsample(mode, 3, factor=factor, align_corners=corners)
    out, sent, back = both_ways(layer, x)
    options = {"mode": {"bilinear": "linear", "bicubic": "cubic"}[mode]}
    options["convention"] = "align_corners" if corners else "half_pixel"
    expected = resize(x.numpy(), (5 * factor, 4 * factor), **options)
    torch.testing.assert_close(out, torch.from_numpy(expected))
    torch.testing.assert_close(back, torch.from_numpy(resize_backward(sent.numpy(), x.numpy(), **options)))
    torch.testing.assert_close(back.sum(), sent.sum())  # nothing is lost or counted twice
    torch.testing.assert_close(out, F.interpolate(x, scale_factor=factor, mode=mode, align_corners=corners))


@pytest.mark.parametrize("factor", [2, 3])
def test_nearest_is_the_reference_there_and_back(factor: int) -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    out, sent, back = both_ways(upsample("nearest", 3, factor=factor), x)
    torch.testing.assert_close(out, torch.from_numpy(upsample_nearest(x.numpy(), factor)))
    torch.testing.assert_close(back, torch.from_numpy(upsample_nearest_backward(sent.numpy(), x.numpy(), factor)))
    torch.testing.assert_close(back.sum(), sent.sum())


def test_the_two_conventions_by_hand() -> None:
    x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    half_pixel = upsample("bilinear", 1)(x)[0, 0, 0]
    corners = upsample("bilinear", 1, align_corners=True)(x)[0, 0, 0]
    torch.testing.assert_close(half_pixel, torch.tensor([0, 0.25, 0.75, 1]))
    torch.testing.assert_close(corners, torch.tensor([0, 1 / 3, 2 / 3, 1]))


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_channels_may_as_well_change_before(mode: str) -> None:
    layer, x = upsample(mode, 4, out_channels=6, factor=3), torch.randn(2, 4, 5, 7)
    convolution, enlarge = layer  # pyright: ignore[reportGeneralTypeIssues]
    torch.testing.assert_close(layer(x), convolution(enlarge(x)), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ pixel shuffle
@pytest.mark.parametrize("factor", [2, 3])
def test_a_pixel_shuffle_starts_as_nearest_upsampling_of_a_convolution(factor: int) -> None:
    layer, x = PixelShuffle(4, out_channels=3, factor=factor), torch.randn(2, 4, 6, 5)
    small = F.conv2d(x, layer.conv.weight[:: factor**2], layer.conv.bias[:: factor**2], padding=1)
    torch.testing.assert_close(layer(x), F.interpolate(small, scale_factor=factor))
    assert small.var(dim=1).min() > 0  # channels differ, so that a mixed-up order would show


def test_then_every_pixel_learns_for_itself() -> None:
    layer, x = PixelShuffle(4), torch.randn(2, 4, 6, 5)
    nn.init.normal_(layer.conv.weight)
    out = layer(x)
    torch.testing.assert_close(out, F.pixel_shuffle(F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1), 2))
    assert not torch.allclose(out[..., ::2, ::2], out[..., 1::2, ::2])
    layer.repeat_kernels()
    out = layer(x)
    torch.testing.assert_close(out[..., ::2, ::2], out[..., 1::2, 1::2])


def test_icnr_repeats_each_kernel_in_a_row() -> None:
    weight = torch.arange(8.0).view(8, 1)
    assert icnr(weight, 2) is weight
    assert weight[:, 0].tolist() == [0, 0, 0, 0, 4, 4, 4, 4]
    with pytest.raises(ShapeError, match="a multiple of 3² = 9 outputs, got 8"):
        icnr(weight, 3)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_transposed_convolution_reaches_beyond_its_block_and_paints_evenly(factor: int) -> None:
    layer = upsample("transposed", 2, factor=factor)
    assert isinstance(layer, nn.ConvTranspose2d)
    assert (layer.kernel_size, layer.stride) == ((2 * factor,) * 2, (factor,) * 2)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    inner = layer(torch.ones(1, 2, 9, 9))[..., 2 * factor : -2 * factor, 2 * factor : -2 * factor]
    assert (inner == 8).all()  # two channels, two by two pixels


# ------------------------------------------------------------------------------------------------ unpooling
@pytest.mark.parametrize(("factor", "size"), [(2, (8, 6)), (2, (7, 9)), (3, (11, 10))])
def test_unpooling_is_the_reference_there_and_back(factor: int, size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    x, indices = F.max_pool2d(image, factor, return_indices=True)
    pooled = max_pool(image.numpy(), factor)
    leaf = (2 * x).requires_grad_()
    out = MaxUnpool(factor)(leaf, indices, size)
    expected = max_unpool(2 * pooled.values, pooled.winners, size)
    torch.testing.assert_close(out.detach(), torch.from_numpy(expected))
    torch.testing.assert_close(out, nn.MaxUnpool2d(factor)(leaf, indices, size))
    sent = torch.randn_like(out)
    back = torch.autograd.grad(out, leaf, sent)[0]
    torch.testing.assert_close(back, torch.from_numpy(max_unpool_backward(sent.numpy(), x.numpy(), pooled.winners)))
    assert (out != 0).sum() == x.numel()


def test_unpooling_of_whole_multiples_needs_no_size_and_keeps_channels_last() -> None:
    image = torch.randn(2, 3, 8, 6).to(memory_format=torch.channels_last)
    x, indices = F.max_pool2d(image, 2, return_indices=True)
    layer = upsample("unpool", 3)
    out = layer(x, indices)
    assert out.shape == image.shape
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(F.max_pool2d(out.relu(), 2), x.relu())
    assert layer(x[:0], indices[:0]).shape == (0, 3, 8, 6)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x, indices), out)


# ------------------------------------------------------------------------------------------------ patches
@pytest.mark.parametrize("shape", [(2, 6, 4, 8), (2, 5, 7, 8), (1, 1, 1, 8), (5, 4, 8), (0, 5, 4, 8)])
def test_patch_merging_is_torchvisions(shape: tuple[int, ...]) -> None:
    peer, layer = swin_transformer.PatchMerging(8), PatchMerging(8)
    nn.init.normal_(peer.norm.weight)
    nn.init.normal_(peer.norm.bias)
    layer.load_state_dict(peer.state_dict())
    x = torch.randn(shape)
    (out, sent, back), leaf = both_ways(layer, x), x.clone().requires_grad_()
    expected = peer(leaf)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(back, torch.autograd.grad(expected, leaf, sent)[0])


@pytest.mark.parametrize(("factor", "given", "made"), [(2, None, 4), (4, None, 8), (3, 5, 5), (2, 8, 8)])
def test_patch_expanding_token_by_token(factor: int, given: int | None, made: int) -> None:
    layer, x = PatchExpand(8, factor=factor, out_channels=given), torch.randn(2, 3, 5, 8)
    assert layer.expand.weight.shape == (factor**2 * made, 8)  # 2c at factor 2, 16c at factor 4
    nn.init.normal_(layer.norm.weight)
    out = layer(x)
    assert out.shape == (2, 3 * factor, 5 * factor, made)
    for row, column, i, j in itertools.product(range(3), range(5), range(factor), range(factor)):
        part = layer.expand(x[:, row, column])[:, (i * factor + j) * made : (i * factor + j + 1) * made]
        torch.testing.assert_close(out[:, factor * row + i, factor * column + j], layer.norm(part))
    torch.testing.assert_close(layer(x[0]), out[0])


# ------------------------------------------------------------------------------------------------ all of them
@pytest.mark.parametrize("name", ON_IMAGES)
@pytest.mark.parametrize("factor", [2, 3])
def test_sizes_channels_and_layout(name: str, factor: int) -> None:
    layer = upsample(name, 8, factor=factor, out_channels=4)
    x = torch.randn(2, 8, 5, 6).to(memory_format=torch.channels_last)
    out = layer(x)
    assert out.shape == (2, 4, 5 * factor, 6 * factor)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, layer(x.contiguous()))
    assert upsample(name, 8, factor=factor)(x).shape == (2, 8, 5 * factor, 6 * factor)
    empty, _, back = both_ways(layer, x[:0])
    assert (empty.shape, back.shape) == ((0, 4, 5 * factor, 6 * factor), (0, 8, 5, 6))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), out, rtol=0.05, atol=0.05)
        assert layer(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ON_IMAGES)
def test_gradients_by_finite_differences(name: str) -> None:
    layer = upsample(name, 4, out_channels=2).double()
    x = torch.randn(1, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


@pytest.mark.slow
def test_compiled_and_exported_for_any_size() -> None:
    layers = nn.ModuleList([upsample(name, 8, out_channels=4) for name in ON_IMAGES])

    class Together(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.merge = layers, PatchMerging(8)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [*(layer(x) for layer in self.layers), self.merge(x.permute(0, 2, 3, 1))]

    together, x = Together().eval(), torch.randn(2, 8, 6, 5)
    torch.testing.assert_close(torch.compile(together, backend="aot_eager", fullgraph=True)(x), together(x))
    any_size = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.onnx.export(together, (x,), dynamo=True, verbose=False, dynamic_shapes=(any_size,))
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    other = torch.randn(3, 8, 7, 9)
    found = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    for out, expected in zip(found, together(other), strict=True):
        torch.testing.assert_close(torch.from_numpy(out), expected, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is none named 'bilinea'; did you mean 'bilinear'"):
        upsample("bilinea", 4)
    with pytest.raises(ConfigError, match="there is none named 'cubic'; did you mean 'bicubic'"):
        Interpolate("cubic")
    for factor in (1, 0, 1.5):
        with pytest.raises(ConfigError, match=f"a whole number from 2 on, got {factor}"):
            upsample("transposed", 4, factor=factor)
    with pytest.raises(ConfigError, match="nearest mixes no neighbouring pixels"):
        upsample("nearest", 4, align_corners=True)
    with pytest.raises(ConfigError, match="nearest mixes no pixels"):
        Interpolate("nearest", align_corners=True)
    with pytest.raises(ConfigError, match="keeps the 4 channels, got 2"):
        upsample("unpool", 4, out_channels=2)
    with pytest.raises(ConfigError, match="an even number to halve, got 5"):
        PatchExpand(5)
    with pytest.raises(ConfigError, match="kernel: must be odd and at least 1, got 2"):
        PixelShuffle(4, kernel=2)
    x = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ShapeError, match=r"expected indices of \(1, 2, 3, 3\)"):
        MaxUnpool()(x, torch.zeros(1, 2, 3, 4, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"less than 2 away from \[6, 6\], got \(6, 8\)"):
        MaxUnpool()(x, torch.zeros(1, 2, 3, 3, dtype=torch.int64), (6, 8))
    for layer in (Interpolate("nearest"), PixelShuffle(4), upsample("patch_expand", 4)):
        with pytest.raises(ShapeError, match=r"expected \(n, c, h, w\), got \(4, 5, 5\)"):
            layer(torch.zeros(4, 5, 5))
    for layer in (PatchExpand(4), PatchMerging(4)):
        with pytest.raises(ShapeError, match=r"expected \(n, h, w, c\) or \(h, w, c\), got \(5, 4\)"):
            layer(torch.zeros(5, 4))
