"""A run's folder, opened: its recipe, its model, its figures, and what can be done with them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clearsight.deploy.predictor import Predictor
from clearsight.deploy.tiled_run import TiledPrediction, Tiling, predict_tiled
from clearsight.errors import ConfigError, NotFound
from clearsight.metrics.scores import Scores
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe
from clearsight.train.compose import restore_model
from clearsight.train.folder import RunFolder
from clearsight.train.run import evaluate_run
from clearsight.types import Finding

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from clearsight.deploy.prediction import Predictions
    from clearsight.deploy.sources import Source

__all__ = ["Run"]


class Run:
    """What `train` leaves and `load` opens. Everything is read when it is first asked for.

    Args:
        folder: with a `recipe.yaml`.
        interrupted: name of the signal that ended the training before its end; None when nothing did.

    Raises:
        NotFound: there is no run; the message lists those beside it.
    """

    def __init__(self, folder: str | Path, *, interrupted: str | None = None) -> None:
        self.files = RunFolder(Path(folder).expanduser()).require()
        self.interrupted = interrupted

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}{'' if self.finished else ', unfinished'})"

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.files.path

    @property
    def finished(self) -> bool:
        """Whether the training went to its end; the report is written last."""
        return self.files.report.is_file()

    @property
    def report(self) -> Path:
        """`report.html`.

        Raises:
            NotFound: the run is not finished.
        """
        if not self.finished:
            raise NotFound(
                f"{self.folder}: the run is not finished, so it has no report yet; "
                f"go on with: clearsight train --resume {self.folder}"
            )
        return self.files.report

    @cached_property
    def recipe(self) -> Recipe:
        """Everything that decided the run."""
        return load_recipe(self.files.recipe)

    @cached_property
    def model(self) -> nn.Module:
        """The model with its best weights, in eval mode.

        Raises:
            CheckpointError: there are no weights yet, or they are damaged or of another model.
        """
        return self._restored[0]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self._restored[1]

    @cached_property
    def _restored(self) -> tuple[nn.Module, tuple[str, ...]]:
        return restore_model(self.files, self.recipe)

    @cached_property
    def predictor(self) -> Predictor:
        """The model with all that it needs to be used on new images; see `Predictor`."""
        known = self.files.read_environment().get("data", {})
        return Predictor(
            self.model,
            self.classes,
            data=self.recipe.data,
            eval=self.recipe.eval,
            batch_size=self.recipe.loader.eval_batch_size,
            scale=known.get("statistics", {}).get("scale", 255.0),
            precision=self.recipe.trainer.precision,
        )

    @property
    def metrics(self) -> pd.DataFrame:
        """`metrics.csv`: a row a step and a row an evaluation (`split` is `train` or `val`); empty before the first."""
        import pandas as pd

        return pd.read_csv(self.files.metrics) if self.files.metrics.is_file() else pd.DataFrame()

    @property
    def scores(self) -> dict[str, Scores]:
        """The scores that have been computed, by split; empty before the end of the training."""
        import json

        if not self.files.scores.is_file():
            return {}
        kept = json.loads(self.files.scores.read_text(encoding="utf-8"))
        return {split: Scores.from_dict(values) for split, values in kept.items()}

    @property
    def findings(self) -> list[Finding]:
        """What was found in the data."""
        return self.files.read_findings()

    def predict(
        self, source: Source, *, out: str | Path | None = None, threshold: float | None = None, quiet: bool = False
    ) -> Predictions:
        """Predict on files, folders, arrays, tensors or PIL images; see `Predictor.predict`."""
        return self.predictor.predict(source, out=out, threshold=threshold, quiet=quiet)

    def predict_tiled(
        self,
        image: Source,
        *,
        tile: int | tuple[int, int] = 512,
        overlap: int = 64,
        mode: Literal["auto", "blend", "exact"] = "auto",
        out: str | Path | None = None,
        probabilities: bool = False,
        quiet: bool = False,
    ) -> TiledPrediction:
        """Segment one image of any size at its own resolution, window by window.

        Memory does not grow with the image's height: a TIFF is read, and `out` written, row of windows by row.

        Args:
            image: a file, an array, a tensor or a PIL image; see `tiled_run.predict_tiled`.
            tile: side, or `(height, width)`, of what the model sees at once.
            overlap: pixels that neighbours share, in mode `blend`.
            mode: see `tiled_run.Tiling`; `auto` is without any seam where the model allows it.
            out: a TIFF to write; None gives an array.
            probabilities: of every class, in place of the most probable class.
            quiet: show no progress.

        Raises:
            ConfigError: the run is no segmenter, or stretches each image by its own percentiles; or as
                `tiled_run.predict_tiled`, whose other errors may come too.
        """
        if self.recipe.task != "semantic":
            raise ConfigError(
                f"{self.folder}: its task is {self.recipe.task}, and tiles are for semantic segmentation; use predict"
            )
        if self.recipe.data.normalize == "percentile":
            raise ConfigError(
                f"{self.folder}: data.normalize is percentile, for which a whole image is looked at; train with "
                "another normalisation, or use predict"
            )
        sides = (tile, tile) if isinstance(tile, int) else tile
        segmenter: Any = self.predictor.model  # on the device that there is, channels last
        tiling = Tiling(tile=sides, overlap=overlap, mode=mode)
        return predict_tiled(segmenter, image, tiling=tiling, out=out, probabilities=probabilities, quiet=quiet)

    def evaluate(self, split: str | None = None, *, root: str | Path | None = None) -> Scores:
        """Score the best weights on a split, with intervals.

        Args:
            split: None takes the recipe's `data.test`, or `data.val` where there is none.
            root: where the data is now, if it has moved since the training.

        Raises:
            DataError: there is no such split; the message lists those there are.
            CheckpointError: the run has no weights.
        """
        place = None if root is None else Path(root).expanduser().resolve()
        return evaluate_run(self.folder, split=split, root=place)
