"""Cross-entropy with ids and with probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from timm.loss.binary_cross_entropy import BinaryCrossEntropy
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional

from clearsight.errors import RangeError, ShapeError
from clearsight.losses.classify import binary_cross_entropy, cross_entropy


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
    with pytest.raises(ShapeError, match=r"expected \(2,\) class ids or \(2, 3\) probabilities .* got \(3,\)"):
        cross_entropy(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_maps_weights_and_ignored_pixels_are_pytorchs(reduction: str) -> None:
    logits, ids = torch.randn(2, 4, 3, 5), torch.randint(4, (2, 3, 5))
    ids[0, 0] = 255
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0])
    options = {"weight": weight, "ignore_index": 255, "reduction": reduction}
    theirs = functional.cross_entropy(logits, ids, label_smoothing=0.1, **options)  # pyright: ignore
    torch.testing.assert_close(cross_entropy(logits, ids, smoothing=0.1, **options), theirs)  # pyright: ignore


def test_a_mean_over_nothing_is_zero_and_in_the_graph() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2,), 9), ignore_index=9)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
    assert binary_cross_entropy(logits, torch.full((2, 3), 9), ignore_index=9).item() == 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_is_pytorchs(reduction: str) -> None:
    logits, target = torch.randn(6, 4), torch.randint(2, (6, 4))
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    theirs = functional.binary_cross_entropy_with_logits(
        logits, target.float() * 0.9 + 0.05, pos_weight=weight, reduction=reduction
    )
    mine = binary_cross_entropy(logits, target, smoothing=0.1, positive_weight=weight, reduction=reduction)  # pyright: ignore
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smooth_and_soft_targets_are_timms(smoothing: float) -> None:
    logits, ids = torch.randn(8, 5, dtype=torch.float64), torch.randint(5, (8,))
    theirs = LabelSmoothingCrossEntropy(smoothing)(logits, ids)
    torch.testing.assert_close(cross_entropy(logits, ids, smoothing=smoothing), theirs)
    mixed = torch.rand(8, 5, dtype=torch.float64).softmax(1)
    torch.testing.assert_close(cross_entropy(logits, mixed), SoftTargetCrossEntropy()(logits, mixed))
    weight = torch.rand(5, dtype=torch.float64)
    theirs = BinaryCrossEntropy(smoothing=0.0, pos_weight=weight)(logits, mixed)
    torch.testing.assert_close(binary_cross_entropy(logits, mixed, positive_weight=weight), theirs)


def test_smoothed_targets_still_sum_to_one() -> None:
    """The form in circulation, 0 → ε and 1 → 1 - ε, has rows that sum to 1 + ε (k - 2)."""
    logits, k = torch.zeros(1, 5, requires_grad=True), 5
    cross_entropy(logits, torch.tensor([1]), smoothing=0.2).backward()
    assert logits.grad is not None
    target = 1 / k - logits.grad  # the gradient is p - target
    torch.testing.assert_close(target, torch.tensor([[0.04, 0.84, 0.04, 0.04, 0.04]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_logits_are_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    for loss in (
        cross_entropy(logits, torch.tensor([1])),
        binary_cross_entropy(logits, torch.tensor([[0, 1, 1]])),
    ):
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, logits)[0].float()).all()


def test_a_class_id_out_of_range() -> None:
    with pytest.raises(RangeError, match=r"found class id 3, expected 0 to 2"):
        cross_entropy(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(RangeError, match=r"smoothing: must be in \[0, 1\)"):
        cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), smoothing=1.0)
    with pytest.raises(ShapeError, match=r"target: expected the shape of the prediction, \(2, 3\)"):
        binary_cross_entropy(torch.zeros(2, 3), torch.zeros(2))
