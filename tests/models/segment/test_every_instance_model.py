"""What every model of instances promises: finite losses whatever the objects, shapes that fit, NaN told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearsight.models import BUILDERS, create_model
from clearsight.ops.contours import polygon_box
from clearsight.ops.outlines import polygons_to_masks
from clearsight.ops.selection import Selection
from clearsight.recipe.model_sections import model_task
from clearsight.types import Targets

SIDE = 64
SMALL: dict[str, dict[str, Any]] = {
    "mask_rcnn": {
        "fpn_channels": 16, "box_width": 32, "samples": 32, "proposals": 50, "train_proposals": 80,
        "mask_channels": 8, "mask_convs": 1, "anchor_sizes": (8, 16, 32, 64, 128),
    },
    "deep_snake": {"neck_channels": (16, 16, 16), "head_channels": 16, "snake_channels": 8, "points": 32},
}  # fmt: skip
SHAPES = {
    "ordinary": [[(10, 10), (40, 12), (42, 50), (8, 44)], [(30, 30), (60, 30), (45, 60)]],
    "none": [],
    "within a pixel": [[(20.2, 20.2), (20.6, 20.2), (20.4, 20.6)]],
    "of one to three pixels": [[(5, 5), (6, 5), (6, 6), (5, 6)], [(9, 9), (12, 9), (12, 10), (9, 10)]],
    "one vertex, and two": [[(20, 20)], [(30, 30), (40, 40)]],
    "on a line": [[(10, 20), (30, 20), (50, 20)]],
    "crossing itself": [[(10, 10), (40, 40), (40, 10), (10, 40)]],
    "cut by the border": [[(-20, -20), (30, -20), (30, 30), (-20, 30)]],
    "larger than the image": [[(-300, -200), (900, -200), (900, 700), (-300, 700)]],
    "outside": [[(200, 200), (240, 200), (240, 250), (200, 250)]],
    "at one place": [[(10, 10), (40, 10), (40, 40), (10, 40)]] * 3,
    "three hundred": [
        [(x, y), (x + 4, y), (x + 4, y + 5), (x, y + 5)] for x in range(0, 60, 3) for y in range(0, 60, 4)
    ],
}


def make(name: str) -> Any:
    torch.manual_seed(0)
    return create_model(name, num_classes=2, backbone="resnet18", **SMALL[name])


def targets_of(images: list[list[list[tuple[float, float]]]], *, ignore: bool = False) -> Targets:
    rings = [np.array(ring, dtype=np.float64) for shapes in images for ring in shapes]
    longest = max((len(ring) for ring in rings), default=0)
    padded = [np.concatenate([ring, ring[-1:].repeat(longest - len(ring), axis=0)]) for ring in rings]
    masks = polygons_to_masks([[ring] for ring in rings], (SIDE, SIDE))
    return Targets(
        boxes=torch.tensor([polygon_box(ring) for ring in rings]).float().reshape(-1, 4),
        labels=torch.arange(len(rings)) % 2,
        image=torch.arange(len(images)).repeat_interleave(torch.tensor([len(shapes) for shapes in images])),
        ignore=torch.ones(len(rings), dtype=torch.bool) if ignore else None,
        masks=torch.from_numpy(masks),
        contours=torch.from_numpy(np.array(padded).reshape(len(rings), longest, 2)).float(),
        ring_object=torch.arange(len(rings)),
    )


def assert_learns(model: Any, targets: Targets, images: Tensor) -> None:
    terms = model.loss(images, targets)
    assert all(term.isfinite() for term in terms.values()), terms
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in model.parameters())


def test_every_model_of_instances_is_here() -> None:
    assert SMALL.keys() == {name for name in BUILDERS if model_task(name) == "instance"}


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", SMALL)
def test_awkward_objects_have_a_finite_loss(name: str, shapes: str) -> None:
    model = make(name)
    images = torch.rand(2, 3, SIDE, SIDE)
    assert_learns(model, targets_of([SHAPES[shapes], SHAPES["ordinary"]]), images)
    assert_learns(model, targets_of([SHAPES[shapes], SHAPES[shapes]]), images)
    assert_learns(model, targets_of([SHAPES[shapes], []], ignore=True), images)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_found_fits_the_valid_part(name: str) -> None:
    model = make(name).eval()
    sizes = torch.tensor([[SIDE, SIDE], [30, 40]])
    found = model.predict(torch.rand(2, 3, SIDE, SIDE), sizes, Selection(score_threshold=0.0, max_detections=7))
    for one, (height, width) in zip(found, sizes.tolist(), strict=True):
        assert 0 < len(one) <= 7
        assert one.boxes[:, 2].max() <= width
        assert one.boxes[:, 3].max() <= height
        if name == "mask_rcnn":
            assert one.masks.shape == (len(one), SIDE, SIDE)
            assert one.masks.dtype == torch.bool
        else:
            assert one.contours.shape == (len(one), 32, 2)
            assert one.ring_object.tolist() == list(range(len(one)))
            assert one.contours[..., 0].max() <= width
            assert one.contours[..., 1].max() <= height
    assert model.predict(torch.rand(0, 3, SIDE, SIDE), sizes[:0]) == []


@pytest.mark.parametrize("name", SMALL)
def test_boxes_alone_are_not_enough_to_learn_from(name: str) -> None:
    targets = targets_of([SHAPES["ordinary"]])
    targets.masks = targets.contours = targets.ring_object = None
    with pytest.raises((ValueError, RuntimeError), match="instance"):
        make(name).loss(torch.rand(1, 3, SIDE, SIDE), targets)


@pytest.mark.parametrize("name", SMALL)
def test_a_head_without_numbers_finds_nothing(name: str) -> None:
    model = make(name).eval()
    for key, parameter in model.named_parameters():
        if "head" in key.split(".")[0]:
            nn.init.constant_(parameter, torch.nan)
    found = model.predict(
        torch.rand(2, 3, SIDE, SIDE), torch.tensor([[SIDE, SIDE]] * 2), Selection(score_threshold=0.0)
    )
    assert [len(one) for one in found] == [0, 0]
    terms = model.loss(torch.rand(2, 3, SIDE, SIDE), targets_of([SHAPES["ordinary"]] * 2))
    assert any(term.isnan() for term in terms.values())


@pytest.mark.parametrize("name", SMALL)
def test_the_classes_start_anew_and_nothing_else(name: str) -> None:
    model = make(name)
    of_five = create_model(name, num_classes=5, backbone="resnet18", **SMALL[name]).state_dict()
    mine = model.state_dict()
    assert {key for key in mine if mine[key].shape != of_five[key].shape} == set(model.class_layer)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    for value in model.parameters():
        value.data += 0.5
    model.reset_classes()
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key] + 0.5) == (key not in model.class_layer), key


@pytest.mark.parametrize("name", SMALL)
def test_a_classifiers_weights_go_to_the_backbone(name: str) -> None:
    model = make(name)
    published = create_model("resnet18", num_classes=7).get_submodule("backbone").state_dict()
    taken = model.adapt_weights(published)
    assert {f"backbone.{key}" for key, _ in model.backbone.named_parameters()} <= taken.keys()
