"""RetinaNet with torchvision's weights gives torchvision's numbers; it learns; it exports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection import retinanet_resnet50_fpn

from clearsight.data.normalisation import fixed_statistics
from clearsight.models import create_model
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.detect.retinanet import LEVELS, RetinaNet, cell_anchors, convert_torchvision_retinanet
from clearsight.models.detect.retinanet_head import RetinaNetHead
from clearsight.models.detect.retinanet_loss import RetinaNetLoss
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.selection import Selection
from clearsight.types import Targets

Theirs = Callable[..., TorchvisionRetinaNet]


def same_model(theirs: TorchvisionRetinaNet, backbone: str, *, classes: int = 3) -> RetinaNet:
    ours = create_model("retinanet", backbone=backbone, num_classes=classes)
    assert isinstance(ours, RetinaNet)
    missing, unexpected = ours.load_state_dict(convert_torchvision_retinanet(theirs.state_dict()), strict=False)
    assert (missing, unexpected) == (["input_norm.mean", "input_norm.std"], [])
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    return ours


def compare(theirs: TorchvisionRetinaNet, ours: RetinaNet, images: Tensor) -> None:
    theirs.eval()
    ours.eval()
    with torch.no_grad():
        listed, _ = theirs.transform(list(images))
        features = list(theirs.backbone(listed.tensors).values())
        heads = theirs.head(features)
        found = ours(images)
        points = ours.points(images.shape[-2:], images.device)
        torch.testing.assert_close(found.logits, heads["cls_logits"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.deltas, heads["bbox_regression"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(points.boxes, theirs.anchor_generator(listed, features)[0], rtol=0, atol=0)
        sizes = torch.tensor([list(images.shape[-2:])] * len(images))
        detections = ours.predict(images, sizes, Selection(score_threshold=0.05, nms_iou=0.5, max_detections=300))
        for mine, other in zip(detections, theirs(list(images)), strict=True):
            assert len(mine) > 20
            assert mine.labels.tolist() == other["labels"].tolist()
            torch.testing.assert_close(mine.boxes, other["boxes"], rtol=1e-4, atol=1e-3)
            torch.testing.assert_close(mine.scores, other["scores"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(128, 192), (256, 320)])  # 256×320: level P7 does not divide the image
def test_resnet18_with_torchvisions_weights(torchvision_retinanet: Theirs, size: tuple[int, int]) -> None:
    theirs = torchvision_retinanet(size=size)
    compare(theirs, same_model(theirs, "resnet18"), torch.rand(2, 3, *size))


def test_resnet50_with_torchvisions_weights() -> None:
    theirs = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4, min_size=128, max_size=128)
    nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.05)
    nn.init.normal_(theirs.head.classification_head.cls_logits.bias, -2.0, 1.0)
    compare(theirs, same_model(theirs, "resnet50", classes=4), torch.rand(1, 3, 128, 128))


def test_names_of_older_files() -> None:
    old = {
        "backbone.body.layer1.0.conv1.weight": "backbone.layer1.0.conv1.weight",
        "backbone.fpn.inner_blocks.1.bias": "neck.inner_blocks.1.0.bias",
        "backbone.fpn.extra_blocks.p6.weight": "neck.extra_blocks.p6.weight",
        "head.classification_head.conv.6.weight": "head.classification_head.conv.3.0.weight",
        "head.regression_head.conv.0.0.bias": "head.regression_head.conv.0.0.bias",
        "head.regression_head.bbox_reg.bias": "head.regression_head.bbox_reg.bias",
    }
    one = torch.zeros(1)
    assert convert_torchvision_retinanet(dict.fromkeys(old, one)) == dict.fromkeys(old.values(), one)


def test_anchors_by_hand() -> None:
    cells = cell_anchors(32.0)
    assert cells.shape == (9, 4)
    assert cells[3].tolist() == [-16, -16, 16, 16]  # ratio 1, first size
    assert cells[5].tolist() == [-25, -25, 25, 25]  # ratio 1, int(32 * 2 ** (2 / 3)) = 50
    assert cells[0].tolist() == [-23, -11, 23, 11]  # ratio 0.5: 45.25 × 22.63


def test_loss_is_torchvisions(torchvision_retinanet: Theirs, as_targets: Callable[..., Targets]) -> None:
    theirs = torchvision_retinanet().double()  # in float32 a ReLU at zero may fall to either side
    ours = same_model(theirs, "resnet18").double()
    images = torch.rand(3, 3, 128, 192, dtype=torch.float64)
    boxes = [
        torch.tensor([[10.0, 20, 60, 80], [30, 30, 180, 120], [100, 5, 120, 25]]),
        torch.zeros(0, 4),
        torch.tensor([[50.0, 60, 90, 90]]),
    ]
    labels = [torch.tensor([0, 2, 1]), torch.zeros(0, dtype=torch.int64), torch.tensor([1])]
    listed = [{"boxes": box, "labels": label} for box, label in zip(boxes, labels, strict=True)]
    expected = theirs.train()(list(images), listed)
    ours.criterion = RetinaNetLoss(normalise="image")
    found = ours.train().loss(images, as_targets(boxes, labels))
    assert list(found) == ["class", "box"]
    torch.testing.assert_close(found["class"], expected["classification"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["box"], expected["bbox_regression"], rtol=1e-4, atol=1e-4)
    sum(found.values()).backward()
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    reference = convert_torchvision_retinanet({name: p.grad for name, p in theirs.named_parameters()})
    for name, gradient in gradients.items():
        scale = reference[name].abs().max()
        torch.testing.assert_close(gradient / scale, reference[name] / scale, rtol=1e-4, atol=1e-6, msg=name)


def test_one_image_needs_no_choice_of_normaliser(
    torchvision_retinanet: Theirs, as_targets: Callable[..., Targets]
) -> None:
    theirs = torchvision_retinanet(norm=torchvision.ops.FrozenBatchNorm2d)
    ours = create_model("retinanet", norm="frozen_batch", num_classes=3)
    ours.load_state_dict(convert_torchvision_retinanet(theirs.state_dict()), strict=False)
    image = torch.rand(1, 3, 128, 192)
    boxes, labels = torch.tensor([[10.0, 20, 60, 80], [30, 30, 180, 120]]), torch.tensor([0, 2])
    expected = theirs.train()(list(image), [{"boxes": boxes, "labels": labels}])
    found = ours.train().loss(image, as_targets([boxes], [labels]))  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(found["class"], expected["classification"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["box"], expected["bbox_regression"], rtol=1e-4, atol=1e-4)


def small(**options: object) -> RetinaNet:
    model = create_model("retinanet", num_classes=3, fpn_channels=32, head_convs=1, **options)
    assert isinstance(model, RetinaNet)
    return model


@pytest.mark.parametrize("assigner", ["max_iou", "atss", "simota"])
@pytest.mark.parametrize("box_loss", ["l1", "smooth_l1", "giou"])
def test_any_assigner_and_box_loss(assigner: str, box_loss: str, as_targets: Callable[..., Targets]) -> None:
    model = small(assigner={"name": assigner}, box_loss=box_loss)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    some = as_targets(
        [torch.tensor([[10.0, 10, 50, 60]]), torch.zeros(0, 4)], [torch.tensor([1]), torch.zeros(0).long()]
    )
    none = as_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2)
    for targets in (some, none):
        terms = model.loss(images, targets)
        assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
        sum(terms.values()).backward()
        assert (terms["box"] > 0) == (targets is some)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_prior() -> None:
    probability = small().eval()(torch.rand(1, 3, 64, 64)).logits.sigmoid()
    assert probability.mean().item() == pytest.approx(0.01, abs=0.003)


@pytest.mark.real
def test_overfits_eight_photos(overfit: Callable[..., Any]) -> None:
    backbone = LightBackbone()
    neck = Fpn({level: backbone.channels[level] for level in LEVELS}, 48, strides=backbone.strides, extra="p6p7")
    model = RetinaNet(
        backbone,
        neck,
        RetinaNetHead(48, 9, 3, convs=1),
        statistics=fixed_statistics("imagenet", channels=3),
        anchor_sizes=(12, 24, 48, 96, 192),
    )
    learned = overfit(model, steps=80, lr=3e-3, photos=8, selection=Selection(score_threshold=0.4))
    assert learned.fell > 20
    assert learned.share >= 0.95
    assert learned.found < 1.5
