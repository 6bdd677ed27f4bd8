"""Who feeds whom: hand-made nets whose edges are known, real networks, and no trace on the model."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.flow import IMAGES, Call, Flow, follow
from clearsight.models import create_model
from clearsight.types import Targets


def evidence(model, images, targets=None, loss=None) -> ModelEvidence:
    targets = torch.arange(len(images)) % 2 if targets is None else targets
    loss = loss or (lambda model, images, targets: F.cross_entropy(model(images), targets))
    return ModelEvidence(model=model, images=images, targets=targets, loss=loss, take=lambda t, i: t[list(i)])


def edges(flow: Flow) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(f"{a.module}{a.number}", f"{b.module}{b.number}", way) for a, b, way in flow.edges]


class Net(nn.Module):
    """One ReLU for all, functions between, a residual sum, a layer that is not used, one that is cut off."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)
        self.act = nn.ReLU(inplace=True)
        self.unused, self.cut = nn.Linear(2, 2), nn.Linear(4, 2)

    def forward(self, x):
        x = self.act(self.a(x))
        x = x + F.relu(self.b(x).mul_(2))
        x = self.act(x).mean((2, 3))
        return self.c(x) + self.cut(x).detach()


def test_edges_of_a_known_net():
    flow = follow(evidence(Net(), torch.randn(3, 1, 6, 6)))
    assert edges(flow) == [
        ("0", "a1", ()),
        ("a1", "act1", ()),
        ("act1", "b1", ()),
        ("act1", "act2", ("add",)),
        ("b1", "act2", ("mul", "relu", "add")),
        ("act2", "c1", ("mean",)),
        ("act2", "cut1", ("mean",)),
    ]
    assert flow.outputs == {Call("c", 1): ("add", "cross_entropy"), Call("cut", 1): ("detach", "add", "cross_entropy")}
    assert flow.parameters_used == {f"{name}.{part}" for name in "abc" for part in ("weight", "bias")}
    assert [node.kind for node in flow.nodes.values()] == ["Conv2d", "ReLU", "Conv2d", "Linear", "Linear"]
    assert flow.nodes["act"].inputs == ((3, 4, 6, 6), (3, 4, 6, 6))
    assert flow.after(Call("act", 2))[0].consumer == Call("c", 1)
    assert flow.before(Call("a", 1))[0].producer == IMAGES
    assert not flow.lacks


def test_what_is_reached():
    flow = follow(evidence(Net(), torch.randn(3, 1, 6, 6)))
    behind = {Call("act", 2), Call("c", 1), Call("cut", 1)}
    assert flow.reached([Call("act", 2)]) == behind
    assert flow.reached([IMAGES]) == behind | {IMAGES, Call("a", 1), Call("act", 1), Call("b", 1)}
    assert flow.reached([IMAGES], walls=["b"]) == flow.reached([IMAGES])  # the sum goes around it
    assert flow.reached([IMAGES], walls=["a"]) == {IMAGES, Call("a", 1)}
    assert flow.reached([]) == set()


def test_writing_through_a_view_and_into_a_buffer_is_seen():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            room = torch.zeros(len(x), 4)
            room[:, :2].add_(self.a(x)[:, :2])
            room[:, 2:] = self.b(x)[:, 2:]
            return self.c(room)

    flow = follow(evidence(Writes(), torch.randn(3, 4)))
    assert {edge.producer.module for edge in flow.before(Call("c", 1))} == {"a", "b"}


def test_what_a_loss_on_logits_is_given():
    class Softmax(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.criterion = nn.Linear(4, 3), nn.CrossEntropyLoss()

        def forward(self, x):
            return F.softmax(self.fc(x), dim=-1)

    model = Softmax()
    flow = follow(evidence(model, torch.randn(5, 4), loss=lambda m, x, t: m.criterion(m(x), t)))
    (given,) = flow.losses
    assert (given.operation, given.classes, dict(given.sources)) == ("cross_entropy", 3, {Call("fc", 1): ("softmax",)})
    assert given.from_one < 1e-6 < given.least < given.most < 1
    assert list(flow.nodes) == ["fc"]  # a loss is no part of the network
    assert flow.outputs == {Call("fc", 1): ("softmax", "cross_entropy")}


def test_it_leaves_no_trace():
    model = torchvision.models.mobilenet_v2(num_classes=2).eval()
    images = torch.randn(2, 3, 32, 32)
    state = copy.deepcopy(model.state_dict())
    numbers, others = torch.get_rng_state(), random.getstate()
    follow(evidence(model, images))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module.training or module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert random.getstate() == others
    assert images.grad is None


def test_an_error_keeps_what_was_seen_until_then():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(3, 2))
    flow = follow(evidence(model, torch.randn(2, 1, 8, 8)))
    assert "shapes cannot be multiplied" in flow.stopped
    assert "loss that can be computed" in flow.lacks
    assert list(flow.nodes) == ["0", "1", "2", "3", "4"]
    assert flow.parameters_used == frozenset()


