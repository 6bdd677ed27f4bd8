"""Our shapes against those of PyTorch's own meta kernels, on whole networks and where a rule must not answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from clearsight.measure.shapes import RULES, shape_rule

aten = torch.ops.aten


def signature(out):
    if out is None:
        return None
    if isinstance(out, torch.Tensor):
        return tuple(out.shape), out.dtype, out.stride()
    return tuple(signature(one) for one in out)


class Compare(TorchDispatchMode):
    """Runs PyTorch's kernel and sets our result beside it."""

    def __init__(self):
        super().__init__()
        self.used, self.wrong = set(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        rule = shape_rule(func)
        ours = None if rule is None else rule(args, kwargs)
        theirs = func(*args, **kwargs)
        if ours is not None:
            self.used.add(str(func).removeprefix("aten.").removesuffix(".default"))
            said, expected = signature(ours), signature(theirs)
            if str(func) == "aten.native_batch_norm.default" and not args[5]:
                # in evaluation CPUs and GPUs keep no statistics; the meta kernel pretends to
                said, expected = said[:1], expected[:1]
            if said != expected:
                self.wrong.append((str(func), said, expected))
        return theirs


ACTIVATIONS = (
    nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.Tanh,
)  # fmt: skip


class Everything(nn.Module):
    """Each rule at least once, forward and backward."""

    def __init__(self, *, inplace):
        super().__init__()
        makes = [nn.ReLU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.ReLU6, nn.LeakyReLU]
        acts = [make(inplace=True) for make in makes] if inplace else [make() for make in ACTIVATIONS]
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(6, 6, 3, padding=1 + i % 2, dilation=1 + i % 2, groups=1 + i % 3), nn.BatchNorm2d(6), act
            )
            for i, act in enumerate(acts)
        )
        self.norm = nn.LayerNorm(6)
        self.linear = nn.Linear(6, 5)
        self.inplace = inplace

    def forward(self, x):
        for block in self.body:
            y = block(x)
            x = x + y - 0.5 * y * y / 2
        if self.inplace:
            x = x.clone().mul_(2.0).div_(3.0).add_(x).sigmoid_()
            x = (x * 2.0).tanh_()
        tokens = self.norm(x).flatten(1, 2)
        return (
            self.linear(tokens[:, 0]).softmax(1),
            self.linear(tokens).log_softmax(-1),
            tokens[0] @ self.linear.weight.T,
        )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_our_shapes_types_and_strides_are_those_of_pytorch(training, inplace):
    with torch.device("meta"):
        model, x = Everything(inplace=inplace).train(training), torch.empty(2, 6, 8, 6, requires_grad=training)
    compare = Compare()
    with compare, torch.set_grad_enabled(training):
        outs = model(x)
        if training:
            torch.autograd.backward(outs, [torch.ones_like(out) for out in outs])
    assert compare.wrong == []
    ours = {"convolution", "addmm", "mm", "native_layer_norm", "_softmax", "_log_softmax", "add.Tensor", "mul.Tensor"}
    ours |= {f"{name}_" for name in ("relu", "silu", "hardswish", "sigmoid", "tanh")} if inplace else {"relu", "gelu"}
    if training:
        ours |= {"convolution_backward", "native_batch_norm_backward", "native_layer_norm_backward"}
        ours |= {"threshold_backward", "hardswish_backward", "silu_backward"}
    assert ours <= compare.used


def test_channels_last_stays_as_it_does_on_a_cpu():
    layer = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last)
    with torch.no_grad():
        real = layer[0](x)
    rule = RULES["convolution"]
    weight = layer[0].weight
    ours = rule((x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1), {})
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert ours.stride() == real.stride()
    norm = RULES["native_batch_norm"]
    assert norm((real, None, None, None, None, True, 0.1, 1e-5), {})[0].stride() == real.stride()


F32, F64 = torch.empty(2, 3), torch.empty(2, 3, dtype=torch.float64)
WHOLE = torch.empty(2, 3, dtype=torch.int64)
IMAGE, KERNEL = torch.empty(1, 4, 5, 5), torch.empty(6, 4, 3, 3)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("add.Tensor", (F32, torch.empty(3))),
        ("add.Tensor", (F32, F64)),
        ("mul.Tensor", (WHOLE, WHOLE)),
        ("mul.Tensor", (F32, 2j)),
        ("relu_", (WHOLE,)),
        ("add_.Tensor", (torch.empty((), dtype=torch.int64), torch.empty(()))),
        ("mm", (F32, F32)),
        ("mm", (F32, F64.T)),
        ("addmm", (torch.empty(3), F32, F32.T)),
        ("_softmax", (F32, 1, True)),
        ("convolution", (IMAGE, KERNEL[:, :3], None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
        ("convolution", (IMAGE, KERNEL, None, [1, 1], [0, 0], [3, 3], False, [0, 0], 1)),
        ("convolution", (IMAGE.double(), KERNEL, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
        ("convolution", (IMAGE, KERNEL, None, [1, 1], [0, 0], [1, 1], True, [0, 0], 1)),
        ("native_batch_norm", (IMAGE, torch.empty(5), None, None, None, True, 0.1, 1e-5)),
        ("native_batch_norm", (IMAGE.half(), None, None, None, None, True, 0.1, 1e-5)),
        ("native_layer_norm", (F32, [2], None, None, 1e-5)),
        ("native_layer_norm", (F32, [3], torch.empty(2), None, 1e-5)),
    ],
)
def test_where_pytorch_would_cast_broadcast_or_refuse_it_is_asked(name, args):
    assert RULES[name](args, {}) is None


def test_of_most_operations_there_is_no_rule():
    assert shape_rule(aten.cat.default) is None
    assert shape_rule(aten.add.Scalar) is None
