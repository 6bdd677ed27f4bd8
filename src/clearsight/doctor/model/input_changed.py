"""Models that write into the images they are given."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.probing import untouched
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["InputChanged"]


class InputChanged(Rule[ModelEvidence]):
    """The model writes into its input, so that images that are kept in memory change with every epoch.

    It is called with a copy of the batch, in training mode and in evaluation mode, which has to be the same afterwards.
    Layers with `inplace=True` write into what lies before them: as the first layer, that is the batch.
    """

    id = "input-changed"
    source = "PyTorch documentation, in-place operations with autograd"

    def check(self, evidence: ModelEvidence) -> Iterator[Finding]:
        """At most one finding."""
        model, given = evidence.model, evidence.images.clone()
        with untouched(model), torch.no_grad():
            for training in (True, False):
                model.train(training)
                torch.manual_seed(0)
                _ = model(given) if evidence.forward is None else evidence.forward(model, given)
        changed = (given != evidence.images) & ~(given.isnan() & evidence.images.isnan())
        share = float(changed.double().mean())
        if not share:
            return
        apart = (given.double() - evidence.images.double()).abs()
        most = float(apart[changed].max())
        yield Finding(
            id=self.id,
            severity="warning",
            where="model",
            explanation=f"After the model was called, {share:.0%} of the batch's values were others, by up to "
            f"{most:.3g}: it writes into its input. Images that stay in memory (a tensor data set, a cache) change "
            "again each epoch, those of validation once more. Replace in-place operations on the input (x += …, "
            "x.sub_, inplace=True in the first layer) by such that make a new tensor.",
            evidence={"row": "P7", "share": share, "most": most},
            source=self.source,
        )
