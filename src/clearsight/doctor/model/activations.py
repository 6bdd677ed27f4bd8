"""What comes out of layers before training: its scale through the depth, and units that never speak."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]  # what all convolutions are
from torch.overrides import TorchFunctionMode

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.kinds import units
from clearsight.doctor.model.probing import outputs_of, untouched
from clearsight.doctor.rule import Rule
from clearsight.types import Finding, Severity

__all__ = ["ActivationScale", "DeadAtStart"]


class ActivationScale(Rule[ModelEvidence]):
    """Outputs of layers grow or shrink from layer to layer, until gradients do.

    The deviation of every convolution's and linear layer's output is followed through the depth. A drift is a slope of
    its logarithm (the median of the slopes between any two layers) beyond `ratio`, with two layers at least outside of
    `band`; one small layer, such as a last one that is meant to start near zero, is none. Growth is a warning there and
    then, as no usual initialisation grows; shrinking is one below `severe`, as PyTorch's own shrinks a little.

    Where biases hide it, the part that differs between images shrinks alone: beyond `signal` and below `severe` that is
    a warning too. PyTorch's own initialisation loses √6 a layer behind a ReLU; `signal` is twice that.

    Args:
        ratio: from layer to layer, either way.
        band: healthy deviations.
        severe: deviation below which shrinking is a warning, as normalised or residual networks do not reach it.
        signal: ratio from layer to layer of what differs between images.
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
    ) -> None:
        self.ratio, self.band, self.severe, self.signal = ratio, band, severe, signal

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        with untouched(evidence.model), torch.no_grad():
            scales, signals = output_scales(evidence)
        broken = next((name for name, scale in scales if not math.isfinite(scale)), None)
        if broken is not None:
            yield self._finding("error", broken, scales, f"The output of {broken} is not finite before any step")
            return
        found = next(self._drift(scales), None) or next(self._hidden(signals), None)
        if found is not None:
            yield found

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


# ------------------------------------------------------------------------------------------------ silent units
class DeadAtStart(Rule[ModelEvidence]):
    """Channels behind a ReLU that are zero for every image of the batch, so that they get no gradient.

    Zeros alone are no sign: half of all outputs of a healthy ReLU are zero. A layer of few units, or one that sees a
    single number an image, may have dead ones by chance, so the lower end of Wilson's interval of the share counts.

    Args:
        info: share of a layer's channels from which it is worth knowing.
        warning: share from which it is a warning.
        images: fewest that say something.
    """

    id = "dead-at-start"
    source = "Lu et al. 2019, arXiv:1903.06733; share of dead channels: Amazon SageMaker Debugger"

    def __init__(self, *, info: float = 0.3, warning: float = 0.5, images: int = 16) -> None:
        self.info, self.warning, self.images = info, warning, images

    def lacks(self, evidence: ModelEvidence) -> str:
        """A batch that is large enough."""
        found = len(evidence.images)
        return f"a batch of {self.images} images, found {found}" if found < self.images else ""

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """One finding for each layer."""
        with untouched(evidence.model), torch.no_grad():
            layers = silent_channels(evidence)
        for name, (dead, channels, places) in layers.items():
            low = _least_share(dead, channels, z=1.64 if places > 1 else 2.33)
            if low <= self.info:
                continue
            severe = low > self.warning
            yield Finding(
                id=self.id,
                severity="warning" if severe else "info",
                where=name,
                explanation=f"{dead} of {channels} channels behind {name} are zero for all {len(evidence.images)} "
                "images before the first step; healthy networks have up to 14 %. Such units get no gradient: look at "
                "the bias and the scale of the layer before, or use a leaky ReLU.",
                evidence={
                    "row": "T4",
                    "dead": dead,
                    "channels": channels,
                    "share": dead / channels,
                    "threshold": self.warning if severe else self.info,
                },
                source=self.source,
            )


def _least_share(count: int, total: int, *, z: float) -> float:
    """Lower end of Wilson's interval."""
    share, extra = count / total, z * z / total
    return (share + extra / 2 - z * math.sqrt(share * (1 - share) / total + extra / (4 * total))) / (1 + extra)


RELUS = frozenset((F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_))


class _ReluWatch(TorchFunctionMode):
    """Sees every ReLU, whether a module or a function computes it."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.inside: list[str] = []
        self.found: dict[str, tuple[Tensor, int]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        output = func(*args, **(kwargs or {}))
        six = func is F.hardtanh and (*args, *(kwargs or {}).values())[1:3] == (0.0, 6.0)
        if (func in RELUS or six) and output.ndim > 1 and len(output) == self.images:
            axis = -1 if output.ndim == 3 else 1  # tokens have their channels last
            name, number = self.inside[-1] if self.inside else "", 2
            while (key := name if number == 2 else f"{name}#{number - 1}") in self.found:
                number += 1
            spoken = output.detach().movedim(axis, 0).flatten(1)
            self.found[key] = (spoken == 0).all(1), spoken.shape[1] // self.images
        return output


def silent_channels(evidence: ModelEvidence) -> dict[str, tuple[int, int, int]]:
    """Behind each ReLU: channels that are zero everywhere, all channels, and places an image.

    Args:
        evidence: its model is run once, in the mode it is in; call it inside `untouched`.
    """
    watch = _ReluWatch(len(evidence.images))
    with _named(evidence.model, watch.inside), watch:
        outputs_of(evidence)
    return {name: (int(dead.sum()), len(dead), places) for name, (dead, places) in watch.found.items()}


@contextmanager
def _named(model: nn.Module, inside: list[str]) -> Iterator[None]:
    """Keeps the names of the modules that are running, the innermost last."""
    handles = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    def leave(*_: object) -> None:
        inside.pop()

    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()
