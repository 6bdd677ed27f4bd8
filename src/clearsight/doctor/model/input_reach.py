"""How much of an image reaches the outputs at all, whatever the weights are."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.probing import outputs_of, undropped, untouched
from clearsight.measure.replica import tensors_in

__all__ = ["UNCHANGED", "input_reach", "rows_of"]

UNCHANGED = 1e-5  # relative movement of outputs that is rounding
_EXACT = 1e-11  # the same in double precision
_DRAWS = 8  # of all parameters


def input_reach(evidence: ModelEvidence, images: int = 16) -> float | None:
    """By how much outputs differ between images at most, relative to their size; None without a row for each image.

    The largest of what the model's own weights and drawn ones give; the latter only where the former give nothing. The
    answer is kept with the evidence, so that several rules cost one look.

    Args:
        evidence: is left as it was.
        images: that are compared, at most.
    """
    known: dict[int, float | None] = vars(evidence).setdefault("_input_reach", {})
    if images not in known:
        with untouched(evidence.model), torch.no_grad():
            undropped(evidence.model)
            known[images] = _reach(evidence, evidence.images[:images])
    return known[images]


def _reach(evidence: ModelEvidence, images: Tensor) -> float | None:
    most = _reach_at(evidence, images)
    if most is None or most > UNCHANGED:
        return most
    # What many squashing layers leave of a difference may be lost in rounding, and is none the less there.
    try:
        double = copy.deepcopy(evidence.model).double()
        precise = dataclasses.replace(evidence, model=double, images=evidence.images.double())
        exact = _reach_at(precise, images.double(), least=_EXACT)
    except (RuntimeError, TypeError):  # a model that cannot be copied, or called in double precision
        return most
    return most if exact is None or exact <= _EXACT else max(exact, 2 * UNCHANGED)


def _reach_at(evidence: ModelEvidence, images: Tensor, least: float = UNCHANGED) -> float | None:
    most = _apart(evidence, images)
    for seed in range(_DRAWS):
        if most is None or most > least:
            break
        _draw(evidence, seed)
        drawn = _apart(evidence, images)
        most = most if drawn is None else max(most, drawn)
    return most


def _apart(evidence: ModelEvidence, images: Tensor) -> float | None:
    rows = [t for t in rows_of(outputs_of(evidence, images), len(images)) if t.ndim > 1 and bool(t.isfinite().all())]
    return max((float((t - t[:1]).norm() / t.norm().clamp(min=1e-12)) for t in rows), default=None)


def _draw(evidence: ModelEvidence, seed: int) -> None:
    """All parameters anew: weights by He's rule, scales 1, biases 0."""
    draws = torch.Generator().manual_seed(seed)
    for name, parameter in evidence.model.named_parameters():
        if not parameter.is_floating_point() or not parameter.numel():
            continue
        if parameter.ndim < 2:
            parameter.fill_(0.0 if "bias" in name else 1.0)
        else:
            fan_in = parameter[0].numel()
            parameter.copy_(torch.randn(parameter.shape, generator=draws) * (2 / fan_in) ** 0.5)


def rows_of(outputs: object, number: int) -> list[Tensor]:
    """Floating-point tensors of outputs with a row for each image, in double precision.

    Args:
        outputs: any nest.
        number: of images.
    """
    found = (t for t in tensors_in(outputs) if t.is_floating_point() and t.ndim > 0 and len(t) == number)
    return [tensor.double() for tensor in found]
