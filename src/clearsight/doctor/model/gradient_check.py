"""Whether gradients are those of the loss: a slope by finite differences against the one by backpropagation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.probing import loss_of, subset, undropped, untouched
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["WrongGradient"]

STEPS = {torch.float64: (1e-6, 2.5e-7), torch.float32: (1e-2, 5e-3)}  # relative to the weights, and to the loss


@dataclass(frozen=True, slots=True)
class _Slopes:
    """The slope of the loss along one direction, by backpropagation, by two step sizes, and on either side."""

    told: float
    seen: tuple[float, float]
    sides: tuple[float, float]

    @property
    def error(self) -> float:
        """Relative difference; infinite slopes differ infinitely."""
        largest = max(abs(self.told), abs(self.seen[1]))
        off = abs(self.told - self.seen[1])
        return off / largest if math.isfinite(off) and largest else math.inf if not math.isfinite(off) else 0.0

    @property
    def unsteady(self) -> float:
        """By how much the two step sizes disagree; infinite at a kink, and where the loss goes in stairs."""
        largest = max(abs(one) for one in (self.told, *self.seen))
        off = abs(self.seen[0] - self.seen[1])
        stairs = self.seen == (0.0, 0.0) and self.told != 0
        kink = abs(self.sides[0] - self.sides[1]) > 0.2 * abs(self.told - self.seen[1])
        return off / largest if largest and math.isfinite(off) and not (stairs or kink) else math.inf


class WrongGradient(Rule[ModelEvidence]):
    """The slope of the loss along random directions is not what backpropagation says.

    In float64 where the model and its loss allow it, else in float32. A difference counts only where two step sizes
    agree with one another, and both sides, and disagree with the gradient, for every direction; a loss that is random,
    has a kink at these weights or goes in stairs (rounded on purpose) is left alone. Detectors and instance models,
    whose targets are made from their own predictions without a gradient on purpose, are not asked.

    Args:
        double: relative error in float64 that is too large.
        single: relative error in float32 that is too large.
        directions: how many.
        images: at most.
    """

    id = "wrong-gradient"
    source = "DeepChecker, Ben Braiek and Khomh 2023 (ACM TOSEM)"

    def __init__(self, *, double: float = 1e-5, single: float = 1e-2, directions: int = 2, images: int = 8) -> None:
        self.double, self.single, self.directions, self.images = double, single, directions, images

    def lacks(self, evidence: ModelEvidence) -> str:
        """A loss whose targets do not hang on the predictions."""
        if evidence.task in ("detection", "instance"):
            return "a loss whose targets do not depend on the predictions"
        return ""

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding, with the parameters that are concerned."""
        found = None
        for kind in (torch.float64, torch.float32):
            with untouched(evidence.model):
                undropped(evidence.model)
                try:
                    found = self._in(evidence, kind)
                except (RuntimeError, TypeError, ValueError):  # layers, losses or targets of a fixed type
                    continue
            break
        if found is not None:
            yield found

    def _in(self, evidence: ModelEvidence, kind: torch.dtype) -> Finding | None:
        images, targets = subset(evidence, range(min(self.images, len(evidence.images))))
        if kind == torch.float64:
            evidence.model.double()
            images = images.double() if images.is_floating_point() else images
            targets = targets.double() if isinstance(targets, Tensor) and targets.is_floating_point() else targets
        probe = _Line(evidence, images, targets)
        if not probe.steady:
            return None
        if probe.kind != kind:
            raise TypeError("the loss is not computed in float64")
        limit = self.double if kind == torch.float64 else self.single
        worst = 0.0
        for number in range(self.directions):
            slopes = probe.along(probe.parameters, number)
            if slopes.error <= limit or slopes.unsteady > slopes.error / 3:
                return None
            worst = max(worst, slopes.error)
        wrong = _wrong_ones(evidence.model, probe, limit)
        return self._finding(worst, limit, wrong, "float64" if kind == torch.float64 else "float32")

    def _finding(self, worst: float, limit: float, wrong: list[str], kind: str) -> Finding:
        where = wrong[-1].rpartition(".")[0] if wrong else "loss"
        return Finding(
            id=self.id,
            severity="warning",
            where=where or "model",
            explanation=f"Along random directions the loss changes otherwise than its gradient says, by {worst:.2g} of "
            f"the slope ({kind}; up to {limit:g} is rounding). Look for a backward pass written by hand, and for "
            "`detach`, `.data`, `no_grad` or `.item()` between a weight and the loss"
            + (f", behind {where or wrong[-1]}." if wrong else "."),
            evidence={
                "row": "P7",
                "error": worst if math.isfinite(worst) else repr(worst),
                "threshold": limit,
                "type": kind,
                "parameters": wrong[:20],
                "count": len(wrong),
            },
            source=self.source,
        )


class _Line:
    """The loss as a function of the weights; dropped units stay the same from call to call."""

    def __init__(self, evidence: ModelEvidence, images: Tensor, targets: Any) -> None:  # noqa: ANN401
        self.evidence, self.images, self.targets = evidence, images, targets
        self.parameters = [p for p in evidence.model.parameters() if p.requires_grad and p.is_floating_point()]
        loss = loss_of(evidence, images, targets)
        self.kind, self.value = loss.dtype, float(loss.detach())
        again = loss_of(evidence, images, targets)
        self.steady = math.isfinite(self.value) and loss.requires_grad and float(again.detach()) == self.value
        if self.steady:
            told = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            self.gradient = {
                id(p): torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, told, strict=True)
            }

    def along(self, parameters: list[nn.Parameter], seed: int) -> _Slopes:
        """Slopes along a random direction of some parameters, as long as they are themselves."""
        torch.manual_seed(seed + 1)
        direction = {id(p): torch.randn_like(p) * _size(p) for p in parameters}
        told = sum(float((self.gradient[key] * way).double().sum()) for key, way in direction.items())
        seen, sides = [], (0.0, 0.0)
        for step in STEPS[self.kind]:
            if self.kind == torch.float32:  # so far that the loss changes by a share of itself, above its rounding
                step = min(step * abs(self.value) / max(abs(told), 1e-12), step)
            ahead = self._moved(parameters, direction, step)
            back = self._moved(parameters, direction, -step)
            seen.append((ahead - back) / (2 * step))
            sides = ((ahead - self.value) / step, (self.value - back) / step)
        return _Slopes(told, (seen[0], seen[1]), sides)

    def _moved(self, parameters: list[nn.Parameter], direction: dict[int, Tensor], step: float) -> float:
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p in parameters:
                p.add_(direction[id(p)], alpha=step)
            try:
                return float(loss_of(self.evidence, self.images, self.targets))
            finally:
                for p, old in zip(parameters, before, strict=True):
                    p.copy_(old)


def _size(parameter: Tensor) -> float:
    """Root mean square of the weights; of those that are zero, a hundredth."""
    return max(float(parameter.detach().square().mean().sqrt()) if parameter.numel() else 0.0, 1e-2)


def _wrong_ones(model: nn.Module, probe: _Line, limit: float) -> list[str]:
    """Names of the parameters whose own slope is wrong, in the order of the model; of the last 60."""
    named = [(name, p) for name, p in model.named_parameters() if id(p) in probe.gradient][-60:]
    wrong = []
    for name, parameter in named:
        slopes = probe.along([parameter], 0)
        if slopes.error > limit and slopes.unsteady <= slopes.error / 3 and max(abs(s) for s in slopes.seen) > 1e-9:
            wrong.append(name)
    return wrong
