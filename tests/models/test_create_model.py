"""Models by name: what is known, and what a typo gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clearsight.data.normalisation import Statistics
from clearsight.errors import ConfigError, WeightsError
from clearsight.models import BACKBONES, BUILDERS, build_model, create_model, list_models
from clearsight.models.base import Backbone, Classifies, Detects
from clearsight.models.classify.classifier import Classifier
from clearsight.models.detect.cascade_rcnn import CascadeRcnn
from clearsight.models.detect.faster_rcnn import FasterRcnn
from clearsight.models.detect.fcos import Fcos
from clearsight.models.detect.light import LightDetector
from clearsight.models.detect.retinanet import RetinaNet
from clearsight.models.detect.ssd import Ssd
from clearsight.recipe.detector_sections import RetinaNetConfig
from clearsight.recipe.model_sections import ClassifierConfig, model_task
from clearsight.types import Targets


def test_names() -> None:
    assert list_models() == sorted([*BUILDERS, *BACKBONES])
    assert list_models("net1*") == []
    assert list_models("resnet1*") == ["resnet101", "resnet152", "resnet18"]
    assert list_models("retina") == ["retinanet"]


@pytest.mark.parametrize(
    ("name", "kind", "protocol"),
    [
        ("resnet18", Classifier, Classifies),
        ("classifier", Classifier, Classifies),
        ("retinanet", RetinaNet, Detects),
        ("fcos", Fcos, Detects),
        ("ssd", Ssd, Detects),
        ("faster_rcnn", FasterRcnn, Detects),
        ("cascade_rcnn", CascadeRcnn, Detects),
        ("light", LightDetector, Detects),
    ],
)
def test_every_name_gives_its_model(name: str, kind: type, protocol: type) -> None:
    model = create_model(name, num_classes=3)
    assert isinstance(model, kind)
    assert isinstance(model, protocol)
    assert isinstance(model.backbone, Backbone)
    assert any(parameter.startswith("backbone.") for parameter, _ in model.named_parameters())


def test_options_arrive() -> None:
    model = create_model(
        "retinanet", num_classes=4, channels=1, backbone="resnet34", fpn_channels=16, head_convs=2, box_loss="giou"
    )
    assert isinstance(model, RetinaNet)
    assert model.criterion.box_loss == "giou"
    assert model.neck.channels == 16
    assert len(model.head.classification_head.conv) == 2
    logits, deltas = model(torch.rand(1, 1, 64, 64))
    assert logits.shape == (1, 9 * (64 + 16 + 4 + 1 + 1), 4)
    assert deltas.shape[:2] == logits.shape[:2]
    assert create_model("resnet18", num_classes=2, small_input=True).backbone.strides["c5"] == 8  # pyright: ignore


@pytest.mark.parametrize("name", [name for name in BUILDERS if model_task(name) == "detection"])
def test_every_detector_trains_and_predicts_on_any_backbone(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, backbone="mobilenet_v3_small")
    images = torch.rand(2, 3, 101, 128)
    targets = Targets(boxes=torch.tensor([[4.0, 8.0, 60.0, 70.0]]), labels=torch.tensor([1]), image=torch.tensor([0]))
    terms = model.train().loss(images, targets)  # pyright: ignore[reportCallIssue]
    sum(terms.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    found = model.eval().predict(images, torch.tensor([[101, 128], [90, 100]]))  # pyright: ignore[reportCallIssue]
    assert [len(one.boxes) == len(one.scores) == len(one.labels) for one in found] == [True, True]


def test_statistics_are_kept() -> None:
    statistics = Statistics(mean=(0.1,), std=(0.2,), scale=65535.0)
    model = create_model("resnet18", num_classes=2, channels=1, statistics=statistics)
    assert model.state_dict()["input_norm.mean"].tolist() == pytest.approx([0.1])
    default = create_model("resnet18", num_classes=2)
    assert default.state_dict()["input_norm.mean"].tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("retinnet", {}, "there is no model 'retinnet'; did you mean 'retinanet'"),
        ("xyz", {}, "there is no model 'xyz'; choose one of"),
        ("retinanet", {"backbon": "resnet18"}, "retinanet has no option 'backbon'; did you mean 'backbone'"),
        (
            "retinanet",
            {"backbone": "resnt34"},
            "backbone: found 'resnt34'.*there is no backbone 'resnt34'; did you mean 'resnet34'",
        ),
        ("retinanet", {"head_convs": -1}, "head_convs: found -1; input should be greater than or equal to 0"),
        ("resnet18", {"backbone": "resnet34"}, "'resnet18' is a backbone already; drop backbone='resnet34'"),
        ("resnet18", {"num_classes": 0}, "num_classes and channels must be at least 1, got 0, 3"),
    ],
)
def test_mistakes(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(name, **{"num_classes": 3, **options})


def test_build_model_loads_the_weights_it_names(tmp_path: Path) -> None:
    statistics = Statistics(mean=(0.5,) * 3, std=(0.5,) * 3)
    source = create_model("resnet18", num_classes=3)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    config = ClassifierConfig(weights=(tmp_path / "weights.pt").as_posix())
    model = build_model(config, num_classes=3, channels=3, statistics=statistics)
    torch.testing.assert_close(model.state_dict()["head.weight"], source.state_dict()["head.weight"])
    wrong = RetinaNetConfig(weights=config.weights, weights_sha256="0" * 64)
    with pytest.raises(WeightsError, match="expected sha256"):
        build_model(wrong, num_classes=3, channels=3, statistics=statistics)
