"""Checks refuse what does not fit, say what would, and are gone under compile."""

from __future__ import annotations

import pytest
import torch

from clearsight.errors import ConfigError, RangeError, ShapeError, nearest
from clearsight.nn.checks import check_divides, check_dropped, check_odd, check_positive, check_rank


def test_ranks() -> None:
    check_rank(torch.zeros(1, 2, 3, 4), "layer: x", "n c h w")
    check_rank(torch.zeros(1, 2, 3), "layer: x", "n c h w", "n c l")
    with pytest.raises(ShapeError, match=r"layer: x: expected \(n, c, h, w\) or \(n, c, l\), got \(2, 3\)"):
        check_rank(torch.zeros(2, 3), "layer: x", "n c h w", "n c l")


def test_numbers() -> None:
    check_divides(6, 3, "groups")
    check_odd(7, "size")
    check_positive(1, "heads")
    with pytest.raises(ConfigError, match="groups: found 4, which does not divide 6 channels; use 1, 2, 3, 6"):
        check_divides(6, 4, "groups")
    with pytest.raises(ConfigError, match="groups: found 0"):
        check_divides(6, 0, "groups")
    with pytest.raises(ConfigError, match="size: must be odd and at least 1, got 4"):
        check_odd(4, "size")
    with pytest.raises(ConfigError, match="heads: must be at least 1, got 0"):
        check_positive(0, "heads")


def test_rates() -> None:
    check_dropped(0.0, "p")
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(RangeError, match=r"dropout: the share that is dropped must be in \[0, 1\), got"):
            check_dropped(wrong, "dropout")


def test_a_compiled_layer_does_not_check() -> None:
    def layer(x: torch.Tensor) -> torch.Tensor:
        check_rank(x, "layer: x", "n c h w")
        return x + 1

    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.zeros(2, 3)), torch.ones(2, 3))


def test_the_nearest_name() -> None:
    assert nearest("relo", ["relu", "gelu", "tanh"]) == "; did you mean 'relu'?"
    assert nearest("xyz", ["relu", "gelu"]) == "; choose one of relu, gelu"
    assert nearest(3, ["relu", "gelu"]) == "; choose one of relu, gelu"
