"""Learning from another model's soft answers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.losses.checks import trace_nan
from clearsight.losses.classify import cross_entropy, reduce
from clearsight.nn.precision import at_least_float32

__all__ = ["distillation_loss", "temperature_softmax"]


def temperature_softmax(logits: Tensor, temperature: float, *, dim: int = 1) -> Tensor:
    """Softmax of `logits / T`: T above 1 shows how the wrong classes rank, T below 1 sharpens, T → 0 is one-hot.

    Args:
        logits: any shape; computed in float32 at least.
        temperature: T, above 0.
        dim: of the classes.

    Raises:
        RangeError: the temperature is not above 0.
    """
    if temperature <= 0:
        raise RangeError(f"temperature: must be above 0, got {temperature}")
    return (at_least_float32(logits) / temperature).softmax(dim)


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 4.0,
    soft_weight: float = 0.9,
) -> Tensor:
    """Cross-entropy with the truth and, softened, with what a teacher says.

    `(1 - w) CE(student, target) + w T² KL(teacher at T ‖ student at T)`. The gradient of the second term shrinks with
    `1 / T²`, which the factor makes good, so that T can be changed without a new w.

    Method: Hinton et al. 2015, arXiv:1503.02531, section 2.

    Args:
        student: `(n, k, …)` logits; computed in float32 at least.
        teacher: the same shape; no gradient goes to it.
        target: class ids `(n, …)` or probabilities; None for no hard term (w is then 1).
        temperature: T, above 0.
        soft_weight: w in [0, 1].

    Returns:
        A scalar: the mean over samples (and positions); 0 for an empty batch.

    Raises:
        ShapeError: student and teacher differ in shape, or the target fits neither.
        RangeError: the temperature, the weight or a target is out of range, or the teacher's logits are not finite.
    """
    if student.shape != teacher.shape:
        raise ShapeError(
            f"teacher: expected the student's shape {tuple(student.shape)}, got {tuple(teacher.shape)}: both need the "
            "same classes in the same order"
        )
    if temperature <= 0 or not 0 <= soft_weight <= 1:
        raise RangeError(
            "distillation_loss: temperature must be above 0 and soft_weight in [0, 1], got "
            f"{temperature} and {soft_weight}"
        )
    said = F.log_softmax(at_least_float32(teacher.detach()) / temperature, 1)
    log_p = F.log_softmax(at_least_float32(student) / temperature, 1)
    divergence = reduce((said.exp() * (said - log_p)).sum(1), "mean") * temperature**2
    divergence = trace_nan(divergence, teacher=teacher)
    if target is None:
        return divergence
    return (1 - soft_weight) * cross_entropy(student, target) + soft_weight * divergence
