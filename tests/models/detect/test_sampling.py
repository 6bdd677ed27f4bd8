"""Samples: how many of each, by hand, at the edges, and that none is preferred."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from clearsight.errors import ConfigError
from clearsight.models.detect.sampling import check_sampling, sample_balanced


def test_counts_are_torchvisions() -> None:
    labels = torch.randint(-1, 2, (6, 50))
    labels[0] = 0
    labels[1] = 1
    labels[2] = -1
    labels[3, 5:] = -1
    for count, share in ((16, 0.5), (10, 0.25), (200, 0.5), (7, 0.0), (7, 1.0)):
        drawn = sample_balanced(labels == 1, labels == 0, count=count, share=share)
        theirs = BalancedPositiveNegativeSampler(count, share)(list(labels))
        for wanted, mask in zip((1, 0), theirs, strict=True):
            expected = [int(one.sum()) for one in mask]
            assert (drawn & (labels == wanted)).sum(dim=1).tolist() == expected
        assert not (drawn & (labels == -1)).any()


def test_the_smallest_numbers_are_taken() -> None:
    positive = torch.tensor([[True, True, True, False, False, False]])
    background = torch.tensor([[False, False, False, True, True, True]])
    for seed in range(5):
        torch.manual_seed(seed)
        draws = torch.rand(1, 6)[0].tolist()
        torch.manual_seed(seed)
        drawn = sample_balanced(positive, background, count=3, share=0.4)[0].nonzero().flatten().tolist()
        assert drawn == sorted([min(range(3), key=draws.__getitem__), *sorted(range(3, 6), key=draws.__getitem__)[:2]])


def test_none_is_preferred() -> None:
    positive = (torch.arange(20) < 8).expand(4000, 20)
    drawn = sample_balanced(positive, ~positive, count=6, share=0.5).float().mean(dim=0)
    torch.testing.assert_close(drawn[:8], torch.full((8,), 3 / 8), rtol=0, atol=0.03)
    torch.testing.assert_close(drawn[8:], torch.full((12,), 3 / 12), rtol=0, atol=0.03)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_nothing_to_draw(shape: tuple[int, int]) -> None:
    none = torch.zeros(shape, dtype=torch.bool)
    assert sample_balanced(none, none, count=4, share=0.5).shape == shape


def test_background_that_is_positive_counts_once() -> None:
    all_of_it = torch.ones(1, 4, dtype=torch.bool)
    assert sample_balanced(all_of_it, all_of_it, count=4, share=0.5).sum() == 2


@pytest.mark.parametrize(("count", "share"), [(0, 0.5), (4, -0.1), (4, 1.1)])
def test_impossible_samples(count: int, share: float) -> None:
    with pytest.raises(ConfigError, match="rpn: the sample must be at least 1"):
        check_sampling("rpn", count=count, share=share)
    check_sampling("rpn", count=1, share=1.0)
