"""Attention against the formula, a case by hand and PyTorch's own layer; what masks shut out."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.attention import CrossAttention, SelfAttention, attend


def formula(q: Tensor, k: Tensor, v: Tensor, *, added: Tensor, scale: float) -> np.ndarray:
    """Equation 1 in NumPy; `added` has -inf at shut keys, and no row without a key."""
    scores = np.einsum("nhqd,nhkd->nhqk", q.numpy(), k.numpy()) * scale + added.numpy()
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("nhqk,nhke->nhqe", weights / weights.sum(-1, keepdims=True), v.numpy())


def as_added(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)


def some_mask(*shape: int) -> Tensor:
    """A random mask in which each query has a key."""
    mask = torch.rand(shape) < 0.5
    mask[..., 0] = True
    return mask


# ------------------------------------------------------------------------------------------------ the product
def test_two_tokens_by_hand() -> None:
    # Products 0 and 2 ln 3, by √4: scores 0 and ln 3, weights 1/4 and 3/4. The first query is 0: half and half.
    q = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2 * math.log(3), 0.0, 0.0, 0.0]])
    k = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    v = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    out = attend(q[None, None], k[None, None], v[None, None])
    torch.testing.assert_close(out[0, 0], torch.tensor([[0.5, 2.0], [0.25, 3.0]]))


@pytest.mark.parametrize("scale", [None, 1.0, 0.3])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6, 5, 7), (1, 1, 1, 1, 1, 1), (2, 1, 9, 3, 8, 8)])
def test_it_is_the_formula(shape: tuple[int, ...], scale: float | None) -> None:
    n, heads, queries, keys, d, e = shape
    sizes = ((queries, d), (keys, d), (keys, e))
    q, k, v = (torch.randn(n, heads, *size, dtype=torch.float64) for size in sizes)
    factor = d**-0.5 if scale is None else scale
    for mask in (some_mask(queries, keys), some_mask(n, heads, queries, keys), some_mask(n, 1, 1, keys)):
        expected = formula(q, k, v, added=as_added(mask), scale=factor)
        for given in (mask, as_added(mask)):
            np.testing.assert_allclose(attend(q, k, v, mask=given, scale=scale).numpy(), expected, atol=1e-12)
    added = torch.randn(queries, keys, dtype=torch.float64)
    expected = formula(q, k, v, added=added, scale=factor)
    np.testing.assert_allclose(attend(q, k, v, mask=added, scale=scale).numpy(), expected, atol=1e-12)


def test_both_masks_must_allow_a_key() -> None:
    q = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    mask, keep = some_mask(4, 4), some_mask(2, 4)
    expected = formula(q, q, q, added=as_added(mask & keep[:, None, None]), scale=8**-0.5)
    for given in (mask, as_added(mask)):
        np.testing.assert_allclose(attend(q, q, q, mask=given, keep=keep).numpy(), expected, atol=1e-12)
    expected = formula(q, q, q, added=as_added(keep[:, None, None]), scale=8**-0.5)
    np.testing.assert_allclose(attend(q, q, q, keep=keep).numpy(), expected, atol=1e-12)


def shut(way: str) -> dict[str, Tensor]:
    """The last two of six keys are shut, in one of five ways."""
    mask = (torch.arange(6) < 4).expand(5, 6)
    ways = {
        "bool": {"mask": mask},
        "float": {"mask": as_added(mask)},
        "float, trained": {"mask": as_added(mask).float().requires_grad_()},
        "keep": {"keep": mask[:2]},
        "float and keep": {"mask": torch.linspace(-1, 1, 30).view(5, 6), "keep": mask[:2]},
    }
    return ways[way]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", ["bool", "float", "float, trained", "keep", "float and keep"])
def test_masked_keys_have_exactly_no_influence(way: str, dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, 3, size, 8, dtype=dtype, requires_grad=True) for size in (5, 6, 6))
    out = attend(q, k, v, **shut(way))
    other_k, other_v = k.detach().clone(), v.detach().clone()
    other_k[:, :, 4:] = 100.0
    other_v[:, :, 4:] = -1e4
    assert torch.equal(out, attend(q, other_k, other_v, **shut(way)))
    with torch.no_grad():  # a kernel of its own
        assert torch.equal(attend(q, k, v, **shut(way)), attend(q, other_k, other_v, **shut(way)))
    of_k, of_v = torch.autograd.grad(out.square().sum(), (k, v))
    assert (of_k[:, :, 4:] == 0).all()
    assert (of_v[:, :, 4:] == 0).all()
    assert (of_v[:, :, :4] != 0).all()


@pytest.mark.parametrize("size", [5, 600])
@pytest.mark.parametrize("kind", ["bool", "float", "float, trained"])
def test_a_query_without_a_key_gives_zeros(kind: str, size: int) -> None:
    q = torch.randn(2, 2, size, 8, requires_grad=True)
    mask = torch.ones(size, size, dtype=torch.bool)
    mask[1] = False
    given = mask if kind == "bool" else as_added(mask).float().requires_grad_(kind == "float, trained")
    out = attend(q, q, q, mask=given)
    assert (out[:, :, 1] == 0).all()
    assert (out[:, :, 0] != 0).any()
    wanted = [q] if not given.requires_grad else [q, given]
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.square().sum(), wanted))
    with torch.no_grad():
        assert (attend(q, q, q, mask=given)[:, :, 1] == 0).all()


def test_no_keys_give_zeros_and_no_queries_give_none() -> None:
    q, none = torch.randn(2, 2, 5, 8), torch.randn(2, 2, 0, 8)
    assert torch.equal(attend(q, none, none), torch.zeros(2, 2, 5, 8))
    assert attend(none, q, q).shape == (2, 2, 0, 8)


class Exported(nn.Module):
    def forward(self, q: Tensor, mask: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        return attend(q, q, q, mask=mask), attend(q, q, q, mask=added)


@pytest.mark.filterwarnings("ignore")  # of the exporter itself
def test_a_query_without_a_key_gives_zeros_where_it_is_exported_to() -> None:
    q, mask = torch.randn(1, 2, 4, 8), torch.ones(4, 4, dtype=torch.bool)
    mask[1] = False
    inputs = (q, mask, as_added(mask).float())
    program = torch.onnx.export(Exported().eval(), inputs, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for found in session.run(
        None, {spot.name: x.numpy() for spot, x in zip(session.get_inputs(), inputs, strict=True)}
    ):
        assert (found[:, :, 1] == 0).all()
        np.testing.assert_allclose(found, attend(q, q, q, mask=mask).numpy(), atol=1e-6)


def test_gradients_of_the_product() -> None:
    q, k, v = (torch.randn(1, 2, size, 3, dtype=torch.float64, requires_grad=True) for size in (3, 4, 4))
    added = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    keep = torch.tensor([[True, True, False, True]])
    assert torch.autograd.gradcheck(lambda *x: attend(*x[:3], mask=x[3], keep=keep), (q, k, v, added))


# ------------------------------------------------------------------------------------------------ the layers
def seen_by_torch(mask: Tensor | None, keep: Tensor | None) -> dict[str, Tensor | None]:
    """Masks as `nn.MultiheadAttention` has them: True is shut."""
    if mask is not None and mask.dtype == torch.bool:
        mask = ~mask
    shut_keys = None if keep is None else ~keep
    if mask is not None and mask.is_floating_point() and keep is not None:
        shut_keys = as_added(keep)
    return {"attn_mask": mask, "key_padding_mask": shut_keys}


def compare(ours: nn.Module, theirs: nn.Module, inputs: tuple[Tensor, ...], found: Tensor, expected: Tensor) -> None:
    """Outputs and gradients of inputs and parameters are the same."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    weight = torch.randn_like(found)
    mine = torch.autograd.grad((found * weight).sum(), (*inputs, *dict(sorted(ours.named_parameters())).values()))
    other = torch.autograd.grad((expected * weight).sum(), (*inputs, *dict(sorted(theirs.named_parameters())).values()))
    torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)


