from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.doctor.nonfinite import NonFinite, RandomState, find_nonfinite

CLASSES = 4
pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom.*")


# ------------------------------------------------------------------------------------------------ architectures
class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        return self.act(x + self.bn2(self.conv2(y)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.squeeze = nn.Linear(channels, 2)
        self.excite = nn.Linear(2, channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x)
        gate = self.excite(self.act(self.squeeze(y.mean((2, 3))))).sigmoid()
        return self.act(y * gate[:, :, None, None])


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(0.2)
        self.register_buffer("mask", torch.zeros(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        score = q @ k.mT / math.sqrt(q.shape[-1]) + self.mask
        return x + self.drop(self.out(score.softmax(dim=-1) @ v))


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 4, stride=4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.attention = Attention(8)
        self.mid = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).mT
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], dim=1)
        return self.head(self.mid(self.attention(tokens))[:, 0])


def build(name: str) -> nn.Module:
    """Each has `mid`, whose results go into a linear map next, and `head`."""
    if name == "vit":
        return Vit()
    layers = {
        "mlp": lambda: [("flat", nn.Flatten()), ("fc", nn.Linear(64, 8)), ("act", nn.Tanh()), ("mid", nn.Identity())],
        "cnn": lambda: [("conv", nn.Conv2d(1, 4, 3)), ("mid", nn.ReLU()), ("last", nn.Conv2d(4, 8, 3))],
        "cnn-bn": lambda: [
            ("conv", nn.Conv2d(1, 4, 3)), ("bn", nn.BatchNorm2d(4)), ("mid", nn.ReLU()), ("last", nn.Conv2d(4, 8, 3)),
        ],
        "resnet": lambda: [
            ("stem", nn.Conv2d(1, 4, 3)), ("mid", Residual(4)), ("block", Residual(4)), ("last", nn.Conv2d(4, 8, 1)),
        ],
        "se": lambda: [("stem", nn.Conv2d(1, 4, 3)), ("mid", SqueezeExcite(4)), ("last", nn.Conv2d(4, 8, 1))],
    }[name]()  # fmt: skip
    model = nn.Sequential()
    for key, layer in layers:
        model.add_module(key, layer)
    if name != "mlp":
        model.add_module("pool", nn.AdaptiveAvgPool2d(1))
        model.add_module("flat", nn.Flatten())
    model.add_module("head", nn.Linear(8, CLASSES))
    return model


NETS = ("mlp", "cnn", "cnn-bn", "resnet", "se", "vit")


def batch(n: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 1, 8, 8), torch.arange(n) % CLASSES


# ------------------------------------------------------------------------------------------------ faults in `mid`
class Fault(nn.Module):
    def __init__(self, before: nn.Module, does: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before = before
        self.does = Does(does)

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self.before(x))


class Does(nn.Module):
    def __init__(self, does: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = does

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class SpoiledBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0] / torch.zeros_like(gradients[0])


def filled(x: Tensor, value: float) -> Tensor:
    """All of one value, and still a function of x."""
    return x * 0 + value


def inplace_division(x: Tensor) -> Tensor:
    y = x.abs() + 1
    return y.div_(torch.zeros_like(y))


class Case(NamedTuple):
    does: Callable[[Tensor], Tensor]
    direction: str
    operation: str
    cause: str


CASES = {
    "log-0": Case(lambda x: filled(x, 0).log(), "forward", "log", "log-of-zero"),
    "log-bf16": Case(lambda x: filled(x, 0).bfloat16().log().float(), "forward", "log", "log-of-zero"),
    "log-negative": Case(lambda x: (-x.abs() - 1).log(), "forward", "log", "log-of-negative"),
    "log1p": Case(lambda x: filled(x, -2).log1p(), "forward", "log1p", "log-of-negative"),
    "divided-by-0": Case(lambda x: (x.abs() + 1) / filled(x, 0), "forward", "div", "division-by-zero"),
    "0/0": Case(lambda x: filled(x, 0) / filled(x, 0), "forward", "div", "zero-over-zero"),
    "in-place": Case(inplace_division, "forward", "div", "division-by-zero"),
    "reciprocal": Case(lambda x: filled(x, 0).reciprocal(), "forward", "reciprocal", "division-by-zero"),
    "rsqrt": Case(lambda x: filled(x, 0).rsqrt(), "forward", "rsqrt", "division-by-zero"),
    "sqrt-negative": Case(lambda x: (-x.abs() - 1).sqrt(), "forward", "sqrt", "sqrt-of-negative"),
    "exp": Case(lambda x: filled(x, 100).exp(), "forward", "exp", "exp-overflow"),
    "expm1": Case(lambda x: filled(x, 100).expm1(), "forward", "expm1", "exp-overflow"),
    "power": Case(lambda x: (-x.abs() - 1) ** 0.3, "forward", "pow", "power-of-negative"),
    "negative-power": Case(lambda x: filled(x, 0) ** -1.5, "forward", "pow", "division-by-zero"),
    "square": Case(lambda x: filled(x, 1e30) ** 2, "forward", "pow", "overflow"),
    "acos": Case(lambda x: (x.abs() + 1.5).acos(), "forward", "acos", "outside-domain"),
    "atanh": Case(lambda x: filled(x, 1).atanh(), "forward", "atanh", "domain-edge"),
    "logit": Case(lambda x: filled(x, 0).logit(), "forward", "logit", "domain-edge"),
    "half": Case(lambda x: (x.abs() + 70_000).half().float(), "forward", "to", "half-overflow"),
    "half-product": Case(lambda x: (filled(x, 300).half() * 300).float(), "forward", "mul", "half-overflow"),
    "masked-row": Case(
        lambda x: x * x.masked_fill(x == x, -math.inf).softmax(-1), "forward", "softmax", "masked-row"
    ),
    "0·∞": Case(lambda x: filled(x, 0) * torch.full_like(x, math.inf), "forward", "mul", "zero-times-infinity"),
    "0·∞-scalar": Case(lambda x: filled(x, 0) * math.inf, "forward", "mul", "zero-times-infinity"),
    "∞-∞": Case(
        lambda x: x * (torch.full_like(x, math.inf) - torch.full_like(x, math.inf)), "forward", "sub",
        "infinity-minus-infinity",
    ),
    "one-value": Case(lambda x: x * x.flatten(1)[:1, :1].var(), "forward", "var", "one-value-variance"),
    "no-value": Case(lambda x: x * x.flatten()[:0].mean(), "forward", "mean", "empty-mean"),
    "explicit": Case(lambda x: x.masked_fill(x == x, math.inf), "forward", "masked_fill", "explicit-infinity"),
    "exp-behind-where": Case(
        lambda x: torch.where(x > 99, filled(x, 100).exp(), x), "forward", "exp", "exp-overflow"
    ),
    "sqrt-at-0": Case(lambda x: filled(x, 0).sqrt(), "backward", "sqrt", "root-at-zero"),
    "norm-at-0": Case(lambda x: x + (x * 0).pow(2).sum().sqrt(), "backward", "sqrt", "root-at-zero"),
    "power-at-0": Case(lambda x: filled(x, 0) ** 0.5, "backward", "pow", "root-at-zero"),
    "asin-at-1": Case(lambda x: filled(x, 1).asin(), "backward", "asin", "domain-edge"),
    "acos-at-1": Case(lambda x: filled(x, 1).acos(), "backward", "acos", "domain-edge"),
    "log-behind-where": Case(
        lambda x: torch.where(x > 99, filled(x, 0).log(), x), "backward", "log", "log-of-zero"
    ),
    "division-behind-where": Case(
        lambda x: torch.where(x > 99, (x + 1) / filled(x, 0), x), "backward", "div", "division-by-zero"
    ),
    "steep": Case(lambda x: x + x * 0 * 1e30 * 1e30, "backward", "mul", "overflow"),
    "own-function": Case(SpoiledBackward.apply, "backward", "SpoiledBackward", "division-by-zero"),
}  # fmt: skip


def examine(model: nn.Module, x: Tensor, y: Tensor) -> NonFinite | None:
    return find_nonfinite(model, lambda: F.cross_entropy(model(x), y), images=x, targets=y)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("net", NETS)
def test_the_operation_is_named(net: str, case: str) -> None:
    model, (x, y) = build(net), batch()
    wanted = CASES[case]
    model.mid = Fault(model.mid, wanted.does)
    found = examine(model, x, y)
    assert found is not None
    assert (found.module, found.layer) == ("mid.does", "Does")
    assert (found.direction, found.operation, found.cause.kind) == wanted[1:]
    assert found.line.startswith(__file__)
    assert "mid.does" in str(found)


# ------------------------------------------------------------------------------------------------ layers themselves
LAYERS = [
    ("mlp", "fc", "linear"),
    ("mlp", "head", "linear"),
    ("cnn", "last", "conv2d"),
    ("cnn-bn", "conv", "conv2d"),
    ("resnet", "block.conv2", "conv2d"),
    ("se", "mid.depthwise", "conv2d"),
    ("se", "mid.squeeze", "linear"),
    ("vit", "attention.qkv", "linear"),
    ("vit", "patch", "conv2d"),
]


@pytest.mark.parametrize(("net", "layer", "operation"), LAYERS[1:])  # tanh takes the infinities of the first away
def test_weights_that_are_too_large_overflow_in_their_layer(net: str, layer: str, operation: str) -> None:
    model, (x, y) = build(net), batch()
    with torch.no_grad():
        model.get_submodule(layer).weight.mul_(0).add_(3e38)
    found = examine(model, x * 1e4, y)
    assert found is not None
    assert (found.module, found.direction, found.operation) == (layer, "forward", operation)
    assert found.cause.kind == "overflow"


@pytest.mark.parametrize(("net", "layer", "operation"), LAYERS)
def test_weights_that_were_spoiled_before(net: str, layer: str, operation: str) -> None:
    model, (x, y) = build(net), batch()
    with torch.no_grad():
        model.get_submodule(layer).weight.view(-1)[0] = math.nan
    found = examine(model, x, y)
    assert found is not None
    assert (found.module, found.direction, found.operation) == (layer, "parameter", f"{layer}.weight")
    assert found.cause.kind == "weights"
    assert found.as_finding({"trainer": {"clip_norm": None}}).remedy == {}  # the other weights are small


def test_weights_that_grew_until_some_were_infinite_had_too_long_steps() -> None:
    model, (x, y) = build("cnn"), batch()
    with torch.no_grad():
        model.last.weight.fill_(1e30)
        model.last.weight.view(-1)[0] = math.inf
    found = examine(model, x, y)
    assert found is not None
    assert (found.cause.kind, found.cause.numbers["largest"]) == ("weights", pytest.approx(1e30))
    assert found.as_finding({"trainer": {"clip_norm": None}}).remedy == {"trainer.clip_norm": 1.0}


def test_a_norm_of_constant_values_without_epsilon() -> None:
    model, (x, y) = build("vit"), batch()
    model.patch.weight.data.zero_()
    model.attention.norm.eps = 0.0
    found = examine(model, x, y)
    assert found is not None
    assert (found.module, found.operation) == ("attention.norm", "layer_norm")
    assert found.cause.kind == "division-by-zero"


def test_running_statistics_spoiled_by_the_same_step_are_no_cause() -> None:
    model, (x, y) = build("cnn-bn"), batch()
    model.conv = Fault(model.conv, CASES["exp"].does)
    F.cross_entropy(model(x), y).backward()
    assert not torch.isfinite(model.bn.running_mean).all()
    found = examine(model, x, y)
    assert found is not None
    assert (found.module, found.direction, found.operation) == ("conv.does", "forward", "exp")


def test_a_batch_norm_in_training_does_not_read_its_running_statistics() -> None:
    model, (x, y) = build("cnn-bn"), batch()
    model.bn.running_var.fill_(math.nan)
    assert examine(model, x, y) is None
    with torch.no_grad():
        model.bn.weight.fill_(3e38)
    found = examine(model, x, y)
    assert found is not None
    assert (found.module, found.direction, found.operation) == ("bn", "forward", "batch_norm")
    assert found.cause.kind == "overflow"


def test_a_buffer_that_was_spoiled_before() -> None:
    model, (x, y) = build("cnn-bn").eval(), batch()
    model.bn.running_var[1] = math.nan
    found = examine(model, x, y)
    assert found is not None
    assert (found.module, found.direction, found.operation) == ("bn", "buffer", "bn.running_var")


def test_a_mask_that_hides_a_whole_row() -> None:
    model, (x, y) = build("vit"), batch()
    model.attention.mask[2] = -math.inf
    found = examine(model, x, y)
    assert found is not None
    assert (found.module, found.direction, found.operation) == ("attention", "forward", "softmax")
    assert (found.cause.kind, found.cause.numbers["rows"]) == ("masked-row", 4)


def test_fused_attention_without_a_place_to_look() -> None:
    class Fused(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = x @ x.mT + torch.full((8, 8), -math.inf)
            return (score.softmax(-1) @ x).sum()

    model = Fused()
    found = find_nonfinite(model, lambda: model(torch.randn(2, 8, 4, requires_grad=True)))
    assert found is not None
    assert (found.module, found.operation, found.cause.kind) == ("", "softmax", "masked-row")


def test_half_precision_under_autocast_on_the_cpu() -> None:
    model, (x, y) = build("mlp"), batch()

    def run() -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            return F.cross_entropy(model(x).float(), y)

    with torch.no_grad():
        model.mid = Does(lambda x: x.abs() + 1)
        model.head.weight.fill_(6e4)
    found = find_nonfinite(model, run, images=x)
    assert found is not None
    assert (found.module, found.operation, found.cause.kind) == ("head", "linear", "half-overflow")
    assert found.as_finding({"trainer": {"precision": "16-mixed"}}).remedy == {"trainer.precision": "bf16-mixed"}


# ------------------------------------------------------------------------------------------------ data and losses
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("net", NETS)
def test_a_dirty_image_and_its_place_in_the_batch(net: str, value: float) -> None:
    model, (x, y) = build(net), batch()
    x[2, 0, 3, 3] = value
    for images in (x, None):
        found = find_nonfinite(model, lambda: F.cross_entropy(model(x), y), images=images)
        assert found is not None
        assert (found.direction, found.module, found.samples) == ("input", None, (2,))
        assert found.cause.kind == "input"


def test_images_that_are_spoiled_on_their_way_to_the_model() -> None:
    model, (x, y) = build("cnn"), batch()
    x[1] = 0
    found = find_nonfinite(model, lambda: F.cross_entropy(model(x / x.amax((1, 2, 3), keepdim=True)), y), images=x)
    assert found is not None
    assert (found.direction, found.operation, found.samples) == ("input", "div", (1,))


@pytest.mark.parametrize("targets", [True, False])
def test_a_dirty_label(targets: bool) -> None:
    model, (x, _) = build("mlp"), batch()
    y = torch.zeros(4, CLASSES)
    y[3, 1] = math.nan
    found = find_nonfinite(model, lambda: F.mse_loss(model(x), y), images=x, targets=y if targets else None)
    assert found is not None
    assert (found.direction, found.module, found.samples) == ("label", None, (3,))


LOSSES = {
    "log": (lambda z, y: -(z.softmax(1) * 0).log()[:, 0].mean(), "loss", "log", "log-of-zero"),
    "division": (lambda z, y: z.sum() / (y > 99).sum(), "loss", "div", "division-by-zero"),
    "exp": (lambda z, y: (z * 0 + 1000).exp().mean(), "loss", "exp", "exp-overflow"),
    "nothing": (lambda z, y: F.cross_entropy(z, y * 0 - 100), "loss", "nll_loss", "empty-mean"),
    "selected": (lambda z, y: z[y > 99].mean(), "loss", "mean", "empty-mean"),
    "module": (lambda z, y: nn.CrossEntropyLoss(ignore_index=9)(z, y * 0 + 9), "loss", "nll_loss", "empty-mean"),
    "root": (lambda z, y: (z - z.detach()).pow(2).sum().sqrt(), "backward", "sqrt", "root-at-zero"),
    "hidden": (
        lambda z, y: F.cross_entropy(z.index_fill(1, torch.tensor([0]), -math.inf), y), "loss", "index_fill",
        "explicit-infinity",
    ),
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("net", ["mlp", "vit"])
def test_faults_of_the_loss(net: str, loss: str) -> None:
    model, (x, y) = build(net), batch()
    function, *wanted = LOSSES[loss]
    found = find_nonfinite(model, lambda: function(model(x), y), images=x, targets=y)
    assert found is not None
    assert [found.direction, found.operation, found.cause.kind] == wanted
    assert found.module is None


# ------------------------------------------------------------------------------------------------ no faults
def running_maximum(x: Tensor) -> Tensor:
    return torch.maximum(torch.full_like(x, -math.inf), x)


def lowest(x: Tensor) -> Tensor:
    best = torch.full_like(x, math.inf)
    best[..., :2] = x[..., :2]
    return x + best.amin()


def causal(x: Tensor) -> Tensor:
    n = x.shape[-1]
    score = (x[..., :1] * torch.ones(n)).unsqueeze(-2).expand(*x.shape, n)
    keep = torch.ones(n, n, dtype=torch.bool).tril()
    return (score.masked_fill(~keep, -math.inf).softmax(-1) * x.unsqueeze(-1)).sum(-1)


HARMLESS = {
    "maximum": running_maximum,
    "assigned": lowest,
    "causal": causal,
    "relu": lambda x: x + filled(x.detach(), 0).log().relu(),
    "atan2": lambda x: x + torch.atan2(x * 0, x * 0),
    "norm": lambda x: x + (x * 0).norm() + (x * 0).std(),
    "detached": lambda x: torch.where(x.detach() > 99, filled(x.detach(), 0).log(), x),
    "cleaned": lambda x: x + (filled(x.detach(), 0) / 0).nan_to_num(),
    "unused": lambda x: (x.detach() * math.nan, x)[1],
    "sigmoid": lambda x: x * (torch.full_like(x, math.inf)).sigmoid(),
    "empty": lambda x: torch.empty_like(x).copy_(x) + torch.empty(3).fill_(1.0).sum(),
    "compared": lambda x: x * (x < torch.tensor(math.inf)),
    "clamped": lambda x: x.clamp(-math.inf, math.inf),
    "logsumexp": lambda x: x + torch.cat([x[..., :1], torch.full_like(x[..., :1], -math.inf)], -1).logsumexp(-1, True),
}


@pytest.mark.parametrize("harmless", HARMLESS)
@pytest.mark.parametrize("net", NETS)
def test_infinities_that_end_before_the_loss_are_no_fault(net: str, harmless: str) -> None:
    model, (x, y) = build(net), batch()
    model.mid = Fault(model.mid, HARMLESS[harmless])
    assert examine(model, x, y) is None


@pytest.mark.parametrize("net", NETS)
def test_clean_nets(net: str) -> None:
    model, (x, y) = build(net), batch()
    assert examine(model, x, y) is None
    assert examine(model.eval(), x * 100, y) is None


def test_the_cause_is_told_from_infinities_beside_it() -> None:
    def does(x: Tensor) -> Tensor:
        harmless = filled(x, 0).log()  # −∞, first, and of no weight in logsumexp
        return torch.stack([harmless.detach(), (-x.abs() - 1).sqrt(), x]).logsumexp(0)

    model, (x, y) = build("mlp"), batch()
    model.mid = Fault(model.mid, does)
    found = examine(model, x, y)
    assert found is not None
    assert (found.operation, found.cause.kind) == ("sqrt", "sqrt-of-negative")


def test_of_two_causes_the_first_is_named() -> None:
    model, (x, y) = build("cnn"), batch()
    model.mid = Fault(model.mid, lambda x: (-x.abs() - 1).log() + (-x.abs() - 1).sqrt())
    found = examine(model, x, y)
    assert found is not None
    assert found.operation == "log"


# ------------------------------------------------------------------------------------------------ the model after it
def test_the_model_and_the_streams_are_left_as_they_were() -> None:
    model, (x, y) = build("resnet"), batch()
    model.mid = Fault(model.mid, CASES["sqrt-at-0"].does)
    model.head.weight.grad = gradient = torch.ones_like(model.head.weight)
    model.block.eval()
    state = {name: one.clone() for name, one in model.state_dict().items()}
    modes = [one.training for one in model.modules()]
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    hooks = sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())

    def run() -> Tensor:
        random.random()
        np.random.rand()  # noqa: NPY002
        model.block.train()
        return F.cross_entropy(F.dropout(model(x)), y)

    assert find_nonfinite(model, run) is not None
    assert all(torch.equal(one, state[name]) for name, one in model.state_dict().items())
    assert [one.training for one in model.modules()] == modes
    assert model.head.weight.grad is gradient
    assert all(one.grad is None for name, one in model.named_parameters() if name != "head.weight")
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]
    assert (np.random.get_state()[1] == streams[2]).all()  # noqa: NPY002
    assert sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()) == hooks


