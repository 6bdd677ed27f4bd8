"""Bag methods and quality distributions inside the models: a learned prior is part of the model, and all learn."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clearsight.assign import Assigner, MaxIou
from clearsight.assign.assignment import Predictions
from clearsight.assign.auto_assign import AutoAssign
from clearsight.assign.free_anchor import FreeAnchor
from clearsight.assign.iqdet import Iqdet
from clearsight.data.normalisation import fixed_statistics
from clearsight.losses.box import giou_loss, l1_loss, smooth_l1_loss
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.detect.bag_terms import bag_terms
from clearsight.models.detect.dense import make_points
from clearsight.models.detect.light import LightDetector
from clearsight.models.detect.retinanet import LEVELS, RetinaNet
from clearsight.models.detect.retinanet_head import RetinaNetHead
from clearsight.models.detect.retinanet_loss import RetinaNetLoss
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.box_codes import decode_deltas, encode_deltas
from clearsight.types import Targets

Model = RetinaNet | LightDetector
BAGS: dict[str, Callable[[], Assigner]] = {"free_anchor": FreeAnchor, "auto_assign": lambda: AutoAssign(3)}
ALL: dict[str, Callable[[], Assigner]] = {**BAGS, "iqdet": Iqdet}
LOSSES = {"l1": l1_loss, "smooth_l1": smooth_l1_loss, "giou": giou_loss}


def make(kind: str, assigner: Assigner) -> Model:
    backbone, statistics = (
        LightBackbone(widths=(8, 16, 24, 32), depths=(1, 1, 1, 1)),
        fixed_statistics("imagenet", channels=3),
    )
    if kind == "light":
        return LightDetector(backbone, num_classes=3, statistics=statistics, fpn_channels=24, assigner=assigner)
    neck = Fpn({level: backbone.channels[level] for level in LEVELS}, 24, strides=backbone.strides, extra="p6p7")
    return RetinaNet(
        backbone,
        neck,
        RetinaNetHead(24, 9, 3, convs=1),
        statistics=statistics,
        anchor_sizes=(12, 24, 48, 96, 192),
        criterion=RetinaNetLoss(assigner=assigner),
    )


both = pytest.mark.parametrize("kind", ["retinanet", "light"])


@both
def test_a_learned_prior_is_part_of_the_model(kind: str) -> None:
    plain, model = make(kind, MaxIou()), make(kind, AutoAssign(3))
    names = {"retinanet": "criterion.assigner.", "light": "assigner."}
    added = {names[kind] + "mean", names[kind] + "log_sigma"}
    assert set(model.state_dict()) - set(plain.state_dict()) == added
    assert set(plain.state_dict()) <= set(model.state_dict())  # those of plain assigners have no trace
    assert added <= {name for name, _ in model.named_parameters()}
    assert added <= set(model.class_layer)
    assert model.double().state_dict()[names[kind] + "mean"].dtype == torch.float64
    with torch.no_grad():
        model.get_parameter(names[kind] + "mean").fill_(0.25)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.get_parameter(names[kind] + "mean")[0, 0] == 0.25
        assert twin.get_parameter(names[kind] + "mean") is not model.get_parameter(names[kind] + "mean")
    other = make(kind, AutoAssign(3)).double()
    other.load_state_dict(model.state_dict())
    assert other.get_parameter(names[kind] + "mean")[0, 0] == 0.25


@both
@pytest.mark.parametrize("name", ALL)
def test_terms_and_gradients_with_and_without_objects(kind: str, name: str, as_targets: Callable[..., Targets]) -> None:
    model = make(kind, ALL[name]())
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    some = as_targets(
        [torch.tensor([[10.0, 10, 50, 60], [30, 20, 80, 90]]), torch.zeros(0, 4)],
        [torch.tensor([1, 2]), torch.zeros(0).long()],
    )
    none = as_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2)
    for targets in (some, none):
        model.zero_grad()
        terms = model.loss(images, targets)
        assert list(terms) == (["class", "box"] if name == "iqdet" else ["bag", "background"])
        assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
        sum(terms.values(), torch.zeros(())).backward()
        gradients = {which: p.grad for which, p in model.named_parameters()}
        assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
        learned = [g.abs().sum() for which, g in gradients.items() if "assigner" in which]
        assert all((g > 0) == (targets is some) for g in learned)


@pytest.mark.parametrize("box_loss", ["l1", "smooth_l1", "giou"])
def test_a_pairs_box_loss_is_that_of_hard_methods(box_loss: str, as_targets: Callable[..., Targets]) -> None:
    points = make_points([(4, 4)], (8,), anchors=[torch.tensor([[-8.0, -8.0, 8.0, 8.0]])])
    targets = as_targets([torch.tensor([[2.0, 2, 20, 20], [9, 5, 30, 28]])], [torch.tensor([0, 2])])
    logits, deltas = torch.randn(1, 16, 3), torch.randn(1, 16, 4) * 0.3
    found = RetinaNetLoss(assigner=FreeAnchor(bag=4), box_loss=box_loss)(logits, deltas, points, targets)
    predictions = Predictions(logits, decode_deltas(deltas, points.boxes))
    pairs = FreeAnchor(bag=4)(points, targets, predictions, images=1)
    codes, anchors, boxes = deltas[0, pairs.point], points.boxes[pairs.point], targets.boxes[pairs.object]
    pred, truth = (codes, encode_deltas(boxes, anchors))
    if box_loss == "giou":
        pred, truth = decode_deltas(codes, anchors), boxes
    each = torch.stack([LOSSES[box_loss](pred[i : i + 1], truth[i : i + 1]) for i in range(len(codes))])
    expected = bag_terms(pairs, targets, logits, each)
    assert found.keys() == expected.keys()
    for name, term in found.items():
        torch.testing.assert_close(term, expected[name])


@both
@pytest.mark.parametrize("name", BAGS)
def test_half_precision(kind: str, name: str, as_targets: Callable[..., Targets]) -> None:
    model = make(kind, BAGS[name]())
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    targets = as_targets([torch.tensor([[10.0, 10, 50, 60]])] * 2, [torch.tensor([1])] * 2)
    full = model.loss(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(images, targets)
    for which, term in half.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, full[which], rtol=0.1, atol=0.02)


@pytest.mark.real
@both
@pytest.mark.parametrize("name", ALL)
def test_it_learns_real_images(
    kind: str, name: str, cells: Callable[..., tuple[Tensor, list[Tensor], list[Tensor]]], as_targets: Callable
) -> None:
    images, boxes, labels = cells(4, (96, 128))
    targets, model = as_targets(boxes, labels), make(kind, ALL[name]())
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0), []
    for _ in range(30):
        loss = sum(model.loss(images, targets).values(), torch.zeros(()))
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    if name == "auto_assign":
        moved = [p for which, p in model.named_parameters() if which.endswith(("assigner.mean", "assigner.log_sigma"))]
        assert len(moved) == 2
        assert all(p.abs().max() > 1e-3 for p in moved)
