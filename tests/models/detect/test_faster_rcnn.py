"""Faster R-CNN with torchvision's weights gives torchvision's numbers; it learns; it exports."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRcnn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from clearsight.data.normalisation import fixed_statistics
from clearsight.errors import ConfigError
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.detect.box_head import BoxHead
from clearsight.models.detect.cascade_rcnn import build_cascade_rcnn
from clearsight.models.detect.faster_rcnn import (
    LEVELS,
    FasterRcnn,
    Stage,
    build_faster_rcnn,
    convert_torchvision_faster_rcnn,
)
from clearsight.models.detect.rois import RoiSampler
from clearsight.models.detect.rpn import Rpn
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.selection import Selection
from clearsight.types import Targets

FEW = {f"rpn_{when}_nms_top_n_{where}": 150 for when in ("pre", "post") for where in ("train", "test")}
TERMS = ["rpn_class", "rpn_box", "class", "box"]


def make(
    backbone: str | nn.Module = "resnet18",
    *,
    classes: int = 3,
    channels: int = 256,
    box_width: int = 1024,
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0),
    norm: str | None = None,
    proposals: int = 150,
    samples: int = 64,
    stage: Stage = "joint",
) -> FasterRcnn:
    body = build_backbone(backbone, norm=norm) if isinstance(backbone, str) else backbone
    neck = Fpn({level: body.channels[level] for level in LEVELS}, channels, strides=body.strides, extra="p6")
    strides = list(neck.strides.values())
    return FasterRcnn(
        body,  # pyright: ignore[reportArgumentType]
        neck,
        Rpn(channels, strides, anchor_sizes=anchor_sizes, proposals=proposals, train_proposals=proposals),
        BoxHead(channels, classes, strides=strides[:-1], width=box_width),
        statistics=fixed_statistics("imagenet", channels=3),
        stage=stage,
        sampler=RoiSampler(samples=samples),
    )


def small(norm: str = "batch", stage: Stage = "joint") -> FasterRcnn:
    body, sizes = LightBackbone(norm=norm), (12, 24, 48, 96, 192)
    return make(body, channels=32, box_width=48, anchor_sizes=sizes, proposals=60, samples=64, stage=stage)


def peer(size: tuple[int, int] = (128, 192), *, classes: int = 3, norm: type = nn.BatchNorm2d) -> TorchvisionFasterRcnn:
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=norm, trainable_layers=5)
    model = TorchvisionFasterRcnn(
        backbone, classes + 1, min_size=min(size), max_size=max(size), box_batch_size_per_image=64, **FEW
    )
    return sharpen(model)


def sharpen(model: TorchvisionFasterRcnn, factor: float = 1.0) -> TorchvisionFasterRcnn:
    """Scores that pass the threshold, and boxes that are not the anchors."""
    nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.1 * factor)
    nn.init.normal_(model.rpn.head.bbox_pred.weight, std=0.05 * factor)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.3 * factor)
    nn.init.normal_(model.roi_heads.box_predictor.bbox_pred.weight, std=0.3 * factor)
    return model


def same_model(theirs: TorchvisionFasterRcnn, backbone: str = "resnet18", *, classes: int = 3) -> FasterRcnn:
    ours = make(backbone, classes=classes)
    missing, unexpected = ours.load_state_dict(ours.adapt_weights(theirs.state_dict()), strict=False)
    assert (missing, unexpected) == (["input_norm.mean", "input_norm.std"], [])
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    return ours


@torch.no_grad()
def compare(theirs: TorchvisionFasterRcnn, ours: FasterRcnn, images: Tensor) -> None:
    theirs.eval().double()  # in float32 two of a thousand scores are so close that they may change places
    ours.eval().double()
    images = images.double()
    listed, _ = theirs.transform(list(images))
    features = theirs.backbone(listed.tensors)
    regions, _ = theirs.rpn(listed, features)
    size = (images.shape[-2], images.shape[-1])
    levels = ours.levels(images)
    outputs = ours.rpn(levels, size)
    anchors = theirs.rpn.anchor_generator(listed, list(features.values()))[0]
    torch.testing.assert_close(outputs.points.boxes.double(), anchors, rtol=0, atol=0)
    found = ours.rpn.propose(outputs, size)
    for boxes, scores, other in zip(*found, regions, strict=True):
        assert int((scores > 0).sum()) == len(other) > 50
        torch.testing.assert_close(boxes[: len(other)], other, rtol=1e-5, atol=1e-4)
    detections = ours.predict(images, torch.tensor([size] * len(images)), Selection(max_detections=100))
    for mine, other in zip(detections, theirs(list(images)), strict=True):
        assert mine.scores is not None
        assert len(mine) > 10
        assert (mine.labels + 1).tolist() == other["labels"].tolist()
        torch.testing.assert_close(mine.boxes, other["boxes"].float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mine.scores, other["scores"].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(128, 192), (160, 224)])  # 160×224: levels P5 and P6 do not divide the image
def test_resnet18_with_torchvisions_weights(size: tuple[int, int]) -> None:
    theirs = peer(size)
    compare(theirs, same_model(theirs), torch.rand(2, 3, *size))


def test_resnet50_with_torchvisions_weights() -> None:
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=5, min_size=128, max_size=128, **FEW
    )
    sharpen(theirs, 0.02)  # its activations are large
    compare(theirs, same_model(theirs, "resnet50", classes=4), torch.rand(1, 3, 128, 128))


def test_size_of_the_published_weights() -> None:
    with torch.device("meta"):  # 90 classes and the background; torchvision's file says 41,755,286
        theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
        ours = make("resnet50", norm="frozen_batch", classes=90)
    assert sum(p.numel() for p in ours.parameters()) == 41_755_286
    adapted = convert_torchvision_faster_rcnn(theirs.state_dict())
    own = ours.state_dict()
    assert own.keys() - adapted.keys() == {"input_norm.mean", "input_norm.std"}
    assert all(value.shape == own[name].shape for name, value in adapted.items() if "num_batches" not in name)


def test_names_of_older_files() -> None:
    old = {
        "backbone.body.layer1.0.conv1.weight": "backbone.layer1.0.conv1.weight",
        "backbone.fpn.inner_blocks.1.bias": "neck.inner_blocks.1.0.bias",
        "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
        "rpn.head.cls_logits.bias": "rpn.head.cls_logits.bias",
        "roi_heads.box_head.fc6.weight": "box_head.fc6.weight",
        "roi_heads.box_predictor.bbox_pred.bias": "box_head.bbox_pred.bias",
    }
    one = torch.zeros(1)
    assert convert_torchvision_faster_rcnn(dict.fromkeys(old, one)) == dict.fromkeys(old.values(), one)


def drawn_by(draws: list[Tensor], count: int, share: float) -> Callable[[list[Tensor]], tuple[list[Tensor], ...]]:
    """Torchvision's sampler with our numbers: the smallest of each kind."""

    def sample(labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
        for label, numbers in zip(labels, draws, strict=True):
            left = count
            for kind, most, part in zip((label >= 1, label == 0), (int(count * share), count), chosen, strict=True):
                index = kind.nonzero().flatten()
                index = index[numbers[index].argsort()][: min(most, left)]
                left -= len(index)
                part.append(torch.zeros_like(label, dtype=torch.uint8).index_fill(0, index, 1))
        return chosen

    return sample


def test_losses_are_torchvisions(as_targets: Callable[..., Targets]) -> None:
    theirs = peer().double()  # in float32 a ReLU at zero may fall to either side
    ours = same_model(theirs).double()
    images = torch.rand(3, 3, 128, 192, dtype=torch.float64)
    boxes = [
        torch.tensor([[10.0, 20, 60, 80], [30, 30, 180, 120], [100, 5, 120, 25], [31, 30, 180, 122]]),
        torch.zeros(0, 4),
        torch.tensor([[50.0, 60, 90, 90]]),
    ]
    labels = [torch.tensor([0, 2, 1, 1]), torch.zeros(0, dtype=torch.int64), torch.tensor([1])]
    ours.train()
    with torch.no_grad():
        outputs = ours.rpn(ours.levels(images), (128, 192))
        found = ours.rpn.propose(outputs, (128, 192))
    anchors, regions = outputs.logits.shape[1], found.scores.shape[1]
    torch.manual_seed(7)
    anchor_draws, region_draws = torch.rand(3, anchors), torch.rand(3, regions + 4)
    kept = [int(count) for count in (found.scores > 0).sum(dim=1)]
    of_regions = [  # there the objects stand right behind the proposals, here behind the padding
        torch.cat((row[:k], row[regions : regions + len(box)]))
        for row, k, box in zip(region_draws, kept, boxes, strict=True)
    ]
    theirs.rpn.fg_bg_sampler = drawn_by(list(anchor_draws), 256, 0.5)  # pyright: ignore
    theirs.roi_heads.fg_bg_sampler = drawn_by(of_regions, 64, 0.25)
    listed = [{"boxes": box, "labels": label + 1} for box, label in zip(boxes, labels, strict=True)]
    expected = theirs.train()(list(images), listed)

    torch.manual_seed(7)
    terms = ours.loss(images, as_targets(boxes, labels))
    assert list(terms) == TERMS
    names = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
    for mine, other in zip(TERMS, names, strict=True):
        assert expected[other] > 1e-3
        torch.testing.assert_close(terms[mine], expected[other].double(), rtol=1e-5, atol=1e-6)
    sum(terms.values()).backward()
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    reference = convert_torchvision_faster_rcnn({name: p.grad for name, p in theirs.named_parameters()})
    for name, gradient in gradients.items():
        scale = reference[name].abs().max()
        torch.testing.assert_close(gradient / scale, reference[name] / scale, rtol=1e-4, atol=1e-5, msg=name)


EDGES = {
    "some": ([[10.0, 10, 50, 60], [12, 8, 55, 62]], [1, 2]),
    "none": ([], []),
    "below a pixel": ([[30.3, 30.1, 30.4, 30.2]], [0]),
    "without area": ([[30.0, 30.0, 30.0, 40.0]], [0]),
    "larger than the image": ([[-50.0, -40.0, 200.0, 300.0]], [2]),
    "identical": ([[10.0, 10, 50, 60]] * 3, [1, 2, 1]),
}


@pytest.mark.parametrize("case", EDGES)
def test_any_targets_give_finite_gradients(case: str, as_targets: Callable[..., Targets]) -> None:
    model = small()
    boxes, labels = EDGES[case]
    targets = as_targets(
        [torch.tensor(boxes).view(-1, 4), torch.zeros(0, 4)], [torch.tensor(labels).long(), torch.zeros(0).long()]
    )
    terms = model.loss(torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8), targets)
    assert list(terms) == TERMS
    assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
    assert (terms["box"] > 0) == (case not in ("none", "without area"))
    sum(terms.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_thousand_objects(as_targets: Callable[..., Targets]) -> None:
    model = small()
    corner = torch.rand(1000, 2) * 80
    boxes = torch.cat((corner, corner + 1 + torch.rand(1000, 2) * 15), dim=1)
    targets = as_targets([boxes], [torch.randint(0, 3, (1000,))])
    terms = model.loss(torch.rand(1, 3, 96, 96), targets)
    assert all(torch.isfinite(term) for term in terms.values())


def test_no_proposals_and_no_objects(as_targets: Callable[..., Targets]) -> None:
    model = small().eval()
    nn.init.constant_(model.rpn.head.bbox_pred.bias, 1e6)  # every box lies far outside
    images = torch.rand(2, 3, 96, 96)
    none = as_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2)
    terms = model.loss(images, none)
    assert terms["class"].item() == terms["box"].item() == 0
    sum(terms.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert [
        len(each) for each in model.predict(images, torch.tensor([[96, 96]] * 2), Selection(score_threshold=0.0))
    ] == [0, 0]
    scores, _ = model(images)
    assert not scores.any()


def test_no_images(as_targets: Callable[..., Targets]) -> None:
    model = small().eval()
    images = torch.rand(0, 3, 96, 96)
    assert model.predict(images, torch.zeros(0, 2)) == []
    terms = model.loss(images, as_targets([torch.zeros(0, 4)], [torch.zeros(0).long()]))
    assert [term.item() for term in terms.values()] == [0, 0, 0, 0]


def test_ignored_objects_are_neither(as_targets: Callable[..., Targets]) -> None:
    model = small().eval()
    targets = as_targets([torch.tensor([[-300.0, -300.0, 400.0, 400.0]])], [torch.tensor([0])])
    targets.ignore = torch.tensor([True])
    assert all(term.item() == 0 for term in model.loss(torch.rand(1, 3, 96, 96), targets).values())


def test_a_seed_draws_the_same_sample(as_targets: Callable[..., Targets]) -> None:
    model = small().eval()
    images = torch.rand(2, 3, 96, 96)
    targets = as_targets([torch.tensor([[10.0, 10, 50, 60]])] * 2, [torch.tensor([1])] * 2)

    def terms(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return [term.item() for term in model.loss(images, targets).values()]

    assert terms(0) == terms(0)
    assert terms(0) != terms(1)


def test_stages(as_targets: Callable[..., Targets]) -> None:
    images = torch.rand(2, 3, 96, 96)
    targets = as_targets([torch.tensor([[10.0, 10, 50, 60]])] * 2, [torch.tensor([1])] * 2)
    learning = {}
    stages: list[tuple[Stage, list[str]]] = [("joint", TERMS), ("rpn", TERMS[:2]), ("boxes", TERMS[2:])]
    for stage, names in stages:
        model = small(stage=stage)
        terms = model.loss(images, targets)
        assert list(terms) == names
        sum(terms.values()).backward()
        learning[stage] = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
        assert all(p.requires_grad for p in model.parameters())
    assert learning["rpn"] == {"backbone", "neck", "rpn"}
    assert learning["boxes"] == {"backbone", "neck", "box_head"}
    assert learning["joint"] == learning["rpn"] | learning["boxes"]


def test_stages_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="stage: expected"):
        small(stage="both")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("pooling", ["align", "pool"])
def test_a_recipes_section(pooling: str) -> None:
    config = SimpleNamespace(
        backbone="resnet18",
        norm="group",
        drop_path=0.0,
        neck="fpn",
        fpn_channels=16,
        anchor_sizes=(16.0, 32.0, 64.0, 128.0, 256.0),
        box_width=24,
        pooling=pooling,
        proposals=20,
        train_proposals=30,
        samples=10,
        stage="rpn",
    )
    options = {"num_classes": 2, "channels": 1, "statistics": fixed_statistics("unit", channels=1)}
    model = build_faster_rcnn(config, **options)  # pyright: ignore[reportArgumentType]
    assert model.stage == "rpn"
    assert (model.rpn.proposals, model.rpn.train_proposals, model.sampler.samples) == (20, 30, 10)
    assert model.eval()(torch.rand(1, 1, 64, 64)).boxes.shape == (1, 20, 2, 4)
    config.overlaps = (0.5, 0.55, 0.6)
    cascade = build_cascade_rcnn(config, **options)  # pyright: ignore[reportArgumentType]
    assert cascade.overlaps == config.overlaps
    assert cascade.eval()(torch.rand(1, 1, 64, 64)).boxes.shape == (1, 20, 1, 4)


def test_forward_says_what_predict_selects_from() -> None:
    model = small().eval()
    nn.init.normal_(model.box_head.cls_score.weight, std=0.5)
    images, sizes = torch.rand(2, 3, 64, 96), torch.tensor([[64, 96]] * 2)
    with torch.no_grad():
        scores, boxes = model(images)
    assert (scores.shape, boxes.shape) == ((2, 60, 3), (2, 60, 3, 4))
    for number, found in enumerate(model.predict(images, sizes, Selection(score_threshold=0.3))):
        assert found.scores is not None
        assert len(found) > 3
        for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
            row = (scores[number, :, label] - score).abs().argmin()
            torch.testing.assert_close(scores[number, row, label], score)
            torch.testing.assert_close(boxes[number, row, label], box, rtol=1e-4, atol=1e-3)


@pytest.mark.real
def test_overfits_four_photos(overfit: Callable[..., Any]) -> None:
    model = make(
        LightBackbone(),
        channels=48,
        box_width=96,
        anchor_sizes=(12, 24, 48, 96, 192),
        proposals=100,
        samples=64,
    )
    learned = overfit(model, steps=140, lr=4e-3, selection=Selection(score_threshold=0.5))
    assert learned.fell > 2
    assert learned.share >= 0.9
    assert learned.found < 1.5
