"""The dropout family: how much falls out, where, and that expectations stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.dropout import DROPOUTS, DropBlock, DropPath, anneal_drop, dropout


@pytest.mark.parametrize("name", list(DROPOUTS))
def test_mean_stays_and_evaluation_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    layer, x = dropout(name, 0.3), torch.ones(2000, 4, 9, 9)
    out = layer(x)
    assert out.shape == x.shape
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert not torch.equal(out, x)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(dropout(name, 0.0)(x), x)
    assert layer.train()(x[:0]).shape == (0, 4, 9, 9)


@pytest.mark.parametrize("name", ["dropout", "gaussian", "uniform"])
def test_variance_is_that_of_inverted_dropout(name: str) -> None:
    torch.manual_seed(0)
    out = dropout(name, 0.3)(torch.ones(1_000_000))
    assert out.var().item() == pytest.approx(0.3 / 0.7, rel=0.01)


def test_uniform_noise_stays_within_its_bounds() -> None:
    out = dropout("uniform", 0.2)(torch.ones(100_000))
    half = (3 * 0.2 / 0.8) ** 0.5
    assert 1 - half <= out.min() < 1 - 0.99 * half
    assert 1 + 0.99 * half < out.max() <= 1 + half


def test_paths_fall_out_by_sample() -> None:
    torch.manual_seed(0)
    out = DropPath(0.25)(torch.ones(4000, 3, 2))
    assert ((out == out[:, :1, :1]).all(2)).all()
    assert sorted(set(out[:, 0, 0].tolist())) == pytest.approx([0.0, 4 / 3])
    assert (out[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_blocks_are_blocks_and_as_many_as_asked_for() -> None:
    torch.manual_seed(0)
    out = DropBlock(0.1, size=5)(torch.ones(4000, 2, 20, 20))
    fallen = out == 0
    # equation 1 counts no overlaps, so a little less than p falls out
    assert 0.085 < fallen.float().mean().item() < 0.1
    # each dropped place lies in a whole 5 × 5 block of dropped places: opening by the block changes nothing
    eroded = -nn.functional.max_pool2d(-fallen.float(), 5, stride=1)
    opened = nn.functional.max_pool2d(nn.functional.pad(eroded, [4] * 4), 5, stride=1)
    assert torch.equal(opened, fallen.float())
    assert not torch.equal(fallen[:, 0], fallen[:, 1])


def test_what_is_left_of_a_channel_keeps_its_sum() -> None:
    out = DropBlock(0.3, size=3)(torch.ones(50, 3, 12, 10))
    whole = out.sum((2, 3))
    torch.testing.assert_close(whole[whole > 0], torch.full_like(whole[whole > 0], 120.0))


def test_blocks_larger_than_the_map_are_cut() -> None:
    torch.manual_seed(0)
    out = DropBlock(0.2, size=7)(torch.ones(500, 1, 4, 6))
    assert 0.05 < (out == 0).float().mean() < 0.3


def test_gradient_flows_where_something_is_left() -> None:
    x = torch.ones(8, 2, 9, 9, requires_grad=True)
    out = DropBlock(0.2, size=3)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())  # the factor of each place


def test_rates_rise_with_the_training() -> None:
    model = nn.Sequential(DropBlock(0.0), nn.Sequential(DropPath(0.0)), nn.Dropout(0.5))
    anneal_drop(model, 0.5, to=0.2)
    assert (model[0].p, model[1][0].p, model[2].p) == (0.1, 0.1, 0.5)  # pyright: ignore


def test_on_half_precision_and_channels_last() -> None:
    x = torch.ones(2, 4, 9, 9).bfloat16().to(memory_format=torch.channels_last)
    for name in DROPOUTS:
        out = dropout(name, 0.3)(x)
        assert out.dtype == torch.bfloat16
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is none named 'droppath'; did you mean 'path'"):
        dropout("droppath", 0.1)
    for name in DROPOUTS:
        with pytest.raises(RangeError, match=r"in \[0, 1\), got 1"):
            dropout(name, 1.0)
    with pytest.raises(ConfigError, match="must be odd and at least 1, got 4"):
        DropBlock(0.1, size=4)
    with pytest.raises(ShapeError, match=r"expected \(n, c, h, w\), got \(2, 3\)"):
        DropBlock(0.1)(torch.ones(2, 3))
    with pytest.raises(RangeError, match="progress must be in"):
        anneal_drop(nn.Sequential(), 1.5, to=0.1)
