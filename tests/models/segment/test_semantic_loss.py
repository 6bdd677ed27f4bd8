"""The semantic loss: PyTorch's numbers, what does not count, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.models.segment.semantic_loss import IGNORED, SEMANTIC_LOSSES, SemanticLoss

TERMS = {
    "ce_dice": {"class", "dice"},
    "cross_entropy": {"class"},
    "dice": {"dice"},
    "focal": {"focal"},
    "tversky": {"tversky"},
}


@pytest.fixture
def work() -> tuple[Tensor, Tensor]:
    """Logits of three classes and a map with a border that does not count."""
    logits = torch.randn(2, 3, 6, 7)
    semantic = torch.randint(0, 3, (2, 6, 7))
    semantic[:, :, -2:] = IGNORED
    return logits, semantic


@pytest.mark.parametrize("name", SEMANTIC_LOSSES)
def test_terms_have_names_and_gradients(name: str, work: tuple[Tensor, Tensor]) -> None:
    logits, semantic = work
    logits.requires_grad_()
    terms = SemanticLoss(3, name=name)(logits, semantic)  # pyright: ignore[reportArgumentType]
    assert set(terms) == TERMS[name]
    sum(terms.values(), torch.zeros(())).backward()
    assert logits.grad is not None
    assert (logits.grad[..., -2:] == 0).all()  # what does not count
    assert (logits.grad[..., :-2] != 0).all()


def test_cross_entropy_is_pytorchs(work: tuple[Tensor, Tensor]) -> None:
    logits, semantic = work
    weights = torch.tensor([0.5, 1.0, 4.0])
    loss = SemanticLoss(3, name="cross_entropy", label_smoothing=0.1)
    loss.set_class_weights(weights)
    expected = F.cross_entropy(logits, semantic, weight=weights, ignore_index=IGNORED, label_smoothing=0.1)
    torch.testing.assert_close(loss(logits, semantic)["class"], expected)


def test_focal_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    semantic = torch.tensor([[[0, 1]]])
    loss = SemanticLoss(2, name="focal", gamma=1.0)
    loss.set_class_weights(torch.tensor([1.0, 3.0]))
    assert loss(logits, semantic)["focal"].item() == pytest.approx(0.5 * math.log(2) * (1 + 3) / 2)


def test_dice_by_hand_and_its_weight() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    semantic = torch.tensor([[[0, 0], [0, IGNORED]]])
    # of three pixels that count: p is 1.5 in both classes, t is 3 and 0
    expected = 1 - ((2 * 1.5 + 1) / (1.5 + 3 + 1) + 1 / (1.5 + 1)) / 2
    assert SemanticLoss(2, name="dice", dice_weight=3.0)(logits, semantic)["dice"].item() == pytest.approx(expected)
    both = SemanticLoss(2, dice_weight=3.0)(logits, semantic)
    assert both["dice"].item() == pytest.approx(3 * expected)
    assert both["class"].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", SEMANTIC_LOSSES)
def test_nothing_that_counts_costs_nothing(name: str) -> None:
    loss = SemanticLoss(3, name=name)  # pyright: ignore[reportArgumentType]
    for logits in (torch.randn(2, 3, 4, 5), torch.randn(0, 3, 4, 5)):
        logits.requires_grad_()
        total = sum(loss(logits, torch.full((len(logits), 4, 5), IGNORED)).values(), torch.zeros(()))
        total.backward()
        assert total.item() == 0
        assert logits.grad is not None
        assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", SEMANTIC_LOSSES)
def test_one_image_of_two_may_be_without_labels(name: str, work: tuple[Tensor, Tensor]) -> None:
    logits, semantic = work
    semantic[0] = IGNORED
    loss = SemanticLoss(3, name=name)  # pyright: ignore[reportArgumentType]
    both, one = loss(logits, semantic), loss(logits[1:], semantic[1:])
    for term, value in both.items():
        torch.testing.assert_close(value, one[term])


@pytest.mark.parametrize("name", SEMANTIC_LOSSES)
def test_bad_labels_are_named(name: str, work: tuple[Tensor, Tensor]) -> None:
    logits, semantic = work
    loss = SemanticLoss(3, name=name)  # pyright: ignore[reportArgumentType]
    for wrong in (3, 254, -1):
        semantic[1, 2, 3] = wrong
        with pytest.raises(RangeError, match=f"found class id {wrong}, expected 0 to 2"):
            loss(logits, semantic)
    with pytest.raises(ShapeError, match=r"expected \(2, 6, 7\) class ids"):
        loss(logits, semantic[:, :-1])


@pytest.mark.parametrize("name", SEMANTIC_LOSSES)
def test_not_a_number_passes_through(name: str, work: tuple[Tensor, Tensor]) -> None:
    logits, semantic = work
    logits[0] = torch.nan
    terms = SemanticLoss(3, name=name)(logits, semantic)  # pyright: ignore[reportArgumentType]
    assert all(value.isnan() for value in terms.values())


def test_half_precision_is_widened(work: tuple[Tensor, Tensor]) -> None:
    logits, semantic = work
    half = logits.bfloat16()
    loss = SemanticLoss(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(half, semantic)
    for term, value in loss(half.float(), semantic).items():
        assert found[term].dtype == torch.float32
        torch.testing.assert_close(found[term], value)


def test_class_weights_are_the_datas() -> None:
    loss = SemanticLoss(3)
    assert loss.class_weight.tolist() == [1, 1, 1]
    assert not loss.state_dict()
    with pytest.raises(ShapeError, match=r"expected \(3,\), one a class, got \(2,\)"):
        loss.set_class_weights(torch.ones(2))
    for wrong in ([1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, torch.nan, 1.0]):
        with pytest.raises(RangeError, match="class weights"):
            loss.set_class_weights(torch.tensor(wrong))


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="loss: there is none named 'dise'; did you mean 'dice'"):
        SemanticLoss(2, name="dise")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="the background is a class of its own"):
        SemanticLoss(1)
    for wrong in ({"dice_weight": -1.0}, {"gamma": -0.1}, {"label_smoothing": 1.0}):
        with pytest.raises(RangeError, match="loss: dice_weight and gamma"):
            SemanticLoss(2, **wrong)
