"""Whether a model as a whole is one linear map of its images, however many layers it has."""

from __future__ import annotations

import copy
import dataclasses
import math

import torch
from torch import Tensor

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.input_reach import UNCHANGED, rows_of
from clearsight.doctor.model.probing import outputs_of, roughen, untouched

__all__ = ["affine_outputs"]

_SCALES = (1.0, -1.0, 30.0, -30.0, 1e3, -1e3)  # of images: far out, what is linear only near them is bent
_ROUGH = 1e-2  # departure from a linear map that is rounding, in the model's own precision
_EXACT = 1e-9  # the same in double precision
_IMAGES = 8


def affine_outputs(evidence: ModelEvidence) -> int:
    """Numbers that a model says of an image, where all of them are an affine map of the image; else 0.

    In evaluation mode f(a) + f(b) = f(0) + f(a + b) has to hold for images a and b of the batch, as they are, mirrored
    and up to a thousand times as strong. Networks of ReLUs are linear in parts, so a small range would not do. It is
    asked of the model in its own precision, where nearly all leave it, and then of a copy in double precision whose
    parameters have some noise added, so that branches which start at zero are heard. Outputs that do not depend on the
    image are no evidence.

    Args:
        evidence: with two images; is left as it was.
    """
    number = min(len(evidence.images), _IMAGES) // 2
    if not number:
        return 0
    with untouched(evidence.model), torch.no_grad():
        evidence.model.eval()
        try:
            if not _holds(evidence, evidence.images, number, _ROUGH, UNCHANGED):
                return 0
            double = copy.deepcopy(evidence.model).double()
            roughen(double)
            precise = dataclasses.replace(evidence, model=double, images=evidence.images.double())
            if not _holds(precise, precise.images, number, _EXACT, _EXACT):
                return 0
            rows = rows_of(outputs_of(precise), len(precise.images))
        except Exception:  # noqa: BLE001 - it may refuse such images, to be copied, or double precision: nothing is said
            return 0
    return sum(row[0].numel() for row in rows)


def _holds(evidence: ModelEvidence, images: Tensor, number: int, tolerance: float, least: float) -> bool:
    return all(_departure(evidence, scale * images, number, least) <= tolerance for scale in _SCALES)


def _departure(evidence: ModelEvidence, images: Tensor, number: int, least: float) -> float:
    """Largest |f(a) + f(b) - f(0) - f(a + b)| in that of what images change; infinite where they change nothing."""
    a, b = images[:number], images[number : 2 * number]
    most = math.inf
    for row in rows_of(outputs_of(evidence, torch.cat([torch.zeros_like(a), a, b, a + b])), 4 * number):
        nothing, one, two, both = row.chunk(4)
        moved = float(torch.maximum((one - nothing).abs().max(), (two - nothing).abs().max()))
        if not math.isfinite(moved):
            return math.inf
        if moved > least * float(row.abs().max()):
            gap = float((one + two - nothing - both).abs().max()) / moved
            most = gap if most == math.inf else max(most, gap)
    return most
