"""EfficientDet: anchors, targets and boxes by hand; the published sizes; hard batches; it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearsight.assign import Atss, MaxIou, SimOta
from clearsight.assign.auto_assign import AutoAssign
from clearsight.assign.base import Assigner
from clearsight.assign.free_anchor import FreeAnchor
from clearsight.data.normalisation import fixed_statistics
from clearsight.errors import ConfigError
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.base import Detects
from clearsight.models.detect.dense import LEVELS
from clearsight.models.detect.efficientdet import EFFICIENTDET_SIZES, EfficientDet, build_efficientdet
from clearsight.models.detect.efficientdet_head import EfficientDetHead
from clearsight.models.detect.retinanet_loss import RetinaNetLoss
from clearsight.models.necks.bifpn import Bifpn, WeightedSum
from clearsight.ops.selection import Selection
from clearsight.recipe.assigner_sections import MaxIouConfig
from clearsight.types import Targets

STATISTICS = fixed_statistics("imagenet", channels=3)


def make(*, classes: int = 3, width: int = 16, convs: int = 1, layers: int = 1, **options: Any) -> EfficientDet:
    body = LightBackbone()
    channels = {level: body.channels[level] for level in LEVELS}
    neck = Bifpn(channels, width, strides=body.strides, layers=layers)
    return EfficientDet(body, neck, EfficientDetHead(width, 9, classes, convs=convs), statistics=STATISTICS, **options)


def section(**changes: Any) -> Any:
    values = {
        "backbone": "resnet18",
        "norm": None,
        "drop_path": 0.0,
        "bifpn_channels": 64,
        "bifpn_layers": 3,
        "head_convs": 3,
        "head_norm": "batch",
        "fusion": "fast",
        "anchor_sizes": (32.0, 64.0, 128.0, 256.0, 512.0),
        "assigner": MaxIouConfig(negative=0.5),
        "box_loss": "smooth_l1",
        "focal_alpha": 0.25,
        "focal_gamma": 1.5,
    }
    return SimpleNamespace(**(values | changes))


def build(*, classes: int = 3, **changes: Any) -> EfficientDet:
    return build_efficientdet(section(**changes), num_classes=classes, channels=3, statistics=STATISTICS)


def test_what_the_section_says_is_built() -> None:
    model = build(bifpn_channels=32, bifpn_layers=2, head_convs=1, fusion="softmax", head_norm="group", focal_alpha=0.5)
    assert len(model.neck.layers) == 2
    assert {layer.fusion for layer in model.neck.modules() if isinstance(layer, WeightedSum)} == {"softmax"}
    assert not any(isinstance(layer, nn.BatchNorm2d) for part in (model.neck, model.head) for layer in part.modules())
    loss = model.criterion
    assert (loss.alpha, loss.gamma, loss.beta, loss.box_loss) == (0.5, 1.5, 0.1, "smooth_l1")
    assert isinstance(loss.assigner, MaxIou)
    assert (loss.assigner.positive, loss.assigner.negative) == (0.5, 0.5)
    own = make().criterion  # without a section it is the same
    assert (own.alpha, own.gamma, own.beta, own.box_loss) == (0.25, 1.5, 0.1, "smooth_l1")
    assert isinstance(own.assigner, MaxIou)
    assert (own.assigner.positive, own.assigner.negative) == (0.5, 0.5)
    with pytest.raises(ConfigError, match="anchor_sizes: expected one for each of p3, p4, p5, p6, p7, got 3"):
        build(anchor_sizes=(32.0, 64.0, 128.0))


def test_the_published_sizes() -> None:
    assert list(EFFICIENTDET_SIZES) == [f"d{phi}" for phi in range(8)]
    for phi, size in enumerate(EFFICIENTDET_SIZES.values()):  # equations 1 to 3, which the paper rounds
        assert size.bifpn_channels % 8 == 0
        assert size.bifpn_channels == pytest.approx(64 * 1.35 ** min(phi, 6), rel=0.06)
        assert size.bifpn_layers in (2 + phi, 3 + phi, 1 + phi)
        assert size.head_convs == 3 + min(phi, 6) // 3
        assert size.side % 128 == 0
        assert size.fusion == ("sum" if phi > 5 else "fast")
    assert [EFFICIENTDET_SIZES[name].side for name in ("d0", "d1", "d2", "d3", "d4")] == [512, 640, 768, 896, 1024]
    options = EFFICIENTDET_SIZES["d1"]._asdict()
    assert options.keys() - section().__dict__.keys() == {"side"}
    model = build(**options | {"backbone": "resnet18"})
    assert (model.neck.channels, len(model.neck.layers), len(model.head.regression_head.convs)) == (88, 4, 3)


def test_anchors_stand_in_the_middle_of_their_cells() -> None:
    points = make().points((64, 128), torch.device("cpu"))
    assert len(points.xy) == 9 * (8 * 16 + 4 * 8 + 2 * 4 + 1 * 2 + 1 * 1)
    assert points.xy[0].tolist() == [4, 4]
    assert points.xy[9].tolist() == [12, 4]
    assert points.boxes[3].tolist() == [4 - 16, 4 - 16, 4 + 16, 4 + 16]  # ratio 1 of the first size
    last = points.boxes[-9:]
    assert points.xy[-1].tolist() == [64, 64]
    assert last[3].tolist() == [64 - 256, 64 - 256, 64 + 256, 64 + 256]
    bigger = make(anchor_sizes=EFFICIENTDET_SIZES["d7"].anchor_sizes).points((64, 128), torch.device("cpu"))
    assert bigger.boxes[3].tolist() == [4 - 20, 4 - 20, 4 + 20, 4 + 20]


def loops_targets(anchors: np.ndarray, boxes: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Of each anchor the object or -1, and the codes: overlap of half, or the most that an object gets."""
    overlap = np.zeros((len(anchors), len(boxes)))
    for a, one in enumerate(anchors):
        for b, other in enumerate(boxes):
            width = min(one[2], other[2]) - max(one[0], other[0])
            height = min(one[3], other[3]) - max(one[1], other[1])
            both = max(width, 0.0) * max(height, 0.0)
            areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
            overlap[a, b] = both / (areas - both)
    owner, codes = [], np.zeros((len(anchors), 4))
    for a, one in enumerate(anchors):
        best = int(overlap[a].argmax())
        forced = any(overlap[a, b] == overlap[:, b].max() for b in range(len(boxes)))
        owner.append(best if overlap[a, best] >= 0.5 or forced else -1)
        side, other = (one[2] - one[0], one[3] - one[1]), boxes[best]
        for axis in (0, 1):
            shift = (other[axis] + other[axis + 2] - one[axis] - one[axis + 2]) / 2
            codes[a, axis] = shift / side[axis]
            codes[a, axis + 2] = math.log((other[axis + 2] - other[axis]) / side[axis])
    return owner, codes


