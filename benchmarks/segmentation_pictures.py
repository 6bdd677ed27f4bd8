"""Pictures of a run for the documentation: its worst, median and best test image beside the truth."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from clearsight.data.dataset import Dataset
    from clearsight.deploy.prediction import Prediction
    from clearsight.deploy.run import Run
    from clearsight.metrics.scores import Scores
    from clearsight.types import Record

__all__ = ["draw_run", "page", "save_small", "three"]

PANEL = 400  # pixels
BYTES = 250_000  # most
GAP = 6
DARK = (16, 18, 20)


def draw_run(run: Run, test: Dataset, scores: Scores, out: Path) -> Path:
    """Predict all test images, and draw three of them: class maps by their mean IoU, objects by their Jaccard index."""
    threshold = float(scores.settings.get("threshold", math.nan))
    least = threshold if math.isfinite(threshold) else run.recipe.eval.draw_threshold
    paths = [record.image for record in test.records]
    found = run.predict(paths, threshold=least * 0.999, quiet=True)  # what scores the threshold itself counts
    values = [_value(one, record, test.classes, least) for one, record in zip(found, test.records, strict=True)]
    figure, panels = ("mean IoU", 3) if scores.task == "semantic" else ("Jaccard index", 2)
    strips = [
        (f"{name}: {paths[index].name}, {figure} {values[index]:.3f}", _strip(found[index], test, index))
        for index, name in three(values).items()
    ]
    return save_small(page(strips, width=panels * PANEL), out)


def three(values: Sequence[float]) -> dict[int, str]:
    """Places of the worst, the median and the best value, each place once; NaN has none."""
    order = sorted((index for index, value in enumerate(values) if math.isfinite(value)), key=values.__getitem__)
    if not order:
        return {}
    places = {order[0]: "worst"}
    places.setdefault(order[-1], "best")
    places.setdefault(order[len(order) // 2], "median")
    return {place: places[place] for place in order if place in places}


def _value(found: Prediction, record: Record, classes: Sequence[str], least: float) -> float:
    """How good the answer for one image is."""
    from clearsight.data.class_map import read_class_map
    from clearsight.metrics.compare_maps import compare_maps
    from clearsight.metrics.instances import score_instances
    from clearsight.metrics.results import ImageResult
    from clearsight.metrics.semantic import score_semantic
    from clearsight.train.file_pixels import truth_of

    if found.semantic is not None:
        result = compare_maps(found.semantic, read_class_map(record), len(classes), path=record.image)
        return score_semantic([result], classes).summary["miou"]
    if found.instances is None:
        return math.nan
    truth = truth_of(record, shapes=True)
    objects = ImageResult(path=record.image, size=found.size, predicted=found.instances, truth=truth)
    return score_instances([objects], classes, threshold=least).summary["aji"]


def _strip(found: Prediction, test: Dataset, index: int) -> Image.Image:
    """What was predicted, and the truth to its right."""
    from clearsight.data.class_map import read_class_map
    from clearsight.data.decode import read_image
    from clearsight.report.class_map_picture import draw_class_map
    from clearsight.report.overlay import draw_instances
    from clearsight.train.file_pixels import truth_of

    record = test.records[index]
    image = read_image(record.image)
    if found.semantic is not None:
        return draw_class_map(image, found.semantic, test.classes, truth=read_class_map(record))
    sides = {"predicted": found.instances, "truth": truth_of(record, shapes=True)}
    panels = [draw_instances(image, objects, test.classes) for objects in sides.values() if objects is not None]
    panels = [_titled(panel, title, size=panel.width // 26) for panel, title in zip(panels, sides, strict=True)]
    whole = Image.new("RGB", (sum(panel.width + GAP for panel in panels) - GAP, panels[0].height), DARK)
    for place, panel in enumerate(panels):
        whole.paste(panel, (place * (panel.width + GAP), 0))
    return whole


def _titled(picture: Image.Image, title: str, *, size: int) -> Image.Image:
    """The picture below a line of text."""
    whole = Image.new("RGB", (picture.width, picture.height + 2 * size), DARK)
    whole.paste(picture, (0, 2 * size))
    font = ImageFont.load_default(size=size)
    ImageDraw.Draw(whole).text((size / 2, size), title, font=font, fill=(255, 255, 255), anchor="lm")
    return whole


def page(strips: Sequence[tuple[str, Image.Image]], *, width: int) -> Image.Image:
    """Strips below each other, each under its title, all as wide as the narrowest and at most `width`."""
    width = min([width, *(strip.width for _, strip in strips)])
    fitted: list[Image.Image] = []
    for title, strip in strips:
        height = max(1, round(strip.height * width / strip.width))
        fitted.append(_titled(strip.resize((width, height), Image.Resampling.LANCZOS), title, size=20))
    whole = Image.new("RGB", (width, sum(strip.height + GAP for strip in fitted) - GAP), DARK)
    top = 0
    for strip in fitted:
        whole.paste(strip, (0, top))
        top += strip.height + GAP
    return whole


def save_small(picture: Image.Image, out: Path, *, most: int = BYTES) -> Path:
    """Write a JPEG of at most so many bytes: of less quality, then smaller, where it has to be.

    Raises:
        ValueError: it cannot be made so small.
    """
    for share in (1.0, 0.85, 0.7, 0.5, 0.35):
        size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        smaller = picture.resize(size, Image.Resampling.LANCZOS) if share < 1 else picture
        for quality in (88, 80, 70):
            file = io.BytesIO()
            smaller.save(file, "JPEG", quality=quality, optimize=True)
            if file.tell() <= most:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(file.getvalue())
                return out
    raise ValueError(f"{out.name}: a picture of {picture.width} by {picture.height} does not fit into {most} bytes")
