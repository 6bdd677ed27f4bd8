"""FCOS with torchvision's weights gives torchvision's numbers; it learns; it exports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS as TorchvisionFcos
from torchvision.models.detection import fcos_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from clearsight.assign import Atss, MaxIou, SimOta
from clearsight.assign.auto_assign import AutoAssign
from clearsight.assign.base import Assigner
from clearsight.assign.free_anchor import FreeAnchor
from clearsight.data.normalisation import fixed_statistics
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.base import Detects
from clearsight.models.detect.fcos import LEVELS, Fcos, convert_torchvision_fcos
from clearsight.models.detect.fcos_head import FcosHead
from clearsight.models.detect.fcos_loss import FcosLoss
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.selection import Selection
from clearsight.types import Targets


def make(backbone: str | nn.Module = "resnet18", *, classes: int = 3, width: int = 256, convs: int = 4) -> Fcos:
    body = build_backbone(backbone) if isinstance(backbone, str) else backbone
    neck = Fpn({level: body.channels[level] for level in LEVELS}, width, strides=body.strides, extra="p6p7")
    head = FcosHead(width, classes, convs=convs)
    return Fcos(body, neck, head, statistics=fixed_statistics("imagenet", channels=3))


def small() -> Fcos:
    return make(LightBackbone(), width=32, convs=1)


def peer(size: tuple[int, int] = (128, 192), *, classes: int = 3) -> TorchvisionFcos:
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return sharpen(TorchvisionFcos(backbone, num_classes=classes, min_size=min(size), max_size=max(size)))


def sharpen(model: TorchvisionFcos) -> TorchvisionFcos:
    """Scores that pass the threshold, and boxes of different sizes."""
    nn.init.normal_(model.head.classification_head.cls_logits.bias, -2.0, 0.5)
    nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.05)
    nn.init.constant_(model.head.regression_head.bbox_reg.bias, 2.0)
    nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.05)
    nn.init.normal_(model.head.regression_head.bbox_ctrness.weight, std=0.1)
    return model


def same_model(theirs: TorchvisionFcos, backbone: str = "resnet18", *, classes: int = 3) -> Fcos:
    ours = make(backbone, classes=classes)
    missing, unexpected = ours.load_state_dict(ours.adapt_weights(theirs.state_dict()), strict=False)
    assert (missing, unexpected) == (["input_norm.mean", "input_norm.std"], [])
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    return ours


def same_order(boxes: Tensor, labels: Tensor) -> Tensor:
    """By class and place: scores that are equal but for the last bit may stand in either order."""
    place = boxes.double() @ torch.tensor([1.0, 0.37, 0.11, 0.053], dtype=torch.float64)
    return torch.argsort(place + 1e4 * labels)


@torch.no_grad()
def compare(theirs: TorchvisionFcos, ours: Fcos, images: Tensor) -> None:
    theirs.eval()
    ours.eval()
    heads = theirs.head(list(theirs.backbone(theirs.transform(list(images))[0].tensors).values()))
    found = ours(images)
    torch.testing.assert_close(found.logits, heads["cls_logits"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.distances, heads["bbox_regression"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.centreness[..., None], heads["bbox_ctrness"], rtol=1e-4, atol=1e-4)
    sizes = torch.tensor([list(images.shape[-2:])] * len(images))
    for mine, other in zip(ours.predict(images, sizes), theirs(list(images)), strict=True):
        assert len(mine) > 20
        assert mine.scores is not None
        torch.testing.assert_close(mine.scores, other["scores"], rtol=1e-4, atol=1e-5)
        rows = same_order(mine.boxes, mine.labels), same_order(other["boxes"], other["labels"])
        assert mine.labels[rows[0]].tolist() == other["labels"][rows[1]].tolist()
        torch.testing.assert_close(mine.boxes[rows[0]], other["boxes"][rows[1]], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(128, 192), (256, 320)])  # 256×320: level P7 does not divide the image
def test_resnet18_with_torchvisions_weights(size: tuple[int, int]) -> None:
    theirs = peer(size)
    compare(theirs, same_model(theirs), torch.rand(2, 3, *size))


def test_resnet50_with_torchvisions_weights() -> None:
    theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4, min_size=128, max_size=128)
    compare(sharpen(theirs), same_model(theirs, "resnet50", classes=4), torch.rand(1, 3, 128, 128))


def test_size_of_the_published_weights() -> None:
    with torch.device("meta"):  # 91 classes; torchvision's file says 32,269,600
        theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
        ours = make(build_backbone("resnet50", norm="frozen_batch"), classes=91)
    assert sum(p.numel() for p in ours.parameters()) == 32_269_600
    adapted = convert_torchvision_fcos(theirs.state_dict())
    own = ours.state_dict()
    assert own.keys() - adapted.keys() == {"input_norm.mean", "input_norm.std"}
    assert all(value.shape == own[name].shape for name, value in adapted.items() if "num_batches" not in name)


def test_names_of_older_files() -> None:
    old = {
        "backbone.body.layer1.0.conv1.weight": "backbone.layer1.0.conv1.weight",
        "backbone.fpn.inner_blocks.1.bias": "neck.inner_blocks.1.0.bias",
        "backbone.fpn.layer_blocks.1.0.bias": "neck.layer_blocks.1.0.bias",
        "head.classification_head.conv.3.weight": "head.classification_head.conv.3.weight",
        "head.regression_head.bbox_ctrness.bias": "head.regression_head.bbox_ctrness.bias",
    }
    one = torch.zeros(1)
    assert convert_torchvision_fcos(dict.fromkeys(old, one)) == dict.fromkeys(old.values(), one)


def test_loss_is_torchvisions(as_targets: Callable[..., Targets]) -> None:
    theirs = peer().double()  # in float32 a ReLU at zero may fall to either side
    ours = same_model(theirs).double()
    images = torch.rand(3, 3, 128, 192, dtype=torch.float64)
    boxes = [  # one inside another: its points go to the smaller
        torch.tensor([[10.0, 20, 60, 80], [20, 30, 52, 70], [30, 30, 180, 120], [100, 5, 120, 25]]),
        torch.zeros(0, 4),
        torch.tensor([[50.0, 60, 90, 90], [0.0, 0.0, 192.0, 128.0]]),
    ]
    labels = [torch.tensor([0, 2, 1, 1]), torch.zeros(0, dtype=torch.int64), torch.tensor([1, 0])]
    listed = [{"boxes": box, "labels": label} for box, label in zip(boxes, labels, strict=True)]
    expected = theirs.train()(list(images), listed)
    found = ours.train().loss(images, as_targets(boxes, labels))
    assert list(found) == ["class", "box", "centreness"]
    torch.testing.assert_close(found["class"], expected["classification"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["box"], expected["bbox_regression"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["centreness"], expected["bbox_ctrness"], rtol=1e-4, atol=1e-5)
    sum(found.values()).backward()
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    reference = convert_torchvision_fcos({name: p.grad for name, p in theirs.named_parameters()})
    for name, gradient in gradients.items():
        scale = reference[name].abs().max()
        torch.testing.assert_close(gradient / scale, reference[name] / scale, rtol=1e-4, atol=1e-6, msg=name)


ASSIGNERS = [None, MaxIou(), Atss(), SimOta(), FreeAnchor(), AutoAssign(3)]


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=["own", "max_iou", "atss", "simota", "free_anchor", "auto_assign"])
def test_any_assigner(assigner: Assigner | None, as_targets: Callable[..., Targets]) -> None:
    model = small()
    if assigner is not None:
        model.criterion = FcosLoss(assigner=assigner)
    nn.init.constant_(model.head.regression_head.bbox_reg.bias, 1.0)
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
        assert all((terms[name] > 0) == (targets is some) for name in ("box", "centreness", "bag") if name in terms)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_ignored_objects_are_no_background(as_targets: Callable[..., Targets]) -> None:
    model = small().eval()
    targets = as_targets([torch.tensor([[-1.0, -1.0, 97.0, 97.0]])], [torch.tensor([0])])
    targets.ignore = torch.tensor([True])
    assert model.loss(torch.rand(1, 3, 96, 96), targets)["class"].item() == 0


def test_the_score_is_the_geometric_mean() -> None:
    model = small().eval()
    head = model.head
    for layer in (
        head.classification_head.cls_logits,
        head.regression_head.bbox_ctrness,
        head.regression_head.bbox_reg,
    ):
        nn.init.zeros_(layer.weight)
    nn.init.constant_(head.classification_head.cls_logits.bias, 0.4)
    nn.init.constant_(head.regression_head.bbox_ctrness.bias, -1.0)
    nn.init.constant_(head.regression_head.bbox_reg.bias, 0.5)  # boxes of one stride, which do not overlap
    images, sizes = torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]])
    score = (torch.tensor(0.4).sigmoid() * torch.tensor(-1.0).sigmoid()).sqrt()
    (found,) = model.predict(images, sizes, Selection(score_threshold=0.0, max_detections=20))
    torch.testing.assert_close(found.scores, score.expand(20))
    assert len(model.predict(images, sizes, Selection(score_threshold=float(score) - 1e-4))[0]) > 60
    assert len(model.predict(images, sizes, Selection(score_threshold=float(score) + 1e-4))[0]) == 0


def test_every_size_and_no_images() -> None:
    model = small().eval()
    for size in ((33, 47), (32, 32), (100, 301)):
        logits, distances, central = model(torch.rand(1, 3, *size))
        count = sum(-(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32, 64, 128))
        assert (logits.shape, distances.shape, central.shape) == ((1, count, 3), (1, count, 4), (1, count))
        found = model.predict(
            torch.rand(1, 3, *size), torch.tensor([[20, 30]]), Selection(score_threshold=0.0, max_detections=9)
        )
        assert found[0].boxes.amax(dim=0)[2] <= 30
        assert found[0].boxes.amax(dim=0)[3] <= 20


def test_it_is_a_detector_that_starts_at_the_prior() -> None:
    model = small().eval()
    assert isinstance(model, Detects)
    nn.init.constant_(model.head.classification_head.cls_logits.bias, 3.0)
    model.reset_classes()
    assert model(torch.rand(1, 3, 64, 64)).logits.sigmoid().mean().item() == pytest.approx(0.01, abs=0.003)
    state = model.state_dict()
    other = make(LightBackbone(), classes=5, width=32, convs=1).state_dict()
    assert {name for name in state if state[name].shape != other[name].shape} == set(model.class_layer[:2])
    model.criterion = FcosLoss(assigner=AutoAssign(3))
    assert set(model.class_layer[2:]) == model.state_dict().keys() - state.keys()


@pytest.mark.real
def test_overfits_eight_photos(overfit: Callable[..., Any]) -> None:
    model = make(LightBackbone(), width=48, convs=1)
    learned = overfit(model, steps=100, lr=3e-3, photos=8, selection=Selection(score_threshold=0.4))
    assert learned.fell > 2
    assert learned.share >= 0.9
    assert learned.found < 1.5
