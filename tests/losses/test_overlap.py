"""Dice, Tversky and Dice with cross-entropy."""

from __future__ import annotations

import math

import kornia.losses
import pytest
import torch
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.losses.classify import cross_entropy
from clearsight.losses.overlap import dice_ce_loss, dice_loss, tversky_loss


def case(n: int = 2, k: int = 3, size: tuple[int, ...] = (4, 5)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, k, *size, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, max(k, 2), (n, *size), generator=generator)


def test_dice_by_hand() -> None:
    p = torch.tensor([0.8, 0.3, 0.5])
    truth = torch.tensor([[1, 0, 1]])
    expected = 1 - (2 * (0.8 + 0.5) + 1) / (1.6 + 2 + 1)
    assert dice_loss(torch.logit(p)[None, None], truth).item() == pytest.approx(expected, rel=1e-6)


def test_tversky_by_hand_and_its_special_cases() -> None:
    p = torch.tensor([0.8, 0.3, 0.5])
    logits, truth = torch.logit(p)[None, None], torch.tensor([[1, 0, 1]])
    both, alarms, misses = 1.3, 0.3, 0.7
    got = tversky_loss(logits, truth, alpha=0.3, beta=0.7, smooth=0.5)
    assert got.item() == pytest.approx(1 - (both + 0.5) / (both + 0.3 * alarms + 0.7 * misses + 0.5), rel=1e-6)
    as_dice = tversky_loss(logits, truth, alpha=0.5, beta=0.5, smooth=1.0)
    assert as_dice.item() == pytest.approx(dice_loss(logits, truth, smooth=2.0).item(), rel=1e-6)
    jaccard = tversky_loss(logits, truth, alpha=1, beta=1, smooth=0.0)
    assert jaccard.item() == pytest.approx(1 - both / (both + alarms + misses), rel=1e-6)


@pytest.mark.parametrize("over", ["batch", "image"])
@pytest.mark.parametrize("k", [1, 3])
def test_a_loop_over_images_and_classes_says_the_same(k: int, over: str) -> None:
    logits, target = case(k=k)
    p = logits.sigmoid() if k == 1 else logits.softmax(1)
    losses = []
    for c in range(k):
        truth = (target == (1 if k == 1 else c)).double()
        parts = [(p[:, c], truth)] if over == "batch" else list(zip(p[:, c], truth, strict=True))
        losses += [1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in parts]
    torch.testing.assert_close(dice_loss(logits, target, over=over), torch.stack(losses).mean())  # pyright: ignore


@pytest.mark.parametrize("ignored", [False, True])
def test_by_image_they_are_kornias(ignored: bool) -> None:
    """Where every class is in every image: kornia leaves absent ones out, here `smooth` keeps them cheap."""
    logits, target = case(size=(6, 7))
    target[:, 0, :3] = torch.arange(3)
    if ignored:
        target[:, 3:] = 255
    logits.requires_grad_()
    theirs = (
        kornia.losses.dice_loss(logits, target, average="macro", eps=0.0, ignore_index=255),
        kornia.losses.tversky_loss(logits, target, alpha=0.3, beta=0.7, eps=0.0, ignore_index=255),
    )
    ours = tuple(loss(logits, target, smooth=0.0, ignore_index=255, over="image") for loss in (dice_loss, tversky_loss))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
        mine, other = (torch.autograd.grad(loss, logits)[0] for loss in (mine, other))
        torch.testing.assert_close(mine, other)


def test_ids_and_one_hot_probabilities_are_the_same() -> None:
    logits, target = case()
    one_hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    for loss in (dice_loss, tversky_loss, dice_ce_loss):
        torch.testing.assert_close(loss(logits, target), loss(logits, one_hot.double()))
    torch.testing.assert_close(dice_loss(logits, target), dice_loss(logits, one_hot))


