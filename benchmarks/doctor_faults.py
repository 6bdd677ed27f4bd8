"""Faults that are put into small trainings, and what the doctor may rightly call each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from doctor_data import Split
from doctor_setup import Setup

if TYPE_CHECKING:
    from doctor_training import Bench

__all__ = ["FAULTS", "RATE_HIGH", "Fault", "imbalanced"]

RATE_HIGH = frozenset(
    {
        "learning-rate-too-high", "learning-rate-out-of-band", "diverging-loss", "exploding-gradient",
        "non-finite:overflow", "non-finite:exp-overflow", "non-finite:weights",
    }
)  # fmt: skip
_RATE_LOW = frozenset({"learning-rate-too-low", "learning-rate-out-of-band", "not-converged"})
_RELU = ("mlp", "cnn", "cnn_bn", "resnet", "depthwise", "dense", "vgg", "inception", "rows")
_SGD = ("mlp", "cnn", "cnn_bn", "resnet", "dense", "vgg")
_INPUT = frozenset({"input-not-normalised", "normalisation-mismatch"})
_WRONG_LABELS = frozenset({"label-error", "conflicting-labels", "labels-unrelated"})


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault.

    Args:
        row: of the catalogue.
        accepted: ids of findings that name its cause; `non-finite:KIND` asks for that kind of cause.
        levels: severities; what they mean is the fault's own.
        settings: knobs that it turns.
        data: what it does to the images.
        built: what it does to the model and the loop, before the start.
        live: what it does at 40 % of the run.
        proven: it is wrong whatever it costs.
        slow: it costs time and no score.
        on_data: rules on data are applied too.
        nets: it can be put into; empty for all.
        sets: it can be put into; empty for all.
        spot: of NaN faults: direction and operation that must be named; `built` gives the module.
    """

    row: str
    accepted: frozenset[str]
    levels: tuple[float, ...] = (1.0,)
    settings: Callable[[Setup, float], Setup] | None = None
    data: Callable[[Split, float, np.random.Generator], Split] | None = None
    built: Callable[[Bench, float], str | None] | None = None
    live: Callable[[Bench, float], None] | None = None
    proven: bool = False
    slow: bool = False
    on_data: bool = False
    nets: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    spot: tuple[str, str] | None = field(default=None)


# ------------------------------------------------------------------------------------------------ knobs
def _rate(setup: Setup, factor: float) -> Setup:
    return replace(setup, lr=setup.lr * factor)


def _knob(name: str, value: Any = None) -> Callable[[Setup, float], Setup]:  # noqa: ANN401 - of any knob
    def turn(setup: Setup, level: float) -> Setup:
        return replace(setup, **{name: level if value is None else value})

    return turn


def _few_steps(setup: Setup, share: float) -> Setup:
    return replace(setup, steps=max(30, int(setup.steps * share)))


def _pairs(setup: Setup, _: float) -> Setup:
    return replace(setup, batch=2, lr=setup.lr / 4, steps=2 * setup.steps)


