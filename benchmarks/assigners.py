"""Label assigners for a batch at once, beside the same method image by image or object by object.

A batch of 16 images of 640 pixels has 8,400 points and 50 objects an image. A row is the median over alternating rounds
of the time of one assignment. `--only WORD` measures the rows whose name has the word.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness import Row, alternate, arguments, compare, report, seconds, stop

if TYPE_CHECKING:
    from torch import Tensor

    from clearsight.assign import Assigner
    from clearsight.assign.assignment import Points, Predictions
    from clearsight.types import Targets

FASTER = 3.0


class Case(NamedTuple):
    """What is assigned.

    Args:
        points: with the squares of anchor-free heads.
        cells: the same places with anchors of three strides.
        targets: of all images.
        predictions: near the points.
        images: n.
    """

    points: Points
    cells: Points
    targets: Targets
    predictions: Predictions
    images: int


@dataclass(frozen=True)
class Pair:
    """An assigner beside its loop.

    Args:
        name: of the row.
        key: of `ASSIGNERS`.
        ours: makes ours.
        loop: the same method the other way.
        peer: what that is.
        grid: which points both get.
        bar: of the ratio.
        rounds: at most, where one takes long.
    """

    name: str
    key: str
    ours: Callable[[], Assigner]
    loop: Callable[[Case], Tensor]
    peer: str
    grid: Literal["points", "cells"] = "points"
    bar: float | None = FASTER
    rounds: int = 15


def pairs() -> tuple[Pair, ...]:
    """All rows but the last."""
    import torch

    import assigner_loops as loops
    import assigner_loops_bags as bags
    from clearsight.assign.atss import Atss
    from clearsight.assign.auto_assign import AutoAssign
    from clearsight.assign.fcos import CentreSampling
    from clearsight.assign.free_anchor import FreeAnchor
    from clearsight.assign.iqdet import Iqdet
    from clearsight.assign.max_iou import MaxIou
    from clearsight.assign.multibox import MultiBox
    from clearsight.assign.ota import Ota
    from clearsight.assign.paa import Paa
    from clearsight.assign.shape_ratio import ShapeRatio
    from clearsight.assign.simota import SimOta

    def by_place(loop: Callable[..., Tensor]) -> Callable[[Case], Tensor]:
        return lambda case: loop(case.points, case.targets, case.images)

    def by_prediction(loop: Callable[..., Tensor]) -> Callable[[Case], Tensor]:
        return lambda case: loop(case.points, case.targets, case.predictions, case.images)

    def by_bag(loop: Callable[..., object], **options: object) -> Callable[[Case], Tensor]:
        def pairs_of(case: Case) -> Tensor:
            found: Any = loop(case.points, case.targets, case.predictions, **options)
            return torch.tensor(sorted(found[0] if isinstance(found, tuple) else found))

        return pairs_of

    theirs = "torchvision's, by image"
    prior = {"mean": torch.zeros(80, 2), "sigma": torch.ones(80, 2)}
    return (
        Pair("max IoU", "max_iou", MaxIou, by_place(loops.max_iou_loop), theirs),
        Pair("ATSS", "atss", Atss, by_place(loops.atss_loop), "by image"),
        Pair("FCOS", "centre_sampling", CentreSampling, by_place(loops.fcos_loop), theirs),
        Pair(
            "shape ratio",
            "shape_ratio",
            ShapeRatio,
            lambda case: loops.shape_ratio_loop(case.cells, case.targets, case.images),
            "by object",
            grid="cells",
        ),
        Pair("SimOTA", "simota", SimOta, by_prediction(loops.simota_loop), "by image and object", rounds=5),
        Pair("OTA", "ota", Ota, by_prediction(loops.ota_loop), "by image", rounds=3),
        Pair("PAA", "paa", Paa, by_prediction(loops.paa_loop), "by object, scikit-learn's mixture", rounds=3),
        Pair("MultiBox", "multibox", MultiBox, by_place(loops.multibox_loop), "by image"),
        Pair(
            "FreeAnchor", "free_anchor", FreeAnchor, by_bag(bags.free_anchor_loop, bag=50, threshold=0.6), "by object"
        ),
        Pair(
            "AutoAssign",
            "auto_assign",
            lambda: AutoAssign(num_classes=80),
            by_bag(bags.auto_assign_loop, **prior),
            "by object and point",
            rounds=2,
        ),
        Pair(
            "IQDet",
            "iqdet",
            Iqdet,
            by_bag(bags.iqdet_loop, samples=12, components=2, alpha=1.0, steps=10),
            "by object and point",
            rounds=2,
        ),
    )


def make_case(*, images: int = 16, objects: int = 50, size: int = 640, classes: int = 80) -> Case:
    """Objects of 8 to 320 pixels anywhere, and predictions around the points."""
    import torch

    from clearsight.assign.assignment import Predictions
    from clearsight.models.detect.dense import level_shapes, make_points
    from clearsight.types import Targets

    strides = (8, 16, 32)
    shapes = level_shapes((size, size), strides)
    points = make_points(shapes, strides)
    anchors = [torch.tensor([[-1.5, -1.5, 1.5, 1.5]]) * stride for stride in strides]
    cells = make_points(shapes, strides, anchors=anchors)
    count, centres = images * objects, torch.rand(images * objects, 2) * size
    half = 4 * torch.exp2(torch.rand(count, 2) * 5.3)
    targets = Targets(
        boxes=torch.cat((centres - half, centres + half), dim=1).clamp(0, size),
        labels=torch.randint(classes, (count,)),
        image=torch.arange(images).repeat_interleave(objects),
    )
    shape = (images, len(points.xy), 2)
    centres = points.xy + torch.randn(shape) * points.stride[:, None] / 2
    half = points.stride[:, None] * (torch.rand(shape) * 3 + 0.3)
    boxes = torch.cat((centres - half, centres + half), dim=-1)
    return Case(points, cells, targets, Predictions(torch.randn(*shape[:2], classes) - 2, boxes), images)


def measure(pair: Pair, case: Case, rounds: int, *, quick: bool) -> Row:
    """Both sides in turns."""
    assigner, grid = pair.ours(), case.cells if pair.grid == "cells" else case.points
    ours = lambda: assigner(grid, case.targets, case.predictions, images=case.images)  # noqa: E731
    sides = {"ours": lambda: seconds(ours) * 1e3, "theirs": lambda: seconds(lambda: pair.loop(case)) * 1e3}
    found = alternate(sides, rounds=min(rounds, pair.rounds), quick=quick)
    return compare(
        pair.name, found["ours"], unit="ms", better="lower", peer=pair.peer, theirs=found["theirs"], bar=pair.bar
    )


def ota_beside_simota(case: Case, rounds: int, *, quick: bool) -> Row:
    """The whole transport beside its simplification."""
    from clearsight.assign.ota import Ota
    from clearsight.assign.simota import SimOta

    sides = {
        name: lambda assigner=assigner: (
            seconds(lambda: assigner(case.points, case.targets, case.predictions, images=case.images)) * 1e3
        )
        for name, assigner in (("ota", Ota()), ("simota", SimOta()))
    }
    found = alternate(sides, rounds=rounds, quick=quick)
    return compare(
        "OTA beside SimOTA", found["ota"], unit="ms", better="lower", peer="ours", theirs=found["simota"], bar=0.5
    )


def main() -> int:
    """Measure and report."""

    def extra(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", metavar="WORD", help="rows whose name has this word")
        parser.add_argument("--rounds", type=int, default=15, help="measurements of each side, at most (default: 15)")
        parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")

    options = arguments((__doc__ or "").splitlines()[0], extra=extra)
    import torch

    from clearsight.assign import ASSIGNERS

    if options.extra.threads:
        torch.set_num_threads(options.extra.threads)
    known = pairs()
    missing = sorted(set(ASSIGNERS) - {pair.key for pair in known})
    if missing:
        stop(f"no loop to compare with: {', '.join(missing)}; add one to assigner_loops.py and a row here")
    torch.manual_seed(0)
    case = make_case(images=2, size=256) if options.quick else make_case()
    rows = [
        measure(pair, case, options.extra.rounds, quick=options.quick)
        for pair in known
        if options.extra.only in pair.name
    ]
    if options.extra.only in "OTA beside SimOTA":
        rows.append(ota_beside_simota(case, options.extra.rounds, quick=options.quick))
    if not rows:
        stop(f"--only {options.extra.only}: no such row; there are: {', '.join(pair.name for pair in known)}")
    return report("assigners", rows, options)


if __name__ == "__main__":
    sys.exit(main())
