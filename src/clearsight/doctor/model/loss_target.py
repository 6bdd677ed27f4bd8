"""Whether targets are what the loss takes, and whether it looks at them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.loss_form import LossForm, find_form
from clearsight.doctor.model.probing import first_logits, labels_of, loss_of, outputs_of, roughen, subset, untouched
from clearsight.doctor.rule import Rule
from clearsight.measure.replica import tensors_in
from clearsight.types import Finding

__all__ = ["LossTargetMismatch"]

IGNORED = (-100, 255)  # PyTorch's cross-entropy; maps of classes
_TRIED = 4  # other classes that a score changes places with


class LossTargetMismatch(Rule[ModelEvidence]):
    """Labels outside the classes, targets that are no probabilities, one class alone, labels that change nothing.

    Targets are judged by the loss that is recognised, as the same numbers are right for one and wrong for another. One
    value outside the classes that the loss takes without an error is an `ignore_index`. A loss that is none of the
    usual ones is asked whether it reads the score of an image's own class: whatever its form, its value has to change
    when that score and another change places. A regression on class ids does not notice.

    Args:
        tolerance: by which the probabilities of an image may miss a sum of 1.
        images: whose labels change places.
    """

    id = "loss-target-mismatch"
    source = "AutoTrainer, Zhang et al. 2021 (ICSE); NeuraLint, Nikanjam et al. 2021, arXiv:2105.08095"

    def __init__(self, *, tolerance: float = 1e-2, images: int = 16) -> None:
        self.tolerance, self.images = tolerance, images

    def lacks(self, evidence: ModelEvidence) -> str:
        """Targets."""
        return "no targets" if evidence.targets is None else ""

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """One finding for each way in which they do not fit."""
        with untouched(evidence.model), torch.no_grad():
            found = list(self._judge(evidence))
        yield from found

    def _judge(self, evidence: ModelEvidence) -> Iterator[Finding]:
        labels = labels_of(evidence.targets)
        logits = first_logits(outputs_of(evidence), len(evidence.images))
        if labels is not None and logits is not None:
            wrong = self._ids(evidence, labels, logits)
            if wrong is not None:
                yield wrong  # and the loss cannot be computed, on a GPU not even tried
                return
            form = find_form(evidence)
            yield from self._one_class(labels, logits, form)
            if form is not None:
                yield from self._values(form, labels)
            elif (numbers := self._own_score(evidence)) is not None:
                yield numbers
                return  # and of the absolute error more would be said
        yield from self._unread(evidence)

    def _finding(self, explanation: str, **evidence: object) -> Finding:
        return Finding(
            id=self.id,
            severity="error",
            where="targets",
            explanation=explanation,
            evidence={"row": "S5", **evidence},
            source=self.source,
        )

    def _ids(self, evidence: ModelEvidence, labels: Tensor, logits: Tensor) -> Finding | None:
        """Class ids outside the classes of the outputs."""
        classes = logits.shape[1]
        if labels.is_floating_point() or labels.shape != (len(logits), *logits.shape[2:]):
            return None
        if classes == 1 and int(labels.min()) >= 0 and int(labels.max()) <= 1:
            return None  # yes or no
        outside = labels[(labels < 0) | (labels >= classes)]
        bad = sorted(set(outside.unique().tolist()) - set(IGNORED))
        if not bad or (len(bad) == 1 and labels.device.type == "cpu" and _accepted(evidence)):
            return None
        low, high = int(labels.min()), int(labels.max())
        shifted = " They seem to start at 1." if low == 1 and high == classes else ""
        return self._finding(
            f"Labels reach from {low} to {high}, and the model tells {classes} classes apart, 0 to {classes - 1}; "
            f"{int(sum((labels == value).sum() for value in bad))} lie outside.{shifted}",
            classes=classes,
            outside=bad[:20],
            count=len(bad),
        )

    def _one_class(self, labels: Tensor, logits: Tensor, form: LossForm | None) -> Iterator[Finding]:
        """A softmax over a single class is 1, whatever the model says."""
        if logits.shape[1] != 1:
            return
        ones = logits.numel() > 1 and bool((logits == 1).all())
        entropy = form is not None and form.name in ("cross entropy", "soft cross entropy") and form.value == 0
        if ones or entropy:
            yield self._finding(
                "The model has one output and a softmax over it, which is always 1, so that nothing is learned; use a "
                "sigmoid (`binary_cross_entropy_with_logits` on the logit), or two outputs.",
                classes=1,
                labels=len(labels),
            )

    def _values(self, form: LossForm, labels: Tensor) -> Iterator[Finding]:
        """Floating-point targets against what their loss takes."""
        if form.name == "squared all pairs":
            yield self._finding(
                f"Outputs (n, 1) are compared with targets ({len(labels)},): PyTorch pairs every output with every "
                "target, and the model learns their mean. Give both one shape: `outputs.squeeze(1)`.",
                shapes=[[len(labels), 1], [len(labels)]],
            )
        if not labels.is_floating_point():
            return
        low, high = float(labels.min()), float(labels.max())
        if form.name in ("binary", "soft cross entropy") and not (low >= -1e-6 and high <= 1 + 1e-6):
            yield self._finding(
                f"Targets of cross-entropy reach from {low:.3g} to {high:.3g}; they are probabilities and lie in "
                "[0, 1]. Divide them by their largest value, or use a loss for numbers.",
                least=low,
                largest=high,
            )
        elif form.name == "soft cross entropy":
            sums = labels.sum(1)
            off = float((sums - 1).abs().max())
            if off > self.tolerance:
                yield self._finding(
                    f"Targets of softmax cross-entropy add up to {float(sums.min()):.3g} … {float(sums.max()):.3g} an "
                    "image, where 1 is expected. For several true classes an image use a sigmoid for each "
                    "(`binary_cross_entropy_with_logits`).",
                    off=off,
                    threshold=self.tolerance,
                )

    def _own_score(self, evidence: ModelEvidence) -> Finding | None:
        """The loss of an image of a class does not hang on the score of that class."""
        with untouched(evidence.model):
            asked = unread_classes(evidence, self.images)
        if asked is None or not asked[0] or 2 * len(asked[0]) < asked[1]:
            return None
        unread, present = asked
        return self._finding(
            f"The loss stays the same, to the last digit, when an image's score of its own class is made the lowest or "
            f"changes places with another (classes {unread[:20]}, {len(unread)} of {present} in the batch): class ids "
            "are taken for numbers. Use a loss for classes, such as `cross_entropy(outputs, ids)`.",
            unread=unread[:20],
            count=len(unread),
            classes=present,
        )

    def _unread(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """The loss is the same whichever image a label goes with."""
        if len(evidence.images) < 2 or not any(True for _ in tensors_in(evidence.targets)):
            return
        number = min(len(evidence.images), self.images)
        images, targets = subset(evidence, range(number))
        roughen(evidence.model)  # a last layer that starts at zero says the same of all images
        logits = first_logits(outputs_of(evidence, images), number)
        if logits is None or float(logits.flatten(1).std(0).max()) <= 1e-6 * float(logits.abs().max()):
            return
        before, tried = float(loss_of(evidence, images, targets)), 0
        for shift in sorted({1, number // 2, number - 1}):
            other = evidence.take(evidence.targets, [(i + shift) % number for i in range(number)])
            if not _differ(targets, other):
                continue
            tried += 1
            if float(loss_of(evidence, images, other)) != before:
                return
        if tried and math.isfinite(before):
            yield self._finding(
                f"The loss stays {before:.6g}, to the last digit, when the labels of the batch are dealt out to other "
                "images: it does not look at them. Check what the loss is given as targets.",
                loss=before,
                orders=tried,
            )


# ------------------------------------------------------------------------------------------------ own scores
def unread_classes(evidence: ModelEvidence, most: int) -> tuple[list[int], int] | None:
    """Classes whose images' loss does not hang on the score of that class, and how many classes the batch has.

    On the way from the model to the loss, an image's score of its class is made the lowest of all, or exchanged with
    another. A loss for classes, weighted, with a margin or an order of the classes as it may be, is another number
    then; one that has the ids for numbers is not. None where that cannot be tried: targets that are no ids of images,
    outputs that are no single tensor of scores, a loss that calls the model not once or not at all.

    Args:
        evidence: its weights are changed; call it inside `untouched` and `no_grad`.
        most: images that are looked at.
    """
    number = min(len(evidence.images), most)
    images, targets = subset(evidence, range(number))
    ids = labels_of(targets)
    if ids is None or ids.is_floating_point() or ids.shape != (number,):
        return None
    roughen(evidence.model)
    swapping = _Swapping(ids)
    handle = evidence.model.register_forward_hook(swapping)
    try:
        before = float(loss_of(evidence, images, targets))
        scores = swapping.seen
        if scores is None or swapping.calls != 1 or not math.isfinite(before):
            return None
        classes = scores.shape[1]
        present = sorted({one for one in ids.tolist() if 0 <= one < classes})
        unread = []
        for own in present:
            for other in (own, *[*range(own + 1, classes), *range(own)][:_TRIED]):
                gap = (scores[:, own] - scores[:, other])[ids == own].abs()
                if other != own and float(gap.min()) < 1e-3 * float(scores.abs().max()):
                    continue  # nothing to exchange
                swapping.pair = (own, other)
                after = float(loss_of(evidence, images, targets))
                if abs(after - before) <= 1e-6 * abs(before):
                    unread.append(own)
                    break
    finally:
        handle.remove()
    return unread, len(present)


class _Swapping:
    """Exchanges two scores of the images of a class, or lowers one, and keeps the scores as they were."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids
        self.pair: tuple[int, int] | None = None
        self.seen: Tensor | None = None
        self.calls = 0

    def __call__(self, module: nn.Module, args: object, output: object) -> Tensor | None:
        self.calls += 1
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim != 2:
            return None
        if len(output) != len(self.ids) or output.shape[1] < 2:
            return None
        if self.pair is None:
            self.seen = output.detach().clone()
            return None
        own, other = self.pair
        swapped = output.clone()
        if own == other:
            swapped[:, own] = output.min() - (output.max() - output.min()) - 1
        else:
            swapped[:, [own, other]] = output[:, [other, own]]
        return torch.where((self.ids == own).unsqueeze(1), swapped, output)


def _accepted(evidence: ModelEvidence) -> bool:
    """Whether the loss takes the targets as they are."""
    try:
        return math.isfinite(float(loss_of(evidence)))
    except (IndexError, RuntimeError, ValueError):
        return False


def _differ(a: Any, b: Any) -> bool:  # noqa: ANN401 - targets of whatever kind
    pairs = list(zip(tensors_in(a), tensors_in(b), strict=True))
    return any(one.shape != other.shape or not torch.equal(one, other) for one, other in pairs)
