"""Deep Snake: what goes in and comes out, objects of every kind, and that it learns outlines of real nuclei."""

from __future__ import annotations

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch
import torchvision
from torch import Tensor, nn

from clearsight.data.normalisation import fixed_statistics
from clearsight.errors import ConfigError, DataError
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.base import Detects
from clearsight.models.contour.deep_snake import DeepSnake, build_deep_snake
from clearsight.models.contour.snake_net import Snake
from clearsight.models.detect.centernet import CenterNet
from clearsight.models.detect.centernet_head import CenterNetHead
from clearsight.models.necks.deconv import Deconv
from clearsight.ops.outlines import polygons_to_mask
from clearsight.ops.rings import diamond, ring_areas, ring_boxes
from clearsight.ops.selection import Selection
from clearsight.types import Batch, Instances, Targets

ALL = Selection(score_threshold=0.0, nms_iou=1.0, max_detections=1000)
STATISTICS = fixed_statistics("imagenet", channels=3)


def small(*, classes: int = 2, max_objects: int = 256) -> DeepSnake:
    torch.manual_seed(0)
    body = LightBackbone()
    neck = Deconv(body.channels, (32, 24, 16), strides=body.strides)
    head = CenterNetHead(16, classes, width=16)
    snake = Snake(16, points=32, start_points=16, iterations=2, width=8)
    return DeepSnake(body, neck, head, snake, statistics=STATISTICS, max_objects=max_objects)


def built(*, classes: int = 2, **changes: Any) -> DeepSnake:
    config = {
        "backbone": "resnet18",
        "norm": None,
        "drop_path": 0.0,
        "neck": "deconv",
        "neck_channels": (32, 24, 16),
        "head_channels": 16,
        "min_overlap": 0.7,
        "size_weight": 0.1,
        "offset_weight": 1.0,
        "points": 32,
        "start_points": 16,
        "iterations": 2,
        "snake_channels": 8,
        "extreme_weight": 1.0,
        "contour_weight": 1.0,
        "max_objects": 256,
    }
    section = SimpleNamespace(**config | changes)
    return build_deep_snake(section, num_classes=classes, channels=3, statistics=STATISTICS)  # pyright: ignore


def outlined(boxes: Tensor, image: Tensor, *, ignore: Tensor | None = None) -> Targets:
    """Objects that are the rhombi of their boxes."""
    return Targets(
        boxes=boxes,
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        image=image,
        ignore=ignore,
        contours=diamond(boxes),
        ring_object=torch.arange(len(boxes)),
    )


def nothing() -> Targets:
    empty = torch.zeros(0, dtype=torch.int64)
    return Targets(boxes=torch.zeros(0, 4), labels=empty, image=empty, contours=torch.zeros(0, 0, 2), ring_object=empty)


def found_in(boxes: Tensor, scores: Tensor | None = None) -> Instances:
    return Instances(boxes=boxes, labels=torch.arange(len(boxes)) % 2, scores=scores)


# ------------------------------------------------------------------------------------------------ what comes out
@pytest.mark.parametrize("size", [(33, 47), (64, 64), (70, 101)])
def test_every_size(size: tuple[int, int]) -> None:
    model = small().eval()
    height, width = (math.ceil(side / 4) for side in size)
    outputs = model(torch.rand(2, 3, *size))
    assert outputs.logits.shape == (2, 2, height, width)
    assert outputs.size.shape == outputs.offset.shape == (2, 2, height, width)
    assert outputs.features.shape == (2, 16, height, width)
    sizes = torch.tensor([[20, 30], size])
    for each, (high, wide) in zip(model.predict(torch.rand(2, 3, *size), sizes, ALL), sizes.tolist(), strict=True):
        assert len(each) > 0
        assert each.contours is not None
        assert each.contours.shape == (len(each), 32, 2)
        assert each.ring_object.tolist() == list(range(len(each)))  # pyright: ignore[reportOptionalMemberAccess]
        assert each.contours.min() >= 0
        assert bool((each.contours.amax(dim=(0, 1)) <= torch.tensor([wide, high])).all())