def test_the_loss_is_that_of_loops(as_targets: Callable[..., Targets]) -> None:
    model = make().eval()
    points = model.points((64, 96), torch.device("cpu"))
    logits, deltas = torch.randn(1, len(points.xy), 3) - 2, 0.2 * torch.randn(1, len(points.xy), 4)
    boxes, labels = torch.tensor([[5.0, 4, 40, 37], [50, 10, 62, 30], [20, 20, 90, 60]]), torch.tensor([2, 0, 1])
    found = model.criterion(logits, deltas, points, as_targets([boxes], [labels]))
    owner, codes = loops_targets(points.boxes.double().numpy(), boxes.double().numpy())
    positives = sum(one >= 0 for one in owner)
    assert positives > 3
    class_loss = box_loss = 0.0
    for a, one in enumerate(owner):
        for k in range(3):
            p = 1 / (1 + math.exp(-logits[0, a, k].item()))
            if one >= 0 and labels[one] == k:
                class_loss -= 0.25 * (1 - p) ** 1.5 * math.log(p)
            else:
                class_loss -= 0.75 * p**1.5 * math.log(1 - p)
        if one >= 0:  # Huber's loss with a bend at 0.1, over 0.1
            for d in np.abs(deltas[0, a].numpy() - codes[a]):
                box_loss += (d**2 / 2 if d < 0.1 else 0.1 * (d - 0.05)) / 0.1
    assert found["class"].item() == pytest.approx(class_loss / positives, rel=1e-4)
    assert found["box"].item() == pytest.approx(box_loss / positives, rel=1e-4)


def constant(logit: float) -> EfficientDet:
    """Every anchor says the same of class 1, and moves by the same codes."""
    model = make().eval()
    for tower in (model.head.classification_head, model.head.regression_head):
        nn.init.zeros_(tower.output.pointwise.weight)
        assert tower.output.pointwise.bias is not None
        tower.output.pointwise.bias.data.fill_(-50.0)
    model.head.regression_head.output.pointwise.bias.data.copy_(torch.tensor([0.5, 0.0, 0.0, math.log(0.5)]).repeat(9))  # pyright: ignore
    model.head.classification_head.output.pointwise.bias.data.view(9, 3)[3, 1] = logit  # pyright: ignore
    return model


