"""The grid of points, class targets, and post-processing against a loop over images and levels."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
import torchvision
from torch import Tensor

from clearsight.assign.assignment import Assignment
from clearsight.models.detect.dense import (
    Candidates,
    PointGrid,
    Scored,
    class_targets,
    level_shapes,
    make_points,
    most_probable,
    postprocess,
    probability,
    suppress,
)
from clearsight.ops.boxes import box_iou, clip_boxes
from clearsight.ops.selection import Selection
from clearsight.ops.voting import vote_boxes
from clearsight.types import Targets


def test_points_by_hand() -> None:
    points = make_points([(1, 2), (1, 1)], (8, 16))
    assert points.xy.tolist() == [[4, 4], [12, 4], [8, 8]]
    assert points.stride.tolist() == [8, 8, 16]
    assert points.level.tolist() == [0, 0, 1]
    assert points.boxes[0].tolist() == [4 - 32, 4 - 32, 4 + 32, 4 + 32]


def test_anchors_stand_next_to_each_other() -> None:
    cell = torch.tensor([[-1.0, -1.0, 1.0, 1.0], [-2.0, -1.0, 2.0, 1.0]])
    points = make_points([(2, 1)], (8,), anchors=[cell], offset=0.0, steps=[(10, 7)])
    assert points.xy.tolist() == [[0, 0], [0, 0], [0, 10], [0, 10]]
    assert points.boxes.tolist() == [[-1, -1, 1, 1], [-2, -1, 2, 1], [-1, 9, 1, 11], [-2, 9, 2, 11]]


def test_shapes_round_up() -> None:
    assert level_shapes((240, 320), (8, 64, 128)) == [(30, 40), (4, 5), (2, 3)]


def test_the_grid_remembers_the_last_few() -> None:
    grid, cpu = PointGrid((8,), remember=2), torch.device("cpu")
    first = grid((16, 16), cpu)
    assert grid((16, 16), cpu) is first
    assert len(grid((32, 16), cpu).xy) == 8
    grid((16, 32), cpu)
    assert grid((16, 16), cpu) is not first
    whole = PointGrid((8,), offset=0.0, whole_steps=True)((20, 8), cpu)
    assert whole.xy[:, 1].tolist() == [0, 6, 12]  # three rows of 20 // 3


def test_class_targets_by_hand() -> None:
    targets = Targets(boxes=torch.zeros(2, 4), labels=torch.tensor([2, 0]), image=torch.tensor([0, 1]))
    assignment = Assignment(
        object=torch.tensor([0, 1]),
        point=torch.tensor([1, 0]),
        weight=torch.tensor([1.0, 0.5]),
        background=torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        quality=torch.tensor([0.7, 0.9]),
    )
    wanted, weight = class_targets(assignment, targets, classes=3)
    expected = torch.zeros(2, 2, 3)
    expected[0, 1, 2], expected[1, 0, 0] = 0.7, 0.9
    torch.testing.assert_close(wanted, expected)
    assert weight.tolist() == [[1.0, 1.0], [0.5, 1.0]]
    assert assignment.background.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assignment.quality = None
    torch.testing.assert_close(class_targets(assignment, targets, classes=3)[0], (expected > 0).float())


def by_loops(
    logits: Tensor,
    boxes: Tensor,
    sizes: Tensor,
    level: Tensor,
    *,
    threshold: float,
    most: int,
    candidates: int,
    factor: Tensor | None = None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    results = []
    classes = logits.shape[2]
    for image in range(len(logits)):
        found = []
        for here in range(int(level.max()) + 1):
            rows = (level == here).nonzero().squeeze(1)
            scores = logits[image, rows].sigmoid()
            if factor is not None:
                scores = (scores * factor[image, rows, None]).sqrt()
            scores = scores.flatten()
            index = (scores > threshold).nonzero().squeeze(1)
            index = index[scores[index].argsort(descending=True, stable=True)][:candidates]
            clipped = clip_boxes(boxes[image, rows[index // classes]], sizes[image])
            found.append((clipped, scores[index], index % classes))
        box, score, label = (torch.cat(part) for part in zip(*found, strict=True))
        kept = torchvision.ops.boxes._batched_nms_vanilla(box, score, label, 0.5)[:most]
        results.append((box[kept], label[kept], score[kept]))
    return results


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize(("most", "candidates"), [(7, 1000), (300, 1000), (300, 20)])
@pytest.mark.parametrize("central", [False, True])
def test_postprocess_equals_the_loops(threshold: float, most: int, candidates: int, central: bool) -> None:
    points = make_points(level_shapes((48, 64), (8, 16, 32)), (8, 16, 32))
    count = len(points.xy)
    logits = torch.randn(3, count, 4)
    logits[1] -= 50  # an image without detections
    boxes = points.boxes + torch.randn(3, count, 4) * 8
    sizes = torch.tensor([[48, 64], [48, 64], [40, 50]])
    factor = torch.rand(3, count) if central else None
    if factor is not None:
        factor[2, :20], factor[2, 20:40] = 0.0, 1.0
    scored = Scored(logits, lambda image, point: boxes[image, point], points.level, factor)
    selection = Selection(score_threshold=threshold, max_detections=most, candidates=candidates)
    found = postprocess(scored, sizes, selection)
    options = {"threshold": threshold, "most": most, "candidates": candidates, "factor": factor}
    expected = by_loops(logits, boxes, sizes, points.level, **options)
    assert len(found) == 3
    for instances, (box, label, score) in zip(found, expected, strict=True):
        torch.testing.assert_close(instances.boxes, box)
        assert instances.labels.tolist() == label.tolist()
        assert instances.scores is not None
        torch.testing.assert_close(instances.scores, score)
    assert [len(instances) > 0 for instances in found] == [threshold < 1, threshold == 0, threshold < 1]


def test_scores_that_are_no_numbers_are_no_detections() -> None:
    points = make_points([(2, 2)], (8,))
    logits, factor = torch.full((2, 4, 1), 2.0), torch.ones(2, 4)
    logits[0, 1], factor[1, 2] = torch.nan, torch.nan
    most = Selection(score_threshold=0.0, nms_iou=1.0, max_detections=9)
    sizes = torch.tensor([[16, 16]] * 2)
    scored = Scored(logits, lambda _, point: points.boxes[point], points.level, factor)
    found = postprocess(scored, sizes, most)
    assert [len(one) for one in found] == [3, 3]


def test_probabilities_are_what_is_compared_with_the_threshold() -> None:
    points, logits, factor = make_points([(2, 2)], (8,)), torch.randn(2, 4, 3), torch.rand(2, 4)
    plain = Scored(logits, lambda _, point: points.boxes[point], points.level)
    torch.testing.assert_close(probability(plain), logits.sigmoid())
    torch.testing.assert_close(
        probability(plain._replace(factor=factor)), (logits.sigmoid() * factor[..., None]).sqrt()
    )


def test_the_most_probable_of_each_group() -> None:
    score = torch.tensor([0.5, 0.9, 0.7, 0.7, 0.1, 0.7])
    rows = torch.arange(6)
    found = most_probable(Candidates(score, rows, rows, rows), torch.tensor([2, 0, 2, 2, 0, 2]), most=2)
    assert found.point.tolist() == [1, 2, 3, 4]  # the first of the three equals give way to none
    assert len(most_probable(Candidates(score, rows, rows, rows), torch.tensor([2, 0, 2, 2, 0, 2]), most=4).score) == 6


def crowd(*, images: int = 3, count: int = 60, classes: int = 3) -> tuple[Candidates, Tensor, Tensor]:
    """Overlapping boxes of several images, in no order."""
    corner = torch.rand(images * count, 2) * 40
    boxes = torch.cat((corner, corner + torch.rand(images * count, 2) * 40 + 2), dim=1)
    rows = torch.arange(images * count)
    found = Candidates(
        torch.rand(len(rows)), torch.randint(classes, rows.shape), torch.randperm(len(rows)) % images, rows
    )
    return found, boxes, torch.tensor([[60, 70]] * images)


@pytest.mark.parametrize("most", [5, 100])
def test_agnostic_suppression_is_torchvisions(most: int) -> None:
    found, boxes, sizes = crowd()
    selection = Selection(nms="agnostic", nms_iou=0.4, max_detections=most)
    results = suppress(found, sizes, selection, decode=lambda _, point: boxes[point], classes=3)
    by_class = suppress(found, sizes, Selection(nms_iou=0.4), decode=lambda _, point: boxes[point], classes=3)
    for image, result in enumerate(results):
        rows = (found.image == image).nonzero().squeeze(1)
        clipped = clip_boxes(boxes[rows], (60, 70))
        kept = torchvision.ops.nms(clipped, found.score[rows], 0.4)[:most]
        torch.testing.assert_close(result.boxes, clipped[kept])
        assert result.labels.tolist() == found.label[rows][kept].tolist()
        torch.testing.assert_close(result.scores, found.score[rows][kept])
        assert len(result) < len(by_class[image])


@pytest.mark.parametrize(("most", "threshold"), [(5, 0.05), (100, 0.05), (100, 0.3)])
def test_soft_suppression_lowers_scores(most: int, threshold: float) -> None:
    found, boxes, sizes = crowd()
    selection = Selection(nms="soft", score_threshold=threshold, max_detections=most)
    results = suppress(found, sizes, selection, decode=lambda _, point: boxes[point], classes=3)
    for image, result in enumerate(results):
        rows = (found.image == image).nonzero().squeeze(1)
        clipped = clip_boxes(boxes[rows], (60, 70))
        expected = []
        for label in range(3):
            left = {i: found.score[rows[i]].item() for i in range(len(rows)) if found.label[rows[i]] == label}
            while left:
                best = max(left, key=lambda i: left[i])
                expected.append((left.pop(best), best))
                for i, overlap in zip(left, box_iou(clipped[best][None], clipped[list(left)])[0].tolist(), strict=True):
                    left[i] *= math.exp(-(overlap**2) / 0.5)
        expected = sorted((pair for pair in expected if pair[0] > threshold), reverse=True)[:most]
        kept = [i for _, i in expected]
        torch.testing.assert_close(result.boxes, clipped[kept])
        assert result.labels.tolist() == found.label[rows][kept].tolist()
        torch.testing.assert_close(result.scores, torch.tensor([score for score, _ in expected]))
    assert all(0 < len(result) <= most for result in results)


@pytest.mark.parametrize("nms", ["class", "agnostic", "soft"])
def test_votes_come_of_the_same_class_whatever_the_suppression(nms: Literal["class", "agnostic", "soft"]) -> None:
    found, boxes, sizes = crowd(images=2)
    decode = {"decode": lambda _, point: boxes[point], "classes": 3}
    plain = suppress(found, sizes, Selection(nms=nms), **decode)
    voted = suppress(found, sizes, Selection(nms=nms, box_voting=True), **decode)
    for image, (before, after) in enumerate(zip(plain, voted, strict=True)):
        rows = (found.image == image).nonzero().squeeze(1)
        box, score, label = clip_boxes(boxes[rows], (60, 70)), found.score[rows], found.label[rows]
        torch.testing.assert_close(after.boxes, vote_boxes(before.boxes, before.labels, box, score, label))
        torch.testing.assert_close(after.scores, before.scores)
        assert not torch.equal(after.boxes, before.boxes)


@pytest.mark.parametrize("nms", ["class", "agnostic", "soft"])
def test_boxes_that_are_no_numbers_are_no_detections(nms: Literal["class", "agnostic", "soft"]) -> None:
    found, boxes, sizes = crowd()
    rest = found.point % 4 != 0
    selection = Selection(nms=nms)
    without = Candidates(*(column[rest] for column in found))
    expected = suppress(without, sizes, selection, decode=lambda _, point: boxes[point], classes=3)
    boxes[::4, 1] = torch.nan
    results = suppress(found, sizes, selection, decode=lambda _, point: boxes[point], classes=3)
    for one, other in zip(results, expected, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes)
        torch.testing.assert_close(one.scores, other.scores)
    none = Candidates(*(column[:0] for column in found))
    empty = suppress(none, sizes, selection, decode=lambda _, point: boxes[point], classes=3)
    assert [len(one) for one in empty] == [0, 0, 0]


@pytest.mark.parametrize("nms", ["class", "agnostic", "soft"])
def test_the_caps_hold_with_many_boxes(nms: Literal["class", "agnostic", "soft"]) -> None:
    """Every box of 20,000 passes: suppression sees `candidates` of each image and level, and not all of them."""
    points = make_points([(100, 150), (50, 100)], (4, 8))
    logits = torch.randn(1, len(points.xy), 1)
    seen: list[int] = []

    def decode(image: Tensor, point: Tensor) -> Tensor:
        seen.append(len(image))
        return points.boxes[point]

    selection = Selection(score_threshold=0.0, nms=nms, candidates=300, max_detections=20, nms_iou=0.9)
    (result,) = postprocess(Scored(logits, decode, points.level), torch.tensor([[400, 800]]), selection)
    assert (len(points.xy), seen, len(result)) == (20_000, [600], 20)
    assert result.scores is not None
    assert result.scores[0] == logits.amax().sigmoid()
