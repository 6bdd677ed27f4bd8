"""DenseBox: decoding by hand, an independent decoder, scores of both losses, and photos that it learns by heart."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from clearsight.data.normalisation import fixed_statistics
from clearsight.errors import ConfigError
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.base import Detects
from clearsight.models.detect.densebox import LEVELS, DenseBox, build_densebox
from clearsight.models.detect.densebox_head import DenseBoxHead
from clearsight.models.detect.densebox_loss import DenseBoxLoss
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.selection import Selection
from clearsight.types import Targets

ALL = Selection(score_threshold=0.0, nms_iou=1.0, max_detections=100_000, candidates=100_000)


def built(*, classes: int = 3, **options: object) -> DenseBox:
    section = {
        "backbone": "resnet18",
        "norm": None,
        "drop_path": 0.0,
        "fpn_channels": 16,
        "radius": 0.3,
        "class_loss": "l2",
        "box_weight": 3.0,
        "negatives": 1.0,
    }
    config = SimpleNamespace(**(section | options))
    statistics = fixed_statistics("imagenet", channels=3)
    return build_densebox(config, num_classes=classes, channels=3, statistics=statistics)  # pyright: ignore


def small(*, classes: int = 3, width: int = 32, class_loss: str = "l2") -> DenseBox:
    body = LightBackbone()
    neck = Fpn({level: body.channels[level] for level in LEVELS}, width, strides=body.strides)
    head = DenseBoxHead(width, classes, prior=None if class_loss == "l2" else 0.01)
    criterion = DenseBoxLoss(class_loss=class_loss)  # pyright: ignore[reportArgumentType]
    return DenseBox(body, neck, head, statistics=fixed_statistics("imagenet", channels=3), criterion=criterion)


def silent(model: DenseBox) -> DenseBox:
    """Every cell says the biases."""
    for layer in (model.head.scores, model.head.distances):
        nn.init.zeros_(layer.weight)
    return model.eval()


@pytest.mark.parametrize("class_loss", ["l2", "bce"])
def test_boxes_by_hand(class_loss: str) -> None:
    """Cell (3, 2) of stride 4 has its middle at (14, 10); 0.1, 0.05, 0.2 and 0.3 of 50 pixels to the sides."""
    model = silent(small(classes=1, class_loss=class_loss))
    model.head.distances.bias.data = torch.tensor([0.1, 0.05, 0.2, 0.3])
    model.head.scores.bias.data[:] = 0.75
    (found,) = model.predict(torch.rand(1, 3, 32, 48), torch.tensor([[32, 48]]), ALL)
    assert len(found) == 8 * 12
    torch.testing.assert_close(found.boxes[2 * 12 + 3], torch.tensor([9.0, 7.5, 24.0, 25.0]))
    score = torch.tensor(0.75 if class_loss == "l2" else 0.67918)
    torch.testing.assert_close(found.scores, score.expand(96), rtol=1e-4, atol=1e-5)


def test_scores_are_clamped_and_must_be_numbers() -> None:
    model = silent(small(classes=6))
    model.head.scores.bias.data = torch.tensor([-0.5, 0.3, 1.7, torch.nan, torch.inf, -torch.inf])
    (found,) = model.predict(torch.rand(1, 3, 32, 32), torch.tensor([[32, 32]]), ALL)
    assert sorted(set(found.labels.tolist())) == [1, 2]
    assert found.scores is not None
    torch.testing.assert_close(found.scores[found.labels == 1], torch.tensor(0.3).expand(64))
    assert bool((found.scores[found.labels == 2] == 1).all())
    model.head.distances.bias.data[:] = torch.nan
    assert len(model.predict(torch.rand(1, 3, 32, 32), torch.tensor([[32, 32]]), ALL)[0]) == 0


def test_sides_that_come_out_negative_make_empty_boxes() -> None:
    model = silent(small(classes=1))
    model.head.scores.bias.data[:] = 0.5
    model.head.distances.bias.data = torch.tensor([-0.2, 0.1, 0.1, 0.1])
    (found,) = model.predict(torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]]), ALL)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert bool((sides[:, 0] == 0).all())
    assert bool((sides[:, 1] > 0).all())


def test_what_is_trained_is_what_is_decoded(as_targets: Callable[..., Targets]) -> None:
    """Outputs that fit the loss perfectly give the objects' own boxes."""
    model = small(classes=2).eval()
    boxes = torch.tensor([[10.0, 20.0, 61.0, 47.0], [70.0, 8.0, 78.0, 90.0]])
    targets = as_targets([boxes], [torch.tensor([1, 0])])
    points = model.points((96, 96), torch.device("cpu"))
    scores, distances = torch.zeros(1, 576, 2), torch.zeros(1, 576, 4)
    for box, label in zip(boxes, (1, 0), strict=True):
        centre, reach = (box[:2] + box[2:]) / 2, 0.3 * (box[2:] - box[:2]).min()
        near = (points.xy - centre).norm(dim=1) <= reach
        scores[0, near, label] = 1.0
        distances[0, near] = torch.cat((points.xy[near] - box[:2], box[2:] - points.xy[near]), dim=1) / 50
    terms = model.criterion(scores, distances, points, targets, shape=(24, 24))
    assert [term.item() for term in terms.values()] == pytest.approx([0.0, 0.0], abs=1e-9)
    model.forward = lambda images: (scores, distances)  # pyright: ignore[reportAttributeAccessIssue]
    (found,) = model.predict(torch.rand(1, 3, 96, 96), torch.tensor([[96, 96]]))
    assert found.labels.tolist() == [1, 0] or found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.boxes[found.labels.argsort()], boxes[[1, 0]])


def test_every_size_and_what_is_built() -> None:
    model = built().eval()
    assert isinstance(model, Detects)
    for size in ((33, 47), (32, 32), (100, 301)):
        scores, distances = model(torch.rand(1, 3, *size))
        count = -(-size[0] // 4) * -(-size[1] // 4)
        assert (scores.shape, distances.shape) == ((1, count, 3), (1, count, 4))
    with pytest.raises(ConfigError, match="has no level c2"):
        built(backbone="convmixer_768_32")


def test_the_section_reaches_the_model() -> None:
    model = built(radius=0.2, class_loss="bce", box_weight=2.0, negatives=3.0)
    assert model.criterion == DenseBoxLoss(radius=0.2, class_loss="bce", box_weight=2.0, negatives=3.0)
    assert model.eval()(torch.rand(1, 3, 64, 64)).scores.sigmoid().mean().item() == pytest.approx(0.01, abs=0.005)
    assert built().head.prior is None


@pytest.mark.parametrize("class_loss", ["l2", "bce"])
def test_every_weight_learns(class_loss: str, as_targets: Callable[..., Targets]) -> None:
    model = built(class_loss=class_loss)
    targets = as_targets(
        [torch.tensor([[10.0, 10, 50, 60]]), torch.zeros(0, 4)], [torch.tensor([1]), torch.zeros(0).long()]
    )
    sum(model.loss(torch.rand(2, 3, 96, 96), targets).values()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.real
def test_overfits_four_photos(overfit: Callable[..., Any]) -> None:
    model = small(width=32)
    learned = overfit(model, steps=80, lr=4e-3, selection=Selection(score_threshold=0.5, nms_iou=0.3))
    assert learned.fell > 2
    assert learned.share >= 0.9
    assert learned.found < 1.5
