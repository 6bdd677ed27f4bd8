"""Parameters that will not learn, or that are decayed as they had better not be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.flow import Flow
from clearsight.doctor.model.fresh_weights import fresh_parameters
from clearsight.doctor.rule import Rule
from clearsight.types import Finding, Severity

__all__ = [
    "CoupledDecayWithAdam",
    "DecayOnNormAndBias",
    "FrozenParameters",
    "NotInOptimizer",
    "ParametersWithoutGradient",
]

_LISTED = 20


def _parameters(evidence: ModelEvidence) -> dict[str, nn.Parameter]:
    return dict(getattr(evidence.model, "_orig_mod", evidence.model).named_parameters())


def _told(names: list[str], parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    total = sum(one.numel() for one in parameters.values())
    numbers = sum(parameters[name].numel() for name in names)
    share = numbers / total if total else 0.0
    return {"parameters": names[:_LISTED], "count": len(names), "numbers": numbers, "share": share}


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more parameters"


class ParametersWithoutGradient(Rule[ModelEvidence]):
    """Parameters that ask for a gradient, and that the loss does not depend on.

    A layer that ran and gets no gradient was cut off on the way to the loss, or its output is dropped: a warning. One
    that never ran is only told: many networks carry a head that is not asked.
    """

    id = "parameters-without-gradient"
    source = "TrainCheck, Jiang et al. 2025, arXiv:2506.14813; Karpathy 2019, A recipe for training neural networks"

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow."""
        return evidence.flow.lacks

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for layers that ran, one for those that did not."""
        parameters = _parameters(evidence)
        learning = [name for name, one in parameters.items() if one.requires_grad]
        without = [name for name in learning if name not in evidence.flow.parameters_used]
        ran = [name for name in without if _ran(evidence.flow, name)]
        idle = [name for name in without if name not in set(ran)]
        if ran:
            nothing = len(without) == len(learning)
            yield self._finding(
                ran,
                parameters,
                "error" if nothing else "warning",
                "ran, but the loss has no gradient of it: its output is unused, or cut off by detach, no_grad, a "
                "conversion to NumPy or a function without a derivative",
            )
        if idle:
            yield self._finding(idle, parameters, "info", "takes no part in the loss: the layer never ran")

    def _finding(
        self, names: list[str], parameters: Mapping[str, Tensor], severity: Severity, what: str
    ) -> Finding:  # fmt: skip
        told = _told(names, parameters)
        return Finding(
            id=self.id,
            severity=severity,
            where=names[0],
            explanation=f"{_listed(names)} ({told['share']:.1%} of the model's numbers) {what}. They stay as they are.",
            evidence={"row": "S6", "ran": severity != "info", **told},
            source=self.source,
        )


def _ran(flow: Flow, parameter: str) -> bool:
    """Whether the module that has a parameter, or one around it or inside it, was called."""
    owner = parameter.rpartition(".")[0]
    parts = owner.split(".")
    around = any(".".join(parts[:length]) in flow.nodes for length in range(1, len(parts) + 1))
    return around or any(name.startswith(f"{owner}." if owner else "") for name in flow.nodes)


class NotInOptimizer(Rule[ModelEvidence]):
    """Parameters that get a gradient, and that the optimiser does not have."""

    id = "not-in-optimizer"
    source = "TrainCheck, Jiang et al. 2025, arXiv:2506.14813"

    def lacks(self, evidence: ModelEvidence) -> str:
        """An optimiser, and the whole flow."""
        return evidence.flow.lacks if evidence.optimizer is not None else "an optimiser"

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for the model."""
        groups = [] if evidence.optimizer is None else evidence.optimizer.param_groups
        held = {id(one) for group in groups for one in group["params"]}
        parameters = _parameters(evidence)
        used = [name for name in parameters if name in evidence.flow.parameters_used]
        left = [name for name in used if id(parameters[name]) not in held]
        if not left:
            return
        told = _told(left, parameters)
        everything = len(left) == len(used)
        yield Finding(
            id=self.id,
            severity="error" if everything else "warning",
            where=left[0],
            explanation=(
                f"{_listed(left)} ({told['share']:.1%} of the model's numbers) get a gradient, but the optimiser does "
                "not have them and will not change them. Add them to a parameter group, or freeze them with "
                "requires_grad_(False); build the optimiser after the last change of the model."
            ),
            evidence={"row": "S6", "used": len(used), **told},
            source=self.source,
        )


