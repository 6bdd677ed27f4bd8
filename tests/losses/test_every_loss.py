"""What every loss must stand: extremes, half precision, reductions, ignored and empty input, compilation, bad input."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import clearsight.losses
from clearsight.errors import ClearsightError, ConfigError, RangeError, ShapeError
from clearsight.losses import box, regress
from clearsight.losses.classify import binary_cross_entropy, cross_entropy
from clearsight.losses.depth import scale_invariant_loss
from clearsight.losses.distill import distillation_loss, temperature_softmax
from clearsight.losses.embedding import batch_triplet_loss, pairwise_distances, pull_loss, push_loss, triplet_loss
from clearsight.losses.focal import penalty_reduced_focal_loss, sigmoid_focal_loss, softmax_focal_loss
from clearsight.losses.overlap import dice_ce_loss, dice_loss, tversky_loss
from clearsight.nn.precision import at_least_float32

K = 4


def ids(n: int) -> Tensor:
    return torch.randint(K, (n, 3, 2))


def yes_or_no(n: int) -> Tensor:
    return torch.randint(2, (n, K, 3, 2)).double()


def mixture(n: int) -> Tensor:
    return torch.rand(n, K, 3, 2, dtype=torch.float64).softmax(1)


def numbers(n: int) -> Tensor:
    return torch.randn(n, K, 3, 2, dtype=torch.float64)


def boxes(n: int) -> Tensor:
    corner = torch.rand(n, 2, dtype=torch.float64) * 8
    return torch.cat((corner, corner + torch.rand(n, 2, dtype=torch.float64) * 9 + 1), dim=1)


def depths(n: int) -> Tensor:
    return torch.rand(n, 1, 3, 2, dtype=torch.float64) * 9 + 0.1


def labels(n: int) -> Tensor:
    return torch.arange(n) % 3


@dataclass(frozen=True)
class Loss:
    """A loss of a prediction `(n, …)` and a target, and what is asked of it besides."""

    call: Callable[..., Tensor]
    target: Callable[[int], Tensor] = ids
    shape: tuple[int, ...] = (K, 3, 2)
    reduces: bool = False
    ignores: bool = False
    exact_gradient: bool = True


def pairs(call: Callable[..., Tensor], *, exact_gradient: bool = True) -> Loss:
    return Loss(call, boxes, (4,), exact_gradient=exact_gradient)


def mined(mining: str) -> Loss:
    return Loss(lambda x, y: batch_triplet_loss(x, y, margin=0.5, mining=mining), labels, (5,))


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(cross_entropy, reduces=True, ignores=True),
    "cross_entropy, smooth": Loss(lambda x, y, **o: cross_entropy(x, y, smoothing=0.1, **o), ignores=True),
    "cross_entropy, probabilities": Loss(cross_entropy, mixture, reduces=True),
    "binary_cross_entropy": Loss(binary_cross_entropy, yes_or_no, reduces=True, ignores=True),
    "sigmoid_focal_loss": Loss(sigmoid_focal_loss, yes_or_no, reduces=True),
    "softmax_focal_loss": Loss(softmax_focal_loss, reduces=True, ignores=True),
    "penalty_reduced_focal_loss": Loss(penalty_reduced_focal_loss, yes_or_no),
    "dice_loss": Loss(dice_loss, ignores=True),
    "dice_loss, of images": Loss(lambda x, y, **o: dice_loss(x, y, over="image", **o), ignores=True),
    "dice_loss, one class": Loss(dice_loss, lambda n: yes_or_no(n)[:, :1], (1, 3, 2), ignores=True),
    "dice_loss, probabilities": Loss(dice_loss, mixture),
    "tversky_loss": Loss(tversky_loss, ignores=True),
    "dice_ce_loss": Loss(dice_ce_loss, ignores=True),
    "dice_ce_loss, one class": Loss(dice_ce_loss, lambda n: yes_or_no(n)[:, 0].long(), (1, 3, 2), ignores=True),
    "squared_loss": Loss(regress.squared_loss, numbers, reduces=True),
    "mean_absolute_loss": Loss(regress.mean_absolute_loss, numbers, reduces=True),
    "huber_loss": Loss(regress.huber_loss, numbers, reduces=True),
    "gaussian_nll_loss": Loss(
        lambda x, y, **o: regress.gaussian_nll_loss(x, x.new_full((1,), 0.25), y, **o), numbers, reduces=True
    ),
    "scale_invariant_loss": Loss(scale_invariant_loss, depths, (1, 3, 2)),
    "iou_loss": pairs(box.iou_loss),
    "giou_loss": pairs(box.giou_loss),
    "diou_loss": pairs(box.diou_loss),
    "ciou_loss": pairs(box.ciou_loss, exact_gradient=False),  # holds its weight constant
    "l1_loss": pairs(box.l1_loss),
    "smooth_l1_loss": pairs(box.smooth_l1_loss),
    "distillation_loss": Loss(distillation_loss, numbers),
    "distillation_loss, with the truth": Loss(lambda x, y: distillation_loss(x, numbers(len(x)), y)),
    "triplet_loss": Loss(lambda x, y: triplet_loss(x, y, y.flip(-1)), lambda n: numbers(n)[:, :, 0, 0], (K,)),
    "batch_triplet_loss": mined("hard"),
    "batch_triplet_loss, semi-hard": mined("semi_hard"),
    "batch_triplet_loss, all": mined("all"),
    "pull_loss": Loss(lambda x, y: pull_loss(x, y.to(at_least_float32(x).dtype)), lambda n: numbers(n)[:, 0, 0, 0], ()),
    "push_loss": Loss(push_loss, labels, ()),
    "pairwise_distances": Loss(lambda x, y: pairwise_distances(x, y.to(at_least_float32(x).dtype)).sum(), boxes, (4,)),
    "temperature_softmax": Loss(lambda x, y: (temperature_softmax(x, 2.0) * y.to(x.device)).sum(), mixture),
}
EXCEPTIONS = {
    "as_probabilities": "no loss: makes targets",
    "check_choice": "no loss: a check",
    "check_map": "no loss: a check",
    "check_range": "no loss: a check",
    "check_same_shape": "no loss: a check",
    "confidence_loss": "takes likelihoods, no target: see test_bags.py",
    "confidence_mean": "takes likelihoods, no target: see test_bags.py",
    "decayed_parameters": "no loss: finds parameters",
    "flood": "takes a loss, not a prediction",
    "l1_penalty": "takes weights, not a prediction",
    "l2_penalty": "takes weights, not a prediction",
    "mean_max": "takes likelihoods, no target: see test_bags.py",
    "mean_max_loss": "takes likelihoods, no target: see test_bags.py",
    "reduce": "no loss: a mean or sum",
    "refuse_ids": "no loss: a check",
    "trace_nan": "no loss: a check",
}

every_loss = pytest.mark.parametrize("name", LOSSES)
reducing = pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.reduces])
ignoring = pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.ignores])


def case(name: str, n: int = 6) -> tuple[Tensor, Tensor]:
    """A prediction in float64 and its target; boxes are boxes."""
    loss = LOSSES[name]
    pred = boxes(n) if loss.target is boxes else torch.randn(n, *loss.shape, dtype=torch.float64)
    torch.manual_seed(1)
    return pred, loss.target(n)


def value_and_gradient(call: Callable[..., Tensor], pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)  # of a case that draws a teacher
    leaf = pred.detach().clone().requires_grad_()
    value = call(leaf, target)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


# ------------------------------------------------------------------------------------------------ each loss
@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extremes_are_finite_with_finite_gradients(name: str, dtype: torch.dtype) -> None:
    pred, target = case(name, 12)
    extremes = [1e4 * pred.sign(), torch.full_like(pred, 1e4), torch.full_like(pred, -1e4)]
    if LOSSES[name].target is boxes:  # large ones, and with corners that are not in order
        extremes = [1e4 * pred / pred.max(), -1e4 * pred / pred.max()]
    for wide in extremes:
        extreme = wide.to(dtype)
        value, gradient = value_and_gradient(LOSSES[name].call, extreme, target)
        assert value.dtype.itemsize >= 4
        assert torch.isfinite(value).all()
        assert gradient.dtype == dtype
        assert torch.isfinite(gradient).all()


@every_loss
def test_under_autocast_it_is_computed_in_full(name: str) -> None:
    pred, target = case(name)
    pred = pred.bfloat16()
    expected, slope = value_and_gradient(LOSSES[name].call, pred.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(LOSSES[name].call, pred, target)
    torch.testing.assert_close(value.float(), expected.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient.float(), slope.float(), rtol=0.02, atol=1e-3)


@every_loss
def test_gradients_are_those_of_differences(name: str) -> None:
    pred, target = case(name, 4)
    if not LOSSES[name].exact_gradient:
        pytest.skip("holds a part of itself constant")
    call = LOSSES[name].call

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(2)
        return call(x, target)

    assert torch.autograd.gradcheck(seeded, pred.requires_grad_())


@every_loss
def test_compiled_is_eager(name: str) -> None:
    torch.compiler.reset()
    pred, target = case(name)
    expected, slope = value_and_gradient(LOSSES[name].call, pred, target)
    compiled = torch.compile(LOSSES[name].call, backend="aot_eager", fullgraph=True, dynamic=False)
    value, gradient = value_and_gradient(compiled, pred, target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, slope)


@every_loss
def test_nothing_costs_nothing(name: str) -> None:
    pred, target = case(name, 0)
    value, gradient = value_and_gradient(LOSSES[name].call, pred, target)
    assert value.item() == 0
    assert gradient.shape == pred.shape
    if LOSSES[name].reduces:
        assert LOSSES[name].call(pred, target, reduction="sum").item() == 0
        assert LOSSES[name].call(pred, target, reduction="none").numel() == 0


@reducing
def test_reductions_agree(name: str) -> None:
    call, (pred, target) = LOSSES[name].call, case(name)
    each, total, mean = (call(pred, target, reduction=how) for how in ("none", "sum", "mean"))
    assert each.ndim > 1
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean, each.mean())
    with pytest.raises(ConfigError, match=r"reduction: there is none named 'meen'; did you mean 'mean'"):
        call(pred, target, reduction="meen")


@ignoring
def test_what_is_ignored_changes_neither_value_nor_gradient(name: str) -> None:
    call, (pred, target) = LOSSES[name].call, case(name)
    marked = target.clone()
    marked[..., 0, :] = 9
    value, gradient = value_and_gradient(lambda x, y: call(x, y, ignore_index=9), pred, marked)
    rest, slope = value_and_gradient(call, pred[..., 1:, :], target[..., 1:, :])
    torch.testing.assert_close(value, rest)
    torch.testing.assert_close(gradient[..., 1:, :], slope)
    assert not gradient[..., 0, :].any()
    wild = pred.clone()
    wild[..., 0, :] = 1e4
    torch.testing.assert_close(call(wild, marked, ignore_index=9), value)
    if LOSSES[name].reduces:
        each = call(pred, marked, ignore_index=9, reduction="none")
        torch.testing.assert_close(value, each.sum() / (marked != 9).sum())
    nothing, none = value_and_gradient(lambda x, y: call(x, y, ignore_index=9), pred, torch.full_like(target, 9))
    assert nothing.item() == pytest.approx(0, abs=1e-12)
    assert not none.any()


# ------------------------------------------------------------------------------------------------ bad input
@every_loss
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    if name == "temperature_softmax":
        pytest.skip("takes no target")
    pred, target = case(name)
    wrong = target[..., :-1] if name == "pairwise_distances" else target[:-1]
    with pytest.raises(ShapeError, match=r"expected .* got"):
        LOSSES[name].call(pred, wrong)


TARGETS = [name for name, loss in LOSSES.items() if loss.target in (yes_or_no, mixture, numbers, boxes)]


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"temperature_softmax", "pairwise_distances"}))
def test_a_target_that_is_no_number_is_refused(name: str) -> None:
    pred, target = case(name)
    target.view(-1)[3] = torch.nan
    with pytest.raises(RangeError, match=r"(target|targets|teacher): (expected|found) .*nan") as caught:
        LOSSES[name].call(pred, target)
    assert isinstance(caught.value, ValueError)
    if LOSSES[name].reduces:
        with pytest.raises(RangeError, match="nan"):
            LOSSES[name].call(pred, target, reduction="none")


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.target in (yes_or_no, mixture)])
@pytest.mark.parametrize("wrong", [1.5, -0.2])
def test_a_probability_out_of_range_is_refused(name: str, wrong: float) -> None:
    if name == "temperature_softmax":
        pytest.skip("takes no target")
    pred, target = case(name)
    target.view(-1)[3] = wrong
    with pytest.raises(RangeError, match=rf"target: found {wrong}, expected probabilities from 0 to 1"):
        LOSSES[name].call(pred, target)
    rounded = target.clamp(-1e-6, 1 + 1e-6)
    LOSSES[name].call(pred, rounded)  # as a resized map may be


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.target is ids])
@pytest.mark.parametrize("wrong", [K, -1, -100, 255])
def test_a_class_id_out_of_range_is_refused(name: str, wrong: int) -> None:
    pred, target = case(name)
    target[2, 1, 1] = wrong
    with pytest.raises(RangeError, match=rf"found class id {wrong}, expected 0 to {K - 1}; set ignore_index={wrong} "):
        LOSSES[name].call(pred, target)
    if LOSSES[name].ignores:
        assert torch.isfinite(LOSSES[name].call(pred, target, ignore_index=wrong))
    with pytest.raises(ShapeError, match="int64, got"):
        LOSSES[name].call(pred, target.double())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: dice_loss(x, ids(2), over="imgae"), "over: there is none named 'imgae'; did you mean 'image'"),
        (lambda x: tversky_loss(x, ids(2), over="all"), "over: there is none named 'all'; choose one of batch, image"),
        (lambda x: pairwise_distances(x[:, :, 0, 0], metric="cosin"), "metric: .*; did you mean 'cosine'"),
        (lambda x: batch_triplet_loss(x[:, :, 0, 0], labels(2), mining="semihard"), "mining: .* mean 'semi_hard'"),
        (lambda x: cross_entropy(x, x.softmax(1), ignore_index=3), "ignore_index: 3 is a class id, but the target has"),
        (lambda x: dice_loss(x, x.softmax(1), ignore_index=3), "ignore_index: 3 is a class id, but the target has"),
    ],
)
def test_options_that_do_not_exist_are_refused(call: Callable[[Tensor], Tensor], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        call(torch.randn(2, K, 3, 2))
    assert isinstance(caught.value, ClearsightError)


def test_weights_of_pairs_and_widths_are_not_broadcast() -> None:
    pred, target = boxes(3), boxes(3)
    for call in (box.giou_loss, box.l1_loss, box.smooth_l1_loss):
        with pytest.raises(ShapeError, match=r"weight: expected one for each pair, \(3,\), got \(3, 1\)"):
            call(pred, target, weight=torch.ones(3, 1))
    with pytest.raises(ShapeError, match=r"pred: expected boxes \(p, 4\) as xyxy pixels, got \(3, 3\)"):
        box.iou_loss(pred[:, :3], target[:, :3])
    with pytest.raises(ShapeError, match=r"log_variance: expected what is broadcast with \(3, 4\), got \(3,\)"):
        regress.gaussian_nll_loss(pred, torch.zeros(3), target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [-1e4, -41.0, 1e4])
def test_a_wild_width_of_a_gaussian_overflows_nothing_and_comes_back(width: float, dtype: torch.dtype) -> None:
    pred, target = torch.tensor([1e4, -1e4], dtype=dtype), torch.tensor([-1e4, 1.0])
    s = torch.full((2,), width, dtype=dtype, requires_grad=True)
    value = regress.gaussian_nll_loss(pred, s, target)
    (gradient,) = torch.autograd.grad(value, s)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert (gradient.sign() == (1 if width > 0 else -1)).all()


def test_a_mask_of_255_is_found_in_a_large_map_by_a_sample_and_one_nan_by_the_result() -> None:
    logits = torch.zeros(2, 1, 200, 160)
    mask = (torch.rand(2, 200, 160) > 0.99).long()
    dice_loss(logits, mask)
    with pytest.raises(RangeError, match="found class id 255, expected 0 to 1"):
        dice_loss(logits, mask * 255)
    target = mask[:, None].float().contiguous(memory_format=torch.channels_last)
    binary_cross_entropy(logits, target)
    target[1, 0, 77, 3] = torch.nan
    with pytest.raises(RangeError, match=r"target: expected finite numbers, found nan at \(1, 0, 77, 3\), and 1 such"):
        binary_cross_entropy(logits, target)


# ------------------------------------------------------------------------------------------------ the table
def test_no_loss_is_forgotten() -> None:
    public: set[str] = set()
    for info in pkgutil.iter_modules(clearsight.losses.__path__):
        module = importlib.import_module(f"clearsight.losses.{info.name}")
        public |= {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}
    tested = {name.partition(",")[0] for name in LOSSES}
    assert sorted(public - tested - set(EXCEPTIONS)) == []
    assert sorted((tested | set(EXCEPTIONS)) - public) == []
