"""What outputs depend on: on the image, and on no other image of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  # of all dimensions

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.input_reach import UNCHANGED, input_reach, rows_of
from clearsight.doctor.model.overfit import Overfit, overfit
from clearsight.doctor.model.probing import outputs_of, roughen, trained_parameters, untouched
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["ImagesNotLearned", "InputUnread", "SamplesMixed"]


class InputUnread(Rule[ModelEvidence]):
    """The model says the same of every image, whatever its weights are.

    Outputs are compared over the batch, with the weights as they are and with all parameters drawn anew (He's rule, no
    biases). The second tells code that drops the image from units that are dead or weights that are zero, which have
    rules of their own (`dead-at-start`, `identical-units`): drawn anew, those let the image through.

    Args:
        images: that are compared, at most.
    """

    id = "input-ignored"
    source = "Karpathy 2019, A recipe for training neural networks (input-independent baseline)"

    def __init__(self, *, images: int = 16) -> None:
        self.images = images

    def lacks(self, evidence: ModelEvidence) -> str:
        """Two images."""
        return "a batch of two images" if len(evidence.images) < 2 else ""

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        images = evidence.images[: self.images]
        moved = input_reach(evidence, self.images)
        if moved is None or moved > UNCHANGED:
            return
        if bool((images == images[:1]).all()):
            text = f"All {len(images)} images that were looked at are the same: look at what loads them."
        else:
            text = (
                f"The model says the same of {len(images)} images, with its own weights and with weights drawn anew. "
                "Look for an input that is not used, overwritten, multiplied by zero, or averaged away."
            )
        yield Finding(
            id=self.id,
            severity="error",
            where="model",
            explanation=text,
            evidence={"row": "P5", "images": len(images), "moved": moved, "threshold": UNCHANGED},
            source=self.source,
        )


class ImagesNotLearned(Rule[ModelEvidence]):
    """A model that was trained on a few images is as good without them.

    It is the model of `overfit`'s probe that is asked. Where outputs are the same for every image, that is certain;
    where a classifier's losses are no worse with swapped and with blank images (Welch's test), it is likely. What needs
    no training to be seen is left to `InputUnread`, which runs before.

    Args:
        p: of Welch's one-sided test, above which losses are no worse.
        images: fewest for the test.
        seconds: of the probe; give all rules that read it the same.
    """

    id = "images-not-learned"
    source = "Karpathy 2019, A recipe for training neural networks (input-independent baseline)"

    def __init__(self, *, p: float = 0.05, images: int = 8, seconds: float = 20.0) -> None:
        self.p, self.images, self.seconds = p, images, seconds

    def lacks(self, evidence: ModelEvidence) -> str:
        """Two images and something to train."""
        if len(evidence.images) < 2:
            return "a batch of two images"
        return "" if trained_parameters(evidence.model) else "parameters to train"

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        if any(True for _ in InputUnread().check(evidence)):
            return
        probe = overfit(evidence, seconds=self.seconds)
        facts = {"row": "P5", "images": probe.images, "moved": probe.moved}
        if probe.input_unread:
            yield self._finding(
                f"The model says the same of {probe.images} images with different labels, even after it was trained on "
                "them. With weights drawn anew it does not: look for dead units, and for weights or gates that are "
                "zero and stay so.",
                facts,
            )
            return
        tested = self._test(probe)
        if tested is not None and min(tested.values()) > self.p:
            yield self._finding(
                f"After training on {probe.images} images the loss is no worse with other images (p = "
                f"{tested['swapped']:.2f}) and with blank ones (p = {tested['blank']:.2f}) in their place; below "
                f"{self.p:g} is expected. What is learned does not come from the images.",
                {**facts, **tested, "threshold": self.p},
            )

    def _test(self, probe: Overfit) -> dict[str, float] | None:
        """How likely losses with other images are no worse by chance alone; None where the losses are no evidence."""
        if probe.accuracy is None or not probe.complete or len(probe.real) < self.images:
            return None
        from scipy.stats import ttest_ind

        found = {}
        for name, losses in (("swapped", probe.swapped), ("blank", probe.blank)):
            result: Any = ttest_ind(losses, probe.real, equal_var=False, alternative="greater")
            p = float(result.pvalue)
            found[name] = p if p == p else float(losses <= probe.real)  # NaN where nothing varies
        return found

    def _finding(self, explanation: str, facts: dict[str, object]) -> Finding:
        return Finding(
            id=self.id,
            severity="warning",
            where="model",
            explanation=explanation,
            evidence=facts,
            source=self.source,
        )


class SamplesMixed(Rule[ModelEvidence]):
    """In evaluation mode the output of one image changes with another image of the batch.

    Half of the images are replaced by others, and the outputs of the rest have to stay. In training mode a batch norm
    mixes on purpose; in evaluation mode nothing does.

    Args:
        tolerance: change of an output, relative to the outputs' deviation, that is rounding.
    """

    id = "samples-mixed"
    source = "Karpathy 2019, A recipe for training neural networks (use backprop to chart dependencies)"

    def __init__(self, *, tolerance: float = 1e-3) -> None:
        self.tolerance = tolerance

    def lacks(self, evidence: ModelEvidence) -> str:
        """Four images."""
        return "a batch of four images" if len(evidence.images) < 4 else ""

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        number = min(len(evidence.images), 8) // 2 * 2
        images = evidence.images[:number]
        with untouched(evidence.model), torch.no_grad():
            evidence.model.eval()
            roughen(evidence.model)  # what starts at zero hides what lies before it
            before = rows_of(outputs_of(evidence, images), number)
            changed = {}
            for kept in ([*range(number // 2)], [*range(0, number, 2)]):
                shown = images.flip(-1).roll(1, 0)  # other images everywhere, and then these
                shown[kept] = images[kept]
                changed[tuple(kept)] = _change(before, rows_of(outputs_of(evidence, shown), number), kept)
        most = max(changed.values())
        if most <= self.tolerance:
            return
        own = [
            name
            for name, module in evidence.model.named_modules()
            if isinstance(module, _BatchNorm) and not module.track_running_stats
        ]
        yield Finding(
            id=self.id,
            severity="info" if own else "error",
            where=own[0] if own else "model",
            explanation=(
                f"In evaluation mode an output changes by {most:.2g} deviations when other images of its batch do; "
                + (
                    f"{len(own)} batch norms keep no running statistics, so a prediction depends on its neighbours."
                    if own
                    else "each image has to stand for itself. Look for `view` or `reshape` across the batch axis where "
                    "`permute` is meant, a softmax or mean over axis 0, and attention with the batch second."
                )
            ),
            evidence={"row": "P6", "change": most, "threshold": self.tolerance, "images": number},
            source=self.source,
        )


def _change(before: list[Tensor], after: list[Tensor], kept: list[int]) -> float:
    """Largest change at kept images, in the deviation between images, or a thousandth of the size if that is more."""
    most = 0.0
    for one, other in zip(before, after, strict=True):
        if one.shape != other.shape or not one.numel():
            continue
        scale = float(torch.maximum(one.std(0).mean(), 1e-3 * one.abs().mean()))
        most = max(most, float((one - other)[kept].abs().max()) / max(scale, 1e-12))
    return most