def stir(layer: nn.Module) -> None:
    """Biases that are not 0, so that a lost one is seen."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


MASKS = {
    "none": (None, None),
    "bool": (some_mask(6, 6), None),
    "float": (torch.randn(6, 6, dtype=torch.float64), None),
    "keep": (None, some_mask(3, 6)),
    "bool and keep": (some_mask(6, 6), some_mask(3, 6)),
    "float and keep": (torch.randn(6, 6, dtype=torch.float64), some_mask(3, 6)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", MASKS)
def test_self_attention_is_torchs(kind: str, bias: bool) -> None:
    mask, keep = MASKS[kind]
    theirs = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True).double()
    stir(theirs)
    ours = SelfAttention(12, 3, bias=bias).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 6, 12, dtype=torch.float64, requires_grad=True)
    expected = theirs(x, x, x, need_weights=False, **seen_by_torch(mask, keep))[0]
    compare(ours, theirs, (x,), ours(x, mask=mask, keep=keep), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("key_channels", "value_channels"), [(12, 12), (8, 8), (8, 5), (12, 8)])
@pytest.mark.parametrize("kind", MASKS)
def test_cross_attention_is_torchs(kind: str, key_channels: int, value_channels: int, bias: bool) -> None:
    mask, keep = MASKS[kind]
    mask = None if mask is None else mask[:4]
    wide = {"kdim": key_channels, "vdim": value_channels}
    theirs = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True, **wide).double()
    stir(theirs)
    ours = CrossAttention(12, 3, key_channels=key_channels, value_channels=value_channels, bias=bias).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, keys, values = (
        torch.randn(3, tokens, width, dtype=torch.float64, requires_grad=True)
        for tokens, width in ((4, 12), (6, key_channels), (6, value_channels))
    )
    expected = theirs(x, keys, values, need_weights=False, **seen_by_torch(mask, keep))[0]
    compare(ours, theirs, (x, keys, values), ours(x, keys, values, mask=mask, keep=keep), expected)


def test_keys_are_the_values_unless_others_are_given() -> None:
    layer = CrossAttention(12, 3, key_channels=8)
    assert layer.v_proj_weight.shape == (12, 8)
    x, keys = torch.randn(2, 4, 12), torch.randn(2, 6, 8)
    assert torch.equal(layer(x, keys), layer(x, keys, keys))
    assert not torch.equal(layer(x, keys), layer(x, keys, keys.flip(1)))
    one = CrossAttention(12, 3)
    same = SelfAttention(12, 3)
    same.load_state_dict(one.state_dict(), strict=True)
    torch.testing.assert_close(one(x, x), same(x))


def test_initialised_as_torchs() -> None:
    for layer in (SelfAttention(64, 4), CrossAttention(64, 4)):
        assert (layer.in_proj_bias == 0).all()
        assert (layer.out_proj.bias == 0).all()
        bound = math.sqrt(6 / (64 + 3 * 64))
        assert 0.98 * bound < layer.in_proj_weight.abs().max() <= bound
    assert CrossAttention(64, 4, key_channels=32).k_proj_weight.abs().max() <= math.sqrt(6 / 96)


def test_tokens_without_positions_are_a_set() -> None:
    layer, x, order = SelfAttention(12, 3).double(), torch.randn(2, 7, 12, dtype=torch.float64), torch.randperm(7)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])
    cross, keys = CrossAttention(12, 3).double(), torch.randn(2, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(cross(x, keys[:, order]), cross(x, keys))


def test_gradients_of_the_layers() -> None:
    x, keys = (torch.randn(2, n, 4, dtype=torch.float64, requires_grad=True) for n in (3, 2))
    mask = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])
    layer = SelfAttention(4, 2).double()
    assert torch.autograd.gradcheck(lambda x: layer(x, mask=mask), (x,))
    assert torch.autograd.gradcheck(CrossAttention(4, 2).double(), (x, keys))


@pytest.mark.parametrize("make", [SelfAttention, CrossAttention])
def test_weights_drop_out_in_training_only(make: type[SelfAttention | CrossAttention]) -> None:
    layer = make(8, 2, dropout=0.5)
    with torch.no_grad():  # the values and what follows: 1 for every token
        layer.in_proj_weight[16:] = 0
        layer.in_proj_bias[16:] = 1
        layer.out_proj.weight.copy_(torch.eye(8))
    x = torch.randn(200, 20, 8)
    given = (x,) if make is SelfAttention else (x, x)
    out = layer(*given)  # sums of the weights that are left, doubled
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    assert out.std() > 0.1
    torch.testing.assert_close(layer.eval()(*given), torch.ones_like(x))


def test_in_mixed_precision_a_wide_mask_fits() -> None:
    layer, x, mask = SelfAttention(16, 2), torch.randn(2, 5, 16), torch.randn(5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, mask=mask)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x, mask=mask), rtol=0.05, atol=0.02)
    assert layer.bfloat16()(x.bfloat16(), mask=mask).dtype == torch.bfloat16


def test_what_does_not_fit_is_refused() -> None:
    for make in (SelfAttention, CrossAttention):
        with pytest.raises(
            ConfigError, match=rf"{make.__name__}: heads: found 5, .* 12 channels; use 1, 2, 3, 4, 6, 12"
        ):
            make(12, 5)
        with pytest.raises(RangeError, match=r"in \[0, 1\), got 1.0"):
            make(12, 3, dropout=1.0)
    with pytest.raises(ShapeError, match=r"SelfAttention: x: expected \(n, l, c\), got \(2, 12\)"):
        SelfAttention(12, 3)(torch.randn(2, 12))
    with pytest.raises(ShapeError, match=r"CrossAttention: keys: expected \(n, l, c\), got \(6, 12\)"):
        CrossAttention(12, 3)(torch.randn(2, 4, 12), torch.randn(6, 12))
    q = torch.randn(2, 3, 4, 8)
    with pytest.raises(ShapeError, match=r"attend: v: expected \(n, heads, l, d\), got \(3, 4, 8\)"):
        attend(q, q, q[0])
    with pytest.raises(
        ShapeError, match=r"attend: mask: expected \(queries, keys\) or \(n, heads, queries, keys\), got"
    ):
        attend(q, q, q, mask=torch.ones(2, 4, 4, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"attend: keep: expected \(n, keys\), got \(4,\)"):
        attend(q, q, q, keep=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"attend: mask: must be bool \(True: may look\) or float .* got torch.int64"):
        attend(q, q, q, mask=torch.ones(4, 4, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"attend: keep: must be bool \(True: a real key\), got torch.float32"):
        attend(q, q, q, keep=torch.ones(2, 4))
