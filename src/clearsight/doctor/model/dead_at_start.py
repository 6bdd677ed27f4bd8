"""Units that say nothing before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.probing import outputs_of, untouched
from clearsight.doctor.rule import Rule
from clearsight.types import Finding, Severity

__all__ = ["DeadAtStart", "Silence", "silent_channels"]


class Silence(NamedTuple):
    """What was seen behind one ReLU.

    Args:
        dead: channels that are zero everywhere in every image.
        open: channels that are above zero everywhere.
        channels: all of them.
        places: of one image at which a channel is computed.
    """

    dead: int
    open: int
    channels: int
    places: int


class DeadAtStart(Rule[ModelEvidence]):
    """Channels behind a ReLU that are zero for every image of the batch, so that they get no gradient.

    Zeros alone are no sign: half of all outputs of a healthy ReLU are zero. A layer of few units, or one that sees a
    single number an image, may have dead ones by chance, so the lower end of Wilson's interval of the share counts.

    Where no layer says enough by itself, all layers are taken together. A network whose layers see hardly more than
    their biases, as a deep one without norms does by PyTorch's own initialisation, has dead channels and as many that
    are above zero for every image; that is `activation-scale`'s. So together they count where dead ones are `outweigh`
    times as many.

    Args:
        info: share of a layer's channels from which it is worth knowing.
        warning: share from which it is a warning.
        pooled: share of all layers' channels from which it is one; sound networks have 14 % in their worst layer.
        outweigh: dead channels for each that is never silent; 0.9 to 1.8 in networks that see only their biases.
        layers: fewest that are taken together.
        channels: fewest of all these.
        images: fewest that say something.
    """

    id = "dead-at-start"
    source = "Lu et al. 2019, arXiv:1903.06733; share of dead channels: Amazon SageMaker Debugger"

    def __init__(
        self,
        *,
        info: float = 0.3,
        warning: float = 0.5,
        pooled: float = 0.3,
        outweigh: float = 3.0,
        layers: int = 3,
        channels: int = 32,
        images: int = 16,
    ) -> None:
        self.info, self.warning, self.pooled, self.outweigh = info, warning, pooled, outweigh
        self.layers, self.channels, self.images = layers, channels, images

    def lacks(self, evidence: ModelEvidence) -> str:
        """A batch that is large enough."""
        found = len(evidence.images)
        return f"a batch of {self.images} images, found {found}" if found < self.images else ""

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """One finding for each layer, or one for all together."""
        with untouched(evidence.model), torch.no_grad():
            layers = silent_channels(evidence)
        found = [one for name, seen in layers.items() if (one := self._of_layer(name, seen, evidence)) is not None]
        if all(one.severity == "info" for one in found) and (together := self._of_all(layers, evidence)) is not None:
            found = [together]
        yield from found

    def _of_layer(self, name: str, seen: Silence, evidence: ModelEvidence) -> Finding | None:
        low = _least_share(seen.dead, seen.channels, level=0.9 if seen.places > 1 else 0.98)
        if low <= self.info:
            return None
        severe = low > self.warning
        return self._finding(
            "warning" if severe else "info",
            name,
            f"{seen.dead} of {seen.channels} channels behind {name}",
            evidence,
            {
                "dead": seen.dead,
                "channels": seen.channels,
                "share": seen.dead / seen.channels,
                "threshold": self.warning if severe else self.info,
            },
        )

    def _of_all(self, layers: Mapping[str, Silence], evidence: ModelEvidence) -> Finding | None:
        dead, never = (sum(counts) for counts in ([s.dead for s in layers.values()], [s.open for s in layers.values()]))
        channels = sum(seen.channels for seen in layers.values())
        if len(layers) < self.layers or channels < self.channels or dead < self.outweigh * never:
            return None
        if _least_share(dead, channels, level=0.98) <= self.pooled:
            return None
        worst = max(layers, key=lambda name: layers[name].dead / layers[name].channels)
        return self._finding(
            "warning",
            worst,
            f"{dead} of {channels} channels behind the {len(layers)} ReLUs of the model, most of them behind {worst},",
            evidence,
            {
                "dead": dead,
                "channels": channels,
                "share": dead / channels,
                "layers": {name: seen.dead / seen.channels for name, seen in [*layers.items()][:20]},
                "threshold": self.pooled,
            },
        )

    def _finding(
        self, severity: Severity, where: str, which: str, evidence: ModelEvidence, facts: dict[str, Any]
    ) -> Finding:
        return Finding(
            id=self.id,
            severity=severity,
            where=where,
            explanation=f"{which} are zero for all {len(evidence.images)} images before the first step; healthy "
            "networks have up to 14 %. Such units get no gradient: look at the bias and the scale of the layer before, "
            "or use a leaky ReLU.",
            evidence={"row": "T4", **facts},
            source=self.source,
        )


def _least_share(count: int, total: int, *, level: float) -> float:
    """Lower end of Wilson's interval."""
    from scipy.stats import binomtest

    return float(binomtest(count, total).proportion_ci(level, method="wilson").low)


RELUS = frozenset((F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_))


class _ReluWatch(TorchFunctionMode):
    """Sees every ReLU, whether a module or a function computes it."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.inside: list[str] = []
        self.found: dict[str, tuple[Tensor, Tensor, int]] = {}

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
            self.found[key] = (spoken == 0).all(1), (spoken > 0).all(1), spoken.shape[1] // self.images
        return output


def silent_channels(evidence: ModelEvidence) -> dict[str, Silence]:
    """What is seen behind each ReLU, in the order of use.

    Args:
        evidence: its model is run once, in the mode it is in; call it inside `untouched`.
    """
    watch = _ReluWatch(len(evidence.images))
    with _named(evidence.model, watch.inside), watch:
        outputs_of(evidence)
    return {
        name: Silence(int(dead.sum()), int(never.sum()), len(dead), places)
        for name, (dead, never, places) in watch.found.items()
    }


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
