"""SSD with torchvision's weights gives torchvision's numbers; it learns; it exports; it stands on any backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import ssd300_vgg16

from clearsight.assign import Atss, MaxIou, SimOta
from clearsight.assign.base import Assigner
from clearsight.data.normalisation import Statistics, fixed_statistics
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.backbones.vgg import VGGS, Vgg
from clearsight.models.base import Backbone
from clearsight.models.detect.ssd import Ssd, convert_torchvision_ssd
from clearsight.models.detect.ssd_levels import AtrousLevels, ExtraLevels
from clearsight.models.detect.ssd_loss import SsdLoss
from clearsight.ops.selection import Selection
from clearsight.types import Targets

CAFFE = Statistics(mean=(0.48235, 0.45882, 0.40784), std=(1 / 255,) * 3, scale=255.0, mode="data")


def published(classes: int = 3) -> Ssd:
    backbone = Vgg(16, hidden=0)
    return Ssd(backbone, AtrousLevels(backbone.channels), num_classes=classes, statistics=CAFFE)


def small(backbone: Backbone | None = None, *, classes: int = 3) -> Ssd:
    backbone = backbone or LightBackbone()
    neck = ExtraLevels(backbone.channels, strides=backbone.strides)
    return Ssd(backbone, neck, num_classes=classes, statistics=fixed_statistics("imagenet", channels=3))


def test_torchvisions_weights_give_torchvisions_numbers(as_targets: Callable[..., Targets]) -> None:
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=4)
    images, sizes = torch.rand(1, 3, 300, 300), torch.tensor([[300, 300]])
    with torch.no_grad():  # random features are large: scores without ties, and boxes within reach, by smaller weights
        maps = list(theirs.eval().backbone(theirs.transform(list(images))[0].tensors).values())
        for head in (theirs.head.classification_head, theirs.head.regression_head):
            for layer, level in zip(head.module_list, maps, strict=True):
                layer.weight /= layer(level).std()
    ours = published()
    missing, unexpected = ours.load_state_dict(ours.adapt_weights(theirs.state_dict()), strict=False)
    assert (missing, unexpected) == (["input_norm.mean", "input_norm.std"], [])
    ours, theirs = ours.eval(), theirs.eval()
    with torch.no_grad():
        listed, _ = theirs.transform(list(images))
        maps = list(theirs.backbone(listed.tensors).values())
        heads = theirs.head(maps)
        for mine, other in zip(ours.neck(ours.backbone.features(ours.input_norm(images))), maps, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
        found = ours(images)
        for mine, other in ((found.logits, heads["cls_logits"]), (found.deltas, heads["bbox_regression"])):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))

        anchors = theirs.anchor_generator(listed, maps)
        expected = theirs.postprocess_detections(heads, anchors, [(300, 300)])[0]
        (detections,) = ours.predict(images, sizes)
        assert len(detections) == len(expected["labels"]) == 200
        assert detections.labels.tolist() == (expected["labels"] - 1).tolist()
        torch.testing.assert_close(detections.boxes, expected["boxes"], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(detections.scores, expected["scores"], rtol=1e-4, atol=1e-5)

        boxes, labels = (
            torch.tensor([[10.0, 20, 60, 80], [30, 30, 250, 120], [100, 5, 120, 25]]),
            torch.tensor([0, 2, 1]),
        )
        matched = theirs.proposal_matcher(torchvision.ops.box_iou(boxes, anchors[0]))
        terms = theirs.compute_loss([{"boxes": boxes, "labels": labels + 1}], heads, anchors, [matched])
        mine = ours.loss(images, as_targets([boxes], [labels]))
        torch.testing.assert_close(mine["class"], terms["classification"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mine["box"], terms["bbox_regression"], rtol=1e-4, atol=1e-4)


def test_size_of_the_published_weights() -> None:
    with torch.device("meta"):  # torchvision's file says 35,641,826
        theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=91)
        ours = published(classes=90)
    assert sum(p.numel() for p in ours.parameters()) == 35_641_826
    adapted, own = convert_torchvision_ssd(theirs.state_dict()), ours.state_dict()
    assert own.keys() - adapted.keys() == {"input_norm.mean", "input_norm.std"}
    assert adapted.keys() <= own.keys()
    assert all(value.shape == own[name].shape for name, value in adapted.items())


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18"])
def test_any_backbone_and_size(name: str) -> None:
    if name in VGGS:
        backbone = VGGS[name](hidden=0)
        neck = AtrousLevels(backbone.channels)
        statistics = fixed_statistics("imagenet", channels=3)
        model = Ssd(backbone, neck, num_classes=2, statistics=statistics).eval()
    else:
        model = small(build_backbone(name), classes=2).eval()
    for size in ((64, 64), (33, 95)):
        images = torch.rand(1, 3, *size)
        logits, deltas = model(images)
        count = len(model.points(size, torch.device("cpu")).xy)
        assert (logits.shape, deltas.shape) == ((1, count, 3), (1, count, 4))
        (found,) = model.predict(images, torch.tensor([[20, 30]]), Selection(score_threshold=0.0, max_detections=9))
        assert len(found) == 9
        assert found.boxes.amax(dim=0)[2] <= 30
        assert found.boxes.amax(dim=0)[3] <= 20


@pytest.mark.parametrize("assigner", [None, MaxIou(), Atss(), SimOta()], ids=["own", "max_iou", "atss", "simota"])
def test_any_assigner(assigner: Assigner | None, as_targets: Callable[..., Targets]) -> None:
    model = small()
    if assigner is not None:
        model.criterion = SsdLoss(assigner=assigner)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    some = as_targets(
        [torch.tensor([[10.0, 10, 50, 60], [30.3, 30.1, 30.4, 30.2]]), torch.zeros(0, 4)],  # one below a pixel
        [torch.tensor([1, 2]), torch.zeros(0).long()],
    )
    none = as_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2)
    for targets in (some, none):
        terms = model.loss(images, targets)
        assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
        sum(terms.values()).backward()
        assert (terms["box"] > 0) == (terms["class"] > 0) == (targets is some)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_candidates_are_cut_by_class() -> None:
    model = small(classes=2).eval()
    for layer in model.head.classification_head.module_list:
        nn.init.zeros_(layer.weight)
        layer.bias.data.view(-1, 3)[:] = torch.tensor([0.0, 2.0, 1.0])  # the first class everywhere, then the second
    images, sizes = torch.rand(1, 3, 128, 128), torch.tensor([[128, 128]])
    (found,) = model.predict(images, sizes, Selection(score_threshold=0.0, nms_iou=1.0, max_detections=5000))
    assert torch.bincount(found.labels).tolist() == [400, 400]
    torch.testing.assert_close(found.scores.unique(), torch.tensor([0.0, 2.0, 1.0]).softmax(dim=0)[[2, 1]])


def test_the_published_maps_export() -> None:
    neck = AtrousLevels({"c3": 8, "c4": 8}).eval()
    given = {"c3": torch.randn(1, 8, 6, 8), "c4": torch.randn(1, 8, 3, 4)}
    exported = torch.export.export(neck, (given,)).module()
    torch.testing.assert_close(exported(given), neck(given))


@pytest.mark.real
def test_overfits_eight_photos(overfit: Callable[..., Any]) -> None:
    model = small()
    learned = overfit(model, steps=80, lr=2e-3, photos=8, clip=10.0, selection=Selection(score_threshold=0.4))
    assert learned.fell > 10
    assert learned.share >= 0.9
    assert learned.found < 1.5
