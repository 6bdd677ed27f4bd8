"""CenterNet: from peaks to boxes as a loop goes, what its recipe builds, that it exports and that it learns."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch
import torchvision
from torch import Tensor, nn

from clearsight.data.normalisation import fixed_statistics
from clearsight.errors import ConfigError
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.base import Detects
from clearsight.models.detect.centernet import SELECTION, CenterNet, build_centernet
from clearsight.models.detect.centernet_head import CenterNetHead
from clearsight.models.detect.centernet_loss import centre_targets
from clearsight.models.necks.deconv import Deconv
from clearsight.models.necks.fpn import Fpn
from clearsight.ops.selection import Selection
from clearsight.types import Targets

ALL = Selection(score_threshold=0.0, nms_iou=1.0, max_detections=1000)


class Said(nn.Module):
    """A head that says what it was told to."""

    def __init__(self, logits: Tensor, size: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.outputs = logits, size, offset

    def forward(self, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.outputs


def small() -> CenterNet:
    body = LightBackbone()
    neck = Deconv(body.channels, (64, 48, 32), strides=body.strides)
    return CenterNet(body, neck, CenterNetHead(32, 3, width=32), statistics=fixed_statistics("imagenet", channels=3))


def saying(logits: Tensor, size: Tensor, offset: Tensor) -> CenterNet:
    model = small().eval()
    model.head = Said(logits, size, offset)  # pyright: ignore[reportAttributeAccessIssue]
    return model


def built(*, classes: int = 3, **changes: Any) -> CenterNet:
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
    }
    section = SimpleNamespace(**config | changes)
    statistics = fixed_statistics("imagenet", channels=3)
    return build_centernet(section, num_classes=classes, channels=3, statistics=statistics)  # pyright: ignore


def looped(logits: Tensor, size: Tensor, offset: Tensor, valid: tuple[int, int], threshold: float) -> list[tuple]:
    """Peaks of one image, the best first: score, class and box."""
    found = []
    classes, height, width = logits.shape
    for c in range(classes):
        for y in range(height):
            for x in range(width):
                around = logits[c, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                score = 1 / (1 + math.exp(-logits[c, y, x].item()))
                if logits[c, y, x] < around.max() or score <= threshold:
                    continue
                cx, cy = 4 * (x + offset[0, y, x].item()), 4 * (y + offset[1, y, x].item())
                w, h = (4 * max(side, 0.0) for side in size[:, y, x].tolist())
                box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
                limits = (valid[1], valid[0]) * 2
                found.append((score, c, [min(max(v, 0.0), limit) for v, limit in zip(box, limits, strict=True)]))
    return sorted(found, key=lambda one: -one[0])


# ------------------------------------------------------------------------------------------------ boxes
@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_boxes_as_a_loop_reads_them(threshold: float) -> None:
    logits, size, offset = torch.randn(2, 3, 9, 12), torch.randn(2, 2, 9, 12) * 3 + 2, torch.rand(2, 2, 9, 12)
    sizes = torch.tensor([[34, 47], [20, 30]])
    model = saying(logits, size, offset)
    found = model.predict(torch.rand(2, 3, 34, 47), sizes, Selection(score_threshold=threshold, nms_iou=1.0))
    for image, each in enumerate(found):
        valid = int(sizes[image, 0]), int(sizes[image, 1])
        expected = looped(logits[image], size[image], offset[image], valid, threshold)
        assert len(each) == len(expected) > 5
        assert each.scores is not None
        torch.testing.assert_close(each.scores, torch.tensor([one[0] for one in expected]))
        assert each.labels.tolist() == [one[1] for one in expected]
        torch.testing.assert_close(each.boxes, torch.tensor([one[2] for one in expected]))
    few = model.predict(torch.rand(2, 3, 34, 47), sizes, Selection(score_threshold=threshold, max_detections=4))
    assert [len(each) for each in few] == [4, 4]


def test_a_box_by_hand() -> None:
    logits, size, offset = torch.full((1, 2, 4, 5), -9.0), torch.zeros(1, 2, 4, 5), torch.zeros(1, 2, 4, 5)
    logits[0, 1, 2, 3] = 0.0
    size[0, :, 2, 3] = torch.tensor([2.0, 1.5])
    offset[0, :, 2, 3] = torch.tensor([0.25, 0.75])
    (found,) = saying(logits, size, offset).predict(torch.rand(1, 3, 32, 32), torch.tensor([[16, 20]]))
    assert found.boxes.tolist() == [[9.0, 8.0, 17.0, 14.0]]  # around (13, 11), 8 wide and 6 high
    assert found.labels.tolist() == [1]
    assert found.scores.tolist() == [0.5]  # pyright: ignore[reportOptionalMemberAccess]


def test_what_fits_the_targets_gives_the_objects_back() -> None:
    boxes = torch.tensor([[3.0, 5.0, 30.5, 21.0], [33.0, 2.0, 50.0, 40.0], [8.0, 30.0, 9.0, 30.5]])
    targets = Targets(boxes=boxes, labels=torch.tensor([0, 2, 0]), image=torch.zeros(3).long())
    truth = centre_targets(targets, (1, 3, 11, 13), stride=4)
    size, offset = torch.zeros(1, 2, 11, 13), torch.zeros(1, 2, 11, 13)
    size[0, :, truth.y, truth.x], offset[0, :, truth.y, truth.x] = truth.size.T, truth.offset.T
    model = saying(torch.logit(truth.heat, 1e-6), size, offset)
    terms = model.loss(torch.rand(1, 3, 44, 52), targets)
    assert all(term.item() < 1e-4 for term in terms.values())
    (found,) = model.predict(torch.rand(1, 3, 44, 52), torch.tensor([[44, 52]]))
    order = found.boxes[:, 0].argsort()
    torch.testing.assert_close(found.boxes[order], boxes[[0, 2, 1]])
    assert found.labels[order].tolist() == [0, 0, 2]


def test_suppression_among_boxes_is_the_users_choice() -> None:
    logits, size, offset = torch.full((1, 1, 6, 6), -9.0), torch.full((1, 2, 6, 6), 4.0), torch.zeros(1, 2, 6, 6)
    logits[0, 0, 2, 2], logits[0, 0, 2, 4], logits[0, 0, 2, 5] = 1.0, 0.5, 0.4  # the last is no peak
    model, images, sizes = saying(logits, size, offset), torch.rand(1, 3, 32, 32), torch.tensor([[24, 24]])
    assert SELECTION.nms_iou == 1
    assert len(model.predict(images, sizes)[0]) == 2
    assert len(model.predict(images, sizes, Selection(nms_iou=0.2))[0]) == 1  # they overlap by a third
    assert len(model.predict(images, sizes, Selection(nms_iou=0.4))[0]) == 2


def test_what_is_no_number_gives_no_box() -> None:
    logits, size, offset = torch.randn(1, 2, 8, 8), torch.ones(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    logits[0, :, :2], size[0, 0, 2:4], offset[0, 1, 4:5] = torch.nan, torch.inf, torch.nan
    logits[0, 0, 5, :4], logits[0, 1, 5] = torch.inf, -torch.inf
    model, images, sizes = saying(logits, size, offset), torch.rand(1, 3, 32, 32), torch.tensor([[32, 32]])
    (found,) = model.predict(images, sizes, ALL)
    assert len(found) > 2
    assert bool(found.boxes.isfinite().all())
    assert found.boxes[:, 1].min() >= 4 * 5 - 2
    assert found.scores.max() < 1  # pyright: ignore[reportOptionalMemberAccess]
    assert len(saying(logits * torch.nan, size, offset).predict(images, sizes, ALL)[0]) == 0


# ------------------------------------------------------------------------------------------------ the whole
@pytest.mark.parametrize("neck", ["deconv", "fpn"])
@pytest.mark.parametrize("size", [(33, 47), (32, 32), (100, 301)])
def test_every_size(neck: str, size: tuple[int, int]) -> None:
    model = built(neck=neck).eval()
    height, width = (math.ceil(side / 4) for side in size)
    logits, sides, offset = model(torch.rand(2, 3, *size))
    assert logits.shape == (2, 3, height, width)
    assert sides.shape == offset.shape == (2, 2, height, width)
    (found,) = model.predict(torch.rand(1, 3, *size), torch.tensor([[20, 30]]), ALL)
    assert len(found) > 0
    assert found.boxes.amax(dim=0)[2] <= 30
    assert found.boxes.amax(dim=0)[3] <= 20


@pytest.mark.parametrize("neck", ["deconv", "fpn"])
def test_every_parameter_learns(neck: str, as_targets: Callable[..., Targets]) -> None:
    model = built(neck=neck)
    assert isinstance(model, Detects)
    assert model.stride == 4
    targets = as_targets(
        [torch.tensor([[10.0, 10, 50, 60], [30.3, 30.1, 30.4, 30.2]]), torch.zeros(0, 4)],
        [torch.tensor([1, 2]), torch.zeros(0).long()],
    )
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    sum(model.loss(images, targets).values()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_what_the_section_says_is_built() -> None:
    model = built(neck_channels=(12, 10, 8), head_channels=6, min_overlap=0.3, size_weight=0.4, offset_weight=0.5)
    assert isinstance(model.neck, Deconv)
    assert [layer.out_channels for layer in model.modules() if isinstance(layer, nn.ConvTranspose2d)] == [12, 10, 8]
    assert model.head.heat[0].out_channels == 6
    criterion = model.criterion
    assert (criterion.min_overlap, criterion.size_weight, criterion.offset_weight) == (0.3, 0.4, 0.5)
    pyramid = built(neck="fpn").neck
    assert isinstance(pyramid, Fpn)
    assert (pyramid.channels, pyramid.levels) == (16, ("c2", "c3", "c4", "c5"))


@pytest.mark.parametrize(
    ("norm", "kind"), [(None, nn.BatchNorm2d), ("frozen_batch", nn.BatchNorm2d), ("group", nn.GroupNorm)]
)
def test_the_norm_of_the_neck(norm: str | None, kind: type[nn.Module]) -> None:
    neck = built(norm=norm).neck
    norms = [layer for layer in neck.modules() if not list(layer.children()) and "Norm" in type(layer).__name__]
    assert len(norms) == 6
    assert all(type(layer) is kind for layer in norms)


def test_a_backbone_without_the_finest_level_needs_the_deconv() -> None:
    with pytest.raises(ConfigError, match="has no level c2"):
        built(backbone="convmixer_1024_20_ks9_p14", neck="fpn")


def test_the_class_layer() -> None:
    model = built()
    state, other = model.state_dict(), built(classes=5).state_dict()
    assert {name for name in state if state[name].shape != other[name].shape} == set(model.class_layer)
    nn.init.constant_(model.head.heat[1].bias, 3.0)
    model.reset_classes()
    assert model.eval()(torch.rand(1, 3, 64, 64)).logits.sigmoid().mean().item() == pytest.approx(0.1, abs=0.03)


def test_a_classifiers_weights_go_to_the_backbone() -> None:
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    model = built()
    adapted = model.adapt_weights(theirs)
    _, unexpected = model.load_state_dict(adapted, strict=False)
    assert unexpected == []
    assert torch.equal(model.state_dict()["backbone.layer4.1.conv2.weight"], theirs["layer4.1.conv2.weight"])


# ------------------------------------------------------------------------------------------------ other forms
def test_the_exported_pyramid_gives_the_same() -> None:
    model, images = built(neck="fpn").eval(), torch.rand(2, 3, 50, 72)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))


def test_compiled_and_onnx_graphs_give_the_same() -> None:
    torch.compiler.reset()
    model, images = small().eval(), torch.rand(1, 3, 50, 72)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(images), expected)
    program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    for mine, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), mine, rtol=1e-3, atol=1e-4)


def test_half_precision_and_channels_last(as_targets: Callable[..., Targets]) -> None:
    model = built().eval().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    assert model(images).logits.is_contiguous(memory_format=torch.channels_last)
    targets = as_targets([torch.tensor([[10.0, 10, 50, 60]])] * 2, [torch.tensor([1])] * 2)
    full = model.loss(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(images, targets)
        found = model.predict(images, torch.tensor([[96, 96]] * 2), ALL)
    for name, value in half.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[name], rtol=0.05, atol=0.02)
    assert found[0].boxes.dtype == found[0].scores.dtype == torch.float32  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.real
def test_overfits_four_photos(overfit: Callable[..., Any]) -> None:
    model = small()
    learned = overfit(model, steps=60, lr=5e-3, selection=Selection(score_threshold=0.3, nms_iou=1.0))
    assert learned.fell > 2
    assert learned.share >= 0.95
    assert learned.found < 1.1