def learned(item: ModelEvidence) -> set[str]:
    """By PyTorch alone: what has a gradient after a step."""
    model = copy.deepcopy(item.model).train()
    torch.manual_seed(0)
    item.loss(model, item.images, item.targets).backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def reached(flow: Flow, starts: list[Call]) -> set[str]:
    seen, waiting = set(starts), list(starts)
    while waiting:
        for edge in flow.after(waiting.pop()):
            if edge.consumer not in seen:
                seen.add(edge.consumer)
                waiting.append(edge.consumer)
    return {call.module for call in seen}


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit", "googlenet"])
def test_torchvision(name):
    if name == "vit":
        sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
        model = torchvision.models.VisionTransformer(image_size=64, patch_size=16, num_classes=2, **sizes)
    else:
        options = {"init_weights": False} if name == "googlenet" else {}
        model = getattr(torchvision.models, name)(weights=None, num_classes=2, **options)

    def loss(model, images, targets):
        out = model(images)
        return sum(F.cross_entropy(one, targets) for one in (out if isinstance(out, tuple) else [out]))

    item = evidence(model, torch.randn(2, 3, 64, 64), loss=loss)
    flow = follow(item)
    assert flow.parameters_used == learned(item)
    assert reached(flow, [IMAGES]) - {""} == set(flow.nodes)  # everything that ran reads the images
    assert {call.module for call in flow.outputs} == {
        "mobilenet_v3_small": {"classifier.3"},
        "vit": {"heads.head"},
        "googlenet": {"fc", "aux1.fc2", "aux2.fc2"},
    }[name]


SMALL = {
    "classifier": {"backbone": "mobilenet_v3_small"},
    "light": {},
    "retinanet": {"backbone": "mobilenet_v3_small", "fpn_channels": 16, "head_convs": 1},
    "unet": {"width": 4, "depth": 2},
    "mask_rcnn": {
        "backbone": "mobilenet_v3_small",
        "fpn_channels": 16,
        "box_width": 16,
        "mask_channels": 8,
        "samples": 16,
    },
    "deep_snake": {"backbone": "mobilenet_v3_small", "snake_channels": 16, "iterations": 1},
    "centernet": {"backbone": "mobilenet_v3_small"},
}


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_of_our_models(name):
    model = create_model(name, num_classes=3, **SMALL[name])
    side = 64
    boxes = torch.tensor([[4.0, 8, 40, 50], [20, 20, 60, 56], [10, 10, 50, 40]])
    masks = torch.zeros(3, side, side, dtype=torch.bool)
    for mask, box in zip(masks, boxes.long(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = True
    angle = torch.arange(128) * 2 * torch.pi / 128
    ring = torch.stack((angle.cos(), angle.sin()), dim=1)
    middle, half = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, (boxes[:, None, 2:] - boxes[:, None, :2]) / 2
    targets = Targets(
        boxes=boxes,
        labels=torch.tensor([0, 1, 2]),
        image=torch.tensor([0, 0, 1]),
        masks=masks,
        contours=middle + half * ring,
        ring_object=torch.arange(3),
        semantic=torch.randint(0, 3, (2, side, side)),
        label=torch.tensor([0, 1]),
    )
    item = evidence(
        model, torch.rand(2, 3, side, side), targets, lambda m, x, t: sum(m.loss(x, t).values(), torch.zeros(()))
    )
    flow = follow(item)
    assert not flow.stopped
    assert flow.parameters_used == learned(item)
    seen = reached(flow, [IMAGES])
    layers = {n for n, node in flow.nodes.items() if isinstance(node.module, nn.Conv2d | nn.Conv1d | nn.Linear)}
    assert len(layers) > 5
    assert layers <= seen
