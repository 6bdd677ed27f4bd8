"""Label assignment of one image of a data set, under any methods, seen by any detector that assigns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from torch import nn

from clearsight.assign import ASSIGNERS, Assigner, build_assigner
from clearsight.assign.assignment import Assignment
from clearsight.data.collate import collate
from clearsight.data.dataset import Dataset
from clearsight.data.read import read_dataset
from clearsight.data.samples import SampleSet
from clearsight.deploy.named_data import is_run, named_data
from clearsight.deploy.run import Run
from clearsight.deploy.subject import profile_subject
from clearsight.errors import ClearsightError, ConfigError, DataError, NotFound, nearest
from clearsight.measure.assignment import Situation, assign_by_each, points_an_object, situation_of
from clearsight.recipe.assigner_sections import AssignerConfig
from clearsight.recipe.schema import DataConfig

__all__ = ["AssignmentReport", "report_assignments"]

_SIZE = (320, 320)
_ABOVE = 4  # folders above an image that are looked at for its annotations


@dataclass(frozen=True, kw_only=True)
class AssignmentReport:
    """What `cs.explain_assignment` found; `print` shows it, `plot` draws it.

    Args:
        image: the file.
        model: name of the detector.
        trained: whether its predictions are those of a trained one.
        pixels: `(h, w, c)` what the detector saw.
        classes: names in label order.
        situation: the points, the objects and the predictions.
        found: by name of the method its assignment, or why there is none.
    """

    image: Path
    model: str
    trained: bool
    pixels: np.ndarray
    classes: tuple[str, ...]
    situation: Situation
    found: dict[str, Assignment | str]

    def rows(self) -> list[dict[str, Any]]:
        """One a method: points, the least, median and most of an object, and how many objects have none."""
        targets = self.situation.targets
        real = np.ones(len(targets.labels), bool) if targets.ignore is None else ~targets.ignore.numpy()
        rows = []
        for name, one in self.found.items():
            if isinstance(one, str):
                rows.append({"assigner": name, "reason": one})
                continue
            counts = points_an_object(one, len(real)).numpy()[real]
            spread = (int(counts.min()), float(np.median(counts)), int(counts.max())) if len(counts) else (0, 0.0, 0)
            names = ("least", "median", "most")
            row = {"assigner": name, "points": int(counts.sum()), **dict(zip(names, spread, strict=True))}
            rows.append({**row, "objects": len(counts), "without": int((counts == 0).sum())})
        return rows

    def __str__(self) -> str:
        """A line a method."""
        lines = [f"{self.image.name}, {self.model}: {len(self.situation.points.xy)} points"]
        for row in self.rows():
            if "reason" in row:
                lines.append(f"{row['assigner']}: {row['reason']}")
                continue
            lines.append(
                f"{row['assigner']}: {row['points']} points, an object has {row['least']} to {row['most']}, median "
                f"{row['median']:g}; {row['without']} of {row['objects']} objects have none"
            )
        return "\n".join(lines)

    def plot(self, out: str | Path) -> Path:
        """Draw a panel for each method, side by side, as a picture (PNG, JPEG, … by the ending).

        Raises:
            ConfigError: the file cannot be written.
        """
        from clearsight.report.assignment_picture import draw_assignments

        targets = self.situation.targets
        title = f"{self.image.name}: which points of {self.model} answer for which of its {len(targets.labels)} objects"
        notes = {}
        if not self.trained:
            looking = [name for name in self.found if name in ASSIGNERS and _looks(self.found[name], name)]
            notes = dict.fromkeys(looking, "; by the predictions of an untrained model")
        sheet = draw_assignments(self.pixels, self.situation.points, targets, self.found, title=title, notes=notes)
        path = Path(out)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be written: {error}; use a name that ends in .png") from error
        return path


def report_assignments(
    image: str | Path,
    *,
    data: Dataset | str | Path | None,
    model: nn.Module | Run | str | Path,
    assigners: Sequence[str],
    size: int | tuple[int, int] | None,
) -> AssignmentReport:
    """See `clearsight.api.explain_assignment`, whose arguments these are."""
    for name in assigners:
        if name not in ASSIGNERS:
            raise ConfigError(f"assigner: there is none named {name!r}{nearest(name, list(ASSIGNERS))}")
    path = Path(image).expanduser()
    if not path.is_file():
        raise NotFound(f"{path}: there is no such image")
    dataset, config, own_size = _annotated(path, data)
    subject = profile_subject(model, classes=len(dataset.classes))
    suits = own_size or _SIZE
    if isinstance(model, Run) or (not isinstance(model, nn.Module) and is_run(model)):
        suits = subject.size or suits
    sides = suits if size is None else (size, size) if isinstance(size, int) else size
    settings = config.model_copy(update={"size": sides, "channels": subject.channels})
    samples = SampleSet(dataset, data=settings, task="detection")
    batch = collate([samples[0]], size=sides)
    situation = situation_of(subject.model.float().cpu(), batch.images, batch.targets)
    height, width = batch.sizes[0].tolist()  # without what letterboxing adds
    chosen = {name: _assigner(name, situation, len(dataset.classes)) for name in assigners or ASSIGNERS}
    return AssignmentReport(
        image=path,
        model=subject.name or type(subject.model).__name__,
        trained=bool(subject.scores),
        pixels=batch.images[0, :, :height, :width].permute(1, 2, 0).numpy(),
        classes=tuple(dataset.classes),
        situation=situation,
        found=assign_by_each(situation, chosen),
    )


def _assigner(name: str, situation: Situation, classes: int) -> Assigner:
    """The detector's own where it is of this kind, else one with the defaults."""
    if name == situation.own_name:
        return situation.own
    config: AssignerConfig = TypeAdapter(AssignerConfig).validate_python({"name": name})
    return build_assigner(config, num_classes=classes)


def _looks(found: Assignment | str, name: str) -> bool:
    return not isinstance(found, str) and bool(getattr(ASSIGNERS[name], "needs_predictions", False))


def _annotated(image: Path, source: Dataset | str | Path | None) -> tuple[Dataset, DataConfig, tuple[int, int] | None]:
    """The one record of an image, how its data is read, and the size that a recipe gives it."""
    if source is None:
        return _only(image, _around(image)), DataConfig(), None
    _, splits, config = named_data(source)
    return _only(image, splits), config or DataConfig(), None if config is None else config.size


def _around(image: Path) -> Iterator[Dataset]:
    """Data sets in the folders above an image, the nearest first."""
    for folder in image.resolve().parents[:_ABOVE]:
        try:
            yield read_dataset(folder)
        except ClearsightError:
            continue


def _only(image: Path, datasets: Sequence[Dataset] | Iterator[Dataset]) -> Dataset:
    """A data set of the one record of an image.

    Raises:
        DataError: none of them has it.
    """
    wanted = image.resolve()
    looked = []
    for dataset in datasets:
        looked.append(str(dataset.root))
        mine = [record for record in dataset.records if record.image.resolve() == wanted]
        if mine and dataset.task != "classification":
            return replace(dataset, records=mine)
    where = ", ".join(dict.fromkeys(looked)) or "the folders above it"
    raise DataError(f"{image}: no annotated objects of it in {where}; say with --data where its data set is")
