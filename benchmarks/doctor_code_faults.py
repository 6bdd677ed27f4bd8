"""Mistakes of code that are put into small trainings: in the model, in its loss, in the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doctor_faults import RATE_HIGH, Fault
from doctor_flaws import (
    FLAWS,
    AddsDropout,
    ChangesInput,
    Detached,
    Flaw,
    ForgetsInput,
    MixesSamples,
    insert,
    replace_activations,
)
from doctor_nets import layers_of
from doctor_training import Bench

__all__ = ["CODE_FAULTS"]

_NORMED = ("cnn_bn", "resnet", "depthwise", "dense", "vgg", "inception")


# ------------------------------------------------------------------------------------------------ the model
def _dead(bench: Bench, share: float) -> None:
    """Biases, of norms where there are any, that keep a share of the units of each hidden layer below zero."""
    norms = [one for one in bench.model.modules() if isinstance(one, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer in norms or [one for _, one in layers_of(bench.model)[:-1]]:
            if layer.bias is not None:
                layer.bias[torch.randperm(len(layer.bias))[: round(share * len(layer.bias))]] = -100.0


def _constant(bench: Bench, _: float) -> None:
    with torch.no_grad():
        for name_and_layer in layers_of(bench.model):
            weight = name_and_layer[1].weight
            weight.fill_(1 / math.sqrt(weight[0].numel()))


def _sigmoid_tail(bench: Bench, _: float) -> None:
    classes = bench.split.classes
    tail: list[nn.Module] = []
    mended = bench.setup.activation == "relu"  # by the remedy
    bends = nn.ReLU if mended else nn.Sigmoid
    for _ in range(6):
        width = 32 if tail else classes
        tail += [*([nn.BatchNorm1d(width)] if mended else []), bends(), nn.Linear(width, 32)]
    bench.model = nn.Sequential(bench.model, *tail, bends(), nn.Linear(32, classes))


def _behind(make: Callable[[], nn.Module], place: float | None) -> Callable[[Bench, float], None]:
    """A module behind the whole model, or behind the layer at `place`."""

    def put(bench: Bench, _: float) -> None:
        if place is None:
            bench.model = nn.Sequential(bench.model, make())
        else:
            insert(bench, make(), place)

    return put


def _bce(bench: Bench, _: float) -> None:
    bench.model = nn.Sequential(bench.model, nn.Sigmoid())
    bench.soft = True
    bench.criterion = F.binary_cross_entropy_with_logits


def _one_value(bench: Bench, _: float) -> None:
    classes = bench.split.classes
    shape = nn.Unflatten(1, (classes, 1, 1))
    bench.model = nn.Sequential(bench.model, shape, nn.GroupNorm(classes, classes), nn.Flatten())


def _drop_before_norm(bench: Bench, share: float) -> None:
    for name, layer in layers_of(bench.model)[:-1]:
        bench.model.set_submodule(name, AddsDropout(layer, share))


def _momentum(bench: Bench, value: float) -> None:
    for module in bench.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = value


def _first_changes_input(bench: Bench, _: float) -> None:
    bench.model = nn.Sequential(ChangesInput(), bench.model)
    bench.alias = True


# ------------------------------------------------------------------------------------------------ the loop
def _set(name: str, value: float | bool | None = None) -> Callable[[Bench, float], None]:  # noqa: FBT001
    def put(bench: Bench, level: float) -> None:
        setattr(bench, name, level if value is None else value)

    return put


def _mse(bench: Bench, _: float) -> None:
    bench.criterion = lambda logits, labels: F.mse_loss(logits[:, 0], labels.float())


def _summed(bench: Bench, _: float) -> None:
    bench.criterion = lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum")


def _noisy(bench: Bench, level: float) -> None:
    def add() -> None:
        for parameter in bench.model.parameters():
            if parameter.grad is not None:
                parameter.grad += level * parameter.grad.std(correction=0) * torch.randn_like(parameter.grad)

    bench.graded.append(add)


def _corrupt_batches(bench: Bench, level: float) -> None:
    def spoil(images: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return (images * level, targets.flip(0)) if step % 25 == 0 else (images, targets)

    bench.inputs.append(spoil)


def _labels_later(bench: Bench, _: float) -> None:
    def spoil(images: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return images, targets[torch.randperm(len(targets))]

    bench.inputs.append(spoil)


def _freeze_later(bench: Bench, _: float) -> None:
    for group in bench.optimizer.param_groups:
        group["params"] = group["params"][-2:]


_LABELS_LATER = frozenset({"labels-unrelated", "diverging-loss", "label-error", "stuck-at-prior"})
_SOFTMAX = frozenset({"softmax-before-cross-entropy", "double-softmax", "loss-target-mismatch"})

CODE_FAULTS: dict[str, Fault] = {
    "dead-relu": Fault(
        row="T4", accepted=frozenset({"dead-at-start", "dead-units"}), levels=(0.3, 0.6, 0.9), built=_dead,
        nets=("mlp", "cnn", "cnn_bn", "resnet", "depthwise", "dense", "vgg", "inception", "rows"),
    ),
    "init-constant": Fault(
        row="P2", accepted=frozenset({"identical-units", "activation-scale", "initial-loss-off"}), built=_constant
    ),
    "sigmoid-tail": Fault(
        row="T3", accepted=frozenset({"vanishing-gradient", "saturated-units", "activation-scale"}),
        built=_sigmoid_tail,
    ),
    "softmax-before-ce": Fault(row="S3", accepted=_SOFTMAX, built=_behind(lambda: nn.Softmax(1), None), proven=True),
    "sigmoid-before-bce": Fault(row="S3", accepted=_SOFTMAX, built=_bce, proven=True),
    "no-activation": Fault(
        row="S4", accepted=frozenset({"missing-non-linearity"}), proven=True,
        built=lambda bench, _: replace_activations(bench.model, nn.Identity),
    ),
    "one-value-norm": Fault(
        row="S9", accepted=frozenset({"one-value-norm", "input-ignored"}), built=_one_value, proven=True
    ),
    "samples-mixed": Fault(
        row="P6", accepted=frozenset({"samples-mixed"}), built=_behind(MixesSamples, 0.5), proven=True
    ),
    "detached": Fault(
        row="S6", accepted=frozenset({"parameters-without-gradient", "not-updated"}), built=_behind(Detached, 0.5),
        proven=True,
    ),
    "input-ignored": Fault(
        row="P5", accepted=frozenset({"input-ignored", "parameters-without-gradient", "activation-scale"}),
        built=_behind(ForgetsInput, 0.0), proven=True,
    ),
    "input-changed": Fault(
        row="P7", accepted=frozenset({"input-changed", "input-not-normalised"}), built=_first_changes_input,
        proven=True,
    ),
    "dropout-before-norm": Fault(
        row="S2", accepted=frozenset({"dropout-before-norm", "norm-statistics-drift"}), levels=(0.3, 0.5, 0.7),
        built=_drop_before_norm, nets=_NORMED,
    ),
    "norm-momentum": Fault(
        row="T6", accepted=frozenset({"norm-statistics-drift"}), levels=(1e-2, 1e-3), built=_momentum, nets=_NORMED
    ),
    "wrong-sign": Fault(row="T10", accepted=frozenset({"wrong-sign"}), built=_set("sign", -1.0), proven=True),
    "mse-on-ids": Fault(row="S5", accepted=frozenset({"loss-target-mismatch"}), built=_mse, proven=True),
    "loss-summed": Fault(
        row="T8", accepted=RATE_HIGH | {"initial-loss-off", "loss-target-mismatch"}, built=_summed
    ),
    "not-cleared": Fault(
        row="T7", accepted=frozenset({"gradients-not-cleared"}), built=_set("clear", value=False), proven=True
    ),
    "eval-in-training": Fault(
        row="T6", accepted=frozenset({"wrong-mode"}), built=_set("train_mode", value=False), proven=True,
        nets=_NORMED,
    ),
    "train-in-evaluation": Fault(
        row="T6", accepted=frozenset({"wrong-mode"}), built=_set("eval_mode", value=True), proven=True, nets=_NORMED
    ),
    "slow-loader": Fault(
        row="T19", accepted=frozenset({"loader-bound"}), levels=(0.025, 0.05), built=_set("wait"), slow=True,
        settings=lambda setup, _: replace(setup, steps=100),
    ),
    "memory-leak": Fault(
        row="T19", accepted=frozenset({"growing-memory"}), built=_set("leak", 4.0), proven=True
    ),
    "gradient-noise": Fault(
        row="P7",
        accepted=frozenset({"gradient-changed", "wrong-gradient", "oscillating-score", "learning-rate-too-high"}),
        levels=(3, 10, 30), built=_noisy,
    ),
    "corrupt-batches": Fault(
        row="T18", accepted=frozenset({"loss-spike", "exploding-gradient"}), levels=(3, 30), live=_corrupt_batches
    ),
    "rate-jumps": Fault(
        row="T8", accepted=RATE_HIGH | {"oscillating-score", "loss-spike"}, levels=(30, 300), live=_set("rate")
    ),
    "labels-later": Fault(row="T11", accepted=_LABELS_LATER, live=_labels_later),
    "not-cleared-later": Fault(
        row="T7", accepted=frozenset({"gradients-not-cleared"}), live=_set("clear", value=False), proven=True
    ),
    "sign-turns": Fault(
        row="T10", accepted=frozenset({"wrong-sign", "diverging-loss"}), live=_set("sign", -1.0), proven=True
    ),
    "body-left-later": Fault(
        row="S6", accepted=frozenset({"not-updated", "not-in-optimizer"}), live=_freeze_later, proven=True
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ values not finite
def _flawed(kind: str) -> Fault:
    def put(bench: Bench, place: float) -> str:
        return insert(bench, Flaw(kind), place)

    def switch(bench: Bench, _: float) -> None:
        for module in bench.model.modules():
            if isinstance(module, Flaw):
                module.on = True

    return Fault(
        row="T1", accepted=frozenset({"non-finite"}), levels=(0.0, 0.5, 1.0), built=put, live=switch, proven=True,
        spot=FLAWS[kind][:2],
    )  # fmt: skip


def _log_in_loss(bench: Bench, _: float) -> None:
    """The entropy of the answers is held up, by a logarithm of shares that are 0."""

    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        shares = torch.softmax(1e4 * logits, 1)
        return F.cross_entropy(logits, labels) + 0.01 * (shares * torch.log(shares)).sum(1).mean()

    bench.criterion = criterion


def _dirty(index: int) -> Callable[[Bench, float], None]:
    """A NaN in the third image of a batch, or in its label."""

    def put(bench: Bench, _: float) -> None:
        def spoil(images: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
            given = [images.clone(), targets.clone()]
            given[index][2].flatten()[0] = float("nan")
            return given[0], given[1]

        bench.inputs.append(spoil)

    return put


def _soft(bench: Bench, _: float) -> None:
    bench.soft = True


def _second_layer(bench: Bench, _: float) -> str:
    return layers_of(bench.model)[1][0]


def _spoil_weight(bench: Bench, _: float) -> None:
    with torch.no_grad():
        layers_of(bench.model)[1][1].weight[0].fill_(float("inf"))


CODE_FAULTS |= {f"nan-{kind}": _flawed(kind) for kind in FLAWS}
CODE_FAULTS |= {
    "nan-loss-log": Fault(
        row="T1", accepted=frozenset({"non-finite"}), live=_log_in_loss, proven=True, spot=("loss", "log")
    ),
    "nan-image": Fault(row="T1", accepted=frozenset({"non-finite"}), live=_dirty(0), proven=True, spot=("input", "")),
    "nan-label": Fault(
        row="T1", accepted=frozenset({"non-finite"}), built=_soft, live=_dirty(1), proven=True, spot=("label", "")
    ),
    "nan-weight": Fault(
        row="T1",
        accepted=frozenset({"non-finite"}),
        built=_second_layer,
        live=_spoil_weight,
        proven=True,
        spot=("update", "weight"),
    ),
}
