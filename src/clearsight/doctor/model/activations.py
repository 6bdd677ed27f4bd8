"""What comes out of layers before training: its scale through the depth, and that of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]  # what all convolutions are

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.kinds import is_norm, units
from clearsight.doctor.model.probing import outputs_of, untouched
from clearsight.doctor.model.weight_scale import as_drawn, times_he
from clearsight.doctor.rule import Rule
from clearsight.types import Finding, Severity

__all__ = ["ActivationScale", "output_scales"]


class ActivationScale(Rule[ModelEvidence]):
    """Outputs of layers grow or shrink from layer to layer, until gradients do.

    The deviation of every convolution's and linear layer's output is followed through the depth. A drift is a slope of
    its logarithm (the median of the slopes between any two layers) beyond `ratio`, with two layers at least outside of
    `band`; one small layer, such as a last one that is meant to start near zero, is none. Growth is a warning there and
    then, as no usual initialisation grows; shrinking is one below `severe`, as PyTorch's own shrinks a little.

    Where biases hide it, the part that differs between images shrinks alone: beyond `signal` and below `severe` that is
    a warning too. PyTorch's own initialisation loses √6 a layer behind a ReLU; `signal` is twice that. What is lost
    from the first layer to the last, whatever the way between, is worth knowing beyond `lost`.

    Norms hide weights of a wrong scale from all this, so weights are looked at too, see `weight_scale`.

    Args:
        ratio: from layer to layer, either way.
        band: healthy deviations.
        severe: deviation below which shrinking is a warning, as normalised or residual networks do not reach it.
        signal: ratio from layer to layer of what differs between images.
        lost: ratio of what differs between images in the first layer to that in the last; PyTorch's own initialisation
            loses 25 in four convolutions, and 40 in ten with connections around them.
        large: times He's rule from which weights are too large; what usual rules give is 1 at most.
        small: times He's rule below which they are too small; PyTorch's own rule gives 0.41.
    """

    id = "activation-scale"
    source = "DeepChecker, Ben Braiek and Khomh 2023 (ACM TOSEM); He et al. 2015, arXiv:1502.01852"

    def __init__(
        self,
        *,
        ratio: float = 2.0,
        band: tuple[float, float] = (0.1, 10.0),
        severe: float = 0.01,
        signal: float = 5.0,
        lost: float = 100.0,
        large: float = 1.75,
        small: float = 0.06,
    ) -> None:
        self.ratio, self.band, self.severe, self.signal = ratio, band, severe, signal
        self.lost, self.large, self.small = lost, large, small

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        with untouched(evidence.model), torch.no_grad():
            scales, signals = output_scales(evidence)
        broken = next((name for name, scale in scales if not math.isfinite(scale)), None)
        if broken is not None:
            yield self._finding("error", broken, scales, f"The output of {broken} is not finite before any step")
            return
        ways = (
            self._drift(scales),
            self._hidden(signals),
            self._weights(evidence, scales, signals),
            self._lost(signals),
        )
        found = [finding for way in ways for finding in way]
        if found:
            yield min(found, key=lambda finding: finding.severity == "info")  # the first warning, else the first

    def _drift(self, scales: list[tuple[str, float]]) -> Iterator[Finding]:
        """Of whole outputs."""
        drift = _drift_of(scales)
        rising = drift > self.ratio
        if not rising and drift >= 1 / self.ratio:
            return
        low, high = self.band
        outside = [name for name, scale in scales if (scale > high if rising else scale < low)]
        if len(outside) < 2:
            return
        severe = rising or sum(scale < self.severe for _, scale in scales) >= 2
        way = "grows" if rising else "shrinks"
        yield self._finding(
            "warning" if severe else "info",
            outside[0],
            scales,
            f"The deviation of layers' outputs {way} {max(drift, 1 / drift):.1f} times a layer, from "
            f"{scales[0][1]:.2g} in the first to {scales[-1][1]:.2g} in the last; healthy networks stay between "
            f"{low:g} and {high:g}",
        )

    def _hidden(self, signals: list[tuple[str, float]]) -> Iterator[Finding]:
        """Of what differs between images, beside biases that do not."""
        drift = _drift_of(signals)
        low = [name for name, signal in signals if signal < self.severe]
        if drift * self.signal < 1 and len(low) >= 2:
            yield self._finding(
                "warning",
                low[0],
                signals,
                f"What differs between images in layers' outputs shrinks {1 / drift:.1f} times a layer, from "
                f"{signals[0][1]:.2g} in the first to {signals[-1][1]:.2g} in the last: little more than biases "
                f"is left; healthy networks lose up to {math.sqrt(6):.1f} times a layer",
                threshold=self.signal,
            )

    def _lost(self, signals: list[tuple[str, float]]) -> Iterator[Finding]:
        """Of what differs between images, from the first layer to the last, where the latter is not zero."""
        first, last = signals[0][1] if signals else 0.0, max((signal for _, signal in signals[-2:]), default=0.0)
        if len(signals) >= 4 and 0 < self.lost * last < first < math.inf:
            yield self._finding(
                "info",
                signals[-1][0],
                signals,
                f"What differs between images in layers' outputs shrinks {first / last:.0f} times, from {first:.2g} in "
                f"the first to {last:.2g} in the last; healthy networks lose 40 times at most",
                threshold=self.lost,
            )

    def _weights(
        self, evidence: ModelEvidence, scales: list[tuple[str, float]], signals: list[tuple[str, float]]
    ) -> Iterator[Finding]:
        """Of weights that are as they were drawn."""
        each = times_he(evidence)
        times = median(each.values()) if each else 1.0
        if self.small <= times <= self.large or not as_drawn(evidence.model, each):
            return
        severity: Severity = "warning"
        if times > self.large:
            if median(dict(scales).get(name, 0.0) for name in each) < times / 2:
                return  # something makes up for it, such as inputs that are scaled down (an equalised rate)
        else:
            normed = any(is_norm(module) for module in evidence.model.modules())
            ends = max((signal for _, signal in signals[-2:]), default=0.0)
            sinks = len(signals) > 1 and ends < self.band[0] * signals[0][1]
            severity = "warning" if sinks and not normed else "info"
        text = f"Weights start {times:.2g} times as large as He's rule would make them"
        threshold = self.large if times > self.large else self.small
        yield self._finding(severity, next(iter(each)), [*each.items()], text, threshold=threshold)

    def _finding(
        self,
        severity: Severity,
        where: str,
        scales: list[tuple[str, float]],
        text: str,
        *,
        threshold: float | None = None,
    ) -> Finding:
        return Finding(
            id=self.id,
            severity=severity,
            where=where,
            explanation=f"{text}. Initialise weights by He's or Glorot's rule (`clearsight.nn.init.init`), or "
            "normalise between layers.",
            evidence={
                "row": "P3",
                "layers": {name: scale if math.isfinite(scale) else repr(scale) for name, scale in scales[:20]},
                "count": len(scales),
                "threshold": threshold or self.ratio,
            },
            source=self.source,
        )


def _drift_of(scales: list[tuple[str, float]]) -> float:
    """From layer to layer: the median of what any two say (Theil and Sen); 1 for fewer than three layers."""
    logs = [(place, math.log(scale)) for place, (_, scale) in enumerate(scales) if 1e-30 < scale < math.inf]
    if len(logs) < 3:
        return 1.0
    thin = logs[:: math.ceil(len(logs) / 200)]  # pairs are many
    return math.exp(median((later - early) / (b - a) for (a, early), (b, later) in combinations(thin, 2)))


def output_scales(evidence: ModelEvidence) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Deviation of the output of each convolution and linear layer at its first use, in the order of use.

    The second is the deviation from image to image: of each channel at each place over the batch, the mean square of
    all of them. It is without layers that were given one row, or have one unit, which may be off by chance.

    Args:
        evidence: its model is run once, in the mode it is in; call it inside `untouched`.
    """
    seen: dict[str, Tensor] = {}
    over_batch: dict[str, Tensor] = {}
    handles = []

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            if name not in seen and isinstance(output, Tensor) and output.numel() > 1:
                values = output.detach().double()
                seen[name] = values.std()
                if output.ndim > 1 and len(output) > 1 and units(module)[1] > 1:
                    over_batch[name] = values.var(0, correction=0).mean().sqrt()

        return hook

    try:
        for name, module in evidence.model.named_modules():
            if isinstance(module, (_ConvNd, nn.Linear)):
                handles.append(module.register_forward_hook(keep(name)))
        outputs_of(evidence)
    finally:
        for handle in handles:
            handle.remove()
    return [(name, float(x)) for name, x in seen.items()], [(name, float(x)) for name, x in over_batch.items()]