def test_the_model_is_left_as_it_was_when_the_step_fails() -> None:
    model, (x, _) = build("cnn-bn"), batch()
    before = model.bn.running_mean.clone()

    def run() -> Tensor:
        model(x)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        find_nonfinite(model, run)
    assert torch.equal(model.bn.running_mean, before)
    assert not model.bn._forward_hooks


def test_dropout_drops_what_it_dropped() -> None:
    # Only one unit in twenty is dropped, and only a dropped one gives log(0): which samples, the random state decides.
    model, (x, y) = (
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.05), Does(lambda x: x.abs().log())),
        batch(),
    )
    torch.manual_seed(3)
    start = RandomState.now()
    rows = (model(x) == -math.inf).any(dim=1).nonzero().flatten().tolist()
    torch.randn(100)
    found = find_nonfinite(model, lambda: F.cross_entropy(model(x), y % 8), images=x, random_state=start)
    assert found is not None
    assert 0 < len(rows) < 4
    assert list(found.samples) == rows


# ------------------------------------------------------------------------------------------------ the finding
def finding_of(cause: str) -> NonFinite:
    model, (x, y) = build("mlp"), batch()
    model.mid = Fault(model.mid, CASES[cause].does)
    found = examine(model, x, y)
    assert found is not None
    return found


