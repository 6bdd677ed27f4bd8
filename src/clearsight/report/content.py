"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import yaml
from PIL import Image

from clearsight.doctor.run.record import RunRecord
from clearsight.metrics.scores import Scores
from clearsight.types import Finding

__all__ = ["Picture", "ReportContent"]

Picture = tuple[Image.Image, str]
"""A picture and its caption."""


@dataclass(slots=True, kw_only=True)
class ReportContent:
    """Everything a report shows. Whatever is empty is left out of the page.

    Args:
        title: name of the run.
        recipe_yaml: the resolved recipe.
        environment: versions, processor, commit, …; may be nested.
        history: `metrics.csv`: columns `step`, `epoch`, `split` (`train` or `val`), `loss`, `loss_<term>`, `lr`,
            `grad_norm`, and one a validation metric; missing values are NaN.
        scores: by split; the first one is shown in full.
        data_statistics: any of `images` (by split), `counts` (objects by split and class), `image_sizes` (images by
            `width×height`), `object_sizes` (square roots of box areas in pixels, one an object), `objects_per_image`
            (one an image), `mean` and `std` (one a channel). Other keys are listed as they are.
        findings: of the data, the model and the run, in the order in which they should be read.
        record: of the run, from which findings are proved; None draws no proof.
        worst: pictures of the worst images, predictions solid and truth dashed.
        samples: pictures of samples, as the model sees them.
        run_folder: name of the run's folder.
        seconds: how long the training took; None when unknown.
    """

    title: str
    recipe_yaml: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    scores: Mapping[str, Scores] = field(default_factory=dict)
    data_statistics: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    record: RunRecord | None = None
    worst: Sequence[Picture] = ()
    samples: Sequence[Picture] = ()
    run_folder: str = ""
    seconds: float | None = None

    @property
    def main(self) -> tuple[str, Scores] | None:
        """The split that is shown in full, with its scores; None before anything was scored."""
        return next(iter(self.scores.items()), None)

    def recipe(self) -> dict[str, Any]:
        """The recipe as a dictionary; empty where it cannot be read, since a report must not fail for it."""
        try:
            values = yaml.safe_load(self.recipe_yaml)
        except yaml.YAMLError:
            return {}
        return values if isinstance(values, dict) else {}
