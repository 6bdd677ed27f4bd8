"""The three terms by hand and by loops, and their normaliser."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor

from clearsight.assign import Atss, MaxIou, SimOta
from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.free_anchor import FreeAnchor
from clearsight.errors import ConfigError, RangeError
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.models.detect.yolov3_head import decode_boxes
from clearsight.models.detect.yolov3_loss import YoloV3Loss
from clearsight.types import Targets

ANCHORS = torch.tensor([[-4.0, -4, 4, 4], [-8, -4, 8, 4], [-20, -20, 20, 20]])


class Given:
    """An assigner that says what it was told to."""

    needs_predictions = False

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment

    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        return self.assignment


def cells(rows: int = 2, columns: int = 2) -> Points:
    return make_points([(rows, columns)], (8,), anchors=[ANCHORS])


def one_object(box: tuple[float, ...] = (1.0, 2.0, 9.0, 8.0)) -> Targets:
    return Targets(boxes=torch.tensor([box]), labels=torch.tensor([1]), image=torch.tensor([0]))


def test_by_hand() -> None:
    # The object, 8 × 6 around (5, 5), is in the first of four cells, and nearest to those on its right and below it.
    # Of three anchors the 40 × 40 one is too large, 40/6 > 4: points 0, 1 of the first cell, 3, 4 and 6, 7.
    logits = torch.tensor([1.0, 0.0, 0.0]).expand(1, 12, 3)
    found = YoloV3Loss(box_loss="iou")(logits, torch.zeros(1, 12, 4), torch.ones(1, 12), cells(), one_object())
    # (0 0 8 8) (-4 0 12 8) (8 0 16 8) (4 0 20 8) (0 8 8 16) (-4 8 12 16) with (1 2 9 8)
    overlaps = [42 / 70, 48 / 128, 6 / 106, 30 / 146, 0, 0]
    assert list(found) == ["box", "objectness", "class"]
    assert found["box"].item() == pytest.approx(5 * (6 - sum(overlaps)) / 6, rel=1e-5)
    # -t log s(1) - (1 - t) log s(-1) = softplus(1) - t, at all twelve anchors
    rises = math.log(1 + math.e)
    assert found["objectness"].item() == pytest.approx((12 * rises - sum(overlaps)) / 6, rel=1e-5)
    assert found["class"].item() == pytest.approx(rises + 2 * math.log(2), rel=1e-5)


def test_weights_of_the_terms() -> None:
    outputs = torch.randn(1, 12, 3), torch.randn(1, 12, 4), torch.randn(1, 12)
    plain = YoloV3Loss(box_weight=1)(*outputs, cells(), one_object())
    heavy = YoloV3Loss(box_weight=2, objectness_weight=3, class_weight=5)(*outputs, cells(), one_object())
    for name, factor in (("box", 2), ("objectness", 3), ("class", 5)):
        assert heavy[name].item() == pytest.approx(factor * plain[name].item(), rel=1e-5)


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_box_losses(name: str) -> None:
    points, codes = cells(), torch.randn(1, 12, 4)
    found = YoloV3Loss(box_loss=name, box_weight=1)(
        torch.zeros(1, 12, 3), codes, torch.zeros(1, 12), points, one_object()
    )
    boxes = decode_boxes(codes[0], points.xy, points.stride, points.boxes)[[0, 1, 3, 4, 6, 7]]
    truth = torch.tensor([[1.0, 2, 9, 8]]).expand(6, 4)
    if name == "iou":
        expected = (1 - torchvision.ops.box_iou(boxes, truth[:1])).mean()
    else:
        peers = {"giou": "generalized_box_iou_loss", "diou": "distance_box_iou_loss", "ciou": "complete_box_iou_loss"}
        expected = getattr(torchvision.ops, peers[name])(boxes, truth, reduction="mean")
    torch.testing.assert_close(found["box"], expected, rtol=1e-5, atol=1e-5)


def by_loops(
    logits: Tensor, codes: Tensor, objectness: Tensor, points: Points, targets: Targets, given: Assignment
) -> dict[str, Tensor]:
    """The three sums over the weight of the pairs, one anchor after the other."""
    total = max(float(given.weight.sum()), 1.0)
    box = sure = kind = torch.zeros(())
    pairs = {(int(targets.image[o]), int(p)): k for k, (o, p) in enumerate(zip(given.object, given.point, strict=True))}
    for image in range(logits.shape[0]):
        for point in range(logits.shape[1]):
            wanted, weight = torch.zeros(()), given.background[image, point]
            if (image, point) in pairs:
                number = pairs[image, point]
                thing, weight = given.object[number], given.weight[number]
                s = codes[image, point].sigmoid()
                centre = points.xy[point] - points.stride[point] + 2 * s[:2] * points.stride[point]
                sides = (2 * s[2:]) ** 2 * (points.boxes[point, 2:] - points.boxes[point, :2])
                guess = torch.cat((centre - sides / 2, centre + sides / 2))
                truth = targets.boxes[thing]
                box = box + weight * torchvision.ops.complete_box_iou_loss(guess[None], truth[None]).sum()
                wanted = torchvision.ops.box_iou(guess[None], truth[None])[0, 0].detach()
                if given.quality is not None:
                    wanted = given.quality[number]
                for label in range(logits.shape[2]):
                    p = logits[image, point, label].sigmoid()
                    kind = kind - weight * (p if label == targets.labels[thing] else 1 - p).log()
            p = objectness[image, point].sigmoid()
            sure = sure - weight * (wanted * p.log() + (1 - wanted) * (1 - p).log())
    return {"box": 5 * box / total, "objectness": sure / total, "class": kind / total}


@pytest.mark.parametrize("soft", [False, True])
def test_any_pairs_equal_the_loops(soft: bool) -> None:
    points = make_points(level_shapes((24, 32), (8, 16)), (8, 16), anchors=[ANCHORS, 2 * ANCHORS])
    count = len(points.xy)
    outputs = [torch.randn(shape, requires_grad=True) for shape in ((3, count, 3), (3, count, 4), (3, count))]
    boxes = torch.tensor([[2.0, 2, 20, 20], [20, 10, 30, 24], [4, 2, 30, 20], [8, 8, 24, 20]])
    targets = Targets(boxes=boxes, labels=torch.tensor([0, 1, 2, 1]), image=torch.tensor([0, 0, 2, 2]))
    things, places = torch.tensor([0, 0, 1, 2, 2, 3]), torch.tensor([0, 9, 27, 25, 40, 37])
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
    found = YoloV3Loss(assigner=Given(given))(*outputs, points, targets)
    expected = by_loops(*outputs, points, targets, given)  # pyright: ignore[reportCallIssue]
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, rtol=1e-5, atol=1e-5)
        mine = torch.autograd.grad(found[name], outputs, retain_graph=True, allow_unused=True)
        other = torch.autograd.grad(term, outputs, retain_graph=True, allow_unused=True)
        for a, b in zip(mine, other, strict=True):  # that of the objectness leaves the codes alone
            torch.testing.assert_close(a if a is not None else torch.zeros(1), b if b is not None else torch.zeros(1))


def test_ignored_objects_are_no_background() -> None:
    targets = one_object((-1.0, -1.0, 17.0, 17.0))
    targets.ignore = torch.tensor([True])
    terms = YoloV3Loss()(torch.randn(1, 12, 3), torch.randn(1, 12, 4), torch.randn(1, 12), cells(), targets)
    assert [term.item() for term in terms.values()] == [0, 0, 0]


def test_without_objects_everything_is_background() -> None:
    none = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), image=torch.zeros(0).long())
    outputs = [torch.randn(shape, requires_grad=True) for shape in ((2, 12, 3), (2, 12, 4), (2, 12))]
    terms = YoloV3Loss()(*outputs, cells(), none)
    torch.testing.assert_close(terms["objectness"], torch.nn.functional.softplus(outputs[2]).sum())
    assert (terms["box"].item(), terms["class"].item()) == (0, 0)
    sum(terms.values(), torch.zeros(())).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in outputs)


class Seen:
    """Keeps what it is shown, and finds nothing."""

    needs_predictions = True

    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        self.predictions = predictions
        none = torch.zeros(0, dtype=torch.int64)
        return Assignment(object=none, point=none, weight=torch.zeros(0), background=torch.ones(images, len(points.xy)))


def test_assigners_see_scores_and_boxes() -> None:
    logits, codes, objectness = (torch.randn(s, requires_grad=True) for s in ((2, 12, 3), (2, 12, 4), (2, 12)))
    points, seen = cells(), Seen()
    YoloV3Loss(assigner=seen)(logits, codes, objectness, points, one_object())
    assert seen.predictions is not None
    assert not any(shown.requires_grad for shown in seen.predictions)
    torch.testing.assert_close(seen.predictions.logits.sigmoid(), logits.sigmoid() * objectness.sigmoid()[..., None])
    boxes = decode_boxes(codes, points.xy, points.stride, points.boxes)
    torch.testing.assert_close(seen.predictions.boxes, boxes.detach())


def test_a_given_quality_is_the_target_of_the_objectness() -> None:
    points = make_points([(2, 2)], (8,), anchors=[ANCHORS[:1]])
    loss = YoloV3Loss(assigner=SimOta(candidates=1), box_loss="iou", box_weight=1)
    found = loss(torch.zeros(1, 4, 3), torch.zeros(1, 4, 4), torch.ones(1, 4), points, one_object((0, 0, 8, 7)))
    torch.testing.assert_close(found["box"], torch.tensor(1 / 8))  # the first cell's box is the cell
    torch.testing.assert_close(found["objectness"], torch.tensor(4 * math.log(1 + math.e) - 7 / 8))
    torch.testing.assert_close(found["class"], torch.tensor(3 * math.log(2)))


def test_bags_learn_the_product() -> None:
    points = cells()
    outputs = [torch.randn(1, 12, 3), torch.randn(1, 12, 4), torch.randn(1, 12)]
    assigner = FreeAnchor(bag=1)  # of one anchor: the likelihood itself
    found = YoloV3Loss(assigner=assigner)(*outputs, points, one_object())
    assert list(found) == ["bag", "background"]
    boxes = decode_boxes(outputs[1], points.xy, points.stride, points.boxes)
    given = assigner(points, one_object(), Predictions(outputs[0], boxes), images=1)
    (point,) = given.point.tolist()
    p = outputs[0][0, point, 1].sigmoid() * outputs[2][0, point].sigmoid()
    box_loss = torchvision.ops.complete_box_iou_loss(boxes[0, point], torch.tensor([1.0, 2, 9, 8]))
    torch.testing.assert_close(found["bag"], -0.5 * (p * torch.exp(-0.75 * box_loss)).log())


def test_options_that_are_none() -> None:
    with pytest.raises(ConfigError, match="box_loss: there is none named 'cio'; did you mean 'ciou'"):
        YoloV3Loss(box_loss="cio")  # pyright: ignore[reportArgumentType]
    for name in ("box_weight", "objectness_weight", "class_weight"):
        with pytest.raises(ConfigError, match=f"{name}: must be at least 0, got -1"):
            YoloV3Loss(**{name: -1.0})


def test_gradients() -> None:
    points = Points(*(part.double() if part.is_floating_point() else part for part in cells()))
    targets = one_object()
    targets.boxes = targets.boxes.double()
    found = MaxIou(positive=0.3, negative=0.2)(points, targets, images=1)
    found.quality = torch.rand(len(found.point))  # else a number that is held fixed would move with the codes
    loss = YoloV3Loss(assigner=Given(found), box_loss="giou")
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((1, 12, 3), (1, 12, 4), (1, 12))]
    assert len(found.point) > 1
    assert torch.autograd.gradcheck(lambda *x: sum(loss(*x, points, targets).values(), torch.zeros(())), inputs)


EXTREMES = [(3.0, 3.0, 3.0, 3.0), (-500.0, -500.0, 900.0, 900.0), (3.9, 3.9, 4.2, 4.2), (40.0, 40.0, 60.0, 60.0)]


@pytest.mark.parametrize("box", EXTREMES)
@pytest.mark.parametrize("value", [0.0, -300.0, 300.0])
def test_extremes_have_finite_gradients(box: tuple[float, ...], value: float) -> None:
    points = make_points([(2, 2), (1, 1)], (8, 16), anchors=[ANCHORS, ANCHORS])
    for loss in (YoloV3Loss(), YoloV3Loss(assigner=MaxIou()), YoloV3Loss(assigner=Atss())):
        outputs = [torch.full(shape, value, requires_grad=True) for shape in ((1, 15, 3), (1, 15, 4), (1, 15))]
        terms = loss(*outputs, points, one_object(box))
        sum(terms.values(), torch.zeros(())).backward()
        assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
        assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in outputs)


@pytest.mark.parametrize("same", [False, True])
def test_a_thousand_objects(same: bool) -> None:
    points = make_points([(8, 8), (4, 4)], (8, 16), anchors=[ANCHORS, 2 * ANCHORS])
    corner = torch.rand(1 if same else 1000, 2) * 50
    boxes = torch.cat((corner, corner + 2 + torch.rand(len(corner), 2) * 20), dim=1).expand(1000, 4)
    targets = Targets(boxes=boxes, labels=torch.arange(1000) % 3, image=torch.arange(1000) % 2)
    count = len(points.xy)
    outputs = [torch.randn(shape, requires_grad=True) for shape in ((2, count, 3), (2, count, 4), (2, count))]
    terms = YoloV3Loss()(*outputs, points, targets)
    sum(terms.values(), torch.zeros(())).backward()
    assert all(term.isfinite() and term > 0 for term in terms.values())
    assert all(value.grad is not None and value.grad.isfinite().all() for value in outputs)


def test_nan() -> None:
    outputs = [torch.randn(1, 12, 3), torch.randn(1, 12, 4), torch.randn(1, 12)]
    for number, name in enumerate(("class", "box", "objectness")):
        spoilt = [x.clone() for x in outputs]
        spoilt[number][0, 0] = math.nan
        assert YoloV3Loss()(*spoilt, cells(), one_object())[name].isnan()
    targets = one_object((math.nan, 2.0, 9.0, 8.0))
    nowhere = Assignment(
        object=torch.tensor([0]), point=torch.tensor([0]), weight=torch.ones(1), background=torch.ones(1, 12)
    )
    with pytest.raises(RangeError, match="boxes: expected finite numbers, found nan"):
        YoloV3Loss(assigner=Given(nowhere))(*outputs, cells(), targets)