def test_it_is_a_finding_with_plain_evidence() -> None:
    import json

    found = finding_of("exp")
    finding = found.as_finding({"optimizer": {"lr": 0.1}, "trainer": {"clip_norm": 1.0}})
    assert (finding.id, finding.severity, finding.where) == ("non-finite", "error", "mid.does")
    assert finding.explanation.startswith("The first values that are not finite come from the forward pass of exp")
    assert "exp of 100" in finding.explanation
    assert found.reached == "the loss"
    again = NonFinite.from_dict(json.loads(json.dumps(found.as_dict(), allow_nan=False)))
    assert again == found
    assert again.line == found.line


def test_remedies_by_cause() -> None:
    unclipped = {"trainer": {"clip_norm": None}}
    assert finding_of("square").as_finding().remedy == {}
    assert finding_of("square").as_finding(unclipped).remedy == {"trainer.clip_norm": 1.0}
    clipped = {"optimizer": {"lr": 0.1}, "trainer": {"clip_norm": 1.0}}
    assert finding_of("square").as_finding(clipped).remedy == {"optimizer.lr": pytest.approx(0.01)}
    assert finding_of("exp").as_finding(unclipped).remedy == {}  # code is wrong, whatever the rate
    bf16 = {"trainer": {"precision": "bf16-mixed"}}
    assert finding_of("log-0").as_finding(bf16).remedy == {}
    assert finding_of("log-bf16").as_finding(bf16).remedy == {"trainer.precision": "32-true"}
    assert finding_of("log-negative").as_finding(bf16).remedy == {}


def test_the_numbers_of_the_cause() -> None:
    found = finding_of("divided-by-0")
    assert found.cause.numbers == {"zeros": 32, "zero_over_zero": 0, "values": 32}
    assert found.counts == (0, 32, 0, 32)
    assert found.samples == (0, 1, 2, 3)
    assert finding_of("sqrt-at-0").reached == "the gradient of fc.weight and of 1 more parameters"
