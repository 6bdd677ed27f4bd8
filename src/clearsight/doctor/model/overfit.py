"""Whether a model can learn a few images by heart, with the probe that other rules read too."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  # of all dimensions

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.input_reach import UNCHANGED, input_reach
from clearsight.doctor.model.loss_form import find_form, smoothed_floor
from clearsight.doctor.model.probing import (
    first_logits,
    labels_of,
    loss_of,
    outputs_of,
    plain_loss,
    subset,
    trained_parameters,
    undropped,
    untouched,
)
from clearsight.doctor.rule import Rule
from clearsight.measure.replica import tensors_in
from clearsight.types import Finding, Severity

__all__ = ["CannotOverfit", "Overfit", "overfit"]

RATES = (3e-3, 3e-4)  # of Adam: the first suits small networks, the second those that the first one breaks


@dataclass(frozen=True, slots=True, kw_only=True)
class Overfit:
    """What came of training on a few images again and again.

    Args:
        images: how many.
        steps: that the better run made.
        first: loss before.
        last: least loss that it reached.
        floor: least loss that smoothed labels or mixed ones allow; 0 where none is known.
        accuracy: of these images at the end; None where targets are no class ids of images.
        goal: loss that is small enough.
        complete: the goal is reached, or every step was made; else time ran out.
        seconds: what the better run took.
        real: loss of each image in evaluation mode afterwards; these three are empty where all have one label
            or time ran out.
        swapped: the same, with an image of another label in its place.
        blank: the same, with zeros in its place.
        moved: by how much outputs differ between images, relative to their size; None without a row an image.
    """

    images: int
    steps: int
    first: float
    last: float
    floor: float
    accuracy: float | None
    goal: float
    complete: bool
    seconds: float
    real: tuple[float, ...] = ()
    swapped: tuple[float, ...] = ()
    blank: tuple[float, ...] = ()
    moved: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the loss is small enough, and every image right."""
        return self.last <= self.goal and self.accuracy in (None, 1.0)

    @property
    def share(self) -> float:
        """Part of the first loss, above the floor, that is left."""
        return (self.last - self.floor) / max(self.first - self.floor, 1e-12)

    @property
    def input_unread(self) -> bool:
        """Whether the model says the same of every image."""
        return self.moved is not None and self.moved <= UNCHANGED


class CannotOverfit(Rule[ModelEvidence]):
    """A few images, again and again, and the loss does not fall as it has to.

    A classifier has to reach 5 % of its first loss (above what smoothed labels leave) with every image right, other
    models half of it. A wrong loss, wrong labels, a part without gradient or dead units are what usually hinders it.

    Args:
        images: at most.
        steps: of each of two runs, at most.
        seconds: for all of it; where it is short, fewer images are taken, and a run that is cut is no evidence unless
            the loss has hardly moved.
    """

    id = "cannot-overfit"
    source = "Karpathy 2019, A recipe for training neural networks; DeepChecker, Ben Braiek and Khomh 2023 (ACM TOSEM)"

    def __init__(self, *, images: int = 16, steps: int = 300, seconds: float = 20.0) -> None:
        self.images, self.steps, self.seconds = images, steps, seconds

    def lacks(self, evidence: ModelEvidence) -> str:
        """Something to train, on two images."""
        if len(evidence.images) < 2:
            return "a batch of two images"
        return "" if trained_parameters(evidence.model) else "parameters to train"

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        probe = overfit(evidence, images=self.images, steps=self.steps, seconds=self.seconds)
        if probe.reached or (not probe.complete and (probe.share < 0.9 or probe.steps < 50)):
            return
        broken = not math.isfinite(probe.first)
        severity: Severity = "warning" if probe.complete and (broken or probe.share > 0.5) else "info"
        correct = "" if probe.accuracy is None else f", {probe.accuracy:.0%} of them right"
        floor = f" (smoothed labels leave {probe.floor:.3g})" if probe.floor > 0.01 else ""
        yield Finding(
            id=self.id,
            severity=severity,
            where="model",
            explanation=f"After {probe.steps} steps of Adam on the same {probe.images} images the loss is "
            f"{probe.last:.3g}{correct}, from {probe.first:.3g} before; a sound model reaches {probe.goal:.3g}{floor}. "
            f"The limit was {self.steps} steps and {self.seconds:g} s. Look at the loss, at the labels of a batch, and "
            "for parts that get no gradient.",
            evidence={
                "row": "P4",
                "images": probe.images,
                "steps": probe.steps,
                "first": probe.first if math.isfinite(probe.first) else repr(probe.first),
                "last": probe.last if math.isfinite(probe.last) else repr(probe.last),
                "threshold": probe.goal if math.isfinite(probe.goal) else repr(probe.goal),
                "accuracy": probe.accuracy,
                "seconds": round(probe.seconds, 2),
                "complete": probe.complete,
            },
            source=self.source,
            because=_why_unread(evidence) if probe.input_unread else "",
        )


