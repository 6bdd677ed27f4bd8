"""Inception modules beside torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.inception import (
    Inception,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionConv,
    InceptionD,
    InceptionE,
)

# Functions of torchvision.models have the names of these files.
googlenet, v3 = import_module("torchvision.models.googlenet"), import_module("torchvision.models.inception")
WIDTHS = (6, 8, 12, 2, 4, 5)
MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "Inception": (lambda: Inception(8, WIDTHS), lambda: googlenet.Inception(8, *WIDTHS)),
    "InceptionA": (lambda: InceptionA(8, 5), lambda: v3.InceptionA(8, 5)),
    "InceptionB": (lambda: InceptionB(8), lambda: v3.InceptionB(8)),
    "InceptionC": (lambda: InceptionC(8, 6), lambda: v3.InceptionC(8, 6)),
    "InceptionD": (lambda: InceptionD(8), lambda: v3.InceptionD(8)),
    "InceptionE": (lambda: InceptionE(8), lambda: v3.InceptionE(8)),
}


@pytest.mark.parametrize("name", MODULES)
def test_it_is_torchvisions(name: str, same_block: Callable[..., None]) -> None:
    ours, theirs = (make() for make in MODULES[name])
    same_block(ours, theirs, torch.randn(2, 8, 7, 6))


def test_the_papers_table_with_the_papers_kernel() -> None:
    block = Inception(192, (64, 96, 128, 16, 32, 32), kernel=5)
    assert block(torch.randn(1, 192, 4, 4).expand(2, -1, -1, -1)).shape == (2, 256, 4, 4)
    weights = sum(value.numel() for value in block.parameters() if value.ndim == 4)
    assert weights == 163328  # without biases; the table's 159K is this in units of 1024


def test_gradients_are_those_of_finite_differences(right_gradients: Callable[..., None]) -> None:
    right_gradients(Inception(4, (2, 3, 2, 1, 2, 2), activation="silu"), 3, 4, 4, 3)


def pool(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(F.pad(x, [1] * 4, value=-torch.inf), 3, 2)


@pytest.mark.parametrize("size", [(7, 6), (8, 5)])
def test_modules_that_halve_can_be_padded(size: tuple[int, int]) -> None:
    x = torch.rand(2, 8, *size)
    b, d = InceptionB(8).eval(), InceptionD(8).eval()
    found = [b(x, same=True), d(x, same=True)]
    for layer in (b.branch3x3, b.branch3x3dbl_3, d.branch3x3_2, d.branch7x7x3_4):
        layer.conv.padding = (1, 1)
    double = b.branch3x3dbl_3(b.branch3x3dbl_2(b.branch3x3dbl_1(x)))
    seven = d.branch7x7x3_4(d.branch7x7x3_3(d.branch7x7x3_2(d.branch7x7x3_1(x))))
    torch.testing.assert_close(found[0], torch.cat((b.branch3x3(x), double, pool(x)), 1))
    torch.testing.assert_close(found[1], torch.cat((d.branch3x3_2(d.branch3x3_1(x)), seven, pool(x)), 1))
    assert found[0].shape[-2:] == ((size[0] + 1) // 2, (size[1] + 1) // 2)


def test_a_convolution_is_padded_once() -> None:
    x = torch.randn(1, 4, 9, 7)
    plain, kept = InceptionConv(4, 8, (3, 5), padded=False), InceptionConv(4, 8, (3, 5))
    kept.load_state_dict(plain.state_dict())
    torch.testing.assert_close(plain(x, same=True), kept(x))
    assert torch.equal(kept(x, same=True), kept(x))
    assert plain(x).shape == (1, 8, 7, 3)


def test_another_norm_keeps_the_published_epsilon_where_it_has_one() -> None:
    assert InceptionConv(4, 8, 1).bn.eps == 1e-3
    assert InceptionConv(4, 8, 1, norm="group").bn.eps == 1e-3
    assert InceptionConv(4, 8, 1, norm="local_response")(torch.randn(2, 4, 5, 5)).shape == (2, 8, 5, 5)


@pytest.mark.parametrize("name", MODULES)
def test_bad_input_is_refused(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name}: x: expected \(n, c, h, w\), got \(8, 7, 6\)"):
        MODULES[name][0]()(torch.randn(8, 7, 6))


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match="kernel: must be odd and at least 1, got 4"):
        Inception(8, WIDTHS, kernel=4)
