"""Which norms can be folded is found on the path of the data, and nothing that would change an output is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn.utils import weight_norm as hooked_weight_norm
from torch.nn.utils.parametrizations import weight_norm
from torchvision.ops import FrozenBatchNorm2d

from clearsight.deploy.norm_pairs import after_norm, find_pairs
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.frozen_norm import FrozenBatchNorm


class Net(nn.Module):
    """Layers by name, and how they are run."""

    def __init__(self, run: Callable[[Net, Tensor], object], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = run

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def conv(*, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1, groups=groups)


def norm() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(4)


def found(model: nn.Module, x: Tensor | None = None) -> tuple[list[tuple[str, str]], dict[str, str]]:
    model.eval()
    x = torch.randn(2, 4, 8, 8) if x is None else x
    names = {layer: name for name, layer in model.named_modules()}
    pairs, kept = find_pairs(model, [partial(model, x)])
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in names)
    return [(names[a], names[b]) for a, b in pairs], {names[layer]: why for layer, why in kept}


PLAIN = {
    "in a row": lambda m, x: m.b(m.a(x)),
    "twice in a row": lambda m, x: m.b(m.a(m.b(m.a(x)))),
    "on two levels": lambda m, x: [m.b(m.a(x)), m.b(m.a(x[:, :, ::2, ::2]))],
    "activated in place": lambda m, x: m.b(m.a(x)).relu_(),
    "beside a shortcut": lambda m, x: m.b(m.a(x)) + x,
    "of a dict": lambda m, x: {"out": m.b(m.a(x))},
    "by keyword": lambda m, x: m.b(input=m.a(input=x)),
    "whose shape is asked": lambda m, x: m.b(y).view(y.shape[0], -1) if (y := m.a(x)).ndim == 4 else None,
}


@pytest.mark.parametrize("name", PLAIN)
def test_pairs(name: str) -> None:
    assert found(Net(PLAIN[name], a=conv(), b=norm())) == ([("a", "b")], {})


UNFIT = {
    "skip": (lambda m, x: m.b(y) + y if (y := m.a(x)) is not None else None, "output of a is used elsewhere too"),
    "read first": (lambda m, x: m.b(m.a(x).relu_()), "output of a is used elsewhere too"),
    "read by a view": (lambda m, x: (m.b(y), y[:1].sum()) if (y := m.a(x)) is not None else 0, "used elsewhere too"),
    "result": (lambda m, x: {"in": [y], "out": m.b(y)} if (y := m.a(x)) is not None else 0, "used elsewhere too"),
    "once without": (lambda m, x: m.b(m.a(x)) + m.a(x + 1), "used elsewhere too"),
    "twice": (lambda m, x: m.b(y).relu_() + m.b(y) if (y := m.a(x)) is not None else 0, "one output of a twice"),
    "part": (lambda m, x: m.b(m.a(x)[:, :, 1:]), "not just the output of a convolution"),
    "turned": (lambda m, x: m.b(m.a(x).transpose(2, 3)), "not just the output of a convolution"),
    "before it": (lambda m, x: m.a(m.b(x)), "not just the output of a convolution"),
    "sum": (lambda m, x: m.b(m.a(x) + x), "not just the output of a convolution"),
    "once alone": (lambda m, x: m.b(m.a(x)) + m.b(x), "not just the output of a convolution"),
    "never": (lambda m, x: m.a(x), "did not run as a layer"),
    "as a function": (
        lambda m, x: F.batch_norm(m.a(x), m.b.running_mean, m.b.running_var, m.b.weight, m.b.bias),
        "did not run as a layer",
    ),
    "its weights": (lambda m, x: m.b(m.a(x)) * m.a.weight.square().sum(), "a, has weights that are used outside"),
    "its scale": (lambda m, x: m.b(m.a(x)) * m.b.weight.sum(), "it has weights that are used outside"),
    "its weights in a convolution": (
        lambda m, x: m.b(m.a(x)) + F.conv2d(x, m.a.weight, padding=1),
        "a, has weights that are used outside",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_pair_that_is_none(name: str) -> None:
    run, why = UNFIT[name]
    pairs, kept = found(Net(run, a=conv(), b=norm()))
    assert pairs == []
    assert list(kept) == ["b"]
    assert why in kept["b"]


def test_several_norms_or_layers() -> None:
    two_norms = Net(lambda m, x: (m.b(m.a(x)), m.c(m.a(x))), a=conv(), b=norm(), c=norm())
    pairs, kept = found(two_norms)
    assert pairs == []
    assert set(kept.values()) == {"the output of a goes to several norms"}
    same_output = Net(lambda m, x: m.b(y) + m.c(y) if (y := m.a(x)) is not None else 0, a=conv(), b=norm(), c=norm())
    assert found(same_output)[1]["c"] == "the output of a goes to several norms"
    two_layers = Net(lambda m, x: m.b(m.a(x)) + m.b(m.c(x)), a=conv(), c=conv(), b=norm())
    assert found(two_layers) == ([], {"b": "it normalises what several layers give: a, c"})
    chain = Net(lambda m, x: m.c(m.b(m.a(x))), a=conv(), b=norm(), c=norm())
    pairs, kept = found(chain)
    assert pairs == [("a", "b")]
    assert list(kept) == ["c"]


def test_kinds_of_norms() -> None:
    def row(m: Net, x: Tensor) -> Tensor:
        return m.b(m.a(x))

    for fits in (
        FrozenBatchNorm(4),
        FrozenBatchNorm2d(4),
        nn.SyncBatchNorm(4),
        BatchNormAct2d(4),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.BatchNorm2d(4, affine=False),
    ):
        assert found(Net(row, a=conv(), b=fits)) == ([("a", "b")], {})

    class Shifted(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().forward(x) + 0.01

    class Stubborn(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(mode=True)

    for other, why in (
        (Shifted(4), "it is a Shifted, which does more than scale and shift"),
        (Stubborn(4), "it is in training mode, also where the model is not"),
        (nn.BatchNorm2d(4, track_running_stats=False), "it has no running statistics"),
        (nn.InstanceNorm2d(4), "it has no running statistics"),
        (nn.GroupNorm(2, 4), "it normalises each image by the image's own statistics"),
    ):
        assert found(Net(row, a=conv(), b=other)) == ([], {"b": why})


def test_what_is_left_of_a_norm() -> None:
    assert type(after_norm(norm())) is nn.Identity
    inner = BatchNormAct2d(4, act_layer=nn.Hardswish).eval()
    inner.running_mean.uniform_(-1, 1)  # pyright: ignore[reportOptionalMemberAccess]
    x = torch.randn(2, 4, 5, 5)
    plain = F.batch_norm(x, inner.running_mean, inner.running_var, inner.weight, inner.bias, eps=inner.eps)
    torch.testing.assert_close(after_norm(inner)(plain), inner(x))


def test_kinds_of_layers() -> None:
    def row(m: Net, x: Tensor) -> Tensor:
        return m.b(m.a(x))

    for fits in (nn.ConvTranspose2d(4, 4, 2, 2), Conv2dSame(4, 4, 3, stride=2), nn.Conv2d(4, 4, 3, padding="same")):
        assert found(Net(row, a=fits, b=norm())) == ([("a", "b")], {})

    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().forward(x) * 2

    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    hooked = conv()
    hooked.register_forward_hook(lambda *_: None)
    for other, why in (
        (Doubled(4, 4, 3), "the layer before it, a, is a Doubled, which does more than a convolution"),
        (Standardised(4, 4, 3), "the layer before it, a, is a Standardised, which does more than a convolution"),
        (weight_norm(conv()), "the layer before it, a, computes its weight from others"),
    ):
        assert found(Net(row, a=other, b=norm())) == ([], {"b": why})
    model = Net(row, a=hooked, b=norm()).eval()
    pairs, kept = find_pairs(model, [partial(model, torch.randn(1, 4, 5, 5))])
    assert pairs == []
    assert "a, has hooks, which would see other numbers" in kept[0][1]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_a_hook_computes() -> None:
    model = Net(lambda m, x: m.b(m.a(x)), a=hooked_weight_norm(conv()), b=norm()).eval()
    pairs, kept = find_pairs(model, [partial(model, torch.randn(1, 4, 5, 5))])
    assert pairs == []
    assert "a, has hooks" in kept[0][1]


def test_linear_layers_by_the_axis_of_their_channels() -> None:
    model = Net(lambda m, x: m.b(m.a(x)), a=nn.Linear(6, 5), b=nn.BatchNorm1d(5))
    assert found(model, torch.randn(3, 6)) == ([("a", "b")], {})
    pairs, kept = found(model, torch.randn(3, 5, 6))  # channels are axis 1 for the norm, 2 for the layer
    assert pairs == []
    assert kept == {"b": "its channels are another axis than those of a"}


def test_shared_weights_and_layers_under_two_names() -> None:
    model = Net(lambda m, x: m.d(m.c(m.b(m.a(x)))), a=conv(), b=norm(), c=conv(), d=norm())
    model.c.weight = model.a.weight  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    assert found(model) == ([("a", "b"), ("c", "d")], {})


def test_networks() -> None:
    pairs, kept = found(ConvNormAct(4, 6, 3))
    assert pairs == [("0", "1")]
    assert kept == {}
    pairs, kept = found(timm.create_model("resnet10t", in_chans=4), torch.randn(1, 4, 32, 32))
    assert len(pairs) == sum(1 for _ in kept) + len(pairs) == 14
