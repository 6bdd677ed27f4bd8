"""Which loss a callable computes, found by comparing its value with the usual ones on the model's own outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.probing import first_logits, labels_of, loss_of, outputs_of, subset
from clearsight.types import Targets

__all__ = ["LossForm", "close", "find_form", "rows_of", "smoothed_floor"]

Name = Literal["cross entropy", "summed cross entropy", "soft cross entropy", "binary", "squared", "squared all pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossForm:
    """A loss that was recognised.

    Args:
        name: `cross entropy` of ids, `summed cross entropy` (not divided by their number), `soft cross entropy` of
            probabilities, `binary` cross-entropy of logits, `squared` error, `squared all pairs` (every output against
            every target).
        value: of the batch, mean of its elements.
        smoothing: of the labels, 0 for none.
        classes: outputs an element.
    """

    name: Name
    value: float
    smoothing: float = 0.0
    classes: int = 0


def close(a: float, b: float, *, relative: float = 3e-5) -> bool:
    """Whether two losses are the same but for rounding.

    More would hide a smoothing of the labels, which changes little while all classes are alike.
    """
    return math.isfinite(a) and math.isfinite(b) and abs(a - b) <= relative * max(abs(a), abs(b)) + 1e-6


def find_form(evidence: ModelEvidence) -> LossForm | None:
    """The form of a loss; None where it is none of the usual ones. Call it inside `untouched`, before any change.

    A model that gives its loss in named terms, as clearsight's do, may have others beside the term `class`. The answer
    is kept with the evidence, so that several rules cost one look.
    """
    known: dict[str, LossForm | None] = vars(evidence).setdefault("_form", {})
    if "form" not in known:
        known["form"] = _find(evidence)
    return known["form"]


def _find(evidence: ModelEvidence) -> LossForm | None:
    whole = _look(evidence, evidence.images, evidence.targets)
    if whole is None or len(evidence.images) < 2 or not whole.smoothing:
        return whole
    # Any number between two others passes for label smoothing once, but not twice with the same share.
    half = _look(evidence, *subset(evidence, range(math.ceil(len(evidence.images) / 2))))
    same = half is not None and abs(half.smoothing - whole.smoothing) < 5e-3
    return whole if same else None


def _look(evidence: ModelEvidence, images: Tensor, targets: Any) -> LossForm | None:  # noqa: ANN401
    labels = labels_of(targets)
    with torch.no_grad():
        logits = first_logits(outputs_of(evidence, images), len(images))
        if labels is None or logits is None:
            return None
        total = float(loss_of(evidence, images, targets))
        found = _match(total, logits, labels)
        if found is None and isinstance(targets, Targets):
            term = _class_term(evidence, images, targets)
            found = None if term is None else _match(term, logits, labels)
    return None if found is None else replace(found, classes=logits.shape[1])


def _class_term(evidence: ModelEvidence, images: Tensor, targets: Targets) -> float | None:
    """The term `class` of a model that has `loss(images, targets) -> dict`, as clearsight's have."""
    if not isinstance(getattr(type(evidence.model), "loss", None), FunctionType):
        return None
    torch.manual_seed(0)
    terms = evidence.model.loss(images.clone(), targets)  # pyright: ignore[reportCallIssue]
    term = terms.get("class") if isinstance(terms, Mapping) else None
    return float(term) if isinstance(term, Tensor) else None


def _match(loss: float, logits: Tensor, labels: Tensor) -> LossForm | None:
    if labels.shape == logits.shape and labels.is_floating_point():
        return _match_dense(loss, logits, labels)
    if not labels.is_floating_point() and labels.shape == (len(logits), *logits.shape[2:]):
        return _match_ids(loss, logits, labels)
    if labels.ndim == 1 and logits.shape == (len(labels), 1):
        return _match_column(loss, logits, labels)
    return None


def rows_of(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """`(m, k)` logits and `(m,)` ids of the elements whose id is one of the k classes.

    Args:
        logits: `(n, k, …)`.
        ids: `(n, …)`.
    """
    rows, flat = logits.movedim(1, -1).reshape(-1, logits.shape[1]), ids.reshape(-1).long()
    known = (flat >= 0) & (flat < logits.shape[1])
    return rows[known], flat[known]


def _match_ids(loss: float, logits: Tensor, ids: Tensor) -> LossForm | None:
    rows, known = rows_of(logits, ids)
    if not len(known):
        return None
    log_p = rows.log_softmax(1)
    if bool((rows >= 0).all()) and close(float(rows.sum(1).mean()), 1.0):
        log_p = rows.clamp(min=1e-30).log() if close(loss, float(F.nll_loss(rows.log(), known))) else log_p
    entropy, even = float(F.nll_loss(log_p, known)), float(-log_p.mean())
    if close(loss, entropy):
        return LossForm(name="cross entropy", value=entropy)
    if close(loss, entropy * len(known)):
        return LossForm(name="summed cross entropy", value=entropy)
    share = (loss - entropy) / (even - entropy) if abs(even - entropy) > 1e-4 else 0.0
    return LossForm(name="cross entropy", value=loss, smoothing=share) if 5e-3 < share <= 0.99 else None


def _match_dense(loss: float, logits: Tensor, wanted: Tensor) -> LossForm | None:
    wanted = wanted.to(logits.dtype)
    if close(loss, float(F.cross_entropy(logits, wanted))):
        return LossForm(name="soft cross entropy", value=loss)
    if close(loss, float(F.binary_cross_entropy_with_logits(logits, wanted))):
        return LossForm(name="binary", value=loss)
    return LossForm(name="squared", value=loss) if close(loss, float(F.mse_loss(logits, wanted))) else None


def _match_column(loss: float, logits: Tensor, wanted: Tensor) -> LossForm | None:
    wanted = wanted.to(logits.dtype)
    if close(loss, float(F.binary_cross_entropy_with_logits(logits[:, 0], wanted))):
        return LossForm(name="binary", value=loss)
    if close(loss, float(F.mse_loss(logits[:, 0], wanted))):
        return LossForm(name="squared", value=loss)
    pairs = float((logits - wanted).square().mean())
    return LossForm(name="squared all pairs", value=loss) if close(loss, pairs) else None


def smoothed_floor(smoothing: float, classes: int) -> float:
    """The least cross-entropy that labels smoothed by a share allow: their own entropy.

    Args:
        smoothing: share that is spread evenly over all classes, in [0, 1).
        classes: k.
    """
    if smoothing <= 0 or classes < 2:
        return 0.0
    other = smoothing / classes
    own = 1 - smoothing + other
    return -(own * math.log(own) + (classes - 1) * other * math.log(other))
