"""A trained model with all that it needs to be used: images in, results in the images' own pixels out."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.data.prepare import load_image, prepare_image
from clearsight.data.progress_bar import late_progress
from clearsight.deploy.output import ResultFolder
from clearsight.deploy.prediction import Prediction, Predictions
from clearsight.deploy.sources import Item, Source, list_items
from clearsight.errors import ConfigError, DataError, RangeError, ShapeError
from clearsight.recipe.schema import DataConfig, EvalConfig
from clearsight.train.devices import resolve_precision
from clearsight.train.evaluate import selection_of
from clearsight.train.file_pixels import labels_in_file, to_file_pixels
from clearsight.types import Classification, Finding, ImageMeta, Instances, SemanticMap

__all__ = ["Predictor"]

# What can be wrong with one file of many: it is named and passed over, the others are still done.
FAULTS = (DataError, ShapeError, OSError, MemoryError)


@dataclass(slots=True)
class _Loaded:
    """One image on its way: its `(height, width)`, its pixels where they will be drawn on, and the model's input.

    Or the reason why there is none.
    """

    item: Item
    size: tuple[int, int] = (0, 0)
    array: np.ndarray | None = None
    image: Tensor | None = None
    finding: Finding | None = None


class Predictor:
    """Predicts with a model; every image is prepared exactly as in training and evaluation.

    Args:
        model: `nn.Module` with `predict`; it is moved to the device and set to eval mode.
        classes: class names in label order.
        data: the recipe's `data` section: size, fit, channels, normalisation.
        eval: the recipe's `eval` section: overlap for suppression, detections an image, lowest score that is drawn.
        batch_size: images of one forward pass.
        scale: largest value of the pixels that the model was trained on, 255 or 65535; others are rescaled to it.
        device: `auto` takes a GPU where there is one, else PyTorch's names (`cpu`, `cuda:1`).
        precision: as `trainer.precision`.

    Raises:
        ConfigError: the device cannot be used here.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        *,
        data: DataConfig,
        eval: EvalConfig | None = None,
        batch_size: int = 16,
        scale: float = 255.0,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.classes = tuple(classes)
        self.data = data
        self.eval = eval or EvalConfig()
        self.batch_size = batch_size
        self.scale = scale
        self._detects = "selection" in inspect.signature(model.predict).parameters  # pyright: ignore
        self.device = _device(device)
        name = resolve_precision(precision, self.device.type)
        self._dtype = {"bf16": torch.bfloat16, "16-m": torch.float16}.get(name[:4])
        try:
            self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # pyright: ignore
        except (RuntimeError, AssertionError) as err:  # torch asserts that it was built for the device
            raise ConfigError(f"device: {device!r} cannot be used here: {str(err).splitlines()[0]}") from err

    def predict(
        self, source: Source, *, out: str | Path | None = None, threshold: float | None = None, quiet: bool = False
    ) -> Predictions:
        """Predict on everything that `source` names.

        A file that cannot be read is passed over and named in the result's `findings`; one that was given by itself
        raises. A progress bar is shown for work of more than two seconds.

        Args:
            source: a file, a folder (searched to its depths), a pattern, an array `(h, w, c)`, a tensor `(c, h, w)`, a
                PIL image, or a list of these; see `deploy.sources.list_items`.
            out: a folder for `predictions.csv`, `predictions.json` (COCO results, with file names) and, from a
                detector, one drawn picture an image; None writes nothing. What is done when the work is interrupted
                is written.
            threshold: lowest score of a detection, in [0, 1]; None takes `eval.draw_threshold`.
            quiet: show no progress.

        Returns:
            One `Prediction` an image, in the order of the source.

        Raises:
            NotFound: there is no such file, folder or match.
            DataError: none of the images can be read, or one that was given by itself cannot.
            ShapeError: an array is no image.
            RangeError: the threshold or a float tensor is outside [0, 1].
            ConfigError: `out` cannot be written.
        """
        least = self.eval.draw_threshold if threshold is None else threshold
        if not 0 <= least <= 1:
            raise RangeError(f"threshold: found {least}, expected a number from 0 to 1")
        folder = None if out is None else ResultFolder(Path(out).expanduser(), self.classes)
        items = list_items(source, leave_out=None if folder is None else folder.path)
        results = Predictions()
        with folder or nullcontext(), late_progress("predicting", len(items), quiet=quiet) as advance:
            for one, prediction in self._run(items, least, draw=folder is not None):
                if prediction is None:
                    results.findings += [one.finding] if one.finding else []
                else:
                    results.append(prediction)
                    if folder is not None and one.array is not None:
                        folder.add(one.item.name, prediction, one.array)
                advance()
        if not results:
            listed = "".join(f"\n  {finding.where}: {finding.explanation}" for finding in results.findings[:10])
            raise DataError(f"none of the {len(items)} images can be read:{listed}", results.findings)
        return results

    # -------------------------------------------------------------------------------------------- the work
    def _run(self, items: Sequence[Item], least: float, *, draw: bool) -> Iterator[tuple[_Loaded, Prediction | None]]:
        """Each item with its result, in order; the next batch is decoded while the model works on this one."""
        starts = range(0, len(items), self.batch_size)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:

            def submit(start: int) -> list[Future[_Loaded]]:
                return [pool.submit(self._load, item, draw=draw) for item in items[start : start + self.batch_size]]

            try:
                waiting = submit(0)
                for start in starts:
                    batch, waiting = waiting, submit(start + self.batch_size)
                    loaded = [future.result() for future in batch]
                    found = iter(self._forward([one for one in loaded if one.image is not None], least))
                    for one in loaded:
                        yield one, None if one.image is None else next(found)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, item: Item, *, draw: bool) -> _Loaded:
        try:
            return self._read(item, draw=draw)
        except FAULTS as err:
            if item.required:
                raise
            return _Loaded(item, finding=_finding(item, err))

    def _read(self, item: Item, *, draw: bool) -> _Loaded:
        """JPEG files by the way that training takes, which decodes large ones at a part of their size."""
        if item.path is not None and item.path.suffix.lower() in (".jpg", ".jpeg") and self.scale <= 255:
            image, size = load_image(item.path, self.data)
            return _Loaded(item, size, item.read(self.data.channels) if draw else None, image)
        array = self._match_depth(item.read(self.data.channels))
        return _Loaded(item, (array.shape[0], array.shape[1]), array, prepare_image(array, self.data))

    def _match_depth(self, array: np.ndarray) -> np.ndarray:
        """8 bits to 16 or back, where the model was trained on the other."""
        if array.dtype == np.uint8 and self.scale > 255:
            return array.astype(np.uint16) * np.uint16(257)
        if array.dtype == np.uint16 and self.scale <= 255 and self.data.normalize != "percentile":
            return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return array

    def _forward(self, loaded: Sequence[_Loaded], least: float) -> list[Prediction]:
        images = [one.image for one in loaded if one.image is not None]
        if not images:
            return []
        sizes = torch.tensor([image.shape[-2:] for image in images], dtype=torch.int64)
        batch = torch.zeros((len(images), self.data.channels, *self.data.size), dtype=images[0].dtype)
        batch = batch.contiguous(memory_format=torch.channels_last)
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        cast = nullcontext() if self._dtype is None else torch.autocast(self.device.type, dtype=self._dtype)
        with torch.inference_mode(), cast:
            found = self._predict(batch.to(self.device), sizes.to(self.device), least)
        return [
            self._result(one, result, size) for one, result, size in zip(loaded, found, sizes.tolist(), strict=True)
        ]

    def _predict(self, batch: Tensor, sizes: Tensor, least: float) -> list[Any]:
        predict: Any = self.model.predict
        if not self._detects:
            return predict(batch, sizes)
        # As in evaluation, also what is weaker takes part in suppression and voting; it is left out afterwards.
        selection = selection_of(self.eval)
        lowest = replace(selection, score_threshold=min(least, selection.score_threshold))
        found: list[Instances] = predict(batch, sizes, lowest)
        return [one if one.scores is None else one.select(one.scores > least) for one in found]

    def _result(self, one: _Loaded, found: Any, size: list[int]) -> Prediction:  # noqa: ANN401 - by the model's task
        height, width = one.size
        made = {"path": one.item.path, "size": (height, width), "classes": self.classes}
        if isinstance(found, Classification):
            return Prediction(**made, classification=Classification(probs=found.probs.float().cpu()))
        if isinstance(found, SemanticMap):
            return Prediction(**made, semantic=labels_in_file(found, (height, width)))
        scale = (size[0] / height, size[1] / width)
        meta = ImageMeta(path=one.item.path or Path(one.item.name), index=0, size=(height, width), scale=scale)
        return Prediction(**made, instances=to_file_pixels(found, meta))


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as err:
        raise ConfigError(f"device: found {name!r}, expected auto, cpu, cuda, cuda:N or mps") from err


def _finding(item: Item, error: Exception) -> Finding:
    where = str(item.path or item.name)
    known = error.findings[0] if isinstance(error, DataError) and error.findings else None
    return Finding(
        id=known.id if known else "unreadable-image",
        severity="error",
        where=where,
        explanation=known.explanation if known else str(error).removeprefix(f"{where}: ") or type(error).__name__,
        action="image passed over",
    )
