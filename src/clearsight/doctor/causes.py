"""Which fault explains which others: where several findings have one cause, the cause is named first."""

from __future__ import annotations

__all__ = ["CAUSES"]

_NOT_LEARNING = (
    "stuck-at-prior",
    "underfitting",
    "plateau",
    "class-never-predicted",
    "cannot-overfit",
    "not-converged",
)
_UNSTABLE = ("diverging-loss", "exploding-gradient", "loss-spike", "oscillating-score", "weights-grow", "dead-units")
_TOO_LARGE = ("learning-rate-too-high", *_UNSTABLE)  # what large values look like in training

CAUSES: dict[str, tuple[str, ...]] = {
    # Mistakes of code, which nothing else can make good.
    "non-finite": ("diverging-loss", "loss-spike", "exploding-gradient"),
    "loss-target-mismatch": (
        *(*_NOT_LEARNING, *_TOO_LARGE, "initial-loss-off", "wrong-sign", "labels-unrelated", "non-finite"),
        *("learning-rate-too-low", "overfitting", "dead-at-start"),
    ),
    "not-in-optimizer": ("not-updated", "gradients-not-cleared", *_NOT_LEARNING, "over-regularised"),
    "gradients-not-cleared": (
        *(*_NOT_LEARNING, *_UNSTABLE, "learning-rate-too-high", "most-steps-clipped", "wrong-sign", "non-finite"),
    ),
    "gradient-changed": (
        *(*_NOT_LEARNING, *_UNSTABLE, "learning-rate-too-high", "wrong-sign", "norm-statistics-drift"),
    ),
    "wrong-sign": (*_NOT_LEARNING, *_UNSTABLE, "learning-rate-too-high", "non-finite"),
    "not-updated": _NOT_LEARNING,
    "parameters-without-gradient": ("not-updated", "images-not-learned", *_NOT_LEARNING),
    "wrong-gradient": (*_NOT_LEARNING, *_UNSTABLE),
    "softmax-before-cross-entropy": ("double-softmax", *_NOT_LEARNING, "learning-rate-too-low"),
    "double-softmax": (*_NOT_LEARNING, "learning-rate-too-low"),
    "samples-mixed": (*_NOT_LEARNING, "labels-unrelated", "overfitting", "norm-statistics-drift"),
    "input-not-normalised": (
        *(*_NOT_LEARNING, *_TOO_LARGE, "initial-loss-off", "activation-scale", "dead-at-start", "non-finite"),
        *("over-regularised", "vanishing-gradient", "saturated-units", "not-updated", "labels-unrelated"),
        *("learning-rate-too-low", "input-ignored", "images-not-learned"),
    ),
    "one-value-norm": ("input-ignored", "images-not-learned", "dead-at-start", "identical-units", *_NOT_LEARNING),
    "input-ignored": (
        *(*_NOT_LEARNING, "labels-unrelated", "dead-at-start", "dead-units", "learning-rate-too-low"),
        *("initial-loss-off", "vanishing-gradient", "not-updated", "images-not-learned"),
    ),
    "input-changed": (*_NOT_LEARNING, *_TOO_LARGE, "overfitting", "over-regularised", "norm-statistics-drift"),
    "wrong-layout": (
        *("input-not-normalised", *_NOT_LEARNING, *_TOO_LARGE, "input-ignored", "overfitting", "labels-unrelated"),
        "images-not-learned",
    ),
    "wrong-mode": ("norm-statistics-drift", "over-regularised", "overfitting", "oscillating-score"),
    "identical-units": (
        *(*_NOT_LEARNING, *_TOO_LARGE, "initial-loss-off", "dead-at-start", "over-regularised", "images-not-learned"),
        *("labels-unrelated", "learning-rate-too-low", "not-updated", "vanishing-gradient", "norm-statistics-drift"),
    ),
    "frozen-parameters": (
        *(*_NOT_LEARNING, *_TOO_LARGE, "not-updated", "double-softmax", "labels-unrelated", "learning-rate-too-low"),
    ),
    # The start.
    "normalisation-mismatch": ("input-not-normalised", *_NOT_LEARNING, *_TOO_LARGE, "initial-loss-off"),
    "activation-scale": (
        *("initial-loss-off", "dead-at-start", "saturated-units", "vanishing-gradient", "precision-overflow"),
        *(*_TOO_LARGE, *_NOT_LEARNING, "learning-rate-too-low", "labels-unrelated", "non-finite", "not-updated"),
        "images-not-learned",
    ),
    "initial-loss-off": (*_TOO_LARGE, *_NOT_LEARNING, "labels-unrelated", "non-finite"),
    "saturated-units": ("vanishing-gradient", "images-not-learned", *_NOT_LEARNING),
    "vanishing-gradient": (*_NOT_LEARNING, "images-not-learned", "learning-rate-too-low"),
    "dead-at-start": ("dead-units", "images-not-learned", *_NOT_LEARNING),
    "images-not-learned": (*_NOT_LEARNING, "labels-unrelated", "learning-rate-too-low", "not-updated"),
    "missing-non-linearity": ("underfitting",),
    # Data.
    "leak": ("near-duplicate-across-splits", "near-duplicate"),
    "near-duplicate-across-splits": ("label-error",),
    "unshuffled": (*_TOO_LARGE, *_NOT_LEARNING, "norm-statistics-drift", "overfitting", "over-regularised"),
    "constant-image": ("conflicting-labels", "label-error", "odd-image"),
    "near-duplicate": (
        *("split-drift", "label-drift", "class-imbalance", "labels-unrelated", "overfitting", "few-examples"),
        *("class-never-predicted", "over-regularised"),
    ),
    "conflicting-labels": ("label-error",),
    "label-error": (*_TOO_LARGE, *_NOT_LEARNING, "labels-unrelated", "overfitting", "over-regularised"),
    "split-drift": ("labels-unrelated", "overfitting", "over-regularised", "norm-statistics-drift"),
    "few-examples": ("class-imbalance", "class-never-predicted", "labels-unrelated"),
    "class-imbalance": ("class-never-predicted", "label-drift", "labels-unrelated", "underfitting"),
    "augmentation-breaks-label": (
        *(*_TOO_LARGE, *_NOT_LEARNING, "over-regularised", "labels-unrelated", "overfitting", "norm-statistics-drift"),
    ),
    "tiny-batch-norm": (
        *("norm-statistics-drift", "oscillating-score", "one-value-norm", "learning-rate-too-high", "diverging-loss"),
    ),
    "dropout-before-norm": ("norm-statistics-drift", "over-regularised"),
    # The rate.
    "precision-overflow": ("non-finite",),
    "momentum-too-long": ("learning-rate-out-of-band", "learning-rate-too-high", *_UNSTABLE),
    "rate-still-rising": ("learning-rate-too-high", *_UNSTABLE),
    "most-steps-clipped": ("learning-rate-too-low", *_NOT_LEARNING),
    "learning-rate-out-of-band": (
        *("learning-rate-too-low", *_TOO_LARGE, *_NOT_LEARNING, "non-finite", "not-updated", "norm-statistics-drift"),
        *("saturated-units", "vanishing-gradient"),
    ),
    "learning-rate-too-high": (*_UNSTABLE, *_NOT_LEARNING, "most-steps-clipped", "norm-statistics-drift", "non-finite"),
    "dead-units": ("underfitting", "plateau", "not-converged", "norm-statistics-drift"),
    "loss-spike": ("diverging-loss", "exploding-gradient", "dead-units", "stuck-at-prior", "class-never-predicted"),
    "exploding-gradient": ("diverging-loss", "non-finite"),
    "over-regularised": (
        *("vanishing-gradient", "stuck-at-prior", "underfitting", "cannot-overfit", "learning-rate-too-low"),
        *("class-never-predicted", "plateau", "not-converged", "initial-loss-off", "dead-units"),
        *("learning-rate-too-high", "learning-rate-out-of-band", "norm-statistics-drift", "oscillating-score"),
    ),
    "diverging-loss": ("dead-units", "stuck-at-prior", "class-never-predicted", "exploding-gradient"),
    "norm-statistics-drift": (
        *("class-never-predicted", "oscillating-score", "plateau", "overfitting", "labels-unrelated"),
    ),
    "learning-rate-too-low": ("underfitting", "plateau", "not-converged", "stuck-at-prior"),
    "labels-unrelated": ("stuck-at-prior", "overfitting", "underfitting"),
    "underfitting": ("cannot-overfit",),
}
"""Cause → what it makes appear, in the order in which causes are believed."""