def test_boxes_by_hand() -> None:
    model = constant(1.0)  # of anchor 3, the square of the first size
    found, other = model.predict(
        torch.rand(2, 3, 64, 64), torch.tensor([[64, 64], [30, 40]]), Selection(nms_iou=1.0, max_detections=1000)
    )
    assert len(found) == 8 * 8 + 4 * 4 + 2 * 2 + 1 + 1
    assert set(found.labels.tolist()) == {1}
    assert found.scores is not None
    torch.testing.assert_close(found.scores, torch.tensor(1.0).sigmoid().expand(len(found)))
    # the first anchor, (-12, -12, 20, 20), moves right by half its width and halves its height about its centre
    torch.testing.assert_close(found.boxes[0], torch.tensor([4.0, 0.0, 36.0, 12.0]))  # -4 is clipped to 0
    assert other.boxes[:, 2].max() == 40
    assert other.boxes[:, 3].max() == 30
    assert len(constant(-5.0).predict(torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]]))[0]) == 0


def test_no_detection_of_logits_that_are_not_finite() -> None:
    images, sizes = torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]])
    assert len(constant(1.0).predict(images, sizes)[0]) > 0
    assert len(constant(math.nan).predict(images, sizes)[0]) == 0
    assert len(constant(-math.inf).predict(images, sizes)[0]) == 0
    images[0, 0, 5, 5] = math.nan
    assert len(constant(1.0).predict(images, sizes)[0]) <= 100


ASSIGNERS = [None, MaxIou(), Atss(), SimOta(), FreeAnchor(), AutoAssign(3)]
NAMES = ["own", "max_iou", "atss", "simota", "free_anchor", "auto_assign"]


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=NAMES)
def test_any_assigner_and_hard_batches(assigner: Assigner | None, as_targets: Callable[..., Targets]) -> None:
    model = make()
    if assigner is not None:
        model.criterion = RetinaNetLoss(assigner=assigner, box_loss="smooth_l1", beta=0.1)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    corner = torch.rand(1000, 2) * 80
    boxes = [
        torch.tensor([[10.0, 10, 50, 60], [30.3, 30.1, 30.4, 30.2]]),  # one below a pixel
        torch.tensor([[-50.0, -40, 200, 300]]),  # larger than the image
        torch.tensor([[20.0, 20, 60, 60]]).repeat(3, 1),
        torch.cat((corner, corner + 1 + torch.rand(1000, 2) * 40), dim=1),
        torch.zeros(0, 4),
    ]
    for some in boxes:
        targets = as_targets([some, torch.zeros(0, 4)], [torch.arange(len(some)) % 3, torch.zeros(0).long()])
        terms = model.loss(images, targets)
        assert all(term.isfinite() and term.ndim == 0 and term.dtype == torch.float32 for term in terms.values())
        assert all((terms[name] > 0) == (len(some) > 0) for name in ("box", "bag") if name in terms)
        sum(terms.values()).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad is not None for p in model.parameters())


def test_ignored_objects_are_no_background(as_targets: Callable[..., Targets]) -> None:
    model = make().eval()
    targets = as_targets([torch.tensor([[-1.0, -1.0, 97.0, 97.0]])], [torch.tensor([0])])
    targets.ignore = torch.tensor([True])
    free = as_targets([torch.zeros(0, 4)], [torch.zeros(0).long()])
    images = torch.rand(1, 3, 96, 96)
    terms, whole = model.loss(images, targets), model.loss(images, free)
    assert 0 <= terms["class"] < 0.9 * whole["class"]
    assert terms["box"] == 0


def test_it_is_a_detector_of_any_size() -> None:
    model = make().eval()
    assert isinstance(model, Detects)
    for size in ((33, 47), (32, 32), (100, 301)):
        logits, deltas = model(torch.rand(1, 3, *size))
        count = 9 * sum(-(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32, 64, 128))
        assert (logits.shape, deltas.shape) == ((1, count, 3), (1, count, 4))
        assert len(model.points(size, torch.device("cpu")).xy) == count
    assert model(torch.rand(1, 3, 64, 64)).logits.sigmoid().mean().item() == pytest.approx(0.01, abs=0.003)
    state, other = model.state_dict(), make(classes=5).state_dict()
    assert {name for name in state if state[name].shape != other[name].shape} == set(model.class_layer[:2])
    model.criterion = RetinaNetLoss(assigner=AutoAssign(3))
    assert set(model.class_layer[2:]) == model.state_dict().keys() - state.keys()


@pytest.mark.real
def test_overfits_four_photos(overfit: Callable[..., Any]) -> None:
    model = make(width=48, layers=2, anchor_sizes=(12, 24, 48, 96, 192))
    learned = overfit(model, steps=100, lr=5e-3, selection=Selection(score_threshold=0.4))
    assert learned.fell > 10
    assert learned.share >= 0.9
    assert learned.found < 1.5
