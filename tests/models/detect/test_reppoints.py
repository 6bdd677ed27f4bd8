"""RepPoints: boxes are those of its points, it is built as its section says, it learns, it exports."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from clearsight.assign import SimOta
from clearsight.assign.auto_assign import AutoAssign
from clearsight.data.normalisation import fixed_statistics
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.base import Detects
from clearsight.models.detect.dense import LEVELS
from clearsight.models.detect.reppoints import RepPoints, build_reppoints
from clearsight.models.detect.reppoints_head import RepPointsHead, Transform
from clearsight.models.detect.reppoints_loss import RepPointsLoss
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.selection import Selection
from clearsight.recipe.assigner_sections import SimOtaConfig
from clearsight.types import Targets

ALL = Selection(score_threshold=0.0, max_detections=9)


def make(
    backbone: nn.Module, *, classes: int = 3, width: int = 32, convs: int = 1, transform: Transform = "moment"
) -> RepPoints:
    channels: dict[str, int] = backbone.channels  # pyright: ignore[reportAssignmentType]
    neck = Fpn({level: channels[level] for level in LEVELS}, width, strides=backbone.strides, extra="p6p7")  # pyright: ignore
    head = RepPointsHead(width, classes, convs=convs, transform=transform)
    return RepPoints(backbone, neck, head, statistics=fixed_statistics("imagenet", channels=3))  # pyright: ignore


def small(*, classes: int = 3, transform: Transform = "moment") -> RepPoints:
    return make(LightBackbone(), classes=classes, transform=transform)


def spread(model: RepPoints) -> RepPoints:
    """Points that are spread out, and scores that differ."""
    for layer in (model.head.first_out, model.head.second_out, model.head.class_out):
        nn.init.normal_(layer.weight, std=0.3)
        nn.init.normal_(layer.bias)  # pyright: ignore[reportArgumentType]
    return model


@pytest.mark.parametrize("transform", ["moment", "minmax", "partial_minmax"])
def test_predicted_boxes_are_those_of_the_points(transform: Transform) -> None:
    """Of every box that is found: its location and level from the running number, its points one by one."""
    model = spread(small(classes=1, transform=transform)).eval()
    images, height, width = torch.rand(2, 3, 70, 90), 70, 90
    with torch.no_grad():
        out = model(images)
    (first, second) = model.predict(images, torch.tensor([[height, width]] * 2), Selection(score_threshold=0.0))
    assert min(len(first), len(second)) > 20
    for image, found in enumerate((first, second)):
        assert found.scores is not None
        expected = []
        for score in found.scores.tolist():
            place = int((out.logits[image, :, 0].sigmoid() - score).abs().argmin())
            p = place
            for stride in (8, 16, 32, 64, 128):
                rows, columns = -(-height // stride), -(-width // stride)
                if place < rows * columns:
                    break
                place -= rows * columns
            origin = torch.tensor([place % columns, place // columns]) * stride  # pyright: ignore[reportPossiblyUnbound]
            points = out.points[image, p] * stride + origin  # pyright: ignore[reportPossiblyUnbound]
            if transform == "moment":
                low, high = points.mean(0) - points.std(0), points.mean(0) + points.std(0)
            else:
                low, high = (points if transform == "minmax" else points[:4]).aminmax(dim=0)
            limit = torch.tensor([width, height])
            expected.append(torch.cat((low, high)).clamp(min=0).minimum(limit.repeat(2)))
        torch.testing.assert_close(found.boxes, torch.stack(expected), rtol=1e-4, atol=1e-3)


def test_any_size() -> None:
    model = spread(small()).eval()
    for size in ((33, 47), (32, 32), (100, 301)):
        out = model(torch.rand(1, 3, *size))
        count = sum(-(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32, 64, 128))
        assert [tuple(x.shape[1:]) for x in out] == [(count, 3), (count, 4), (count, 4), (count, 9, 2)]
        (found,) = model.predict(torch.rand(1, 3, *size), torch.tensor([[20, 30]]), ALL)
        assert 0 < len(found) <= 9
        assert bool((found.boxes >= 0).all())
        assert found.boxes.amax(dim=0)[2] <= 30
        assert found.boxes.amax(dim=0)[3] <= 20


def test_it_is_a_detector_that_starts_at_the_prior() -> None:
    model = small().eval()
    assert isinstance(model, Detects)
    nn.init.constant_(model.head.class_out.bias, 3.0)  # pyright: ignore[reportArgumentType]
    model.reset_classes()
    assert model(torch.rand(1, 3, 64, 64)).logits.sigmoid().mean().item() == pytest.approx(0.01, abs=0.003)
    state, other = model.state_dict(), small(classes=5).state_dict()
    assert {name for name in state if state[name].shape != other[name].shape} == set(model.class_layer[:2])
    model.criterion = RepPointsLoss(assigner=AutoAssign(3))
    assert set(model.class_layer[2:]) == model.state_dict().keys() - state.keys()
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    resnet = make(build_backbone("resnet18"))
    adapted = resnet.adapt_weights(theirs)
    assert adapted.keys() <= resnet.state_dict().keys()
    assert len(adapted) == len(theirs) - 2


def test_is_built_as_the_section_says() -> None:
    section = SimpleNamespace(
        backbone="resnet18",
        norm="group",
        drop_path=0.0,
        neck="pan",
        fpn_channels=24,
        head_convs=2,
        head_norm="layer",
        points=25,
        transform="minmax",
        assigner=SimOtaConfig(),
        focal_alpha=0.3,
        focal_gamma=1.5,
        first_weight=0.7,
        refine_weight=1.1,
    )
    model = build_reppoints(section, num_classes=4, channels=1, statistics=fixed_statistics("unit", channels=1))  # pyright: ignore
    assert model(torch.rand(1, 1, 64, 64)).points.shape == (1, 64 + 16 + 4 + 1 + 1, 25, 2)
    assert model.head.to_boxes.transform == "minmax"
    assert sum(isinstance(layer, nn.GroupNorm) and layer.num_groups == 1 for layer in model.head.modules()) == 4
    loss = model.criterion
    assert isinstance(loss.assigner, SimOta)
    assert (loss.alpha, loss.gamma, loss.first_weight, loss.refine_weight) == (0.3, 1.5, 0.7, 1.1)


def test_loss_trains_every_parameter(as_targets: Callable[..., Targets]) -> None:
    model, images = small(), torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    some = as_targets(
        [torch.tensor([[10.0, 10, 50, 60]]), torch.zeros(0, 4)], [torch.tensor([1]), torch.zeros(0).long()]
    )
    none = as_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2)
    for targets in (some, none):
        terms = model.loss(images, targets)
        assert list(terms) == ["class", "points_first", "points_refined"]
        model.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        moved = {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
        silent = {name for name, _ in model.named_parameters() if name.startswith("head.")} - moved
        assert not silent if targets is some else "head.second_out.weight" in silent


def test_half_precision_and_channels_last(as_targets: Callable[..., Targets]) -> None:
    model = spread(small()).eval().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    targets = as_targets([torch.tensor([[10.0, 10, 50, 60]])] * 2, [torch.tensor([1])] * 2)
    full = model.loss(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(images, targets)
        found = model.predict(images, torch.tensor([[96, 96]] * 2), ALL)
    for term, value in half.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[term], rtol=0.05, atol=0.02)
    assert found[0].boxes.dtype == torch.float32


def test_exports_and_compiles() -> None:
    model = spread(small()).eval()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(
            torch.export.export(model, (images,)).module()(images), expected, rtol=1e-4, atol=1e-3
        )
        torch.compiler.reset()
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(images), expected)


@pytest.mark.parametrize("layer", ["class_out", "first_out"])
def test_what_is_no_number_is_no_detection(layer: str) -> None:
    model = small().eval()
    nn.init.constant_(getattr(model.head, layer).bias, float("nan"))
    (found,) = model.predict(torch.rand(1, 3, 256, 256), torch.tensor([[256, 256]]), ALL)
    assert len(found) == 0


@pytest.mark.real
def test_overfits_four_photos(overfit: Callable[..., Any]) -> None:
    model = make(LightBackbone(), width=48)
    learned = overfit(model, steps=140, lr=3e-3, selection=Selection(score_threshold=0.45))
    assert learned.fell > 2
    assert learned.share >= 0.9
    assert learned.found < 1.5
