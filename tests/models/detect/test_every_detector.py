"""What every detector is held to, whatever its method."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from clearsight.assign import ASSIGNERS
from clearsight.models import BUILDERS, create_model
from clearsight.models.base import Detects
from clearsight.ops.selection import Selection
from clearsight.recipe.model_sections import model_task
from clearsight.types import Targets

TWO_STAGES: dict[str, Any] = {"box_width": 32, "proposals": 60, "train_proposals": 100, "samples": 32}
SMALL: dict[str, dict[str, Any]] = {
    "retinanet": {"fpn_channels": 16, "head_convs": 1},
    "fcos": {"fpn_channels": 32, "head_convs": 1},
    "ssd": {},
    "yolov3": {"neck_width": 0.125},
    "efficientdet": {"bifpn_channels": 16, "bifpn_layers": 2, "head_convs": 1},
    "reppoints": {"fpn_channels": 32, "head_convs": 1},
    "densebox": {"fpn_channels": 16},
    "centernet": {"neck_channels": (32, 16, 16), "head_channels": 16},
    "cornernet": {"fpn_channels": 16, "head_channels": 16, "top_corners": 300},
    "rcnn": {"crop": 32, "samples": 16, "region_step": 1.0},
    "fast_rcnn": {"fpn_channels": 16, "box_width": 32, "samples": 32},
    "faster_rcnn": {"fpn_channels": 16, **TWO_STAGES},
    "cascade_rcnn": {"fpn_channels": 16, **TWO_STAGES},
    "light": {"fpn_channels": 16, "head_convs": 1},
}
ROUGH = ("rcnn", "fast_rcnn", "faster_rcnn", "cascade_rcnn")  # in half precision other regions may be drawn


def small(name: str, *, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=classes, backbone="resnet18", **SMALL[name])


def test_every_detector_is_here() -> None:
    assert SMALL.keys() == {name for name in BUILDERS if model_task(name) == "detection"}


@pytest.mark.parametrize("name", SMALL)
def test_only_the_class_layer_knows_the_classes(name: str) -> None:
    model = small(name)
    assert isinstance(model, Detects)
    state, other = model.state_dict(), small(name, classes=5).state_dict()
    changed = {key for key in state if state[key].shape != other[key].shape}
    assert changed == set(model.class_layer) & state.keys()  # pyright: ignore[reportArgumentType, reportCallIssue]
    for key in changed:
        state[key].fill_(3.0)
    model.reset_classes()  # pyright: ignore[reportCallIssue]
    assert all(not bool((model.state_dict()[key] == 3.0).any()) for key in changed)


@pytest.mark.parametrize("name", SMALL)
def test_a_classifiers_weights_go_to_the_backbone(name: str) -> None:
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    model = small(name)
    adapted: Mapping[str, Any] = model.adapt_weights(theirs)  # pyright: ignore[reportCallIssue, reportAssignmentType]
    assert adapted.keys() <= model.state_dict().keys()
    assert len(adapted) == len(theirs) - 2


@pytest.mark.parametrize("name", SMALL)
def test_boxes_lie_in_images_of_any_size(name: str) -> None:
    model = small(name).eval()
    for size in ((33, 47), (32, 32), (100, 301)):
        images = torch.rand(1, 3, *size)
        (found,) = model.predict(images, torch.tensor([[20, 30]]), Selection(score_threshold=0.0, max_detections=9))  # pyright: ignore
        assert 0 < len(found) <= 9
        assert bool((found.boxes >= 0).all())
        assert found.boxes[:, 2].max() <= 30
        assert found.boxes[:, 3].max() <= 20
        assert bool((found.scores.diff() <= 0).all())


@pytest.mark.filterwarnings("ignore:`create_unbacked_symint`:FutureWarning")  # torchvision's
@pytest.mark.parametrize("name", SMALL)
def test_the_exported_graph_gives_the_same(name: str) -> None:
    model = small(name).eval()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        exported = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(exported(images), model(images), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ROUGH])
def test_dense_ones_compile_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    model, images = small(name).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_and_channels_last(name: str, as_targets: Callable[..., Targets]) -> None:
    model = small(name).eval().to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    targets = as_targets([torch.tensor([[10.0, 10, 50, 60]])] * 2, [torch.tensor([1])] * 2)
    torch.manual_seed(0)
    full = model.loss(images, targets)  # pyright: ignore[reportCallIssue]
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(images, targets)  # pyright: ignore[reportCallIssue]
        found = model.predict(images, torch.tensor([[96, 96]] * 2), Selection(score_threshold=0.0, max_detections=5))  # pyright: ignore
    assert half.keys() == full.keys()
    for term, value in half.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[term], rtol=0.2 if name in ROUGH else 0.05, atol=0.02)
    assert found[0].boxes.dtype == torch.float32


@pytest.mark.parametrize("name", SMALL)
def test_copies_and_pickles(name: str) -> None:
    model = small(name).eval()
    images, sizes = torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]])
    expected = model.predict(images, sizes, Selection(score_threshold=0.0))[0].boxes  # pyright: ignore[reportCallIssue]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin.predict(images, sizes, Selection(score_threshold=0.0))[0].boxes, expected)


# ------------------------------------------------------------------------------------------------ awkward objects
def awkward() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """An image for each kind of object that is no ordinary one."""
    corner = torch.rand(1000, 2) * 80
    boxes = [
        torch.zeros(0, 4),
        torch.tensor([[20.2, 20.3, 20.6, 20.7]]),  # within a pixel
        torch.tensor([[30.0, 10.0, 30.0, 60.0]]),  # without area
        torch.tensor([[-300.0, -200.0, 900.0, 700.0]]),  # larger than the image
        torch.tensor([[200.0, 200.0, 240.0, 250.0]]),  # outside of it
        torch.tensor([[10.0, 10.0, 50.0, 60.0]]).repeat(3, 1),  # at one place
        torch.cat((corner, corner + torch.rand(1000, 2) * 30 + 0.5), dim=1),
    ]
    return boxes, [torch.arange(len(one)) % 3 for one in boxes]


def assert_learns(model: nn.Module, images: torch.Tensor, targets: Targets) -> None:
    terms = model.loss(images, targets)  # pyright: ignore[reportCallIssue]
    sum(terms.values()).backward()
    assert all(bool(term.isfinite()) for term in terms.values()), terms
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", SMALL)
def test_images_without_objects_have_a_finite_loss(name: str, as_targets: Callable[..., Targets]) -> None:
    empty = as_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)
    model = small(name)
    assert_learns(model, torch.rand(2, 3, 96, 96), empty)
    assert any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_awkward_objects_have_a_finite_loss(name: str, as_targets: Callable[..., Targets]) -> None:
    boxes, labels = awkward()
    targets = as_targets(boxes, labels)
    model = small(name)
    assert_learns(model, torch.rand(len(boxes), 3, 96, 96), targets)
    targets.ignore = torch.rand(len(targets.labels)) > 0.5
    assert_learns(model, torch.rand(len(boxes), 3, 96, 96), targets)


@pytest.mark.parametrize("assigner", ASSIGNERS)
@pytest.mark.parametrize("name", ["retinanet", "fcos", "yolov3", "efficientdet", "reppoints", "light"])
def test_every_assigner_serves_every_dense_head(name: str, assigner: str, as_targets: Callable[..., Targets]) -> None:
    torch.manual_seed(0)
    options = {"backbone": "resnet18", **SMALL[name], "assigner": {"name": assigner}}
    model = create_model(name, num_classes=3, **options)
    boxes, labels = awkward()
    assert_learns(model, torch.rand(len(boxes), 3, 64, 64), as_targets(boxes, labels))


@pytest.mark.parametrize("name", SMALL)
def test_a_head_without_numbers_finds_nothing(name: str) -> None:
    model = small(name).eval()
    for key, parameter in model.named_parameters():
        if "head" in key.split(".")[0]:
            parameter.data.fill_(torch.nan)
    found = model.predict(torch.rand(2, 3, 64, 64), torch.tensor([[64, 64]] * 2), Selection(score_threshold=0.0))  # pyright: ignore
    assert [len(one) for one in found] == [0, 0]