_KNOBS = {
    "rate-high": Fault(row="T8", accepted=RATE_HIGH | {"oscillating-score"}, levels=(10, 100, 1000), settings=_rate),
    "rate-low": Fault(row="T9", accepted=_RATE_LOW | {"underfitting"}, levels=(1e-2, 1e-3), settings=_rate),
    "momentum-high": Fault(
        row="T8", accepted=RATE_HIGH | {"oscillating-score", "momentum-too-long"}, levels=(0.99, 0.999),
        settings=_knob("momentum"), nets=_SGD,
    ),
    "decay-too-early": Fault(
        row="T15", accepted=_RATE_LOW | {"underfitting", "plateau"}, settings=_knob("schedule", "early")
    ),
    "rate-rises": Fault(
        row="T8", accepted=RATE_HIGH | {"oscillating-score", "rate-still-rising"},
        settings=_knob("schedule", "rising"),
    ),
    "too-few-steps": Fault(
        row="T15", accepted=frozenset({"not-converged", "learning-rate-too-low"}), levels=(0.15, 0.25),
        settings=_few_steps,
    ),
    "clip-too-low": Fault(
        row="T2", accepted=frozenset({"most-steps-clipped", "learning-rate-too-low"}), levels=(1e-2, 1e-3),
        settings=_knob("clip"), nets=_SGD,
    ),
    "unshuffled": Fault(row="D9", accepted=frozenset({"unshuffled"}), settings=_knob("shuffle", value=False)),
    "input-255": Fault(row="P8", accepted=_INPUT, settings=_knob("scale"), levels=(20, 255)),
    "input-offset": Fault(row="P8", accepted=_INPUT, settings=_knob("offset"), levels=(10, 100)),
    "init-large": Fault(
        row="P1", accepted=frozenset({"activation-scale", "initial-loss-off"}), levels=(5, 10, 30),
        settings=_knob("gain"),
    ),
    "init-small": Fault(
        row="P3", accepted=frozenset({"activation-scale", "vanishing-gradient"}), levels=(0.1, 0.01),
        settings=lambda setup, level: replace(setup, gain=level, norm="none"), nets=_RELU,
    ),
    "init-zero": Fault(
        row="P2", accepted=frozenset({"identical-units", "parameters-without-gradient"}),
        settings=_knob("gain", 0.0),
    ),
    "head-left-out": Fault(
        row="S6", accepted=frozenset({"not-in-optimizer", "not-updated"}), settings=_knob("left_out", value=True),
        proven=True,
    ),
    "body-frozen": Fault(
        row="S6", accepted=frozenset({"frozen-parameters", "not-updated"}), settings=_knob("frozen", value=True)
    ),
    "dropout-high": Fault(
        row="T16", accepted=frozenset({"over-regularised", "underfitting"}), levels=(0.8, 0.9, 0.97),
        settings=_knob("dropout"),
    ),
    "decay-high": Fault(
        row="T16", accepted=frozenset({"over-regularised", "underfitting", "stuck-at-prior"}), levels=(0.3, 10),
        settings=_knob("weight_decay"), nets=_SGD,
    ),
    "smoothing-high": Fault(
        row="T16", accepted=frozenset({"over-regularised", "underfitting", "stuck-at-prior"}), levels=(0.9, 0.98),
        settings=_knob("smoothing"),
    ),
    "too-small": Fault(row="T14", accepted=frozenset({"underfitting"}), settings=_knob("width", 0.01)),
    "sigmoid-net": Fault(
        row="T3", accepted=frozenset({"vanishing-gradient", "saturated-units", "activation-scale"}),
        settings=lambda setup, _: replace(setup, activation="sigmoid", norm="none"),
        nets=("cnn", "cnn_bn", "resnet", "depthwise", "dense", "vgg", "inception"),
    ),
    "few-images": Fault(
        row="T13", accepted=frozenset({"overfitting", "few-examples"}), levels=(60, 30), settings=_knob("images"),
        on_data=True,
    ),
    "batch-of-two": Fault(
        row="S9", accepted=frozenset({"tiny-batch-norm", "norm-statistics-drift", "one-value-norm"}),
        settings=_pairs, nets=("cnn_bn", "resnet", "depthwise", "dense", "vgg", "inception"),
    ),
    "augment-flips": Fault(
        row="D10", accepted=frozenset({"augmentation-breaks-label", "over-regularised", "underfitting"}),
        settings=_knob("augment", ("turn",)), on_data=True,
        sets=("digits", "signs", "mnist", "spoken", "speakers", "turns", "places"),
    ),
    "augment-covers": Fault(
        row="D10", accepted=frozenset({"augmentation-breaks-label", "over-regularised", "underfitting"}),
        settings=_knob("augment", ("cover",)), on_data=True,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ data
def _noise(split: Split, share: float, draws: np.random.Generator) -> Split:
    labels = split.labels.copy()
    chosen = draws.permutation(len(labels))[: round(share * len(labels))]
    labels[chosen] = (labels[chosen] + draws.integers(1, split.classes, len(chosen))) % split.classes
    return replace(split, labels=labels)


def imbalanced(split: Split, ratio: float, draws: np.random.Generator) -> Split:
    """Classes fall off evenly from all images to one of `ratio`, at least one image."""
    order = draws.permutation(split.classes)
    kept = []
    for place, label in enumerate(order):
        members = np.flatnonzero(split.labels == label)
        share = ratio ** (-place / max(1, split.classes - 1))
        kept.append(members[: max(1, round(share * len(members)))])
    return split.select(draws.permutation(np.concatenate(kept)))


def _shuffled(split: Split, _: float, draws: np.random.Generator) -> Split:
    return replace(split, labels=draws.permutation(split.labels))


def _off_by_one(split: Split, _: float, __: np.random.Generator) -> Split:
    return replace(split, labels=(split.labels + 1) % split.classes)


def _leak(split: Split, share: float, draws: np.random.Generator) -> Split:
    chosen = draws.permutation(len(split.val_labels))[: round(share * len(split.val_labels))]
    return replace(
        split,
        images=np.concatenate([split.images, split.val_images[chosen]]),
        labels=np.concatenate([split.labels, split.val_labels[chosen]]),
    )


def _shift(split: Split, level: float, _: np.random.Generator) -> Split:
    images = 1 - split.val_images if level >= 2 else 0.5 + 0.3 * split.val_images
    return replace(split, val_images=images.astype(np.float32))


def _duplicates(split: Split, share: float, draws: np.random.Generator) -> Split:
    kept = draws.permutation(len(split.labels))[: max(split.classes, round(share * len(split.labels)))]
    return split.select(draws.choice(kept, len(split.labels)))


def _blank(split: Split, share: float, draws: np.random.Generator) -> Split:
    images = split.images.copy()
    images[draws.permutation(len(images))[: round(share * len(images))]] = 0
    return replace(split, images=images)


def _wrong_layout(split: Split, _: float, __: np.random.Generator) -> Split:
    def torn(images: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(images.shape)

    return replace(split, images=torn(split.images), val_images=torn(split.val_images))


_DATA = {
    "label-noise": Fault(row="D2", accepted=_WRONG_LABELS, levels=(0.05, 0.15, 0.3), data=_noise, on_data=True),
    "labels-shuffled": Fault(row="T11", accepted=_WRONG_LABELS | {"stuck-at-prior"}, data=_shuffled, on_data=True),
    "labels-off-by-one": Fault(
        row="T11", accepted=_WRONG_LABELS | {"label-drift", "split-drift"}, data=_off_by_one, on_data=True, proven=True
    ),
    "imbalance": Fault(
        row="D1", accepted=frozenset({"class-imbalance", "class-never-predicted", "few-examples", "label-drift"}),
        levels=(10, 50, 200), data=imbalanced, on_data=True,
    ),
    "validation-leak": Fault(
        row="D3", accepted=frozenset({"leak", "near-duplicate-across-splits"}), levels=(0.1, 0.5), data=_leak,
        on_data=True, proven=True,
    ),
    "validation-shift": Fault(
        row="D7", accepted=frozenset({"split-drift", "normalisation-mismatch"}), levels=(1, 2), data=_shift,
        on_data=True,
    ),
    "duplicates": Fault(
        row="D4", accepted=frozenset({"near-duplicate", "leak"}), levels=(0.05, 0.15), data=_duplicates, on_data=True
    ),
    "blank-images": Fault(
        row="D5", accepted=frozenset({"constant-image", "odd-image", "near-duplicate", "conflicting-labels"}),
        levels=(0.1, 0.4), data=_blank, on_data=True, proven=True,
    ),
    "wrong-layout": Fault(
        row="P9", accepted=frozenset({"wrong-layout"}), data=_wrong_layout, proven=True,
        sets=("signs", "cells", "fruits", "turns"),
        nets=(
            "cnn", "cnn_bn", "resnet", "depthwise", "vit", "dense", "mixer", "next", "vgg", "inception", "rows"
        ),
    ),
}  # fmt: skip

FAULTS: dict[str, Fault] = {**_KNOBS, **_DATA}