def _why_unread(evidence: ModelEvidence) -> str:
    """The fault that is told of outputs that are the same for every image: of the code, or only after training."""
    moved = input_reach(evidence)
    return "input-ignored" if moved is not None and moved <= UNCHANGED else "images-not-learned"


# ------------------------------------------------------------------------------------------------ the probe
def overfit(evidence: ModelEvidence, *, images: int = 16, steps: int = 300, seconds: float = 20.0) -> Overfit:
    """Train on the batch's first images with Adam, measure, and put everything back.

    What drops at random is switched off. A second run with a tenth of the rate follows where the first one fails. The
    answer is kept with the evidence, so that several rules cost one probe.

    Args:
        evidence: of which at most `images` images are taken; fewer where steps take so long that the time is short.
        images: at most.
        steps: of each run, at most.
        seconds: for all of it.
    """
    known: dict[tuple[int, int, float], Overfit] = vars(evidence).setdefault("_overfit", {})
    key = (images, steps, seconds)
    if key not in known:
        with untouched(evidence.model):
            undropped(evidence.model)
            known[key] = _probe(evidence, images, steps, seconds)
    return known[key]


def _probe(evidence: ModelEvidence, images: int, steps: int, seconds: float) -> Overfit:
    until = time.perf_counter() + seconds
    number = _affordable(evidence, min(images, len(evidence.images)), seconds / max(steps, 1))
    floor = _floor(evidence)
    found: list[Overfit] = []
    for rate in RATES:
        if not found or (found[-1].complete and not found[-1].reached):
            with untouched(evidence.model):
                found.append(_run(evidence, number, floor, rate, steps, until))
    return min(found, key=lambda one: (not one.reached, one.last))


def _affordable(evidence: ModelEvidence, number: int, seconds: float) -> int:
    """Images whose step takes `seconds` at most, and two at least."""
    took = math.inf
    for _ in range(2):  # the first call may prepare things
        begun = time.perf_counter()
        loss = loss_of(evidence, *subset(evidence, range(number)))
        if loss.requires_grad:
            loss.backward()
        took = time.perf_counter() - begun
    evidence.model.zero_grad()
    return max(2, min(number, int(number * 0.7 * seconds / max(took, 1e-9))))


def _floor(evidence: ModelEvidence) -> float:
    """The least loss that the labels allow: their own entropy."""
    form, labels = find_form(evidence), labels_of(evidence.targets)
    if form is None or labels is None:
        return 0.0
    if form.name == "soft cross entropy":
        return float(torch.special.entr(labels.double()).sum(1).mean())
    section = evidence.recipe.get("model", {})
    told = section.get("label_smoothing") or (section.get("loss") or {}).get("label_smoothing") or 0.0
    return smoothed_floor(max(form.smoothing, float(told)), form.classes)


