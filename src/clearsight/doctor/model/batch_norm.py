"""Norms with too few values to compute a mean and a variance of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.flow import Node
from clearsight.doctor.model.kinds import is_batch_norm, is_norm
from clearsight.doctor.rule import Rule
from clearsight.nn.cross_iteration_norm import CrossIterationBatchNorm
from clearsight.nn.cross_mini_batch_norm import CrossMiniBatchNorm
from clearsight.types import Finding

__all__ = ["OneValueNorm", "TinyBatchNorm"]

_LISTED = 20


class TinyBatchNorm(Rule[ModelEvidence]):
    """Batch norms that are trained with few images a device: their statistics are noise, and differ from those in use.

    The batch is the recipe's, shared out over its devices, or else the one at hand. Norms over all devices, over
    several iterations or batches, and those that are held are left out, and so are those that see something else than
    one map an image, such as regions. A last batch of a single image counts where the recipe keeps it.

    Args:
        images: a device, below which it is worth knowing.
        values: a channel, in the smallest map: below that too, few images are a warning.
    """

    id = "tiny-batch-norm"
    source = "Wu and He 2018, Group normalization, arXiv:1803.08494, figure 1; Wu and Johnson 2021, arXiv:2105.07576"

    def __init__(self, *, images: int = 8, values: int = 256) -> None:
        self.images, self.values = images, values

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow."""
        return evidence.flow.lacks

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for the batch, one for a last batch of a single image."""
        given = len(evidence.images)
        norms = {
            name: math.prod(shape[2:])
            for name, node in evidence.flow.nodes.items()
            if _learns_statistics(node)
            for shape in node.inputs
            if shape and shape[0] == given
        }
        if not norms:
            return
        batch = _batch(evidence)
        smallest = min(norms, key=lambda name: norms[name])
        values = batch * norms[smallest]
        if batch < self.images:
            yield self._few(evidence, batch, list(norms), smallest, values)
        loader = _section(evidence, "loader")
        total = sum(evidence.class_counts) if evidence.task == "classification" else 0
        size = loader.get("batch_size")
        if loader.get("drop_last") is False and isinstance(size, int) and total > size > 1 == total % size:
            yield Finding(
                id=self.id,
                severity="warning",
                where="loader.drop_last",
                explanation=(
                    f"{total} training images in batches of {size} leave one image for the last batch, which batch "
                    f"norm ({smallest}) then normalises by itself. Drop the last batch, or change the size by one."
                ),
                evidence={"row": "S9", "images": total, "batch_size": size, "last": 1, "norms": list(norms)[:_LISTED]},
                remedy={"loader.drop_last": True},
                source=self.source,
            )

    def _few(self, evidence: ModelEvidence, batch: int, norms: list[str], smallest: str, values: int) -> Finding:
        size = _section(evidence, "loader").get("batch_size")
        known = isinstance(size, int)
        return Finding(
            id=self.id,
            severity="warning" if values < self.values else "info",
            where=smallest,
            explanation=(
                f"{len(norms)} batch norms are trained with {batch} images a device, {values} values a channel in "
                f"{smallest}; below {self.images} images their statistics are noisy. Take a larger batch (gradient "
                "accumulation does not help), or a norm within each image, such as group norm."
            ),
            evidence={
                "row": "S9",
                "images": batch,
                "values": values,
                "threshold": [self.images, self.values],
                "norms": norms[:_LISTED],
                "count": len(norms),
            },
            remedy={"loader.batch_size": math.ceil(2 * self.images / batch) * size} if known else {},  # flat from 16 on
            source=self.source,
        )


def _learns_statistics(node: Node) -> bool:
    many = (nn.SyncBatchNorm, CrossIterationBatchNorm, CrossMiniBatchNorm)
    return is_batch_norm(node.module) and node.training and not isinstance(node.module, many)


def _section(evidence: ModelEvidence, name: str) -> Mapping[str, Any]:
    section = evidence.recipe.get(name)
    return section if isinstance(section, Mapping) else {}


def _batch(evidence: ModelEvidence) -> int:
    """Images a device."""
    size, devices = _section(evidence, "loader").get("batch_size"), _section(evidence, "trainer").get("devices")
    if not isinstance(size, int):
        return len(evidence.images)
    return max(1, size // devices) if isinstance(devices, int) and devices > 0 else size


class OneValueNorm(Rule[ModelEvidence]):
    """Norms that are given one value to compute mean and variance of: it becomes 0, whatever it was."""

    id = "one-value-norm"
    source = "Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1; Wu and He 2018, arXiv:1803.08494, equation 1"

    def lacks(self, evidence: ModelEvidence) -> str:
        """The whole flow, unless such a norm is what stopped it."""
        return "" if any(True for _ in self.check(evidence)) else evidence.flow.lacks

    def check(self, evidence: ModelEvidence) -> Iterable[Finding]:
        """One finding for the model."""
        found = {
            name: list(shape)
            for name, node in evidence.flow.nodes.items()
            if is_norm(node.module)
            for shape in node.inputs
            if shape and _values(node, shape) == 1
        }
        if not found:
            return
        first, shape = next(iter(found.items()))
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        kind = evidence.flow.nodes[first].kind
        yield Finding(
            id=self.id,
            severity="error",
            where=first,
            explanation=(
                f"{kind} {first}{others} is given {tuple(shape)}: one value for each mean and variance. Normalised it "
                "is 0 whatever it was, so that nothing of the image passes, or PyTorch refuses it. Leave the norm out "
                "there, take larger groups or a larger batch, or normalise before the pooling."
            ),
            evidence={
                "row": "S9",
                "norms": dict(list(found.items())[:_LISTED]),
                "count": len(found),
                "stopped": evidence.flow.stopped,
            },
            source=self.source,
        )


def _values(node: Node, shape: tuple[int, ...]) -> int:
    """How many values share a mean."""
    norm = node.module
    if is_batch_norm(norm):
        return shape[0] * math.prod(shape[2:]) if node.training or not norm.track_running_stats else 0
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return math.prod(norm.normalized_shape)
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels // norm.num_groups * math.prod(shape[2:])
    axes = {nn.InstanceNorm1d: 1, nn.InstanceNorm2d: 2, nn.InstanceNorm3d: 3}
    places = next((shape[-count:] for kind, count in axes.items() if isinstance(norm, kind)), shape[2:])
    held = getattr(norm, "track_running_stats", False) and not node.training
    return 0 if held else math.prod(places)
