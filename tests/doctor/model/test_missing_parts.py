"""A softmax too many and a non-linearity too few: faults made in real nets, and designs that only look like them."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.ops import sigmoid_focal_loss

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.missing_parts import MissingNonLinearity, SoftmaxBeforeCrossEntropy


def evidence(model, images=None, loss=None) -> ModelEvidence:
    images = torch.randn(4, 3, 32, 32) if images is None else images
    return ModelEvidence(
        model=model,
        images=images,
        targets=torch.arange(len(images)) % 2,
        loss=loss or (lambda m, x, t: F.cross_entropy(m(x), t)),
        take=lambda t, i: t[list(i)],
    )


def head(*last) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), *last)


# ------------------------------------------------------------------------------------------------ softmax
class Functional(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.body, self.last = head(), last

    def forward(self, x):
        return self.last(self.body(x))


def binary(model, images, targets):
    return F.binary_cross_entropy_with_logits(model(images), F.one_hot(targets, 4).float())


def focal(model, images, targets):
    return sigmoid_focal_loss(model(images), F.one_hot(targets, 4).float(), reduction="mean")


def by_hand(model, images, targets):
    return -model(images).log_softmax(1).gather(1, targets[:, None]).mean()


@pytest.mark.parametrize(
    ("model", "loss", "squashed", "where"),
    [
        (head(nn.Softmax(dim=1)), None, "softmax", "5"),
        (Functional(lambda x: F.softmax(x, dim=1)), None, "softmax", "body.4"),
        (Functional(lambda x: x.exp() / x.exp().sum(1, keepdim=True)), None, "softmax", "body.4"),
        (head(nn.Softmax(dim=1)), lambda m, x, t: nn.CrossEntropyLoss(label_smoothing=0.1)(m(x), t), "softmax", "5"),
        (head(nn.Softmax(dim=1)), by_hand, "softmax", "5"),
        (head(nn.Sigmoid()), None, "sigmoid", "5"),
        (head(nn.Sigmoid()), binary, "sigmoid", "5"),
        (Functional(lambda x: torch.sigmoid(x).reshape(-1, 4)), binary, "sigmoid", "body.4"),
        (Functional(torch.sigmoid), focal, "sigmoid", "body.4"),
    ],
)
def test_squashed_twice(model, loss, squashed, where):
    found = list(SoftmaxBeforeCrossEntropy().check(evidence(model, loss=loss)))
    assert [(one.id, one.severity, one.where) for one in found] == [
        ("softmax-before-cross-entropy", "error", where)
    ]  # fmt: skip
    assert found[0].evidence["squashed"] == squashed
    assert found[0].evidence["row"] == "S3"


def mass(model, images, targets):
    return F.nll_loss(model(images).clamp_min(1e-9).log(), targets)


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (head(), None),
        (head(), binary),
        (head(), focal),
        (head(nn.LogSoftmax(dim=1)), None),  # changes nothing
        (head(nn.Softmax(dim=1)), mass),
        (head(nn.Sigmoid()), lambda m, x, t: F.binary_cross_entropy(m(x), F.one_hot(t, 4).float())),
        (Functional(lambda x: x * torch.sigmoid(x)), binary),  # SiLU by hand
        (head(nn.ReLU()), None),
        (Functional(lambda x: F.softmax(x, dim=1) * 1.01), None),  # rows of 1.01
        (Functional(lambda x: F.normalize(x, dim=1)), None),
    ],
)
def test_logits_and_what_only_looks_like_probabilities(model, loss):
    assert list(SoftmaxBeforeCrossEntropy().check(evidence(model, loss=loss))) == []


# ------------------------------------------------------------------------------------------------ non-linearity
def mlp(*between, sizes=(64, 32, 10)) -> nn.Sequential:
    a, b, c = sizes
    return nn.Sequential(nn.Flatten(), nn.Linear(a, b), *between, nn.Linear(b, c))


def cnn(between, *, out=16, **options) -> nn.Sequential:
    layers = OrderedDict(
        first=nn.Conv2d(3, 16, 3), norm=nn.BatchNorm2d(16), between=between, second=nn.Conv2d(16, out, 3, **options),
        act=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(out, 4),
    )  # fmt: skip
    return nn.Sequential(layers)


def found_in(model, images=None) -> list[list[str]]:
    found = list(MissingNonLinearity().check(evidence(model, images)))
    assert len(found) <= 1
    assert all(one.severity == "warning" and one.id == "missing-non-linearity" for one in found)
    return found[0].evidence["pairs"] if found else []


def test_two_linear_layers():
    images = torch.randn(4, 1, 8, 8)
    assert found_in(mlp(), images) == [["1", "2"]]
    assert found_in(mlp(nn.Dropout(0.1), nn.BatchNorm1d(32)), images) == [["1", "4"]]
    assert found_in(mlp(nn.ReLU()), images) == []
    assert found_in(mlp(nn.LayerNorm(32)), images) == []  # divides by what it is given
    assert found_in(mlp(sizes=(64, 9, 10)), images) == []  # low rank on purpose


def test_convolutions():
    assert found_in(cnn(nn.Identity())) == [["first", "second"]]
    assert found_in(cnn(nn.AvgPool2d(2))) == [["first", "second"]]
    assert found_in(cnn(nn.MaxPool2d(2))) == []
    assert found_in(cnn(nn.SiLU())) == []
    assert found_in(cnn(nn.Identity(), groups=16)) == []  # depthwise beside one that mixes
    separate = nn.Sequential(nn.Conv2d(3, 16, (3, 1)), nn.Conv2d(16, 16, (1, 3)), nn.ReLU())
    assert found_in(nn.Sequential(separate, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))) == []


def test_a_norm_that_has_an_activation_of_its_own():
    class NormAct(nn.BatchNorm2d):
        def forward(self, input):
            return F.relu(super().forward(input))

    model = cnn(nn.Identity())
    model[1] = NormAct(16)
    assert found_in(model) == []


def test_one_dropped_from_a_shared_activation():
    class Shared(nn.Module):
        def __init__(self, *, fault):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 4)
            self.drop, self.act, self.fault = nn.Dropout(0.1), nn.ReLU(), fault

        def forward(self, x):
            x = self.drop(self.act(self.a(x.flatten(1))))
            x = self.drop(self.b(x))
            return self.c(x if self.fault else self.act(x))

    images = torch.randn(4, 1, 8, 8)
    assert found_in(Shared(fault=True), images) == [["b", "c"]]
    assert found_in(Shared(fault=False), images) == []


def test_a_resnet_without_its_activations():
    model = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)
    assert found_in(model) == []
    for block in (model.layer1[0], model.layer2[0]):
        block.relu = nn.Identity()
    assert found_in(model) == [["layer1.0.conv1", "layer1.0.conv2"], ["layer2.0.conv1", "layer2.0.conv2"]]


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_designs_of_published_networks(name):
    assert found_in(getattr(torchvision.models, name)(num_classes=4), torch.randn(2, 3, 64, 64)) == []


def test_a_pyramid_and_its_head():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
            self.neck = nn.Sequential(OrderedDict(lateral=nn.Conv2d(8, 8, 1), out=nn.Conv2d(8, 8, 3)))
            self.head = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))

        def forward(self, x):
            return self.head(self.neck(self.body(x))).mean((2, 3))

    assert found_in(Pyramid()) == [["neck.lateral", "neck.out"]]  # inside a part it counts, at the seam it does not


# ------------------------------------------------------------------------------------------------ linear as a whole
class Dense(nn.Module):
    """Maps beside those that they are made of: no layer's output goes to one other layer alone."""

    def __init__(self, active, *, width=8, norm=nn.Identity):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=2)
        self.more = nn.ModuleList(nn.Conv2d(width * (1 + n), width, 3, padding=1) for n in range(2))
        self.norm, self.last, self.active = norm(3 * width), nn.Linear(3 * width, 4), active

    def forward(self, x):
        x = self.active(self.first(x))
        for layer in self.more:
            x = torch.cat([x, self.active(layer(x))], 1)
        return self.last(self.norm(x).mean((2, 3)))


