"""Fast R-CNN on given regions is the second stage of Faster R-CNN; on sliding ones it learns."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from clearsight.data.normalisation import fixed_statistics
from clearsight.models import create_model
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.detect.box_head import BoxHead
from clearsight.models.detect.fast_rcnn import LEVELS, FastRcnn, build_fast_rcnn
from clearsight.models.detect.rois import RoiSampler
from clearsight.models.detect.sliding_regions import SlidingRegions
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.selection import Selection
from clearsight.types import Targets

TWO_STAGES = {"backbone": "resnet18", "fpn_channels": 16, "box_width": 32, "samples": 32}


def test_on_the_regions_of_faster_rcnn_it_is_faster_rcnn(as_targets: Callable[..., Targets]) -> None:
    torch.manual_seed(0)
    faster = create_model("faster_rcnn", num_classes=3, proposals=40, train_proposals=40, **TWO_STAGES).eval()
    fast = create_model("fast_rcnn", num_classes=3, **TWO_STAGES).eval()
    missing, _ = fast.load_state_dict(
        {key: value for key, value in faster.state_dict().items() if not key.startswith("rpn.")}, strict=False
    )
    assert missing == []
    nn.init.normal_(faster.box_head.cls_score.weight, std=0.3)  # pyright: ignore
    fast.box_head.load_state_dict(faster.box_head.state_dict())  # pyright: ignore
    images, sizes = torch.rand(2, 3, 96, 128), torch.tensor([[96, 128]] * 2)
    found = faster.rpn.propose(faster.rpn(faster.levels(images), (96, 128)), sizes)  # pyright: ignore
    everything = Selection(score_threshold=0.0)
    for mine, other in zip(
        fast.predict(images, sizes, everything, proposals=found),  # pyright: ignore
        faster.predict(images, sizes, everything),  # pyright: ignore
        strict=True,
    ):
        assert len(mine) > 5
        torch.testing.assert_close(mine.boxes, other.boxes)
        torch.testing.assert_close(mine.scores, other.scores)
    boxes = [torch.tensor([[10.0, 10, 60, 70]]), torch.tensor([[40.0, 20, 90, 60]])]
    targets = as_targets(boxes, [torch.tensor([0]), torch.tensor([2])])
    faster.stage = "boxes"  # pyright: ignore
    torch.manual_seed(1)
    theirs = faster.loss(images, targets)  # pyright: ignore
    learning = faster.rpn.propose(faster.rpn(faster.levels(images), (96, 128)), (96, 128), learning=True)  # pyright: ignore
    torch.manual_seed(1)
    ours = fast.loss(images, targets, proposals=learning)  # pyright: ignore
    assert ours.keys() == theirs.keys() == {"class", "box"}
    for term in ours:
        torch.testing.assert_close(ours[term], theirs[term])


def test_a_recipes_section() -> None:
    config = SimpleNamespace(
        backbone="resnet18", norm="group", drop_path=0.0, neck="pan", fpn_channels=8, box_width=12, pooling="pool",
        samples=7, region_sizes=(16.0, 48.0), region_ratios=(1.0,), region_step=0.5,
    )  # fmt: skip
    model = build_fast_rcnn(config, num_classes=2, channels=1, statistics=fixed_statistics("unit", channels=1))  # pyright: ignore
    assert isinstance(model.proposer, SlidingRegions)
    assert model.proposer.sizes == (16.0, 48.0)
    assert model.sampler.samples == 7
    assert model.eval()(torch.rand(1, 1, 64, 64)).scores.shape == (1, 64 + 9, 2)


@pytest.mark.real
def test_overfits_four_photos(overfit: Callable[..., Any]) -> None:
    body = LightBackbone()
    neck = Fpn({level: body.channels[level] for level in LEVELS}, 48, strides=body.strides)
    model = FastRcnn(
        body, neck, BoxHead(48, 3, strides=list(neck.strides.values()), width=96),
        statistics=fixed_statistics("imagenet", channels=3),
        proposer=SlidingRegions(sizes=(12, 24, 48), ratios=(1.0,), step=0.33), sampler=RoiSampler(samples=64),
    )  # fmt: skip
    learned = overfit(model, steps=120, lr=4e-3, selection=Selection(score_threshold=0.5, nms_iou=0.4))
    assert learned.fell > 2
    assert learned.share >= 0.9
    assert learned.found < 1.5
