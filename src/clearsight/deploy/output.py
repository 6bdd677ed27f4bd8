"""The folder of results: a table, COCO results, and a drawn picture of each image."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from clearsight.data.files import printable, write_text
from clearsight.deploy.prediction import Prediction
from clearsight.errors import ConfigError
from clearsight.ops.masks import mask_to_rle, rle_to_string
from clearsight.report.class_map_picture import draw_class_map
from clearsight.report.overlay import draw_instances, draw_label
from clearsight.report.palette import class_color

__all__ = ["ResultFolder"]


class ResultFolder:
    """Collects results; leaving it writes `predictions.csv` and `predictions.json`, whatever ended the work.

    A segmenter has no list of results, so no `predictions.json`: its class maps are files of their own.

    Pictures are written as results come: `<name>.jpg` at the place below the folder that the image has below its own.
    A segmenter's classes are beside it in `<name>.png`, a value a class, with the colours of the picture.

    Args:
        path: made when it does not exist; files of an earlier use are replaced.
        classes: class names in label order; a category's id is its label + 1, as COCO counts.

    Raises:
        ConfigError: the folder cannot be made or written.
    """

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        self.path = path
        self.classes = classes
        self._rows: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._lists = False
        self._pictures: set[str] = set()
        self._images = 0
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ConfigError(f"{path}: the folder for results cannot be made: {err.strerror}; give another") from err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._images:
            self._guard(self._write_tables)

    def add(self, name: str, prediction: Prediction, array: np.ndarray) -> None:
        """Take one result.

        Args:
            name: of the image, its path below the folder it came from.
            prediction: its result.
            array: its pixels `(h, w, c)`, to draw on.
        """
        self._images += 1
        self._rows += [{**row, "file": printable(row["file"] or name)} for row in prediction.rows()]
        if prediction.semantic is None:
            self._lists = True
            self._results += self._coco(name, prediction)
        self._guard(lambda: self._draw(name, prediction, array))

    def _guard(self, write: Any) -> None:  # noqa: ANN401 - any function without arguments
        try:
            write()
        except OSError as err:
            raise ConfigError(f"{self.path}: results cannot be written: {err.strerror or err}") from err

    def _draw(self, name: str, prediction: Prediction, array: np.ndarray) -> None:
        target = self.path / self._free_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if prediction.semantic is not None:
            _save_map(prediction.semantic, target.with_suffix(".png"), len(self.classes))
            picture = draw_class_map(array, prediction.semantic, self.classes)
        elif prediction.instances is None:
            picture = draw_label(array, f"{prediction.names[0]} {prediction.scores[0]:.2f}")
        else:
            picture = draw_instances(array, prediction.instances, self.classes)
        picture.save(target, quality=90)

    def _free_name(self, name: str) -> str:
        """A picture's name; `a.png` and `a.jpg` would both be `a.jpg`, the second becomes `a_2.jpg`."""
        inside = [part for part in Path(name).with_suffix("").parts if part not in ("..", Path(name).anchor)]
        stem = printable("/".join(inside))
        free, number = f"{stem}.jpg", 1
        while free.lower() in self._pictures:
            number += 1
            free = f"{stem}_{number}.jpg"
        self._pictures.add(free.lower())
        return free

    def _coco(self, name: str, prediction: Prediction) -> list[dict[str, Any]]:
        """One entry an object as COCO's evaluation reads it, with the file's name besides."""
        head = {"image_id": self._images, "file_name": printable(prediction.path or name)}
        if prediction.classification is not None:
            label = prediction.classification.label
            return [{**head, "category_id": label + 1, "category": self.classes[label], "score": prediction.scores[0]}]
        labels = [] if prediction.instances is None else prediction.instances.labels.tolist()
        shapes = _coco_shapes(prediction) or [{}] * len(labels)
        return [
            {
                **head,
                "category_id": label + 1,
                "category": self.classes[label],
                "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                **shape,
                "score": round(score, 6),
            }
            for label, score, (x1, y1, x2, y2), shape in zip(
                labels, prediction.scores, prediction.boxes, shapes, strict=True
            )
        ]

    def _write_tables(self) -> None:
        columns = list(dict.fromkeys([key for row in self._rows for key in row]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for row in self._rows:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
        write_text(self.path / "predictions.csv", text.getvalue())
        if self._lists:
            write_text(self.path / "predictions.json", json.dumps(self._results, indent=1) + "\n")


def _coco_shapes(prediction: Prediction) -> list[dict[str, Any]]:
    """`segmentation` of each object: the polygon of one ring, run lengths where there are several or none."""
    found: list[dict[str, Any]] = []
    polygons = prediction.polygons
    masks = prediction.masks if any(len(rings) != 1 for rings in polygons) else None
    for index, rings in enumerate(polygons):
        if masks is None or len(rings) == 1:
            found.append({"segmentation": [rings[0].round(3).ravel().tolist()]})
        else:
            rle = mask_to_rle(masks[index])
            found.append({"segmentation": {"size": list(rle.size), "counts": rle_to_string(rle)}})
    return found


def _save_map(labels: np.ndarray, path: Path, classes: int) -> None:
    """A palette PNG whose values are the classes."""
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette([part for label in range(min(classes, 256)) for part in class_color(label)])
    picture.save(path)
