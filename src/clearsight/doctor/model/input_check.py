"""Whether the batch reaches the model as networks want it: normalised, channels first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]  # what all convolutions are

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.kinds import MOVES, is_norm
from clearsight.doctor.model.probing import outputs_of, untouched
from clearsight.doctor.rule import Rule
from clearsight.types import Finding, Severity

__all__ = ["InputNotNormalised", "WrongLayout", "first_input"]

CHANNELS = (1, 3, 4)


class InputNotNormalised(Rule[ModelEvidence]):
    """What the first layer with weights reads is far from mean 0 and deviation 1, by channel.

    The input of that layer counts and not the batch, as a model may normalise integer pixels itself. Pixels in [0, 1],
    z-scores, and grey levels of a few dark images all pass. Where all that the layer gives goes into a norm, a large
    scale is only worth knowing: the norm divides by it, so that outputs and gradients are what they were.

    Args:
        off_centre: mean in deviations that is worth knowing, and that which is a warning: m of them make the steepest
            direction of the loss about 1 + m² times as steep as the others.
        small: deviation that is worth knowing, and that which is a warning.
        large: deviation that is a warning.
    """

    id = "input-not-normalised"
    source = "LeCun et al. 1998, Efficient BackProp, section 4.3; UMLAUT, Schoop et al. 2021 (CHI)"

    def __init__(
        self,
        *,
        off_centre: tuple[float, float] = (3.0, 5.0),
        small: tuple[float, float] = (0.05, 0.01),
        large: float = 20.0,
    ) -> None:
        self.off_centre, self.small, self.large = off_centre, small, large

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        for severity, where, text, facts in self._judge(evidence):
            other = evidence.recipe.get("data", {}).get("normalize", "data") != "data"
            yield Finding(
                id=self.id,
                severity=severity,
                where=where,
                explanation=f"{text}. Each channel should have mean 0 and deviation 1 over the training images, more "
                "or less.",
                evidence={"row": "P8", **facts},
                remedy={"data.normalize": "data"} if other and "threshold" in facts else {},
                source=self.source,
            )

    def _judge(self, evidence: ModelEvidence) -> Iterator[tuple[Severity, str, str, dict[str, Any]]]:
        """Severity, layer, what is wrong, and the numbers."""
        with untouched(evidence.model), torch.no_grad():
            found = first_input(evidence)
        name, x = ("images", evidence.images) if found is None else (found[0], found[2])
        if x.shape[0] != len(evidence.images) or x.numel() < 2:
            return
        spatial = x.ndim == 4 and x.shape[1] == evidence.images.shape[1]
        rows = (x.movedim(1, 0) if spatial else x).reshape(x.shape[1] if spatial else 1, -1).double()
        means, deviations = rows.mean(1), rows.std(1)
        mean, deviation = float(means.abs().max()), float(deviations.mean())
        constant = (deviations <= 1e-6 * means.abs().clamp(min=1e-3)).tolist()
        facts: dict[str, Any] = {"means": means.tolist()[:20], "deviations": deviations.tolist()[:20]}
        if not bool(torch.isfinite(rows).all()):
            yield "error", name, "The input has values that are not finite", {}
        elif any(constant):
            channels = [number for number, one in enumerate(constant) if one]
            text = "The input is one number" if all(constant) else f"Channels {channels[:20]} are the same everywhere"
            yield "warning" if all(constant) else "info", name, text, {**facts, "channels": channels[:20]}
        elif deviation > self.large:
            norm = _norm_after(evidence, name)
            text = f"The deviation of the input is {deviation:.3g}, above {self.large:g}: pixels up to 255?"
            text += f" The norm {norm} divides by it again" if norm else ""
            facts |= {"norm": norm} if norm else {}
            yield "info" if norm else "warning", name, text, {**facts, "threshold": self.large}
        elif deviation < self.small[0]:
            severe = deviation < self.small[1]
            text = f"The deviation of the input is {deviation:.2g}: divided by 255 twice?"
            yield "warning" if severe else "info", name, text, {**facts, "threshold": self.small[severe]}
        else:
            far = float((means.abs() / deviations).max())
            severe = far > self.off_centre[1]
            if far > self.off_centre[0]:
                text = f"A channel's mean is {mean:.3g}, {far:.1f} of its deviations from 0"
                yield "warning" if severe else "info", name, text, {**facts, "threshold": self.off_centre[severe]}


def _norm_after(evidence: ModelEvidence, name: str) -> str:
    """The norm that takes up the scale of all that a layer gives; empty where something else reads it too."""
    flow = evidence.flow
    node = flow.nodes.get(name)
    if node is None or flow.lacks or any(call in flow.outputs or not flow.after(call) for call in node.calls):
        return ""
    edges = [edge for call in node.calls for edge in flow.after(call)]
    norms = [flow.nodes[edge.consumer.module] for edge in edges]
    held = any(not norm.training and getattr(norm.module, "track_running_stats", False) for norm in norms)
    taken = all(is_norm(norm.module) for norm in norms) and all(set(edge.operations) <= MOVES for edge in edges)
    return norms[0].name if taken and not held else ""


def first_input(evidence: ModelEvidence) -> tuple[str, nn.Module, Tensor] | None:
    """The first convolution or linear layer that runs, and what it is given; None where there is none.

    Args:
        evidence: its model is run once; call it inside `untouched`.
    """
    seen: list[tuple[str, nn.Module, Tensor]] = []
    handles = []

    def watch(name: str):  # noqa: ANN202 - a hook
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not seen and args and isinstance(args[0], Tensor):
                seen.append((name, module, args[0].detach().clone()))

        return hook

    try:
        for name, module in evidence.model.named_modules():
            if isinstance(module, (_ConvNd, nn.Linear)):
                handles.append(module.register_forward_pre_hook(watch(name)))
        outputs_of(evidence)
    except (RuntimeError, ValueError):
        if not seen:
            raise  # else the layout may be what it fails on
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else None


# ------------------------------------------------------------------------------------------------ axes
class WrongLayout(Rule[ModelEvidence]):
    """Images whose axes are in another order than the model takes them.

    Channels last, read as channels first; channels-last memory that was viewed, not permuted, as channels first, which
    leaves the colours of neighbours side by side; height and width swapped against boxes or maps.

    Of viewed memory both readings are tried: neighbours are alike, so the reading in which a pixel resembles the one
    beside and below it is the right one. Numbers that channels last would make neighbours are three columns, and three
    rows, apart in images that are laid out as they should be, and differ no less than neighbours there: the ratio is 1
    for noise and 1.5 to 2 for photos, and 0.1 to 0.7 for torn ones, the more the smaller they are.

    Args:
        smallest: side from which an axis is taken for one of space.
        interleaved: ratio of differences between what channels last would make neighbours to those between what
            channels first makes neighbours, or one pixel, below which memory is channels last.
    """

    id = "wrong-layout"
    source = "UMLAUT, Schoop et al. 2021 (CHI)"

    def __init__(self, *, smallest: int = 8, interleaved: float = 0.8) -> None:
        self.smallest, self.interleaved = smallest, interleaved

    def lacks(self, evidence: ModelEvidence) -> str:
        """Images with two axes of space."""
        return "" if evidence.images.ndim == 4 else "images (n, c, h, w)"

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        n, channels, height, width = evidence.images.shape
        shape = {"row": "P9", "shape": [n, channels, height, width]}
        if width in CHANNELS and channels not in CHANNELS and min(channels, height) >= self.smallest:
            if not _reads_flat(evidence):
                yield self._finding(
                    f"Images are {(n, channels, height, width)}: {channels} channels and {width} columns, which looks "
                    "like channels last. Pass `images.permute(0, 3, 1, 2)`.",
                    shape,
                )
            return
        ratio = _interleaving(evidence.images) if min(height, width) >= self.smallest else 1.0
        if channels in (3, 4) and ratio < self.interleaved and not _reads_flat(evidence):
            yield self._finding(
                f"Numbers {channels} apart in a row differ {1 / max(ratio, 1e-9):.1f} times less than neighbouring "
                "rows and channels: the channels of a pixel lie side by side. Use `permute(0, 3, 1, 2)` in place of "
                "`view` or `reshape`.",
                {**shape, "ratio": ratio, "threshold": self.interleaved},
            )
        elif (swapped := _swapped(evidence.targets, height, width)) is not None:
            yield self._finding(
                f"Images are {height} high and {width} wide, and {swapped} fit into {width} by {height} only: height "
                "and width are swapped in one of them.",
                shape,
            )

    def _finding(self, explanation: str, facts: dict[str, Any]) -> Finding:
        return Finding(
            id=self.id,
            severity="error",
            where="images",
            explanation=explanation,
            evidence=facts,
            source=self.source,
        )


def _reads_flat(evidence: ModelEvidence) -> bool:
    """Whether the first layer is a linear one, to which the order of axes means nothing."""
    with untouched(evidence.model), torch.no_grad():
        try:
            found = first_input(evidence)
        except (RuntimeError, ValueError):
            return False
    return found is not None and isinstance(found[1], nn.Linear)


def _interleaving(images: Tensor) -> float:
    """Mean difference of what channels last would make neighbours, to that of neighbours as the images are.

    The larger of two (beside and below, were it channels last) by the smaller of two (a row below, another channel of
    the pixel), so that a texture has to be odd in both ways to be taken for the other layout.
    """
    _, channels, height, width = images.shape
    memory = images.double().flatten(1)

    def apart(places: int) -> float:
        return float((memory[:, places:] - memory[:, :-places]).abs().mean())

    other = max(apart(channels), apart(channels * width))
    given = min(apart(width), apart(height * width))
    return other / given if channels > 1 and given > 1e-6 * other else 1.0


def _swapped(targets: Any, height: int, width: int) -> str | None:  # noqa: ANN401 - targets of whatever kind
    """What of the targets fits only with the axes the other way round."""
    if height == width:
        return None
    boxes, semantic = getattr(targets, "boxes", None), getattr(targets, "semantic", None)
    semantic = targets if isinstance(targets, Tensor) and targets.ndim == 3 else semantic
    if isinstance(semantic, Tensor) and tuple(semantic.shape[1:]) == (width, height):
        return "maps of classes"
    if isinstance(boxes, Tensor) and boxes.ndim == 2 and len(boxes):
        right, below = float(boxes[:, 2].max()), float(boxes[:, 3].max())
        if (right > width + 1 or below > height + 1) and right <= height + 1 and below <= width + 1:
            return "boxes"
    return None
