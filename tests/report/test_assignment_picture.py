"""Panels of label assignment: what is where, in which colour."""

from __future__ import annotations

import numpy as np
import torch

from clearsight.assign.assignment import Assignment
from clearsight.assign.max_iou import MaxIou
from clearsight.models.detect.dense import make_points
from clearsight.report.assignment_picture import draw_assignments
from clearsight.report.palette import class_color
from clearsight.types import Targets

POINTS = make_points([(8, 10), (4, 5)], (16, 32))
TARGETS = Targets(
    boxes=torch.tensor([[16.0, 16, 80, 80], [96, 64, 150, 126], [0, 100, 20, 128], [0, 0, 9, 9]]),
    labels=torch.tensor([0, 0, 1, 0]),
    image=torch.tensor([0, 0, 0, 1]),
    ignore=torch.tensor([False, False, True, False]),
)
IMAGE = np.full((128, 160, 3), 255, np.uint8)


def one(object: list[int], point: list[int], weight: list[float]) -> Assignment:
    background = torch.ones(2, len(POINTS.xy))
    background[0, 70] = 0  # neither object nor background
    return Assignment(
        object=torch.tensor(object, dtype=torch.int64),
        point=torch.tensor(point, dtype=torch.int64),
        weight=torch.tensor(weight),
        background=background,
    )


def test_points_have_their_objects_colour_and_place() -> None:
    picture = draw_assignments(IMAGE, POINTS, TARGETS, {"a": one([0, 1, 3], [22, 57, 0], [1, 1, 1])}, title="t")
    array = np.asarray(picture)
    left, top, factor = 16, 52 + 54 - 6, 4  # 160 pixels are drawn as 640

    def color(point: int) -> tuple[int, ...]:
        x, y = (POINTS.xy[point] * factor).int().tolist()
        return tuple(array[top + y, left + x].tolist())

    assert color(22) == class_color(0)
    assert color(57) == class_color(1)
    assert color(70) == (130, 134, 140)
    assert color(0) == (255, 255, 255)  # of another image's object
    assert color(40) == (255, 255, 255)


def test_heavier_places_are_larger_and_a_weight_of_nothing_is_not_drawn() -> None:
    faint = draw_assignments(IMAGE, POINTS, TARGETS, {"a": one([0, 0, 0], [22, 24, 26], [1, 0.04, 0])}, title="t")
    drawn = (np.asarray(faint)[100:612] == class_color(0)).all(axis=2)
    box = draw_assignments(IMAGE, POINTS, TARGETS, {"a": one([], [], [])}, title="t")
    drawn &= ~(np.asarray(box)[100:612] == class_color(0)).all(axis=2)  # without the outline of the box
    columns = [drawn[:, 16 + int(POINTS.xy[point, 0] * 4) - 14 :][:, :28].sum() for point in (22, 24, 26)]
    assert columns[0] > 2 * columns[1] > 0
    assert columns[2] == 0


def test_many_panels_and_reasons() -> None:
    found = {f"m{number}": MaxIou()(POINTS, TARGETS, images=2) for number in range(4)}
    picture = draw_assignments(IMAGE, POINTS, TARGETS, {**found, "other": "why not"}, title="t", columns=2)
    assert picture.width == 2 * (640 + 16) + 16
    assert picture.height == 52 + 3 * (512 + 54 + 16) + 40
    empty = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), image=torch.zeros(0).long())
    draw_assignments(IMAGE[..., 0], POINTS, empty, {"m": MaxIou()(POINTS, empty, images=2)}, title="t")
