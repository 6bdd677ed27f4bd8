"""Logs of other trainers as a `RunRecord`: tables of CSV files, scalars of TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from clearsight.doctor.run.column_names import Meaning, meaning_of
from clearsight.doctor.run.record import EMPTY, Curve, RunRecord
from clearsight.errors import DataError

__all__ = ["Logged", "numbers", "read_csv_log", "read_tensorboard_log"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A log that was read.

    Args:
        record: what it says.
        notes: what could not be used, and what was taken for what, a sentence each.
    """

    record: RunRecord
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Series:
    """Entries of one column or tag, as they were written."""

    meaning: Meaning
    steps: np.ndarray
    values: np.ndarray
    notes: list[str] = field(default_factory=list)

    def curve(self) -> Curve:
        """Rising steps; where the counter falls back, a run went on from a checkpoint: what lay beyond is void."""
        if not len(self.steps):
            return EMPTY
        later = np.minimum.accumulate(self.steps[::-1])[::-1]
        kept = np.append(self.steps[:-1] < later[1:], True)
        if not kept.all():
            self.notes.append(
                f"{self.meaning.name}: the step counter falls back; {int((~kept).sum())} entries before a restart are "
                "replaced by those after it"
            )
        return Curve(self.steps[kept].astype(np.int64), self.values[kept].astype(np.float64))


def read_csv_log(path: Path) -> Logged:
    """A CSV file with a header, a row an epoch or a step: of Lightning, Keras, timm, fastai, ultralytics, others.

    Args:
        path: the file. Steps are its column `step` (`iteration`, …), else `epoch`, else the row's number. Where only
            some columns are filled in a row, as Lightning writes them, each column has its own steps.

    Raises:
        DataError: it is empty, is no table, or has no numbers in it.
    """
    notes: list[str] = []
    table = _read_table(path, notes).rename(columns=lambda column: str(column).strip())
    meanings = {column: meaning_of(column) for column in table.columns}
    steps, unit = _steps_of(table, meanings)
    series: list[_Series] = []
    for column, meaning in meanings.items():
        if meaning.kind in ("step", "epoch", "other"):
            continue
        values = numbers(table, column)
        given = ~np.asarray(table[column].isna()) & ~np.isnan(steps)
        if given.any():
            series.append(_Series(meaning, steps[given], values[given], notes))
    if not series:
        raise DataError(
            f"{path}: none of its columns is a number of a training ({', '.join(map(str, table.columns[:8]))}); "
            "expected columns such as loss, train_loss, val_loss, val_accuracy, lr beside step or epoch"
        )
    notes.append(f"steps are counted by {unit}")
    return _to_record(path.stem, "csv", series, notes, per_epoch=_rows_an_epoch(table, meanings, unit))


def read_tensorboard_log(path: Path) -> Logged:
    """Scalars of an event file, or of a folder of them; of subfolders `train` and `validation`, as Keras writes them.

    Args:
        path: the file, or the folder with event files in it or below it.

    Raises:
        DataError: there are no event files, or no scalars in them.
    """
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator

    folders = sorted({file.parent for file in path.rglob("*tfevents*")}) if path.is_dir() else [path]
    notes: list[str] = []
    series: list[_Series] = []
    for folder in folders:
        events = EventAccumulator(str(folder), size_guidance={SCALARS: 0, TENSORS: 1})
        events.Reload()
        prefix = "" if folder == path else f"{folder.name}/"
        for tag in events.Tags()[SCALARS]:
            meaning = meaning_of(prefix + tag)
            if meaning.kind not in ("step", "epoch", "other", "seconds"):
                entries = events.Scalars(tag)
                steps = np.array([entry.step for entry in entries], dtype=np.float64)
                series.append(_Series(meaning, steps, np.array([entry.value for entry in entries]), notes))
    if not series:
        raise DataError(
            f"{path}: no scalars of a training in {len(folders)} folders of TensorBoard events; expected tags such as "
            "loss, train/loss, val/accuracy"
        )
    return _to_record(path.stem if path.is_file() else path.name, "tensorboard", series, notes)


def numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as `(rows,)` float64; NaN where it is no number."""
    return np.asarray(pd.to_numeric(table[column], errors="coerce"), dtype=np.float64)


def _to_record(
    name: str, origin: str, series: Iterable[_Series], notes: list[str], *, per_epoch: int | None = None
) -> Logged:
    """Sort series into a record.

    A score without a split belongs to the training images where the same score is there with `val` (Keras writes
    `accuracy` beside `val_accuracy`), else to the validation images. Where there is no loss but its terms, as
    ultralytics writes them, their sum is taken.
    """
    found = list(series)
    validated = {one.meaning.name for one in found if one.meaning.split == "val"}
    train: dict[str, Curve] = {}
    val: dict[str, Curve] = {}
    terms: dict[str, dict[str, Curve]] = {"train": {}, "val": {}}
    single: dict[str, Curve] = {}
    for one in sorted(found, key=lambda one: one.meaning.per == "epoch"):  # of a step before of an epoch
        meaning, curve = one.meaning, one.curve()
        split = meaning.split or ("val" if meaning.kind == "score" and meaning.name not in validated else "train")
        if meaning.kind == "term":
            terms[split].setdefault(meaning.name, curve)
        elif meaning.kind in ("loss", "score"):
            (val if split == "val" else train).setdefault("loss" if meaning.kind == "loss" else meaning.name, curve)
        else:
            single.setdefault(meaning.kind, curve)
    for split, scores in (("train", train), ("val", val)):
        if "loss" not in scores and terms[split]:
            scores["loss"] = _sum(terms[split])
            notes.append(f"the {split} loss is taken as the sum of {', '.join(terms[split])}")
    record = RunRecord(
        name=name,
        origin=origin,
        steps_per_epoch=per_epoch,
        loss=train.pop("loss", EMPTY),
        terms=terms["train"],
        val=val,
        train=train,
        grad_norm=single.get("grad_norm", EMPTY),
        lr=single.get("lr", EMPTY),
        waiting=single.get("waiting", EMPTY),
        memory=single.get("memory", EMPTY),
    )
    return Logged(record=record, notes=tuple(dict.fromkeys(notes)))


def _read_table(path: Path, notes: list[str]) -> pd.DataFrame:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    whole = text[: text.rfind("\n") + 1]
    if text.strip() and not whole.strip():
        whole = text
    elif text != whole and text.count("\n") > 1:
        last, before = text[len(whole) :], whole.rstrip("\n").rsplit("\n", 1)[-1]
        if last.count(",") == before.count(","):
            whole = text  # complete, only its line feed is missing
        else:
            notes.append("the last line was half-written and is left out")
    separator = max(",;\t", key=whole.partition("\n")[0].count)
    try:
        # A NaN that was logged is text here, and no empty cell.
        table = pd.read_csv(StringIO(whole), sep=separator, on_bad_lines="error", na_values=[""], keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise DataError(f"{path}: is no table with a header: {error}; expected a CSV log of a training") from error
    if table.empty:
        raise DataError(f"{path}: has a header and no rows; the run has logged nothing yet")
    return table


def _steps_of(table: pd.DataFrame, meanings: Mapping[str, Meaning]) -> tuple[np.ndarray, str]:
    """`(rows,)` steps, NaN where the row does not say, and what they count."""
    for kind in ("step", "epoch"):
        for column, meaning in meanings.items():
            if meaning.kind == kind:
                found = numbers(table, column)
                if np.isfinite(found).any():
                    return found, f"the column {column}"
    return np.arange(1, len(table) + 1, dtype=np.float64), "rows"


def _rows_an_epoch(table: pd.DataFrame, meanings: Mapping[str, Meaning], unit: str) -> int | None:
    """Steps of an epoch, from the two counters side by side."""
    columns = {meaning.kind: column for column, meaning in meanings.items() if meaning.kind in ("step", "epoch")}
    if len(columns) < 2:
        return 1 if "epoch" in columns and unit.endswith(columns["epoch"]) else None
    steps, epochs = numbers(table, columns["step"]), numbers(table, columns["epoch"])
    known = np.isfinite(steps) & np.isfinite(epochs)
    last = [steps[known & (epochs == epoch)].max() for epoch in np.unique(epochs[known])]
    return max(1, int(np.median(np.diff(last)))) if len(last) > 1 else None


def _sum(parts: Mapping[str, Curve]) -> Curve:
    """Of curves with the same steps; steps that not all of them have are left out."""
    curves = list(parts.values())
    steps = curves[0].steps
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.steps, assume_unique=True)
    total = sum((curve.values[np.isin(curve.steps, steps)] for curve in curves), np.zeros(len(steps)))
    return Curve(steps, total)
