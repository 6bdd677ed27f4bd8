"""The three terms by hand and by loops, and their normaliser."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from clearsight.assign import MaxIou, SimOta
from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.free_anchor import FreeAnchor
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.models.detect.fcos_loss import FcosLoss, centreness
from clearsight.types import Targets


class Given:
    """An assigner that says what it was told to."""

    needs_predictions = False

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment

    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        return self.assignment


def one_object(box: tuple[float, ...] = (0.0, 0.0, 16.0, 8.0)) -> Targets:
    return Targets(boxes=torch.tensor([box]), labels=torch.tensor([1]), image=torch.tensor([0]))


def test_centreness_by_hand() -> None:
    box = torch.tensor([[0.0, 0.0, 8.0, 4.0]]).expand(5, 4)
    xy = torch.tensor([[4.0, 2.0], [2.0, 2.0], [2.0, 1.0], [0.0, 2.0], [-1.0, 2.0]])
    found = centreness(box, xy)
    torch.testing.assert_close(found, torch.tensor([1.0, math.sqrt(1 / 3), 1 / 3, 0.0, 0.0]))
    assert centreness(torch.full((1, 4), 3.0), torch.full((1, 2), 3.0)).tolist() == [0.0]  # no area, no centre


def test_by_hand() -> None:
    points = make_points([(1, 2)], (8,))  # at (4, 4) and (12, 4)
    logits, distances, central = torch.randn(1, 2, 3), torch.rand(1, 2, 4), torch.randn(1, 2)
    found = FcosLoss()(logits, distances, central, points, one_object())
    wanted = torch.zeros(1, 2, 3)
    wanted[0, :, 1] = 1  # both lie in the box, nearer than 12 pixels to its centre
    expected = torchvision.ops.sigmoid_focal_loss(logits, wanted, reduction="sum") / 2
    torch.testing.assert_close(found["class"], expected)
    boxes = torch.tensor([[4.0, 4, 4, 4], [12, 4, 12, 4]]) + distances[0] * 8 * torch.tensor([-1.0, -1, 1, 1])
    truth = torch.tensor([[0.0, 0, 16, 8]]).expand(2, 4)
    giou = torchvision.ops.generalized_box_iou_loss(boxes, truth, reduction="sum")
    torch.testing.assert_close(found["box"], giou / 2)
    ideal = torch.full((2,), math.sqrt(4 / 12))
    torch.testing.assert_close(found["centreness"], F.binary_cross_entropy_with_logits(central[0], ideal))


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_box_losses(name: str) -> None:
    points = make_points([(2, 2)], (8,))
    distances = torch.rand(1, 4, 4) + 0.2
    found = FcosLoss(box_loss=name)(
        torch.zeros(1, 4, 3), distances, torch.zeros(1, 4), points, one_object((1, 1, 15, 14))
    )
    boxes = points.xy.repeat(1, 2) + distances[0] * 8 * torch.tensor([-1.0, -1, 1, 1])
    truth = torch.tensor([[1.0, 1, 15, 14]]).expand(4, 4)
    if name == "iou":
        expected = (1 - torchvision.ops.box_iou(boxes, truth[:1])).mean()
    else:
        peers = {"giou": "generalized_box_iou_loss", "diou": "distance_box_iou_loss", "ciou": "complete_box_iou_loss"}
        expected = getattr(torchvision.ops, peers[name])(boxes, truth, reduction="mean")
    torch.testing.assert_close(found["box"], expected, rtol=1e-5, atol=1e-5)


def by_loops(
    logits: Tensor, distances: Tensor, central: Tensor, points: Points, targets: Targets, given: Assignment
) -> tuple[Tensor, Tensor, Tensor]:
    """The three sums over the weight of the pairs, one pair after the other."""
    total = max(float(given.weight.sum()), 1.0)
    wanted, weight = torch.zeros_like(logits), given.background.clone()
    box = middle = torch.zeros(())
    quality = given.weight.new_ones(len(given.weight)) if given.quality is None else given.quality
    for number in range(len(given.object)):
        thing, point, share = given.object[number], given.point[number], given.weight[number]
        image = targets.image[thing]
        wanted[image, point, targets.labels[thing]] = quality[number]
        weight[image, point] = share
        (left, top, right, bottom), (x, y) = targets.boxes[thing].tolist(), points.xy[point].tolist()
        reach = distances[image, point] * points.stride[point]
        guess = torch.stack((x - reach[0], y - reach[1], x + reach[2], y + reach[3]))
        box = box + share * torchvision.ops.generalized_box_iou_loss(guess, targets.boxes[thing])
        across, down = sorted((x - left, right - x)), sorted((y - top, bottom - y))
        ideal = math.sqrt(max(across[0], 0) / across[1] * max(down[0], 0) / down[1])
        p = central[image, point].sigmoid()
        middle = middle - share * (ideal * p.log() + (1 - ideal) * (1 - p).log())
    focal = (torchvision.ops.sigmoid_focal_loss(logits, wanted) * weight[..., None]).sum()
    return focal / total, box / total, middle / total


@pytest.mark.parametrize("soft", [False, True])
def test_any_pairs_equal_the_loops(soft: bool) -> None:
    points = make_points(level_shapes((48, 64), (8, 16)), (8, 16))
    count = len(points.xy)
    logits, distances, central = torch.randn(3, count, 3), torch.rand(3, count, 4) * 3, torch.randn(3, count)
    boxes = torch.tensor([[2.0, 2, 20, 20], [20, 20, 40, 44], [4, 20, 30, 40], [8, 8, 24, 20]])
    targets = Targets(boxes=boxes, labels=torch.tensor([0, 1, 2, 1]), image=torch.tensor([0, 0, 2, 2]))
    things = torch.tensor([0, 0, 1, 2, 2, 3])  # the last of them at points outside of their boxes
    places = torch.tensor([0, 9, 27, 25, 50, 47])
    background = torch.ones(3, count)
    background[1, 5:9] = 0
    background[targets.image[things], places] = 0
    given = Assignment(
        object=things,
        point=places,
        weight=torch.rand(6) if soft else torch.ones(6),
        background=background,
        quality=torch.rand(6) if soft else None,
    )
    terms = FcosLoss(assigner=Given(given))(logits, distances, central, points, targets)
    for found, expected in zip(
        terms.values(), by_loops(logits, distances, central, points, targets, given), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_ambiguous_points_go_to_the_smaller_object() -> None:
    points = make_points([(4, 4)], (8,))
    boxes = torch.tensor([[0.0, 0, 32, 32], [10, 10, 22, 22]])
    both = Targets(boxes=boxes, labels=torch.tensor([0, 1]), image=torch.tensor([0, 0]))
    swapped = Targets(boxes=boxes.flip(0), labels=torch.tensor([1, 0]), image=torch.tensor([0, 0]))
    logits, distances, central = torch.full((1, 16, 2), -20.0), torch.ones(1, 16, 4), torch.zeros(1, 16)
    logits[0, [5, 6, 9, 10], 1] = 20.0  # the four points in both boxes say that they see the small one
    first, second = (FcosLoss()(logits, distances, central, points, targets) for targets in (both, swapped))
    assert first == second
    assert first["class"].item() < 1e-3  # the larger one's other points lie too far, 12 pixels, from its centre


def test_dynamic_assigners_see_the_boxes() -> None:
    points = make_points([(2, 2)], (8,))
    distances = torch.full((1, 4, 4), 0.5)  # each box is its own cell
    found = FcosLoss(assigner=SimOta(candidates=1))(
        torch.zeros(1, 4, 3), distances, torch.zeros(1, 4), points, one_object((0, 0, 8, 7))
    )
    wanted = torch.zeros(1, 4, 3)
    wanted[0, 0, 1] = 7 / 8  # the overlap of the first cell's box
    expected = torchvision.ops.sigmoid_focal_loss(torch.zeros(1, 4, 3), wanted, reduction="sum")
    torch.testing.assert_close(found["class"], expected)
    torch.testing.assert_close(found["box"], torch.tensor(1 / 8))


def test_bags_learn_the_centreness_as_an_objectness() -> None:
    points = make_points([(2, 2)], (8,))
    outputs = [torch.randn(1, 4, 3), torch.rand(1, 4, 4), torch.randn(1, 4)]
    truth = torch.tensor([1.0, 1, 15, 14])
    assigner = FreeAnchor(bag=1)  # of one anchor: the likelihood itself
    found = FcosLoss(assigner=assigner)(*outputs, points, one_object((1.0, 1, 15, 14)))
    assert list(found) == ["bag", "background"]
    given = assigner(points, one_object((1.0, 1, 15, 14)), Predictions(outputs[0], points.boxes[None]), images=1)
    (point,) = given.point.tolist()
    box = points.xy[point].repeat(2) + outputs[1][0, point] * 8 * torch.tensor([-1.0, -1, 1, 1])
    p = outputs[0][0, point, 1].sigmoid() * outputs[2][0, point].sigmoid()
    likelihood = p * torch.exp(-0.75 * torchvision.ops.generalized_box_iou_loss(box, truth))
    torch.testing.assert_close(found["bag"], -0.5 * likelihood.log())


def test_no_such_box_loss() -> None:
    with pytest.raises(ConfigError, match="box_loss: there is none named 'gio'; did you mean 'giou'"):
        FcosLoss(box_loss="gio")


def test_gradients() -> None:
    points = make_points([(2, 2)], (8,))
    points = Points(points.xy.double(), points.stride.double(), points.level, points.boxes.double())
    targets = one_object((1.0, 2.0, 15.0, 13.0))
    targets.boxes = targets.boxes.double()
    shapes = ((1, 4, 3), (1, 4, 4), (1, 4))
    inputs = [(torch.rand(shape, dtype=torch.float64) + 0.3).requires_grad_() for shape in shapes]

    def total(*outputs: Tensor) -> Tensor:
        return sum(FcosLoss()(*outputs, points, targets).values(), torch.zeros(()))

    assert torch.autograd.gradcheck(total, inputs)


@pytest.mark.parametrize("box", [(3.0, 3.0, 3.0, 3.0), (-500.0, -500.0, 900.0, 900.0), (3.9, 3.9, 4.2, 4.2)])
def test_extreme_boxes_have_finite_gradients(box: tuple[float, ...]) -> None:
    points = make_points([(2, 2), (1, 1)], (8, 16))
    for loss in (FcosLoss(), FcosLoss(assigner=MaxIou())):
        outputs = [torch.zeros(shape, requires_grad=True) for shape in ((1, 5, 3), (1, 5, 4), (1, 5))]
        sum(loss(*outputs, points, one_object(box)).values(), torch.zeros(())).backward()
        assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in outputs)
