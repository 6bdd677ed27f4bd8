"""The choice of boxes in fixed shapes, beside the one in lists; and which box of one answer is which of another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clearsight.deploy.onnx_suppression import Detections, best_boxes, check_selection, pair_boxes
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import Candidates, suppress
from clearsight.ops.selection import Selection
from clearsight.types import Instances

SIZE = (60, 90)


def candidates(count: int) -> tuple[Tensor, Tensor, Tensor]:
    corner = torch.rand(2, count, 2) * torch.tensor([90.0, 60.0]) - 5
    boxes = torch.cat((corner, corner + 5 + torch.rand(2, count, 2) * 30), dim=2)
    return boxes, torch.rand(2, count), torch.randint(0, 3, (2, count))


@pytest.mark.parametrize(
    "selection",
    [
        Selection(score_threshold=0.2),
        Selection(score_threshold=0.2, nms="agnostic", nms_iou=0.2, max_detections=7),
        Selection(score_threshold=0.2, box_voting=True),
        Selection(score_threshold=0.99),
    ],
)
def test_as_in_lists(selection: Selection, assert_same: Callable[..., object]) -> None:
    boxes, score, label = candidates(80)
    boxes[0, :5] = torch.nan
    score = torch.where(score > selection.score_threshold, score, 0.0)
    found = best_boxes(boxes, score, label, size=SIZE, selection=selection)
    image, place = score.nonzero(as_tuple=True)
    listed = Candidates(score[image, place], label[image, place], image, place)
    sizes = torch.tensor([SIZE, SIZE])
    expected = suppress(listed, sizes, selection, decode=lambda image, place: boxes[image, place], classes=3)
    assert_same(found, expected)
    assert not bool(found.boxes.isnan().any())


def test_soft_is_refused() -> None:
    check_selection(Selection(nms="agnostic"))
    with pytest.raises(ConfigError, match="soft suppression has no ONNX operator"):
        check_selection(Selection(nms="soft"))


def answer() -> tuple[Detections, list[Instances]]:
    boxes, _, label = candidates(40)
    score = torch.linspace(0.9, 0.1, 40).expand(2, -1)
    truth = [Instances(boxes=b, labels=c, scores=s) for b, c, s in zip(boxes, label, score, strict=True)]
    return Detections(boxes, label, score), truth


def test_pairs_whatever_the_order() -> None:
    found, truth = answer()
    order = torch.randperm(40)
    turned = [Instances(boxes=one.boxes[order], labels=one.labels[order], scores=one.scores[order]) for one in truth]  # pyright: ignore
    for number, (mine, theirs) in enumerate(pair_boxes(found, turned)):
        assert len(mine) == 40
        assert torch.equal(found.boxes[number, mine], turned[number].boxes[theirs])


def test_nothing_pairs_with_nothing() -> None:
    nothing = Instances(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), scores=torch.zeros(0))
    blank = Detections(torch.zeros(1, 5, 4), torch.full((1, 5), -1), torch.zeros(1, 5))
    assert [len(mine) for mine, _ in pair_boxes(blank, [nothing])] == [0]
    found, _ = answer()
    with pytest.raises(ConfigError, match="of 40 detections 40 differ"):
        pair_boxes([each[:1] for each in found], [nothing])


@pytest.mark.parametrize("change", ["boxes", "labels", "scores"])
def test_what_differs_has_no_pair(change: str) -> None:
    found, truth = answer()
    column = getattr(found, change).clone()
    column[0, 3] = column[0, 3] + (1 if change != "scores" else 0.01)
    once = found._replace(**{change: column})
    assert [len(mine) for mine, _ in pair_boxes(once, truth)] == [39, 40]
    column[1, 4] = column[1, 4] + (1 if change != "scores" else 0.01)
    with pytest.raises(ConfigError, match="of 80 detections 2 differ"):
        pair_boxes(found._replace(**{change: column}), truth)
