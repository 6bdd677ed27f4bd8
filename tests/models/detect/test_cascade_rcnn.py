"""Cascade R-CNN: one head is Faster R-CNN, boxes are refined and matched anew, scores are averaged; it learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from clearsight.data.normalisation import fixed_statistics
from clearsight.errors import ConfigError
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.detect.box_head import BoxHead
from clearsight.models.detect.cascade_rcnn import CODE_WEIGHTS, CascadeRcnn, refine
from clearsight.models.detect.faster_rcnn import LEVELS, FasterRcnn
from clearsight.models.detect.rois import Rois, RoiSampler
from clearsight.models.detect.rpn import Rpn
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.selection import Selection
from clearsight.types import Targets

STATISTICS = fixed_statistics("imagenet", channels=3)
TERMS = ["rpn_class", "rpn_box", "class_1", "box_1", "class_2", "box_2", "class_3", "box_3"]


def make(
    *,
    classes: int = 3,
    channels: int = 32,
    width: int = 48,
    overlaps: Sequence[float] = (0.5, 0.6, 0.7),
    heads: int = 3,
    proposals: int = 60,
) -> CascadeRcnn:
    body = LightBackbone()
    neck = Fpn({level: body.channels[level] for level in LEVELS}, channels, strides=body.strides, extra="p6")
    strides = list(neck.strides.values())
    return CascadeRcnn(
        body,
        neck,
        Rpn(channels, strides, anchor_sizes=(12, 24, 48, 96, 192), proposals=proposals, train_proposals=proposals),
        [
            BoxHead(channels, classes, strides=strides[:-1], width=width, shared_box=True, code_weights=weights)
            for weights in CODE_WEIGHTS[:heads]
        ],
        statistics=STATISTICS,
        overlaps=overlaps,
        weights=(1.0, 0.5, 0.25)[: len(overlaps)],
        samples=64,
    )


def two(as_targets: Callable[..., Targets]) -> Targets:
    boxes = [torch.tensor([[10.0, 10, 50, 60], [12, 8, 30, 62]]), torch.tensor([[40.0, 30, 90, 80]])]
    return as_targets(boxes, [torch.tensor([1, 0]), torch.tensor([2])])


def test_one_head_is_faster_rcnn(as_targets: Callable[..., Targets]) -> None:
    model = make(overlaps=(0.5,), heads=1).eval()
    head = model.box_heads[0]
    assert isinstance(head, BoxHead)
    nn.init.normal_(head.cls_score.weight, std=3.0)
    faster = FasterRcnn(
        model.backbone, model.neck, model.rpn, head, statistics=STATISTICS, sampler=RoiSampler(samples=64)
    ).eval()
    images, sizes = torch.rand(2, 3, 96, 96), torch.tensor([[96, 96]] * 2)
    losses = []
    for each in (model, faster):
        torch.manual_seed(3)
        losses.append(torch.stack(list(each.loss(images, two(as_targets)).values())))
    torch.testing.assert_close(losses[0], losses[1])
    wide = nn.Linear(48, 16)  # the same box for each class
    wide.weight = nn.Parameter(head.bbox_pred.weight.repeat(4, 1))
    wide.bias = nn.Parameter(head.bbox_pred.bias.repeat(4))
    found = model.predict(images, sizes, Selection(score_threshold=0.3))
    head.bbox_pred = wide
    for mine, other in zip(found, faster.predict(images, sizes, Selection(score_threshold=0.3)), strict=True):
        assert len(mine) > 3
        torch.testing.assert_close(mine.boxes, other.boxes)
        torch.testing.assert_close(mine.scores, other.scores)


def test_scores_are_averaged_and_boxes_moved_three_times() -> None:
    model = make().eval()
    heads = [head for head in model.box_heads if isinstance(head, BoxHead)]
    for number, head in enumerate(heads):
        nn.init.zeros_(head.cls_score.weight)
        nn.init.zeros_(head.bbox_pred.weight)
        head.cls_score.bias.data = torch.tensor([0.0, float(number), 0.0, -9.0])
        head.bbox_pred.bias.data = torch.tensor([0.1, 0.0, 0.0, 0.0]) * head.code_weights[0]  # a tenth to the right
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        found = model.rpn.propose(model.rpn(model.levels(images), (96, 96)), (96, 96))
        scores, boxes = model(images)
    expected = torch.stack([head.cls_score.bias.softmax(0)[1:] for head in heads]).mean(dim=0)
    torch.testing.assert_close(scores[0, 0], expected)
    inner = (found.boxes[0, :, 2] + 0.4 * (found.boxes[0, :, 2] - found.boxes[0, :, 0]) < 96).nonzero().flatten()
    assert len(inner) > 5
    width = (found.boxes[0, inner, 2] - found.boxes[0, inner, 0])[:, None]
    moved = found.boxes[0, inner] + 0.3 * width * torch.tensor([1.0, 0.0, 1.0, 0.0])
    torch.testing.assert_close(boxes[0, inner, 0], moved, rtol=1e-4, atol=1e-3)


def test_refined_regions_are_matched_anew() -> None:
    targets = Targets(
        boxes=torch.tensor([[0.0, 0, 10, 10], [40, 40, 60, 60]]),
        labels=torch.tensor([0, 1]),
        image=torch.tensor([0, 0]),
        ignore=torch.tensor([False, True]),
    )
    rois = Rois(torch.zeros(4, 4), torch.zeros(4).long(), torch.tensor([0, 0, -1, -1]))
    boxes = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5.5], [45, 45, 55, 55], [96, 0, 96, 9]])
    found = refine(rois, boxes, targets, images=1, iou=0.6)
    assert found.object.tolist() == [0, -1]  # of the others one lies in what is ignored, one has no area
    torch.testing.assert_close(found.boxes, boxes[:2])
    assert refine(rois, boxes, targets, images=1, iou=0.5).object.tolist() == [0, 0]


def test_later_heads_ask_for_more() -> None:
    model = make(overlaps=(0.5, 0.6, 0.999)).eval()
    for head in model.box_heads:  # no head moves anything
        assert isinstance(head, BoxHead)
        nn.init.zeros_(head.bbox_pred.weight)
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        found = model.rpn.propose(model.rpn(model.levels(images), (96, 96)), (96, 96), learning=True)
    near = found.boxes[0, ((found.boxes[0, :, 2:] - found.boxes[0, :, :2]) > 8).all(dim=1)]
    sides = near[:, 2:] - near[:, :2]
    boxes = near + 0.12 * torch.cat((sides, sides), dim=1)  # overlap 0.63 with what is proposed
    targets = Targets(boxes=boxes, labels=torch.zeros(len(boxes)).long(), image=torch.zeros(len(boxes)).long())
    terms = model.loss(images, targets)
    assert terms["box_1"] > 0.01
    assert terms["box_2"] > 0.01
    assert terms["box_3"] < 1e-4  # only the objects' own boxes are left, and they are right


EDGES = {
    "some": ([[10.0, 10, 50, 60], [12, 8, 55, 62]], [1, 2]),
    "none": ([], []),
    "below a pixel": ([[30.3, 30.1, 30.4, 30.2]], [0]),
    "without area": ([[30.0, 30.0, 30.0, 40.0]], [0]),
    "larger than the image": ([[-50.0, -40.0, 200.0, 300.0]], [2]),
}


@pytest.mark.parametrize("case", EDGES)
def test_any_targets_give_finite_gradients(case: str, as_targets: Callable[..., Targets]) -> None:
    model = make()
    boxes, labels = EDGES[case]
    targets = as_targets(
        [torch.tensor(boxes).view(-1, 4), torch.zeros(0, 4)], [torch.tensor(labels).long(), torch.zeros(0).long()]
    )
    terms = model.loss(torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8), targets)
    assert list(terms) == TERMS
    assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_terms_are_weighed(as_targets: Callable[..., Targets]) -> None:
    model = make(overlaps=(0.5, 0.5, 0.5)).eval()
    heads = [head for head in model.box_heads if isinstance(head, BoxHead)]
    for head in heads:  # three equal heads that move nothing
        head.load_state_dict(heads[0].state_dict())
        nn.init.zeros_(head.bbox_pred.weight)
    terms = model.loss(torch.rand(2, 3, 96, 96), two(as_targets))
    torch.testing.assert_close(terms["class_2"], terms["class_1"] / 2, rtol=0.02, atol=0)
    torch.testing.assert_close(terms["class_3"], terms["class_1"] / 4, rtol=0.02, atol=0)


def test_nothing_proposed_and_no_images(as_targets: Callable[..., Targets]) -> None:
    model = make().eval()
    nn.init.constant_(model.rpn.head.bbox_pred.bias, 1e6)
    none = as_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2)
    terms = model.loss(torch.rand(2, 3, 96, 96), none)
    assert [terms[name].item() for name in TERMS[2:]] == [0] * 6
    assert [len(each) for each in model.predict(torch.rand(2, 3, 96, 96), torch.tensor([[96, 96]] * 2))] == [0, 0]
    assert model.predict(torch.rand(0, 3, 96, 96), torch.zeros(0, 2)) == []


def test_published_weights() -> None:
    with torch.device("meta"):
        theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
        body = build_backbone("resnet50", norm="frozen_batch")
        neck = Fpn({level: body.channels[level] for level in LEVELS}, 256, strides=body.strides, extra="p6")
        strides = list(neck.strides.values())
        heads = [BoxHead(256, 3, strides=strides[:-1], shared_box=True) for _ in range(3)]
        model = CascadeRcnn(body, neck, Rpn(256, strides), heads, statistics=STATISTICS)
    adapted, own = model.adapt_weights(theirs.state_dict()), model.state_dict()
    missing = {name for name in own if name not in adapted}
    assert missing == {"input_norm.mean", "input_norm.std"} | {
        f"box_heads.{number}.bbox_pred.{part}" for number in range(3) for part in ("weight", "bias")
    }
    assert all(value.shape == own[name].shape for name, value in adapted.items() if "num_batches" not in name)
    classifier = torchvision.models.resnet50(weights=None).state_dict()
    assert model.adapt_weights(classifier).keys() <= own.keys() | {
        name for name in model.adapt_weights(classifier) if "num_batches" in name
    }


def test_cascades_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="an overlap and a weight for each head, got 3 heads"):
        make(overlaps=(0.5, 0.6))
    for overlap in (0.0, 1.1):
        with pytest.raises(ConfigError, match=r"overlaps must be in \(0, 1\]"):
            make(overlaps=(0.5, 0.6, overlap))
    model = make()
    with pytest.raises(ConfigError, match="give heads with shared_box"):
        CascadeRcnn(
            model.backbone,
            model.neck,
            model.rpn,
            [BoxHead(32, 3, strides=(4, 8, 16, 32), width=8)] * 3,
            statistics=STATISTICS,
        )


@pytest.mark.real
def test_overfits_four_photos(overfit: Callable[..., Any]) -> None:
    model = make(channels=48, width=96, proposals=100)
    learned = overfit(model, steps=140, lr=4e-3, selection=Selection(score_threshold=0.5))
    assert learned.fell > 2
    assert learned.share >= 0.9
    assert learned.found < 1.5
