"""R-CNN: crops as a loop would cut them, and what is learned from them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision

from clearsight.data.normalisation import fixed_statistics
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.detect.box_head import RegionHead
from clearsight.models.detect.rcnn import CONTEXT, Rcnn, build_rcnn
from clearsight.models.detect.rois import RoiSampler
from clearsight.models.detect.rpn import Proposals
from clearsight.models.detect.sliding_regions import SlidingRegions
from clearsight.ops.selection import Selection


def make(**options: object) -> Rcnn:
    body = LightBackbone()
    statistics = fixed_statistics("imagenet", channels=3)
    return Rcnn(body, RegionHead(body.embedding, 3), statistics=statistics, **options)  # pyright: ignore


def test_a_region_is_warped_with_its_surroundings() -> None:
    torch.manual_seed(0)
    model = make(crop=32).eval()
    images = torch.randn(2, 3, 60, 80)
    boxes, image = torch.tensor([[10.0, 5, 50, 25], [0, 0, 80, 60], [70, 40, 80, 60]]), torch.tensor([1, 0, 1])
    with torch.no_grad():
        logits, deltas = model.read(images, boxes, image)
        for row, (box, number) in enumerate(zip(boxes, image, strict=True)):
            x0, y0, x1, y1 = box.tolist()
            dx, dy = (x1 - x0) * CONTEXT, (y1 - y0) * CONTEXT
            wide = torch.tensor([[0, x0 - dx, y0 - dy, x1 + dx, y1 + dy]])
            crop = torchvision.ops.roi_align(images[number][None], wide, 32, 1.0, 2, aligned=True)
            vector = model.backbone.embed(crop)
            torch.testing.assert_close(logits[row], model.box_head.cls_score(vector)[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(deltas[row].flatten(), model.box_head.bbox_pred(vector)[0], rtol=1e-4, atol=1e-5)
    # 16 of 227 pixels on each side: the region itself is 195 wide
    assert pytest.approx(227) == (1 + 2 * CONTEXT) * 195


def test_given_regions_and_none() -> None:
    model = make(crop=32).eval()
    images, sizes = torch.rand(2, 3, 60, 80), torch.tensor([[60, 80]] * 2)
    given = Proposals(torch.tensor([[[10.0, 5, 50, 25]]]).repeat(2, 1, 1), torch.tensor([[1.0], [0.0]]))
    found = model.predict(images, sizes, Selection(score_threshold=0.0), proposals=given)
    assert len(found[0]) > 0
    assert len(found[1]) == 0
    nothing = Proposals(given.boxes, torch.zeros(2, 1))
    assert [len(one) for one in model.predict(images, sizes, proposals=nothing)] == [0, 0]


def test_a_recipes_section() -> None:
    config = SimpleNamespace(
        backbone="resnet18", norm="group", drop_path=0.0, crop=32, samples=7, region_sizes=(48.0,),
        region_ratios=(1.0,), region_step=0.5,
    )  # fmt: skip
    model = build_rcnn(config, num_classes=2, channels=1, statistics=fixed_statistics("unit", channels=1))  # pyright: ignore
    assert model.crop == 32
    assert model.sampler.samples == 7
    assert model.eval()(torch.rand(1, 1, 64, 64)).scores.shape == (1, 9, 2)


@pytest.mark.real
def test_overfits_two_photos(overfit: Callable[..., Any]) -> None:
    model = make(
        crop=32,
        proposer=SlidingRegions(sizes=(12, 24, 48), ratios=(1.0,), step=0.33),
        sampler=RoiSampler(samples=64),
    )
    learned = overfit(model, steps=80, lr=3e-3, photos=2, selection=Selection(score_threshold=0.5, nms_iou=0.3))
    assert learned.fell > 2
    assert learned.share >= 0.8
