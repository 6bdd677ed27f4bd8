"""Cross-entropy with ids and with probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from clearsight.errors import ShapeError
from clearsight.losses.classify import cross_entropy


def by_hand(logits: torch.Tensor, probabilities: torch.Tensor, smoothing: float) -> torch.Tensor:
    smooth = (1 - smoothing) * probabilities + smoothing / logits.shape[1]
    return -(smooth * (logits - logits.logsumexp(1, keepdim=True))).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ids_and_probabilities_agree(smoothing: float) -> None:
    logits, ids = torch.randn(9, 4), torch.randint(4, (9,))
    one_hot = torch.eye(4)[ids]
    expected = by_hand(logits, one_hot, smoothing)
    torch.testing.assert_close(cross_entropy(logits, ids, smoothing=smoothing), expected)
    torch.testing.assert_close(cross_entropy(logits, one_hot, smoothing=smoothing), expected)
    mixed = torch.rand(9, 4).softmax(1)
    torch.testing.assert_close(cross_entropy(logits, mixed, smoothing=smoothing), by_hand(logits, mixed, smoothing))


def test_uniform_logits_cost_log_k() -> None:
    assert cross_entropy(torch.zeros(2, 5), torch.tensor([0, 4])).item() == pytest.approx(math.log(5))


def test_gradient_is_p_minus_y() -> None:
    logits, ids = torch.randn(6, 3, requires_grad=True), torch.randint(3, (6,))
    (gradient,) = torch.autograd.grad(cross_entropy(logits, ids), logits)
    torch.testing.assert_close(gradient, (logits.softmax(1) - torch.eye(3)[ids]) / 6)


def test_half_precision_is_computed_in_full() -> None:
    assert cross_entropy(torch.zeros(2, 3).bfloat16(), torch.tensor([0, 1])).dtype == torch.float32


def test_wrong_shape() -> None:
    with pytest.raises(ShapeError, match=r"expected \(2,\) class ids or \(2, 3\) probabilities, got \(3,\)"):
        cross_entropy(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
