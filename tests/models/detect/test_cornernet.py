"""CornerNet pairs corners as a loop does, is a detector like the others, and learns."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from clearsight.data.normalisation import fixed_statistics
from clearsight.errors import ConfigError, RangeError
from clearsight.models.backbones import BACKBONES
from clearsight.models.backbones.hourglass import Hourglass
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.base import Detects
from clearsight.models.detect.cornernet import SELECTION, CornerNet, build_cornernet, pair_corners
from clearsight.models.detect.cornernet_head import CornerNetHead, CornerNetOutputs
from clearsight.models.detect.cornernet_loss import CornerNetLoss
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.selection import Selection
from clearsight.recipe.detector_sections import CornerNetConfig
from clearsight.types import Targets

LEVELS = ("c2", "c3", "c4", "c5")
STATISTICS = fixed_statistics("imagenet", channels=3)
ALL = Selection(score_threshold=0.0, max_detections=9)


def make(*, classes: int = 3, width: int = 16) -> CornerNet:
    torch.manual_seed(0)
    body = LightBackbone()
    neck = Fpn({level: body.channels[level] for level in LEVELS}, width, strides=body.strides)
    return CornerNet(body, neck, CornerNetHead(width, classes, width=width), statistics=STATISTICS)


def stacked(stacks: int, *, classes: int = 3) -> CornerNet:
    torch.manual_seed(0)
    body = Hourglass(stacks, widths=(8, 12, 12, 16), blocks=(1, 1, 1, 1))
    heads = [CornerNetHead(8, classes, width=8) for _ in range(stacks)]
    return CornerNet(body, None, *heads, statistics=STATISTICS)


def empty(height: int = 10, width: int = 12, *, classes: int = 2, images: int = 1) -> CornerNetOutputs:
    return CornerNetOutputs(
        torch.full((images, 2, classes, height, width), -torch.inf),
        torch.zeros(images, 2, height, width),
        torch.full((images, 2, 2, height, width), 0.5),
    )


def decode(
    outputs: CornerNetOutputs, *, threshold: float = 0.05, most: int = 100, distance: float = 0.5
) -> list[tuple]:
    """Image, class, score and box of each pair, by falling score."""
    found, boxes = pair_corners(outputs, most=most, distance=distance, stride=4, score_threshold=threshold)
    assert boxes.shape == (len(found.score), 4)
    assert found.point.tolist() == list(range(len(boxes)))
    rows = zip(found.image.tolist(), found.label.tolist(), found.score.tolist(), boxes.tolist(), strict=True)
    return sorted(rows, key=lambda row: (row[0], -row[2]))


def by_loop(outputs: CornerNetOutputs, *, threshold: float, most: int, distance: float) -> list[tuple]:
    """The same from the paper, peak by peak and pair by pair."""
    heat, embedding, offset = outputs
    images, _, classes, height, width = heat.shape
    found: list[tuple] = []
    for image in range(images):
        kinds: list[list[tuple[float, int, int, int]]] = []
        for corner in range(2):
            peaks = []
            for label in range(classes):
                for y in range(height):
                    for x in range(width):
                        around = heat[image, corner, label, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                        if heat[image, corner, label, y, x] == around.max():
                            score = 1 / (1 + float(torch.exp(-heat[image, corner, label, y, x].double())))
                            peaks.append((score, label, y, x))
            kinds.append(sorted(peaks, reverse=True)[:most])
        for first, label, y1, x1 in kinds[0]:
            for second, other, y2, x2 in kinds[1]:
                left, top = (offset[image, 0, :, y1, x1] + torch.tensor([x1, y1])).tolist()
                right, bottom = (offset[image, 1, :, y2, x2] + torch.tensor([x2, y2])).tolist()
                apart = abs(float(embedding[image, 0, y1, x1] - embedding[image, 1, y2, x2]))
                score = (first + second) / 2
                if label == other and apart <= distance and right > left and bottom > top and score > threshold:
                    found.append((image, label, score, [4 * left, 4 * top, 4 * right, 4 * bottom]))
    return sorted(found, key=lambda row: (row[0], -row[2]))


@pytest.mark.parametrize(("most", "threshold", "distance"), [(100, 0.0, 0.5), (7, 0.3, 0.2), (4, 0.0, 9.0)])
def test_pairs_are_the_loops(most: int, threshold: float, distance: float) -> None:
    outputs = CornerNetOutputs(torch.randn(3, 2, 2, 7, 9), torch.randn(3, 2, 7, 9), torch.rand(3, 2, 2, 7, 9))
    found = decode(outputs, threshold=threshold, most=most, distance=distance)
    expected = by_loop(outputs, threshold=threshold, most=most, distance=distance)
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert mine[:2] == theirs[:2]
        assert mine[2] == pytest.approx(theirs[2], abs=1e-6)
        assert mine[3] == pytest.approx(theirs[3], abs=1e-4)


def test_pairs_by_hand() -> None:
    outputs = empty()
    heat, embedding, offset = outputs
    heat[0, 0, 1, 2, 3], heat[0, 1, 1, 6, 8] = 2.0, 0.0  # 0.8808 and 0.5
    offset[0, 0, :, 2, 3], offset[0, 1, :, 6, 8] = torch.tensor([0.25, 0.5]), torch.tensor([0.0, 1.0])
    ((image, label, score, box),) = decode(outputs)
    assert (image, label, box) == (0, 1, [13.0, 10.0, 32.0, 28.0])
    assert score == pytest.approx((0.880797 + 0.5) / 2)
    assert decode(outputs, threshold=0.70) == []
    embedding[0, 0, 2, 3] = 0.5
    assert len(decode(outputs)) == 1
    embedding[0, 0, 2, 3] = 0.51  # too far from the other's
    assert decode(outputs) == []
    embedding.zero_()
    heat[0, 1, 1, 6, 8], heat[0, 1, 0, 6, 8] = -torch.inf, 0.0  # of another class
    assert decode(outputs) == []
    heat[0, 1, 0, 6, 8], heat[0, 1, 1, 1, 8] = -torch.inf, 0.0  # above the top-left one
    assert decode(outputs) == []
    heat[0, 1, 1, 1, 8], heat[0, 1, 1, 6, 2] = -torch.inf, 0.0  # left of it
    assert decode(outputs) == []
    heat[0, 1, 1, 6, 2], heat[0, 1, 1, 2, 3] = -torch.inf, 0.0  # in its cell, by the offsets a little further
    offset[0, 1, :, 2, 3] = torch.tensor([0.5, 0.75])
    assert decode(outputs)[0][3] == [13.0, 10.0, 14.0, 11.0]


def test_a_single_corner_is_no_box_and_neither_is_what_is_no_number() -> None:
    lone = empty(3, 3, classes=1)
    lone.heat[0, 0, 0, 0, 0] = 9.0
    assert decode(lone, threshold=0.0) == []
    for place in range(3):
        for value in (float("nan"), float("inf"), -float("inf")):
            outputs = empty()
            outputs.heat[0, 0, 0, 2, 2] = outputs.heat[0, 1, 0, 7, 7] = 3.0
            outputs.heat[0, 0, 1, 4, 4] = outputs.heat[0, 1, 1, 8, 9] = 2.0  # which stays
            if place == 0:
                outputs.heat[0, 0, 0, 2, 2] = value
            else:
                outputs[place][0, 0, ..., 2, 2] = value
            assert [row[1] for row in decode(outputs)] == [1]
    nothing = CornerNetOutputs(*(torch.full_like(x, float("nan")) for x in empty()))
    assert decode(nothing, threshold=0.0) == []
    assert decode(CornerNetOutputs(*(x[:0] for x in empty())), threshold=0.0) == []


class Fixed(nn.Module):
    """A head that says what it was told."""

    def __init__(self, outputs: CornerNetOutputs) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> CornerNetOutputs:
        return self.outputs


def test_boxes_are_clipped_suppressed_and_few() -> None:
    model, outputs = make(classes=2).eval(), empty(12, 16, images=2)
    model.head = Fixed(outputs)  # pyright: ignore[reportAttributeAccessIssue]
    for y, x, value in ((1, 1, 4.0), (1, 3, 3.0)):  # two top-left corners, of boxes of IoU 0.81 with one bottom-right
        outputs.heat[0, 0, 0, y, x] = value
    outputs.heat[0, 1, 0, 10, 13] = 4.0
    images, sizes = torch.rand(2, 3, 48, 64), torch.tensor([[40, 50], [48, 64]])
    first, second = model.predict(images, sizes, Selection(nms="class"))
    assert first.boxes.tolist() == [[6.0, 6.0, 50.0, 40.0]]
    assert (len(second), SELECTION.nms) == (0, "soft")
    assert len(model.predict(images, sizes, Selection(nms_iou=0.9))[0]) == 2
    assert len(model.predict(images, sizes, Selection(nms_iou=0.9, max_detections=1))[0]) == 1
    assert len(model.predict(images, sizes, Selection(nms_iou=0.9, candidates=1))[0]) == 1
    soft, _ = model.predict(images, sizes)
    assert soft.scores is not None
    whole, part = 44 * 34, 36 * 34  # the second lies in the first
    expected = (torch.tensor([4.0, 3.0]).sigmoid() + torch.tensor(4.0).sigmoid()) / 2
    expected[1] *= torch.exp(torch.tensor(-((part / whole) ** 2) / 0.5))
    torch.testing.assert_close(soft.scores, expected)


@pytest.mark.parametrize("model", [make(), stacked(2)], ids=["pyramid", "hourglass"])
def test_any_size_and_the_contract(model: CornerNet) -> None:
    model = model.eval()
    model.top_corners = 300  # of an untrained model the highest may all lie the wrong way round
    assert isinstance(model, Detects)
    for size in ((33, 47), (32, 32), (100, 301)):
        images = torch.rand(1, 3, *size)
        cells = (-(-size[0] // 4), -(-size[1] // 4))
        heat, embedding, offset = model(images)
        assert heat.shape == (1, 2, 3, *cells)
        assert (embedding.shape, offset.shape) == ((1, 2, *cells), (1, 2, 2, *cells))
        (found,) = model.predict(images, torch.tensor([[20, 30]]), ALL)
        assert 0 < len(found) <= 9
        assert found.boxes.amin() >= 0
        assert found.boxes[:, 2].max() <= 30
        assert found.boxes[:, 3].max() <= 20
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    images, sizes = torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]])
    torch.testing.assert_close(twin.predict(images, sizes, ALL)[0].boxes, model.predict(images, sizes, ALL)[0].boxes)


@pytest.mark.parametrize("build", [make, partial(stacked, 2)], ids=["pyramid", "hourglass"])
def test_only_the_class_layer_knows_the_classes(build: Callable[..., CornerNet]) -> None:
    model = build()
    state, other = model.state_dict(), build(classes=5).state_dict()
    changed = {name for name in state if state[name].shape != other[name].shape}
    assert changed == set(model.class_layer)
    for name in changed:
        state[name].fill_(3.0)
    model.reset_classes()
    assert all(not bool((model.state_dict()[name] == 3.0).any()) for name in changed)


def test_compiled_exported_and_half_precision_are_the_same(as_targets: Callable[..., Targets]) -> None:
    torch.compiler.reset()
    model = make().eval().to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(images), expected)
        exported = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(exported(images), expected, rtol=1e-4, atol=1e-4)
    targets = as_targets(
        [torch.tensor([[10.0, 10, 50, 60]]), torch.zeros(0, 4)], [torch.tensor([1]), torch.zeros(0).long()]
    )
    full = model.loss(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(images, targets)
        found = model.predict(images, torch.tensor([[64, 96]] * 2), ALL)
    assert list(half) == ["heat", "pull", "push", "offset"]
    assert all(term.dtype == torch.float32 for term in half.values())
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.02)
    assert found[0].boxes.dtype == torch.float32


def test_every_stack_has_a_head_that_learns_alone(as_targets: Callable[..., Targets]) -> None:
    model = stacked(2).train()
    images = torch.rand(2, 3, 64, 64)
    targets = as_targets(
        [torch.tensor([[8.0, 8, 40, 40], [20, 20, 60, 50]]), torch.zeros(0, 4)],
        [torch.tensor([0, 1]), torch.zeros(0).long()],
    )
    terms = model.loss(images, targets)
    sum(terms.values(), torch.zeros(())).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    stacks = model.backbone.features_of_stacks(model.input_norm(images))  # pyright: ignore[reportCallIssue]
    outputs = [model.early_heads[0](stacks[0]["c2"]), model.head(stacks[1]["c2"])]
    torch.testing.assert_close(terms, CornerNetLoss()(outputs, targets, stride=4))
    torch.testing.assert_close(model(images), outputs[1])  # what is predicted is the last one's


def test_built_from_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"num_classes": 2, "channels": 3, "statistics": STATISTICS}
    config = CornerNetConfig(
        fpn_channels=8, head_channels=6, min_overlap=0.5, pull_weight=0.2, push_weight=0.3, offset_weight=2.0,
        top_corners=20, embedding_distance=0.7,
    )  # fmt: skip
    model = build_cornernet(config, **options)
    assert (model.top_corners, model.embedding_distance, model.stride) == (20, 0.7, 4)
    assert model.criterion.min_overlap == 0.5
    assert model.criterion.weights == {"pull": 0.2, "push": 0.3, "offset": 2.0}
    assert model.head.heats[0][0][0].weight.shape == (6, 8, 3, 3)  # pyright: ignore[reportIndexIssue]
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    adapted = model.adapt_weights(theirs)
    assert adapted.keys() <= model.state_dict().keys()
    assert len(adapted) == len(theirs) - 2
    targets = Targets(boxes=torch.tensor([[4.0, 8, 60, 70]]), labels=torch.tensor([1]), image=torch.tensor([0]))
    sum(model.loss(torch.rand(2, 3, 64, 72), targets).values(), torch.zeros(())).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []  # nothing that is never read
    tiny = partial(Hourglass, 3, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1))
    monkeypatch.setitem(BACKBONES, "hourglass104", tiny)
    model = build_cornernet(CornerNetConfig(backbone="hourglass104", head_channels=6), **options)
    assert model.neck is None
    assert len(model.early_heads) == 2


def test_what_does_not_fit_is_refused() -> None:
    body, head = Hourglass(widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1)), CornerNetHead(8, 2)
    with pytest.raises(ConfigError, match="top_corners: must be at least 1, got 0"):
        CornerNet(body, None, head, statistics=STATISTICS, top_corners=0)
    with pytest.raises(RangeError, match=r"embedding_distance: must be above 0, got -0.5"):
        CornerNet(body, None, head, statistics=STATISTICS, embedding_distance=-0.5)


@pytest.mark.real
def test_overfits_four_photos(overfit: Callable[..., Any]) -> None:
    model = make(width=48)
    learned = overfit(model, steps=70, lr=3e-3, selection=Selection(score_threshold=0.6))
    assert learned.fell > 2
    assert learned.share >= 0.9
    assert learned.found < 1.4