def test_ignored_pixels_change_nothing() -> None:
    logits, target = case()
    ignored = target.clone()
    ignored[:, 0] = 255
    for loss in (dice_loss, tversky_loss, dice_ce_loss):
        whole = loss(logits[:, :, 1:], target[:, 1:])
        torch.testing.assert_close(loss(logits, ignored, ignore_index=255), whole)
    logits.requires_grad_()
    dice_ce_loss(logits, ignored, ignore_index=255).backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, 0].any()
    assert logits.grad[:, :, 1:].any()


@pytest.mark.parametrize("k", [1, 4])
def test_gradients_are_those_of_differences(k: int) -> None:
    logits, target = case(k=k, size=(3,))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, target), logits)
    assert torch.autograd.gradcheck(lambda x: tversky_loss(x, target), logits)


def test_where_each_of_dice_and_cross_entropy_pulls() -> None:
    """By the logit of one positive pixel beside one that is right: near 0 cross-entropy pulls, Dice has let go."""
    pulls = {}
    for p in (1e-4, 0.5, 0.9999):
        x = torch.logit(torch.tensor([[[p, 1 - 1e-6]]], dtype=torch.float64)).requires_grad_()
        truth = torch.ones(1, 2, dtype=torch.int64)
        dice = torch.autograd.grad(dice_loss(x, truth, smooth=0.0), x)[0][0, 0, 0].item()
        entropy = p - 1  # of binary cross-entropy, by hand
        pulls[p] = (dice, entropy)
        slope = -2 * (2 - 0) / (p + 1 + 2) ** 2 * p * (1 - p)  # d/dp of 1 - 2 (p + 1) / (p + 1 + 2)
        assert dice == pytest.approx(slope, rel=1e-4)
    assert abs(pulls[1e-4][0]) < 1e-3 < 0.99 < abs(pulls[1e-4][1])
    assert abs(pulls[0.5][0]) > 0.08
    assert abs(pulls[0.9999][0]) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 3])
def test_extreme_logits_are_finite(dtype: torch.dtype, k: int) -> None:
    _, target = case(k=k)
    for sign in (1, -1):
        logits = torch.full((2, k, 4, 5), 1e4, dtype=dtype)
        logits[:, 0] *= sign
        logits.requires_grad_()
        for loss in (dice_loss, tversky_loss, dice_ce_loss):
            value = loss(logits, target)
            assert value.dtype == torch.float32
            assert torch.isfinite(value)
            (gradient,) = torch.autograd.grad(value, logits)
            assert torch.isfinite(gradient).all()


def test_a_class_that_is_absent_and_not_predicted_costs_nothing() -> None:
    logits = torch.full((1, 1, 2, 2), -200.0, requires_grad=True)
    target = torch.zeros(1, 2, 2, dtype=torch.int64)
    for smooth in (0.0, 1.0):
        loss = dice_loss(logits, target, smooth=smooth)
        assert loss.item() == pytest.approx(0)
        assert math.isfinite(torch.autograd.grad(loss, logits)[0].sum().item())


def test_dice_ce_is_the_weighted_sum() -> None:
    logits, target = case()
    got = dice_ce_loss(logits, target, dice_weight=0.3, ce_weight=2.0)
    torch.testing.assert_close(got, 0.3 * dice_loss(logits, target) + 2 * cross_entropy(logits, target))


def test_what_does_not_fit_is_refused() -> None:
    logits, target = case()
    with pytest.raises(
        ShapeError, match=r"target: expected \(2, 4, 5\) class ids or \(2, 3, 4, 5\) prob.* got \(2, 4\)"
    ):
        dice_loss(logits, target[..., 0])
    with pytest.raises(RangeError, match=r"found class id 7, expected 0 to 2; set ignore_index=7"):
        dice_loss(logits, target + 5 * (target == 2))
    with pytest.raises(RangeError, match=r"found class id -1"):
        dice_loss(logits, target - 1)
    with pytest.raises(RangeError, match="smooth must be at least 0, got -1"):
        dice_loss(logits, target, smooth=-1)
    with pytest.raises(RangeError, match="alpha, beta and smooth"):
        tversky_loss(logits, target, alpha=-0.1)
