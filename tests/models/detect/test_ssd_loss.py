"""The two terms: torchvision's numbers, by hand, and of any assigner."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from clearsight.assign import SimOta
from clearsight.assign.assignment import Assignment, Points
from clearsight.assign.free_anchor import FreeAnchor
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import make_points
from clearsight.models.detect.ssd_levels import AtrousLevels, DefaultBoxes
from clearsight.models.detect.ssd_loss import SsdLoss, decode_boxes, hardest_background
from clearsight.types import Targets


class Theirs:
    """What torchvision's `compute_loss` needs of a model."""

    box_coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    neg_to_pos_ratio = 3.0


def grid(size: int = 96) -> Points:
    return DefaultBoxes(AtrousLevels.strides, unpadded=2)((size, size), torch.device("cpu"))


@pytest.mark.parametrize("counts", [(5, 0, 12), (1,), (0, 0)])
def test_is_torchvisions(counts: tuple[int, ...], as_targets: Callable[..., Targets]) -> None:
    points = grid()
    images, count = len(counts), len(points.xy)
    logits = torch.randn(images, count, 4, dtype=torch.float64).requires_grad_()
    deltas = torch.randn(images, count, 4, dtype=torch.float64).requires_grad_()
    corner = [torch.rand(n, 2) * 60 for n in counts]
    boxes = [torch.cat((xy, xy + 8 + torch.rand(len(xy), 2) * 40), dim=1) for xy in corner]
    labels = [torch.randint(3, (n,)) for n in counts]
    matched = [
        SSDMatcher(0.5)(box_iou(box, points.boxes)) if len(box) else torch.full((count,), -1, dtype=torch.int64)
        for box in boxes
    ]
    listed = [{"boxes": box, "labels": label + 1} for box, label in zip(boxes, labels, strict=True)]
    outputs = {"bbox_regression": deltas, "cls_logits": logits}
    expected = SSD.compute_loss(Theirs(), listed, outputs, [points.boxes] * images, matched)
    wanted = torch.autograd.grad(sum(expected.values(), torch.zeros(())), (logits, deltas), materialize_grads=True)

    found = SsdLoss()(logits, deltas, points, as_targets(boxes, labels))
    assert list(found) == ["class", "box"]
    torch.testing.assert_close(found["class"], expected["classification"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["box"], expected["bbox_regression"], rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(sum(found.values(), torch.zeros(())), (logits, deltas), materialize_grads=True)
    for mine, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    assert (found["box"] > 0) == (sum(counts) > 0)


def given(background: list[list[float]], pairs: int, quality: float | None = None) -> Assignment:
    weight = torch.ones(pairs)
    thing = torch.zeros(pairs, dtype=torch.int64)
    point = torch.arange(pairs)
    soft = None if quality is None else weight * quality
    return Assignment(object=thing, point=point, weight=weight, background=torch.tensor(background), quality=soft)


def test_the_hardest_background_by_hand() -> None:
    logits = torch.zeros(2, 6, 2)
    logits[:, :, 1] = torch.tensor([9.0, 1.0, 5.0, 3.0, 7.0, 3.0])  # the larger, the harder as background
    found = given([[0.0, 1.0, 1.0, 1.0, 0.0, 1.0], [1.0] * 6], 1)  # one positive, one ignored; none in the other image
    image = torch.tensor([0])
    assert [part.tolist() for part in hardest_background(logits, found, image, each=2)] == [[0, 0], [2, 3]]
    assert [part.tolist() for part in hardest_background(logits, found, image, each=9)] == [[0] * 4, [2, 3, 5, 1]]
    assert [part.tolist() for part in hardest_background(logits, found, image, each=0)] == [[], []]


class Given:
    """An assigner that says what it was told to."""

    needs_predictions = False

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment

    def __call__(self, *_: object, images: int) -> Assignment:
        return self.assignment


def test_a_quality_shares_the_target_with_background() -> None:
    points = make_points([(1, 3)], (8,), anchors=[torch.tensor([[-4.0, -4.0, 4.0, 4.0]])])
    targets = Targets(boxes=torch.tensor([[1.0, 1, 9, 6]]), labels=torch.tensor([1]), image=torch.tensor([0]))
    logits, deltas = torch.randn(1, 3, 3), torch.randn(1, 3, 4)
    loss = SsdLoss(assigner=Given(given([[0.0, 0.5, 0.5]], 1, quality=0.7)), negatives=1.0)
    found = loss(logits, deltas, points, targets)
    soft = F.cross_entropy(logits[0, :1], torch.tensor([[0.3, 0.0, 0.7]]))
    hardest = F.cross_entropy(logits[0, 1:], torch.zeros(2, dtype=torch.int64), reduction="none").max()
    torch.testing.assert_close(found["class"], soft + 0.5 * hardest)


def test_decoding_inverts_the_code() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 20]])
    torch.testing.assert_close(
        decode_boxes(torch.tensor([[1.0, -1, 0, 0]]), anchors), torch.tensor([[1.0, -2, 11, 18]])
    )
    grown = decode_boxes(torch.tensor([[0.0, 0, 5 * torch.tensor(2.0).log().item(), 0]]), anchors)
    torch.testing.assert_close(grown, torch.tensor([[-5.0, 0, 15, 20]]))


def test_dynamic_assigners_see_probabilities_and_boxes() -> None:
    points = make_points([(2, 2)], (8,), anchors=[torch.tensor([[-4.0, -4.0, 4.0, 4.0]])])
    targets = Targets(boxes=torch.tensor([[0.0, 0, 8, 7]]), labels=torch.tensor([1]), image=torch.tensor([0]))
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(SimOta):
        def __call__(self, points: Points, targets: Targets, predictions: object = None, *, images: int) -> Assignment:
            seen.append(predictions)
            return super().__call__(points, targets, predictions, images=images)

    logits = torch.randn(1, 4, 4)
    found = SsdLoss(assigner=Watched(candidates=1))(logits, torch.zeros(1, 4, 4), points, targets)
    assert all(torch.isfinite(term) for term in found.values())
    odds, boxes = seen[0]
    torch.testing.assert_close(odds.sigmoid(), logits.softmax(dim=-1)[..., 1:])
    torch.testing.assert_close(boxes[0], points.boxes)


@pytest.mark.parametrize("box", [(3.0, 3.0, 3.0, 3.0), (-500.0, -500.0, 900.0, 900.0), (3.9, 3.9, 4.2, 4.2)])
def test_extreme_boxes_have_finite_gradients(box: tuple[float, ...]) -> None:
    points = grid()
    targets = Targets(boxes=torch.tensor([box]), labels=torch.tensor([0]), image=torch.tensor([0]))
    outputs = [torch.zeros((1, len(points.xy), 4), requires_grad=True) for _ in range(2)]
    total = sum(SsdLoss()(*outputs, points, targets).values(), torch.zeros(()))
    total.backward()
    assert torch.isfinite(total)
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in outputs)


def test_a_negative_share() -> None:
    with pytest.raises(ConfigError, match="negatives: must be at least 0 for each positive, got -1"):
        SsdLoss(negatives=-1)


def test_bags_are_refused() -> None:
    points = grid()
    targets = Targets(boxes=torch.tensor([[2.0, 2, 30, 30]]), labels=torch.tensor([0]), image=torch.tensor([0]))
    with pytest.raises(ConfigError, match="softmax takes no bags of points"):
        SsdLoss(assigner=FreeAnchor())(
            torch.zeros(1, len(points.xy), 2), torch.zeros(1, len(points.xy), 4), points, targets
        )
