"""Whether the loss survives the precision that training will have."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.probing import loss_of, outputs_of, trained_parameters, undropped, untouched
from clearsight.doctor.rule import Rule
from clearsight.measure.replica import tensors_in
from clearsight.types import Finding, Severity

__all__ = ["PrecisionOverflow"]

LARGEST = 65504.0  # of float16
TYPES = {"auto": torch.bfloat16, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class PrecisionOverflow(Rule[ModelEvidence]):
    """The loss in reduced precision is not finite, or is another one than in float32.

    Under `16-mixed` the largest outputs of modules and the largest gradients are also held against the largest number
    of float16: loss scaling lowers the scale where gradients overflow, but nothing helps an output.

    Args:
        share: of the loss, by which it may differ.
        precision: as a recipe's `trainer.precision` has it; None takes the recipe's.
    """

    id = "precision-overflow"
    source = "Micikevicius et al. 2018, arXiv:1710.03740"

    def __init__(self, *, share: float = 0.1, precision: str | None = None) -> None:
        self.share, self.precision = share, precision

    def _wanted(self, evidence: ModelEvidence) -> str:
        trainer = evidence.recipe.get("trainer", {})
        return self.precision or str(trainer.get("precision", ""))

    def lacks(self, evidence: ModelEvidence) -> str:
        """A precision below float32."""
        return "" if self._wanted(evidence) in TYPES else "training in reduced precision"

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        name = self._wanted(evidence)
        kind, device = TYPES[name], evidence.images.device.type
        with untouched(evidence.model):
            undropped(evidence.model)
            with torch.no_grad():
                plain = float(loss_of(evidence))
                with torch.autocast(device, dtype=kind):
                    reduced = float(loss_of(evidence))
            if not math.isfinite(plain):
                return  # another fault
            off = abs(reduced - plain) / max(abs(plain), 1e-6)
            where, largest, gradient = "loss", 0.0, 0.0
            if kind == torch.float16:
                where, largest = _largest_output(evidence)
                gradient = _largest_gradient(evidence)
        facts = {"loss": plain, "reduced": reduced if math.isfinite(reduced) else repr(reduced), "precision": name}
        if not math.isfinite(reduced):
            yield self._finding("error", where, f"The loss is {plain:.4g} in float32 and {reduced} in {name}", facts)
        elif largest > LARGEST:
            text = f"Outputs of {where} reach {largest:.3g}, above 65504, the largest number of float16"
            yield self._finding("error", where, text, {**facts, "largest": largest, "threshold": LARGEST})
        elif gradient > LARGEST:
            text = f"Gradients reach {gradient:.3g}, above 65504, the largest number of float16, without loss scaling"
            yield self._finding("warning", "gradients", text, {**facts, "largest": gradient, "threshold": LARGEST})
        elif off > self.share:
            severity: Severity = "warning" if evidence.task in (None, "classification", "semantic") else "info"
            text = (
                f"The loss is {plain:.4g} in float32 and {reduced:.4g} in {name}, {off:.0%} apart; rounding makes less "
                f"than {self.share:.0%}"
            )
            yield self._finding(severity, "loss", text, {**facts, "difference": off, "threshold": self.share})

    def _finding(self, severity: Severity, where: str, text: str, facts: dict[str, object]) -> Finding:
        half = facts["precision"] == "16-mixed"
        return Finding(
            id=self.id,
            severity=severity,
            where=where,
            explanation=f"{text}. Train in {'bf16, which has the range of float32,' if half else '32 bit'}, or compute "
            "the part that loses it (squares, sums, exponentials, norms) in float32.",
            evidence={"row": "T1", **facts},
            remedy={"trainer.precision": "bf16-mixed" if half else "32-true"},
            source=self.source,
        )


def _largest_output(evidence: ModelEvidence) -> tuple[str, float]:
    """The module with the largest finite output in float32, and how large it is."""
    seen: dict[str, Tensor] = {}
    handles = []
    try:
        for name, module in evidence.model.named_modules():
            if not any(True for _ in module.children()):
                handles.append(module.register_forward_hook(_noted(name, seen)))
        with torch.no_grad():
            outputs_of(evidence)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        return "loss", 0.0
    name = max(seen, key=lambda one: float(seen[one]))
    return name, float(seen[name])


def _noted(name: str, seen: dict[str, Tensor]):  # noqa: ANN202 - a hook
    def hook(module: nn.Module, args: object, output: object) -> None:
        for tensor in tensors_in(output):
            if tensor.is_floating_point() and tensor.numel():
                most = tensor.detach().abs().max()
                seen[name] = torch.maximum(seen[name], most) if name in seen else most

    return hook


def _largest_gradient(evidence: ModelEvidence) -> float:
    loss_of(evidence).backward()
    sizes = [float(p.grad.abs().max()) for p in trained_parameters(evidence.model) if p.grad is not None]
    return max(sizes, default=0.0)
