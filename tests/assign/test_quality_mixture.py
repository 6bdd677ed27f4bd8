"""Mixtures of all groups at once against one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assigner_loops_bags import gaussian, mixture_loop
from clearsight.assign.quality_mixture import Mixtures, fit_mixtures, log_density


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 10])
def test_equals_the_loop(components: int, steps: int) -> None:
    group = torch.tensor([0] * 30 + [2] * 7 + [3] * 90)
    position = torch.rand(len(group), 2, dtype=torch.float64) * 2 - 1
    weight = torch.rand(len(group), dtype=torch.float64)
    found = fit_mixtures(position, weight, group, groups=5, components=components, steps=steps)
    density = log_density(found, position, group)
    assert all(torch.isfinite(part).all() for part in found)
    for number in (0, 2, 3):
        mine = group == number
        where = position[mine].numpy()
        expected = mixture_loop(where, weight[mine].numpy(), components=components, steps=steps)
        for part, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(part[number].numpy(), other, rtol=1e-8, atol=1e-10)
        values = sum(share * gaussian(where, m, v) for share, m, v in zip(*expected, strict=True))
        np.testing.assert_allclose(density[mine].exp().numpy(), values / np.max(values), rtol=1e-8)


def test_one_component_is_the_weighted_mean_and_spread() -> None:
    position = torch.tensor([[-0.5, 0.0], [0.5, 0.0], [0.5, 0.6]])
    found = fit_mixtures(
        position, torch.tensor([2.0, 1.0, 1.0]), torch.zeros(3, dtype=torch.int64), groups=1, components=1, steps=1
    )
    torch.testing.assert_close(found.share, torch.ones(1, 1))
    torch.testing.assert_close(found.mean, torch.tensor([[[0.0, 0.15]]]))
    torch.testing.assert_close(found.variance, torch.tensor([[[0.25, 0.0675]]]))  # (2·.0225 + .0225 + .2025) / 4


def test_two_heaps_are_found() -> None:
    heap = torch.randn(60, 2) * 0.05
    position = torch.cat((heap + torch.tensor([-0.6, 0.3]), heap[:20] + torch.tensor([0.5, -0.4])))
    found = fit_mixtures(position, torch.ones(80), torch.zeros(80, dtype=torch.int64), groups=1, components=2, steps=30)
    left = int(found.mean[0, :, 0].argmin())
    assert found.share[0, left].item() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(found.mean[0, left], torch.tensor([-0.6, 0.3]), rtol=0, atol=0.03)
    torch.testing.assert_close(found.mean[0, 1 - left], torch.tensor([0.5, -0.4]), rtol=0, atol=0.03)


def test_a_single_point_and_none() -> None:
    one = fit_mixtures(torch.tensor([[0.2, 0.1]]), torch.ones(1), torch.tensor([1]), groups=3, components=2, steps=5)
    assert all(torch.isfinite(part).all() for part in one)
    assert one.variance.min().item() == pytest.approx(0.01)
    assert log_density(one, torch.tensor([[0.2, 0.1]]), torch.tensor([1])).tolist() == [0.0]
    nothing = torch.zeros(0, dtype=torch.int64)
    none = fit_mixtures(torch.zeros(0, 2), torch.zeros(0), nothing, groups=0, components=2, steps=5)
    assert isinstance(none, Mixtures)
    assert none.mean.shape == (0, 2, 2)
    assert log_density(none, torch.zeros(0, 2), nothing).shape == (0,)