def test_its_boxes_are_centernets() -> None:
    model = small().eval()
    plain = CenterNet(model.backbone, model.neck, model.head, statistics=STATISTICS).eval()
    images, sizes = torch.rand(2, 3, 60, 80), torch.tensor([[60, 80], [50, 50]])
    for mine, theirs in zip(model.predict(images, sizes, ALL), plain.predict(images, sizes, ALL), strict=True):
        assert torch.equal(mine.boxes, theirs.boxes)
        assert torch.equal(mine.scores, theirs.scores)  # pyright: ignore
        assert torch.equal(mine.labels, theirs.labels)
    targets = outlined(torch.tensor([[4.0, 4.0, 30.0, 30.0]]), torch.tensor([1]))
    terms, detector = model.loss(images, targets), plain.loss(images, targets)
    assert list(terms) == ["heat", "size", "offset", "extreme", "contour"]
    for name, term in detector.items():
        torch.testing.assert_close(terms[name], term)


def test_boxes_of_any_detector() -> None:
    model = small().eval()
    images, sizes = torch.rand(3, 3, 64, 64), torch.tensor([[64, 64], [40, 64], [64, 64]])
    boxes = torch.tensor([[2.0, 3.0, 30.0, 20.0], [30.0, 28.0, 60.0, 40.0], [5.0, 5.0, 5.0, 9.0]])
    given = [found_in(boxes[:1], torch.tensor([0.7])), found_in(boxes[1:]), found_in(boxes[:0])]
    results = model.predict(images, sizes, boxes=given)
    for each, before in zip(results, given, strict=True):
        assert torch.equal(each.boxes, before.boxes)
        assert torch.equal(each.labels, before.labels)
        assert each.scores is before.scores
        assert before.contours is None
    assert [len(each.contours) for each in results] == [1, 2, 0]  # pyright: ignore[reportArgumentType]
    expected = model.snake(model.features(images), boxes, torch.tensor([0, 1, 1])).detach()
    expected = torch.minimum(expected.clamp(min=0), torch.tensor([[[64.0, 64]], [[64, 40]], [[64, 40]]]))
    torch.testing.assert_close(torch.cat([each.contours for each in results]), expected)  # pyright: ignore
    with pytest.raises(ConfigError, match="expected one entry an image, 3, got 2"):
        model.predict(images, sizes, boxes=given[:2])


def test_a_thousand_objects_are_traced_as_one_by_one() -> None:
    model, images = small().eval(), torch.rand(1, 3, 64, 64)
    corner = torch.rand(1000, 2) * 60
    boxes = torch.cat((corner, corner + torch.rand(1000, 2) * 30), dim=1)
    sizes = torch.tensor([[64, 64]])
    (many,) = model.predict(images, sizes, boxes=[found_in(boxes)])
    (some,) = model.predict(images, sizes, boxes=[found_in(boxes[[3, 300, 999]])])
    torch.testing.assert_close(many.contours[[3, 300, 999]], some.contours, rtol=1e-4, atol=1e-3)  # pyright: ignore


def test_a_snake_without_numbers_gives_the_rhombus() -> None:
    model, boxes = small().eval(), torch.tensor([[4.0, 8.0, 20.0, 16.0], [30.0, 0.0, 70.0, 9.0]])
    nn.init.constant_(model.snake.rounds[-1].predict[-1].bias, torch.nan)  # pyright: ignore
    (found,) = model.predict(torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]]), boxes=[found_in(boxes)])
    assert found.contours is not None
    # The octagon of a rhombus is that of its box: it reaches all four sides, and is cut at the image's edge.
    assert ring_boxes(found.contours).tolist() == [[4.0, 8.0, 20.0, 16.0], [30.0, 0.0, 64.0, 9.0]]
    assert found.contours[0, 0].tolist() == [12.0, 8.0]
    assert bool((ring_areas(found.contours, signed=True) > 0).all())