class FrozenParameters(Rule[ModelEvidence]):
    """Parameters that do not learn because they are frozen: worth knowing, and an error where all are.

    A body that was trained before is frozen on purpose. Where every frozen layer that can be judged is distributed as
    an initialisation leaves it, it was not trained, and it is a warning.

    Args:
        share: of the model's numbers that are frozen, from which untrained ones are a warning: a small part, such as a
            random projection, may be meant.
    """

    id = "frozen-parameters"
    source = "Karpathy 2019, A recipe for training neural networks"

    def __init__(self, *, share: float = 0.2) -> None:
        self.share = share

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for the model."""
        parameters = _parameters(evidence)
        frozen = [name for name, one in parameters.items() if not one.requires_grad]
        if not frozen:
            return
        told = _told(frozen, parameters)
        everything = len(frozen) == len(parameters)
        untrained = self._untrained(evidence, frozen) if told["share"] >= self.share else 0
        severity: Severity
        if everything:
            severity, rest = "error", "Nothing is left to learn."
        elif untrained:
            severity = "warning"
            rest = (
                f"All {untrained} of them that can be judged are distributed as an initialisation leaves them, so they "
                "were never trained: load the weights they were to have, or let them learn."
            )
        else:
            severity, rest = "info", "That is right where they were trained before."
        yield Finding(
            id=self.id,
            severity=severity,
            where=frozen[0],
            explanation=(
                f"{_listed(frozen)} do not learn (requires_grad is off): {told['share']:.1%} of the model's numbers. "
                f"{rest}"
            ),
            evidence={"row": "S6", "untrained": untrained, **told},
            source=self.source,
        )

    def _untrained(self, evidence: ModelEvidence, frozen: list[str]) -> int:
        """How many frozen parameters are as they were initialised; 0 where one is not, or no weight can be judged."""
        parameters = _parameters(evidence)
        fresh = fresh_parameters(getattr(evidence.model, "_orig_mod", evidence.model))
        judged = [name for name in frozen if name in fresh]
        weights = any(parameters[name].ndim >= 2 for name in judged)
        return len(judged) if weights and all(fresh[name] for name in judged) else 0


# ------------------------------------------------------------------------------------------------ weight decay
class DecayOnNormAndBias(Rule[ModelEvidence]):
    """Weight decay on scales of norms and on biases: it pulls them to 0, which regularises nothing."""

    id = "decay-on-norm-and-bias"
    source = "He et al. 2019, Bag of tricks for image classification, arXiv:1812.01187, section 3.1"

    def lacks(self, evidence: ModelEvidence) -> str:
        """An optimiser."""
        return "" if evidence.optimizer is not None else "an optimiser"

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for the model."""
        parameters = _parameters(evidence)
        decays = _decays(evidence)
        found = [name for name, one in parameters.items() if one.ndim <= 1 and decays.get(id(one), 0) > 0]
        if not found:
            return
        known = _section(evidence, "optimizer").get("decay_norm_and_bias") is True
        yield Finding(
            id=self.id,
            severity="info",
            where=found[0],
            explanation=(
                f"Weight decay of {decays[id(parameters[found[0]])]:g} holds for {len(found)} scales of norms and "
                "biases too. Leave them out: a parameter group of their own with weight_decay=0."
            ),
            evidence={"row": "S7", **_told(found, parameters)},
            remedy={"optimizer.decay_norm_and_bias": False} if known else {},
            source=self.source,
        )


class CoupledDecayWithAdam(Rule[ModelEvidence]):
    """Adam with weight decay in the gradient: weights with large gradients are decayed less than others."""

    id = "coupled-decay-with-adam"
    source = "Loshchilov and Hutter 2019, Decoupled weight decay regularization, arXiv:1711.05101"

    def lacks(self, evidence: ModelEvidence) -> str:
        """An optimiser."""
        return "" if evidence.optimizer is not None else "an optimiser"

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for the optimiser."""
        optimizer = evidence.optimizer
        adam = isinstance(optimizer, torch.optim.Adam | torch.optim.NAdam | torch.optim.Adamax)
        if optimizer is None or not adam or isinstance(optimizer, torch.optim.AdamW):
            return
        groups = [group for group in optimizer.param_groups if not group.get("decoupled_weight_decay")]
        decay = max((group.get("weight_decay", 0) for group in groups), default=0)
        if decay <= 0:
            return
        yield Finding(
            id=self.id,
            severity="info",
            where="optimizer.name",
            explanation=(
                f"{type(optimizer).__name__} with weight_decay={decay:g} adds the decay to the gradient, which Adam "
                "then divides by its size: weights with large gradients are hardly decayed. AdamW decays all alike."
            ),
            evidence={"row": "S7", "optimizer": type(optimizer).__name__, "weight_decay": float(decay)},
            remedy={"optimizer.name": "adamw"} if _section(evidence, "optimizer").get("name") == "adam" else {},
            source=self.source,
        )


def _decays(evidence: ModelEvidence) -> dict[int, float]:
    groups = [] if evidence.optimizer is None else evidence.optimizer.param_groups
    return {id(one): float(group.get("weight_decay", 0)) for group in groups for one in group["params"]}


def _section(evidence: ModelEvidence, name: str) -> Mapping[str, Any]:
    section = evidence.recipe.get(name)
    return section if isinstance(section, Mapping) else {}