def _run(evidence: ModelEvidence, number: int, floor: float, rate: float, steps: int, until: float) -> Overfit:
    """One run; the model is left as it ends."""
    begun, (images, targets) = time.perf_counter(), subset(evidence, range(number))
    strict = _ids(evidence) is not None
    adam = torch.optim.Adam(trained_parameters(evidence.model), lr=rate)
    torch.manual_seed(0)
    losses: list[float] = []
    goal, right = -math.inf, False
    while True:
        adam.zero_grad()
        loss = plain_loss(evidence, images, targets)
        losses.append(float(loss.detach()))
        if len(losses) == 1:
            left = losses[0] - floor
            goal = floor + (max(0.05 * left, 0.02) if strict else 0.5 * left)
        right = losses[-1] <= goal and _accuracy(evidence, number) in (None, 1.0)
        ended = right or len(losses) > steps or not math.isfinite(losses[-1]) or not loss.requires_grad
        if ended or time.perf_counter() > until:
            break
        loss.backward()
        adam.step()
    found = Overfit(
        images=number,
        steps=len(losses) - 1,
        first=losses[0],
        last=losses[-1] if right else min(filter(math.isfinite, losses), default=math.inf),
        floor=floor,
        accuracy=_accuracy(evidence, number),
        goal=goal,
        complete=ended,
        seconds=time.perf_counter() - begun,
    )
    return _with_swaps(evidence, found)


def _ids(evidence: ModelEvidence) -> Tensor | None:
    """Class ids of images."""
    labels = labels_of(evidence.targets)
    one_each = labels is not None and labels.ndim == 1 and not labels.is_floating_point()
    return labels if one_each and evidence.task in (None, "classification") else None


def _accuracy(evidence: ModelEvidence, number: int) -> float | None:
    ids = _ids(evidence)
    with torch.no_grad():
        logits = first_logits(outputs_of(evidence, evidence.images[:number]), number)
    if ids is None or logits is None or logits.ndim != 2 or logits.shape[1] < 2:
        return None
    return float((logits.argmax(1) == ids[:number]).double().mean())


# ------------------------------------------------------------------------------------------------ other images instead
def _with_swaps(evidence: ModelEvidence, found: Overfit) -> Overfit:
    """With what the trained model says when images change places."""
    with torch.no_grad():
        _settle_norms(evidence, found.images)
        evidence.model.eval()
        partner = _partners(evidence, found.images)
        if partner is None:
            return found
        images = evidence.images[: found.images]
        rows = [
            t.double() for t in tensors_in(outputs_of(evidence, images)) if t.is_floating_point() and _is_row(t, images)
        ]
        moves = [float((t - t[partner]).norm() / t.norm().clamp(min=1e-12)) for t in rows]
        if not found.complete:  # short of time
            return replace(found, moved=max(moves, default=None))
        losses = {"real": images, "swapped": images[partner], "blank": torch.zeros_like(images)}
        measured = {name: _each(evidence, shown) for name, shown in losses.items()}
    return replace(found, moved=max(moves, default=None), **measured)


def _is_row(tensor: Tensor, images: Tensor) -> bool:
    return tensor.ndim > 1 and len(tensor) == len(images)


def _each(evidence: ModelEvidence, images: Tensor) -> tuple[float, ...]:
    """The loss of each image alone, against the target at its place."""
    return tuple(
        float(loss_of(evidence, images[i : i + 1], evidence.take(evidence.targets, [i]))) for i in range(len(images))
    )


def _partners(evidence: ModelEvidence, number: int) -> list[int] | None:
    """For each image the next one of another label; None where all have one label."""
    ids = _ids(evidence)
    if ids is None:
        return [(i + 1) % number for i in range(number)]
    labels = ids[:number].tolist()
    if len(set(labels)) < 2:
        return None
    around = range(1, number)
    return [next((i + d) % number for d in around if labels[(i + d) % number] != labels[i]) for i in range(number)]


def _settle_norms(evidence: ModelEvidence, number: int) -> None:
    """Give batch norms the statistics of these images, which a short training has not reached yet."""
    norms = [m for m in evidence.model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean, here of one batch
        outputs_of(evidence, evidence.images[:number])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
