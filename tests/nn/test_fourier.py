"""Fourier mixing against SciPy and the sum over cosines; both of its forms agree."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch

from clearsight.errors import ShapeError
from clearsight.nn.fourier import FourierMixing, fourier_mix

SHAPES = [(2, 7, 6), (1, 1, 1), (3, 16, 8), (2, 1, 9), (2, 12, 1), (0, 4, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_scipys_and_the_product_of_matrices(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    found = fourier_mix(x).numpy()
    np.testing.assert_allclose(found, scipy.fft.fft2(x.numpy()).real, atol=1e-12)
    left, right = scipy.linalg.dft(shape[1]), scipy.linalg.dft(shape[2])
    np.testing.assert_allclose(found, (left @ x.numpy() @ right).real, atol=1e-11)


def test_two_tokens_by_hand() -> None:
    # y[0, 0] sums all; y[1, 0] is the first token less the second; y[0, 1] the first channel less the second.
    x = torch.tensor([[[1.0, 2.0], [4.0, 8.0]]])
    assert fourier_mix(x).tolist() == [[[15.0, -5.0], [-9.0, 3.0]]]


@pytest.mark.parametrize("ortho", [False, True])
@pytest.mark.parametrize("shape", [(2, 7, 6), (1, 1, 1), (2, 64, 48), (1, 49, 30)])
def test_the_exported_form_agrees(shape: tuple[int, ...], ortho: bool) -> None:
    layer, x = FourierMixing(ortho=ortho).eval(), torch.randn(shape)
    exported = torch.export.export(layer, (x,))
    graphs = [part.graph for part in exported.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    targets = [str(node.target) for graph in graphs for node in graph.nodes]
    assert any("matmul" in target for target in targets)
    assert not any("fft" in target for target in targets)
    torch.testing.assert_close(exported.module()(x), layer(x), rtol=1e-5, atol=1e-5 * (shape[1] * shape[2]) ** 0.5)


def test_the_exported_form_is_exact_for_long_rows() -> None:
    x = torch.randn(1, 2, 1501, dtype=torch.float64)  # 1500² as a factor of an angle in float32 would leave it no digit
    found = torch.export.export(FourierMixing().eval(), (x,)).module()(x)
    torch.testing.assert_close(found, fourier_mix(x), rtol=1e-9, atol=1e-9)


def test_done_twice_it_gives_the_even_part() -> None:
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    turned = x.flip(1, 2).roll((1, 1), (1, 2))  # x[-l, -c]
    torch.testing.assert_close(fourier_mix(fourier_mix(x)), 40 * (x + turned) / 2)
    torch.testing.assert_close(fourier_mix(fourier_mix(x, ortho=True), ortho=True), (x + turned) / 2)


def test_gradients() -> None:
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fourier_mix, (x,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_transformed_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(2, 12, 10).to(dtype)
    expected = fourier_mix(x.float()).to(dtype)
    assert torch.equal(fourier_mix(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fourier_mix(x), expected)
        assert torch.equal(fourier_mix(x.float()), fourier_mix(x.float()))
        assert fourier_mix(x.float()).dtype == torch.float32


def test_the_orthogonal_scale_keeps_float16_finite() -> None:
    x = torch.ones(1, 300, 300, dtype=torch.float16)
    assert torch.isinf(fourier_mix(x)[0, 0, 0])  # 90000
    assert fourier_mix(x, ortho=True)[0, 0, 0] == 300


def test_a_wrong_rank_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"fourier_mix: x: expected \(n, l, c\), got \(3, 4\)"):
        FourierMixing()(torch.randn(3, 4))
    assert "ortho=True" in repr(FourierMixing(ortho=True))