# ------------------------------------------------------------------------------------------------ what goes in
def test_every_parameter_learns() -> None:
    model = built()
    assert isinstance(model, Detects)
    assert model.stride == 4
    targets = outlined(torch.tensor([[10.0, 10, 50, 60], [30, 30, 31, 31], [0, 0, 20, 9]]), torch.tensor([0, 0, 1]))
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    sum(model.loss(images, targets).values()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    for name, parameter in model.snake.named_parameters():
        assert parameter.grad.abs().max() > 0, name  # pyright: ignore[reportOptionalMemberAccess]


def test_images_without_objects() -> None:
    model, images = small(), torch.rand(2, 3, 64, 64)
    statistics = model.snake.start.layers[0].layers[1].running_mean.clone()  # pyright: ignore
    terms = model.loss(images, nothing())
    assert terms["extreme"].item() == terms["contour"].item() == 0
    sum(terms.values()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert torch.equal(model.snake.start.layers[0].layers[1].running_mean, statistics)  # pyright: ignore
    unasked = Selection(score_threshold=1.0)
    assert [len(each) for each in model.eval().predict(images, torch.tensor([[64, 64]] * 2), unasked)] == [0, 0]


def test_ignored_objects_teach_the_snake_nothing() -> None:
    model, images = small().eval(), torch.rand(1, 3, 64, 64)
    boxes, image = torch.tensor([[4.0, 4, 30, 30], [20, 20, 60, 60]]), torch.zeros(2, dtype=torch.int64)
    both = model.loss(images, outlined(boxes, image, ignore=torch.tensor([False, True])))
    alone = model.loss(images, outlined(boxes[:1], image[:1]))
    for name in ("extreme", "contour"):
        torch.testing.assert_close(both[name], alone[name])
    none = model.loss(images, outlined(boxes, image, ignore=torch.tensor([True, True])))
    assert none["extreme"].item() == none["contour"].item() == 0


def test_more_objects_than_are_learnt_at_once() -> None:
    corner = torch.rand(1000, 2) * 60
    targets = outlined(torch.cat((corner, corner + torch.rand(1000, 2) * 3 + 0.5), dim=1), torch.zeros(1000).long())
    model, seen = small(max_objects=40), []
    model.snake.start.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    terms = model.loss(torch.rand(1, 3, 64, 64), targets)
    assert seen == [40]
    sum(terms.values()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_step_is_repeatable() -> None:
    corner = torch.rand(60, 2) * 60
    targets = outlined(torch.cat((corner, corner + torch.rand(60, 2) * 30 + 0.5), dim=1), torch.zeros(60).long())
    images, gradients = torch.rand(1, 3, 64, 64), []
    for _ in range(2):
        model = small()
        sum(model.loss(images, targets).values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_boxes_alone_are_refused() -> None:
    targets = outlined(torch.tensor([[4.0, 4, 30, 30]]), torch.tensor([0]))
    targets.contours = targets.ring_object = None
    with pytest.raises(DataError, match="learns from outlines"):
        small().loss(torch.rand(1, 3, 64, 64), targets)


# ------------------------------------------------------------------------------------------------ the whole
def test_what_the_section_says_is_built() -> None:
    model = built(
        neck_channels=(12, 10, 8), points=20, start_points=24, iterations=5, snake_channels=6, extreme_weight=0.3,
        contour_weight=0.4, max_objects=7, size_weight=0.5, norm="group",
    )  # fmt: skip
    snake = model.snake
    assert (snake.points, snake.start_points, len(snake.rounds), snake.middle.out_channels) == (20, 24, 5, 8)
    assert snake.start.fusion.out_channels == 12
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in snake.modules())
    assert (model.snake_criterion.extreme_weight, model.snake_criterion.contour_weight) == (0.3, 0.4)
    assert (model.criterion.size_weight, model.max_objects) == (0.5, 7)
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in built(norm="frozen_batch").snake.modules())
    assert built(neck="fpn")(torch.rand(1, 3, 64, 64)).features.shape == (1, 16, 16, 16)


def test_what_is_refused() -> None:
    model = small()
    with pytest.raises(ConfigError, match=r"stride is 8, that of the neck 4"):
        DeepSnake(model.backbone, model.neck, model.head, Snake(16, stride=8), statistics=STATISTICS)
    with pytest.raises(ConfigError, match="max_objects: must be at least 1"):
        small(max_objects=0)


def test_the_class_layer() -> None:
    model = built()
    state, other = model.state_dict(), built(classes=5).state_dict()
    assert {name for name in state if state[name].shape != other[name].shape} == set(model.class_layer)
    nn.init.constant_(model.head.heat[1].bias, 3.0)  # pyright: ignore[reportArgumentType]
    model.reset_classes()
    assert model.eval()(torch.rand(1, 3, 64, 64)).logits.sigmoid().mean().item() == pytest.approx(0.1, abs=0.03)


def test_a_classifiers_weights_go_to_the_backbone() -> None:
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    model = built()
    _, unexpected = model.load_state_dict(model.adapt_weights(theirs), strict=False)
    assert unexpected == []
    assert torch.equal(model.state_dict()["backbone.layer4.1.conv2.weight"], theirs["layer4.1.conv2.weight"])


def test_half_precision() -> None:
    model = small().eval().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    targets = outlined(torch.tensor([[10.0, 10, 50, 60], [40, 10, 50, 20]]), torch.tensor([0, 1]))
    full = model.loss(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(images, targets)
        found = model.predict(images, torch.tensor([[96, 96]] * 2), ALL)
        empty = model.loss(images, nothing())
    for name, value in half.items():
        assert value.dtype == empty[name].dtype == torch.float32
        torch.testing.assert_close(value, full[name], rtol=0.05, atol=0.02)
    assert found[0].contours.dtype == torch.float32  # pyright: ignore[reportOptionalMemberAccess]


def test_the_exported_detector_gives_the_same() -> None:
    model, images = small().eval(), torch.rand(1, 3, 50, 72)
    program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = model(images)
    assert len(found) == 4
    for mine, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), mine, rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------------------------------ real nuclei
@pytest.fixture
def nuclei(shared_data: Path) -> Batch:
    """Two microscope images, 47 nuclei."""
    from clearsight.data.collate import collate
    from clearsight.data.read import read_dataset
    from clearsight.data.samples import SampleSet
    from clearsight.recipe.schema import DataConfig

    samples = SampleSet(
        read_dataset(shared_data / "nuclei", images="skip"), data=DataConfig(size=(128, 128)), task="instance"
    )
    return collate([samples[index] for index in (0, 5)])


def masks_of(found: Instances, size: tuple[int, int]) -> Tensor:
    assert found.contours is not None
    drawn = [torch.from_numpy(polygons_to_mask([ring.numpy()], size)) for ring in found.contours]
    return torch.stack(drawn) if drawn else torch.zeros(0, *size, dtype=torch.bool)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every pair of masks."""
    a, b = a.flatten(1).float(), b.flatten(1).float()
    both = a @ b.T
    return both / (a.sum(dim=1)[:, None] + b.sum(dim=1) - both).clamp(min=1)


@pytest.mark.real
def test_overfits_two_images_of_nuclei(nuclei: Batch) -> None:
    targets, size = nuclei.targets, (128, 128)
    torch.manual_seed(0)
    model = built(classes=1, neck_channels=(48, 32, 32), points=32, iterations=3, snake_channels=16)
    steps = 40
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        loss = sum(model.loss(nuclei.images, targets).values(), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    model.eval()
    objects = [targets.image == image for image in range(2)]
    true = [found_in(targets.boxes[own]) for own in objects]
    traced = model.predict(nuclei.images, nuclei.sizes, boxes=true)
    found = model.predict(nuclei.images, nuclei.sizes, Selection(score_threshold=0.3, nms_iou=1.0))
    assert targets.masks is not None
    agreed, hits = [], 0
    for own, given, detected in zip(objects, traced, found, strict=True):
        agreed.append(overlaps(targets.masks[own], masks_of(given, size)).diagonal())
        hits += int((overlaps(masks_of(detected, size), targets.masks[own]) > 0.5).any(dim=0).sum())
    print(torch.cat(agreed).mean(), hits, sum(map(len, found)))
    assert torch.cat(agreed).mean() >= 0.75
    assert hits >= 0.7 * len(targets.boxes)
    assert sum(len(each) for each in found) < 1.2 * len(targets.boxes)
