"""What losses ask of their targets, and what it costs to ask."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.losses.checks import check_choice, check_range, check_same_shape, refuse_ids, trace_nan


def test_names_and_shapes() -> None:
    check_choice("mean", ("mean", "sum"), "reduction")
    with pytest.raises(ConfigError, match=r"reduction: there is none named 'Sum'; did you mean 'sum'\?"):
        check_choice("Sum", ("mean", "sum"), "reduction")
    check_same_shape(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ShapeError, match=r"boxes: expected the shape of the prediction, \(2,\), got \(2, 1\)"):
        check_same_shape(torch.zeros(2), torch.zeros(2, 1), "boxes")


@pytest.mark.parametrize("wrong", [-0.01, 1.01, torch.nan, torch.inf, -torch.inf])
def test_probabilities(wrong: float) -> None:
    target = torch.rand(3, 5)
    check_range(target)
    check_range(target * (1 + 1e-6))
    target[1, 2] = wrong
    with pytest.raises(RangeError, match=f"target: found {wrong:g}, expected probabilities from 0 to 1"):
        check_range(target)
    if wrong == wrong:
        check_range(target, ignore_index=wrong)  # pyright: ignore


def test_whole_numbers() -> None:
    check_range(torch.tensor([0, 1, 255]), ignore_index=255)
    check_range(torch.tensor([True, False]))
    check_range(torch.zeros(0))
    with pytest.raises(RangeError, match="found class id 3, expected 0 to 1; set ignore_index=3"):
        check_range(torch.tensor([0, 255, 3]), ignore_index=255)
    refuse_ids(torch.tensor([0, 4, 9]), 5, ignore_index=9)  # no fault: says nothing
    for wrong in (5, -1):
        with pytest.raises(RangeError, match=f"found class id {wrong}, expected 0 to 4"):
            refuse_ids(torch.tensor([0, wrong]), 5)


def test_what_made_a_loss_nan() -> None:
    good, bad = torch.ones(2), torch.tensor([[1.0, torch.inf]])
    for loss in (torch.tensor(torch.nan), torch.full((3,), torch.inf)):
        assert trace_nan(loss, target=good, weight=None, ids=torch.ones(2, dtype=torch.int64)) is loss  # not theirs
        with pytest.raises(RangeError, match=r"weight: expected finite numbers, found inf at \(0, 1\), and 1 such"):
            trace_nan(loss, target=good, weight=bad)
    assert trace_nan(good, target=bad) is good


class _Counts(TorchDispatchMode):
    """Elements that operations read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "view" not in str(func) and not any(name in str(func) for name in ("slice", "permute", "detach", "alias")):
            self.read += sum(x.numel() for x in args if isinstance(x, torch.Tensor))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_large_target_costs_no_more_than_a_sample(layout: torch.memory_format) -> None:
    target = torch.rand(4, 8, 64, 160).contiguous(memory_format=layout)
    with _Counts() as counts:
        check_range(target)
        trace_nan(target.sum(), target=target)
        read = counts.read - target.numel()  # the sum is the loss's own
    assert 2000 < read < 3 * 4096
    last = target[-1]
    last[last > 0.96] = 255.0  # one pixel in a hundred, all in the last image
    with pytest.raises(RangeError, match="found 255, expected probabilities"):
        check_range(target)


def test_a_traced_or_mapped_tensor_is_not_read() -> None:
    def square(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        check_range(y)
        return trace_nan((x * y).square().sum(), target=y)

    x, y = torch.rand(3, 2), torch.full((3, 2), 7.0)
    slopes = torch.func.vmap(torch.func.grad(square))(x, y)
    torch.testing.assert_close(slopes, 2 * x * y * y)
    torch.compile(square, backend="aot_eager", fullgraph=True)(x, y)
