"""YOLOv3 has the published size in both forms; what it finds is what a loop finds; it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from clearsight.assign import ASSIGNERS
from clearsight.data.normalisation import fixed_statistics
from clearsight.errors import ConfigError
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.base import Detects
from clearsight.models.detect.yolov3 import ANCHORS, TINY_ANCHORS, YoloV3, build_yolov3, level_anchors
from clearsight.models.detect.yolov3_head import YoloV3Head
from clearsight.models.detect.yolov3_loss import YoloV3Loss
from clearsight.models.necks.yolo import YoloNeck
from clearsight.ops.selection import Selection
from clearsight.recipe.assigner_sections import AutoAssignConfig, ShapeRatioConfig
from clearsight.types import Targets

STATISTICS = fixed_statistics("imagenet", channels=3)


def section(**given: Any) -> Any:
    plain = {"backbone": "darknet53", "norm": None, "drop_path": 0.0, "neck_width": 1.0, "neck_norm": "batch"}
    learning = {"box_loss": "ciou", "box_weight": 5.0, "objectness_weight": 1.0, "class_weight": 1.0}
    return SimpleNamespace(**plain | learning | {"anchors": ANCHORS, "assigner": ShapeRatioConfig()} | given)


def build(*, classes: int = 80, **given: Any) -> YoloV3:
    return build_yolov3(section(**given), num_classes=classes, channels=3, statistics=STATISTICS)


def small(*, classes: int = 3, width: int = 16, tiny: bool = False) -> YoloV3:
    body = LightBackbone(widths=(8, 12, 16, 24), depths=(1, 1, 1, 1))
    levels, widths = (("c4", "c5"), (width, 2 * width)) if tiny else (("c3", "c4", "c5"), (width,) * 3)
    used = {level: body.channels[level] for level in levels}
    neck = YoloNeck(used, widths, strides=body.strides, convs=1 if tiny else 5)
    head = YoloV3Head(neck.channels, [2 * w for w in widths], 3, classes)
    return YoloV3(body, neck, head, statistics=STATISTICS, anchors=TINY_ANCHORS if tiny else ANCHORS)


def sharpen(model: YoloV3) -> YoloV3:
    """Scores of all sizes, and boxes that overlap."""
    for layer in (*model.head.class_logits, *model.head.boxes):
        nn.init.normal_(layer.weight, std=0.3)  # pyright: ignore[reportArgumentType]
        nn.init.normal_(layer.bias, std=0.5)  # pyright: ignore[reportArgumentType]
    return model.eval()


TINY: dict[str, Any] = {"backbone": "darknet_tiny", "anchors": TINY_ANCHORS}


@pytest.mark.parametrize(
    ("given", "parameters", "size"), [({}, 61_949_149, 248_007_048), (TINY, 8_852_366, 35_434_956)], ids=["53", "tiny"]
)
def test_sizes_of_the_published_networks(given: dict[str, Any], parameters: int, size: int) -> None:
    with torch.device("meta"):
        model = build(**given)
    assert sum(p.numel() for p in model.parameters()) == parameters
    # the published files, bytes: a header of 20, and four for each parameter and each norm's mean and variance
    running = sum(value.numel() for name, value in model.state_dict().items() if "running" in name)
    assert 20 + 4 * (parameters + running) == size


def test_convolutions_are_the_papers() -> None:
    with torch.device("meta"):
        model = build()
    # 52 of Darknet-53, 3 · 5 and 2 of the neck, 3 of 3×3 in the heads, whose last ones are each two here
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == 52 + 17 + 3 + 3 * 2
    assert [x.out_channels for x in model.head.boxes] == [15] * 3
    assert [x.out_channels for x in model.head.class_logits] == [240] * 3


@pytest.mark.parametrize("tiny", [False, True])
def test_anchors_stand_in_the_middle_of_cells(tiny: bool) -> None:
    model = small(tiny=tiny)
    points = model.points((33, 70), torch.device("cpu"))
    strides = (16, 32) if tiny else (8, 16, 32)
    sides = (points.boxes[:, 2:] - points.boxes[:, :2]).tolist()
    number = 0
    for level, stride in enumerate(strides):
        for row in range(math.ceil(33 / stride)):
            for column in range(math.ceil(70 / stride)):
                for anchor in range(3):
                    assert points.xy[number].tolist() == [(column + 0.5) * stride, (row + 0.5) * stride]
                    assert sides[number] == pytest.approx((TINY_ANCHORS if tiny else ANCHORS)[3 * level + anchor])
                    number += 1
    assert number == len(points.xy)


@pytest.mark.parametrize("tiny", [False, True])
def test_every_size(tiny: bool) -> None:
    model = sharpen(small(tiny=tiny))
    for size in ((33, 47), (32, 32), (100, 301)):
        logits, codes, objectness = model(torch.rand(1, 3, *size))
        count = 3 * sum(-(-size[0] // s) * -(-size[1] // s) for s in ((16, 32) if tiny else (8, 16, 32)))
        assert (logits.shape, codes.shape, objectness.shape) == ((1, count, 3), (1, count, 4), (1, count))
        assert len(model.points(size, logits.device).xy) == count
        few = Selection(score_threshold=0.0, max_detections=9)
        (found,) = model.predict(torch.rand(1, 3, *size), torch.tensor([[20, 30]]), few)
        assert len(found) == 9
        assert (found.boxes.amax(dim=0) <= torch.tensor([30, 20, 30, 20])).all()
        assert (found.boxes >= 0).all()


def test_the_tiny_network_runs() -> None:
    model = build(classes=2, neck_width=0.25, **TINY).eval()
    assert model.neck.channels == (256 + 32, 64)
    assert model(torch.rand(2, 3, 64, 96)).logits.shape == (2, 3 * (4 * 6 + 2 * 3), 2)


def by_loops(model: YoloV3, image: Tensor, size: tuple[int, int], chosen: Selection) -> list[tuple]:
    """Score, label and box of what is found in one image, one candidate after the other."""
    logits, codes, objectness = (value[0].detach() for value in model(image[None]))
    points = model.points(image.shape[-2:], image.device)
    rows: list[tuple[float, int, list[float], int]] = []
    for point in range(len(logits)):
        for label in range(logits.shape[1]):
            score = float(logits[point, label].sigmoid() * objectness[point].sigmoid())
            s = codes[point].sigmoid().tolist()
            stride, (x, y) = float(points.stride[point]), points.xy[point].tolist()
            w, h = (points.boxes[point, 2:] - points.boxes[point, :2]).tolist()
            x, y, w, h = x + (2 * s[0] - 1) * stride, y + (2 * s[1] - 1) * stride, w * 4 * s[2] ** 2, h * 4 * s[3] ** 2
            left, right = (min(max(value, 0), size[1]) for value in (x - w / 2, x + w / 2))
            top, bottom = (min(max(value, 0), size[0]) for value in (y - h / 2, y + h / 2))
            if score > chosen.score_threshold:
                rows.append((score, label, [left, top, right, bottom], int(points.level[point])))
    rows.sort(key=lambda row: -row[0])
    kept: list[tuple[float, int, list[float]]] = []
    seen = [0, 0, 0]
    for score, label, box, level in rows:
        seen[level] += 1
        rivals = torch.tensor([other for _, kind, other in kept if kind == label]).reshape(-1, 4)
        overlaps = torchvision.ops.box_iou(torch.tensor([box]), rivals)
        if seen[level] <= chosen.candidates and not (overlaps > chosen.nms_iou).any():
            kept.append((score, label, box))
    assert max(seen) > chosen.candidates
    assert len(kept) > chosen.max_detections
    return kept[: chosen.max_detections]


@pytest.mark.parametrize(("tiny", "candidates", "most"), [(False, 40, 25), (True, 15, 8)])
def test_what_is_found_is_what_a_loop_finds(tiny: bool, candidates: int, most: int) -> None:
    model = sharpen(small(tiny=tiny))
    images, sizes = torch.rand(2, 3, 64, 96), torch.tensor([[64, 96], [50, 70]])
    chosen = Selection(score_threshold=0.3, nms_iou=0.45, max_detections=most, candidates=candidates)
    for image, size, mine in zip(images, sizes, model.predict(images, sizes, chosen), strict=True):
        scores, labels, boxes = zip(*by_loops(model, image, tuple(size.tolist()), chosen), strict=True)
        assert mine.labels.tolist() == list(labels)
        torch.testing.assert_close(mine.scores, torch.tensor(scores), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.boxes, torch.tensor(boxes), rtol=1e-4, atol=1e-3)


def constant(model: YoloV3, *, objectness: float, classes: tuple[float, ...]) -> YoloV3:
    """The same numbers at every anchor, whose boxes are the anchors themselves."""
    for logits, boxes in zip(model.head.class_logits, model.head.boxes, strict=True):
        for layer in (logits, boxes):
            nn.init.zeros_(layer.weight)  # pyright: ignore[reportArgumentType]
        logits.bias.data = torch.tensor(classes).repeat(3)  # pyright: ignore[reportAttributeAccessIssue]
        boxes.bias.data = torch.tensor([0.0, 0, 0, 0, objectness]).repeat(3)  # pyright: ignore
    return model.eval()


def test_the_score_is_the_product() -> None:
    model = constant(small(), objectness=-1.0, classes=(0.4, -9.0, 0.4))
    score = torch.tensor(0.4).sigmoid() * torch.tensor(-1.0).sigmoid()
    images, sizes = torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]])
    (found,) = model.predict(images, sizes, Selection(score_threshold=float(score) - 1e-5, max_detections=10_000))
    torch.testing.assert_close(found.scores, score.expand(len(found)))
    assert len(found) > 60
    # two classes at the same places: none suppresses the other
    first, last = (found.boxes[found.labels == label] for label in (0, 2))
    assert set(map(tuple, first.tolist())) == set(map(tuple, last.tolist()))
    assert not (found.labels == 1).any()
    assert len(model.predict(images, sizes, Selection(score_threshold=float(score) + 1e-5))[0]) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["boxes", "class_logits"])
def test_no_detection_comes_of_no_number(value: float, where: str) -> None:
    model = constant(small(), objectness=3.0, classes=(3.0, 3.0, 3.0))
    getattr(model.head, where)[0].bias.data[:] = value
    (found,) = model.predict(torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]]))
    assert found.scores is not None
    assert found.boxes.isfinite().all()
    assert found.scores.isfinite().all()
    assert len(found) > 0  # those of the other levels


def test_images_without_numbers_have_no_detections() -> None:
    model = constant(small(), objectness=3.0, classes=(3.0, 3.0, 3.0))
    assert len(model.predict(torch.full((1, 3, 64, 64), math.nan), torch.tensor([[64, 64]]))[0]) == 0


@pytest.mark.parametrize("name", ASSIGNERS)
def test_any_assigner(name: str, as_targets: Callable[..., Targets]) -> None:
    model = small()
    make = ASSIGNERS[name]
    model.criterion = YoloV3Loss(assigner=make(3) if name == "auto_assign" else make())
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    some = as_targets(
        [torch.tensor([[10.0, 10, 50, 60], [30.3, 30.1, 30.4, 30.2], [-50.0, -50, 300, 300]]), torch.zeros(0, 4)],
        [torch.tensor([1, 2, 0]), torch.zeros(0).long()],
    )
    none = as_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2)
    for targets in (some, none):
        model.zero_grad()
        terms = model.loss(images, targets)
        assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
        sum(terms.values()).backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
        assert all((terms[term] > 0) == (targets is some) for term in ("box", "class", "bag") if term in terms)


@pytest.mark.parametrize("tiny", [False, True])
def test_only_the_class_layer_knows_the_classes(tiny: bool) -> None:
    model = small(tiny=tiny)
    assert isinstance(model, Detects)
    state, other = model.state_dict(), small(tiny=tiny, classes=5).state_dict()
    changed = {name for name in state if state[name].shape != other[name].shape}
    assert changed == set(model.class_layer) & state.keys()
    assert len(changed) == (4 if tiny else 6)
    for name in changed:
        state[name].fill_(3.0)
    model.reset_classes()
    assert all(not bool((model.state_dict()[name] == 3.0).any()) for name in changed)
    learned = small(tiny=tiny)
    learned.criterion = YoloV3Loss(assigner=ASSIGNERS["auto_assign"](3))
    assert set(model.class_layer[-2:]) == learned.state_dict().keys() - state.keys()


def test_a_classifiers_weights_go_to_the_backbone() -> None:
    with torch.device("meta"):
        theirs, ours = timm.create_model("darknet53").state_dict(), build()
    adapted = ours.adapt_weights(theirs)
    assert adapted.keys() == {f"backbone.{name}" for name in ours.backbone.state_dict()}  # pyright: ignore
    assert ours.adapt_weights(ours.state_dict()).keys() == ours.state_dict().keys()


def test_a_section_says_it_all() -> None:
    with torch.device("meta"):
        model = build(
            backbone="resnet18",
            neck_width=0.3,
            neck_norm="group",
            assigner=AutoAssignConfig(),
            box_loss="giou",
            box_weight=2.0,
            objectness_weight=3.0,
            class_weight=4.0,
            classes=7,
        )
    assert model.neck.channels == (40, 80, 152)  # multiples of 8
    assert model.head.conv[0].out_channels == 80
    norms = [sum(isinstance(x, nn.GroupNorm) for x in part.modules()) for part in (model.neck, model.head)]
    assert norms == [17, 3]
    loss = model.criterion
    assert (loss.box_loss, loss.box_weight, loss.objectness_weight, loss.class_weight) == ("giou", 2.0, 3.0, 4.0)
    assert model.state_dict()["criterion.assigner.mean"].shape == (7, 2)


def test_anchors_that_do_not_fit() -> None:
    assert [len(boxes) for boxes in level_anchors(ANCHORS)] == [3, 3, 3]
    assert level_anchors(TINY_ANCHORS)[0].tolist()[0] == [-5, -7, 5, 7]
    with pytest.raises(ConfigError, match="anchors: expected 9 pairs of sides for three levels or 6 for two, got 3"):
        level_anchors(ANCHORS[:3])
    with pytest.raises(ConfigError, match="must stand by rising area"):
        level_anchors(ANCHORS[::-1])
    for wrong in (0.0, -4.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="sides must be finite and above 0"):
            level_anchors([*ANCHORS[:8], (wrong, 500.0)])
    neck, head = small().neck, small().head
    with pytest.raises(ConfigError, match="expected 9 for the neck's levels, got 6"):
        YoloV3(LightBackbone(), neck, head, statistics=STATISTICS, anchors=TINY_ANCHORS)


@pytest.mark.real
def test_overfits_four_photos(overfit: Callable[..., Any]) -> None:
    body = LightBackbone()
    neck = YoloNeck({level: body.channels[level] for level in ("c3", "c4", "c5")}, (24, 32, 48), strides=body.strides)
    head = YoloV3Head(neck.channels, (48, 64, 96), 3, 3)
    model = YoloV3(body, neck, head, statistics=STATISTICS)
    learned = overfit(model, steps=100, lr=4e-3, clip=5.0, selection=Selection(score_threshold=0.3, nms_iou=0.45))
    assert learned.fell > 2
    assert learned.share >= 0.9
    assert learned.found < 1.5
