"""The terms of bags, pair by pair and place by place, their gradients."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, BagOptions
from clearsight.errors import ConfigError, ShapeError
from clearsight.models.detect.bag_terms import bag_terms, joint_logits
from clearsight.types import Targets

OPTIONS = BagOptions(box_weight=0.6, alpha=0.3, gamma=1.5, temperature=0.4)


def case(combine: Literal["each", "mean_max", "confidence"]) -> tuple[Assignment, Targets, Tensor, Tensor]:
    """Two images of four points and two classes; object 1 has no pair, object 3 one that is in no bag."""
    targets = Targets(boxes=torch.zeros(4, 4), labels=torch.tensor([0, 1, 0, 1]), image=torch.tensor([0, 0, 0, 1]))
    found = Assignment(
        object=torch.tensor([0, 0, 2, 2, 2, 3, 3]),
        point=torch.tensor([0, 1, 1, 2, 3, 0, 2]),
        weight=torch.tensor([0.9, 0.4, 0.6, 1.0, 0.3, 0.8, 0.0], dtype=torch.float64),
        background=torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64),
        combine=combine,
        class_background=torch.tensor([0.2, 0.7, 0.5, 1.0, 0.4, 0.0, 0.6], dtype=torch.float64),
        bag=OPTIONS,
    )
    return found, targets, torch.randn(2, 4, 2, dtype=torch.float64), torch.rand(7, dtype=torch.float64)


def by_hand(found: Assignment, targets: Targets, logits: Tensor, box_losses: Tensor) -> tuple[float, float]:
    """Number by number, straight from the definitions."""
    bags: dict[int, list[tuple[float, float]]] = {}
    left: dict[tuple[int, int, int], float] = {}
    for pair, (row, point) in enumerate(zip(found.object.tolist(), found.point.tolist(), strict=True)):
        image, label = int(targets.image[row]), int(targets.labels[row])
        p = 1 / (1 + math.exp(-float(logits[image, point, label])))
        likelihood = p * math.exp(-0.6 * float(box_losses[pair]))
        if found.weight[pair] > 0:
            bags.setdefault(row, []).append((likelihood, float(found.weight[pair])))
        share = 0.0 if found.class_background is None else float(found.class_background[pair])
        left[image, point, label] = min(left.get((image, point, label), 1.0), share)
    bag = 0.0
    for members in bags.values():
        if found.combine == "mean_max":
            shares = [1 / (1 - x) for x, _ in members]
        else:
            shares = [math.exp(x / 0.4) * weight for x, weight in members]
        mean = sum(s * x for s, (x, _) in zip(shares, members, strict=True)) / sum(shares)
        bag -= 0.3 * math.log(mean) / len(bags)
    background = 0.0
    for image in range(2):
        for point in range(4):
            for label in range(2):
                p = 1 / (1 + math.exp(-float(logits[image, point, label])))
                q = p * float(found.background[image, point]) * left.get((image, point, label), 1.0)
                background -= 0.7 * q**1.5 * math.log(1 - q) / float(found.weight.sum())
    return bag, background


@pytest.mark.parametrize("combine", ["mean_max", "confidence"])
@pytest.mark.parametrize("named", [False, True])
def test_by_hand(combine: Literal["mean_max", "confidence"], named: bool) -> None:
    found, targets, logits, box_losses = case(combine)
    if not named:
        found.class_background = None
    terms = bag_terms(found, targets, logits, box_losses)
    assert list(terms) == ["bag", "background"]
    assert (terms["bag"].item(), terms["background"].item()) == pytest.approx(
        by_hand(found, targets, logits, box_losses)
    )


@pytest.mark.parametrize("combine", ["mean_max", "confidence"])
def test_gradients_are_those_of_differences(combine: Literal["mean_max", "confidence"]) -> None:
    found, targets, logits, box_losses = case(combine)

    def total(logits: Tensor, box_losses: Tensor) -> Tensor:
        return torch.stack(list(bag_terms(found, targets, logits, box_losses).values()))

    assert torch.autograd.gradcheck(total, (logits.requires_grad_(), box_losses.requires_grad_()))


def test_a_learned_weight_gets_its_gradient_from_its_bag_alone() -> None:
    found, targets, logits, box_losses = case("confidence")
    found.weight = found.weight.requires_grad_()
    terms = bag_terms(found, targets, logits, box_losses)
    assert not terms["background"].requires_grad
    terms["bag"].backward()
    assert found.weight.grad is not None
    assert found.weight.grad[:5].abs().min() > 0
    assert found.weight.grad[5:].tolist() == [0.0, 0.0]  # alone in its bag; in no bag


@pytest.mark.parametrize("logit", [-1e4, -50.0, 0.0, 50.0, 1e4])
@pytest.mark.parametrize("combine", ["mean_max", "confidence"])
def test_extremes_are_finite(combine: Literal["mean_max", "confidence"], logit: float) -> None:
    found, targets, logits, box_losses = case(combine)
    found.class_background = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 1e-7, 1 - 1e-7])
    for gamma in (0.0, 0.5, 2.0):
        x = torch.full_like(logits, logit).float().requires_grad_()
        losses = (box_losses * 1000).float().requires_grad_()
        terms = bag_terms(found, targets, x, losses, options=OPTIONS._replace(gamma=gamma))
        sum(terms.values(), torch.zeros(())).backward()
        assert all(torch.isfinite(term) for term in terms.values())
        assert torch.isfinite(x.grad).all()
        assert torch.isfinite(losses.grad).all()


def test_half_precision_is_widened() -> None:
    found, targets, logits, box_losses = case("mean_max")
    full = bag_terms(found, targets, logits.bfloat16().float(), box_losses)
    half = bag_terms(found, targets, logits.bfloat16(), box_losses)
    for name, term in half.items():
        assert term.dtype == torch.float64  # as the weights and box losses
        torch.testing.assert_close(term, full[name])


@pytest.mark.parametrize("objects", [0, 2])
def test_without_pairs_only_the_background_is_left(objects: int) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    targets = Targets(boxes=torch.zeros(objects, 4), labels=none.new_zeros(objects), image=none.new_zeros(objects))
    weight = torch.zeros(0)
    found = Assignment(object=none, point=none, weight=weight, background=torch.ones(1, 3), combine="mean_max")
    logits, box_losses = torch.zeros(1, 3, 2, requires_grad=True), torch.zeros(0, requires_grad=True)
    terms = bag_terms(found, targets, logits, box_losses)
    assert terms["bag"].item() == 0
    assert terms["background"].item() == pytest.approx(0.5 * 6 * 0.25 * math.log(2))
    sum(terms.values(), torch.zeros(())).backward()
    assert torch.isfinite(logits.grad).all()
    assert box_losses.grad is not None


def test_joint_logits() -> None:
    logits, objectness = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    joint = joint_logits(logits, objectness)
    torch.testing.assert_close(joint.sigmoid(), logits.sigmoid() * objectness.sigmoid()[..., None])
    assert torch.autograd.gradcheck(joint_logits, (logits.requires_grad_(), objectness.requires_grad_()))
    wild = joint_logits(torch.tensor([[[1e4, -1e4]]]), torch.tensor([[1e4]]))
    assert wild.tolist() == [[[pytest.approx(1e4 - math.log(2)), pytest.approx(-1e4)]]]


def test_what_does_not_fit_is_refused() -> None:
    found, targets, logits, box_losses = case("each")
    with pytest.raises(ConfigError, match="combine='each'"):
        bag_terms(found, targets, logits, box_losses)
    found.combine = "mean_max"
    with pytest.raises(ShapeError, match=r"box_losses: expected the shape"):
        bag_terms(found, targets, logits, box_losses[:, None])