def whole(model, images=None, **options) -> list[tuple[str, str]]:
    item = evidence(model, images, **options)
    return [(one.severity, one.where) for one in MissingNonLinearity().check(item)]


def test_one_linear_map_as_a_whole():
    torch.manual_seed(0)
    (finding,) = MissingNonLinearity().check(evidence(Dense(nn.Identity())))
    assert (finding.severity, finding.where) == ("warning", "model")
    assert finding.evidence["listed"] == ["first", "more.0", "more.1", "last"]
    assert whole(Dense(nn.Dropout(0.5), norm=nn.BatchNorm2d)) == [("warning", "model")]
    assert whole(Dense(nn.ReLU())) == []
    assert whole(Dense(nn.Tanh())) == []
    assert whole(Dense(nn.MaxPool2d(1))) == [("warning", "model")]  # of one place it is no maximum
    assert whole(Dense(nn.MaxPool2d(3, 1, 1))) == []


def test_a_pair_that_is_named_is_not_said_again():
    images = torch.randn(4, 1, 8, 8)
    assert whole(mlp(), images) == [("warning", "2")]


class Heads(nn.Module):
    """Two logistic regressions on the same pixels."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, x):
        return self.one(x.flatten(1)) + self.two(x.flatten(1))


class Ways(nn.Module):
    """Blocks led around, the last layer of each of which starts at zero: linear at the start, and not for long."""

    def __init__(self, active, *, ends=0.0):
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 4)
        self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 16)
        self.active = active
        nn.init.constant_(self.down.weight, ends)

    def forward(self, x):
        x = self.first(x.flatten(1))
        x = x + self.down(self.active(self.up(x)))
        return self.last(x)


def test_what_is_linear_by_design_or_only_near_the_images():
    images = torch.randn(8, 1, 8, 8)
    assert whole(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), images) == []
    assert whole(Heads(), images) == []
    assert whole(Dense(nn.Identity(), width=1), images.expand(-1, 3, -1, -1)[:, :, :4, :4]) == []  # low rank
    assert whole(Ways(nn.ReLU()), images) == []
    separable = nn.Sequential(nn.Conv2d(1, 8, 8, 8), nn.Flatten(), nn.Linear(8, 4))  # patches
    assert whole(separable, images) == []


@pytest.mark.parametrize("bias", [100.0, -100.0, 3.0])
def test_units_that_are_all_open_or_all_dead(bias):
    """Of the images as they are, such a network is one linear map, or a constant."""
    torch.manual_seed(0)
    model = Dense(nn.ReLU())
    for layer in (model.first, *model.more):
        layer.bias.data.fill_(bias)
    assert whole(model) == []


def test_a_model_that_refuses_other_images():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = Dense(nn.Identity())

        def forward(self, x):
            if float(x.abs().max()) > 20:
                raise ValueError("images: expected values of deviation 1")
            return self.body(x)

    assert whole(Careful()) == []


def test_nothing_of_the_model_is_changed():
    model = Dense(nn.Identity(), norm=nn.BatchNorm2d).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert whole(model) == [("warning", "model")]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
