"""What losses ask of their targets; no check is compiled, and none makes a GPU wait.

Shapes cost nothing. Of values a loss looks at a sample before (targets up to 4096 elements are seen whole), and at all
of them when an operation stumbled over an id or the result is no number: then the time does not matter any more.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]

from clearsight.errors import ConfigError, RangeError, ShapeError, nearest

__all__ = ["check_choice", "check_range", "check_same_shape", "refuse_ids", "trace_nan"]

SAMPLE = 4096
ROUNDING = 1e-4  # probabilities that were resized or mixed may miss 0 and 1 by this


def check_choice(name: str, choices: Collection[str], what: str) -> None:
    """Refuse an option that does not exist, such as a reduction.

    Raises:
        ConfigError: with the nearest that does.
    """
    if name not in choices:
        raise ConfigError(f"{what}: there is none named {name!r}{nearest(name, choices)}")


def check_same_shape(pred: Tensor, target: Tensor, what: str = "target") -> None:
    """Refuse what would be broadcast.

    Raises:
        ShapeError: the shapes differ.
    """
    if pred.shape != target.shape:
        raise ShapeError(
            f"{what}: expected the shape of the prediction, {tuple(pred.shape)}, got {tuple(target.shape)}; they are "
            "not broadcast, because (n,) beside (n, 1) would compare each with every other"
        )


def check_range(target: Tensor, *, ignore_index: int | None = None) -> None:
    """Refuse targets of yes-or-no decisions outside [0, 1], and NaN.

    Args:
        target: probabilities, or whole numbers 0 and 1. Of more than 4096 an evenly spread sample is looked at.
        ignore_index: a value that is allowed besides.

    Raises:
        RangeError: a value is out of range. Checked on CPUs only.
    """
    if not _readable(target) or target.dtype == torch.bool:
        return
    seen = _sample(target)
    slack = ROUNDING if target.is_floating_point() else 0.0
    low, high = (bound.item() for bound in seen.aminmax())
    if -slack <= low and high <= 1 + slack:  # neither holds for NaN
        return
    counted = seen if ignore_index is None else seen[seen != ignore_index]
    wrong = counted[~((counted >= -slack) & (counted <= 1 + slack))]
    if not len(wrong):
        return
    found = wrong[0].item()
    if not target.is_floating_point():
        raise _wrong_id(int(found), 2)
    raise RangeError(
        f"target: found {found:.6g}, expected probabilities from 0 to 1; divide masks of 0 and 255 by 255, and put "
        "logits through a sigmoid or softmax"
    )


def refuse_ids(target: Tensor, classes: int, *, ignore_index: int | None = None) -> None:
    """Say which class id an operation stumbled over; to be called where it did.

    Args:
        target: class ids.
        classes: how many there are.
        ignore_index: an id that is allowed besides 0 … classes - 1.

    Raises:
        RangeError: one is out of range.
    """
    counted = target if ignore_index is None else target[target != ignore_index]
    wrong = counted[(counted < 0) | (counted >= classes)]
    if len(wrong):
        raise _wrong_id(int(wrong[0]), classes)


def trace_nan(loss: Tensor, **targets: Tensor | None) -> Tensor:
    """A loss as it is; where it is no number because a target is none, an error says so.

    Args:
        loss: of any shape. Reading one number costs nothing on a CPU; of a loss that is not reduced a sample is read.
        targets: what it was made of besides predictions, by the name of the argument.

    Raises:
        RangeError: the loss is not finite, and neither is a target. Checked on CPUs only.
    """
    if not _readable(loss):
        return loss
    total = loss.detach() if loss.numel() == 1 else _sample(loss.detach()).sum()
    if math.isfinite(total.item()) or _len_torch_dispatch_stack():
        return loss  # where somebody follows each operation, it is seen there where the first NaN comes from
    for name, target in targets.items():
        if target is None or not target.is_floating_point():
            continue
        wrong = ~torch.isfinite(target)
        if wrong.any():
            place = tuple(wrong.nonzero()[0].tolist())
            raise RangeError(
                f"{name}: expected finite numbers, found {target[place].item()} at {place}, and {int(wrong.sum())} "
                "such in all; look for what is missing in the labels"
            )
    return loss


def _readable(x: Tensor) -> bool:
    """Whether a value can be read at no cost: an ordinary tensor on a CPU, not one that is traced or mapped over."""
    if torch.compiler.is_compiling() or type(x) is not Tensor or x.device.type != "cpu" or not x.numel():
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(x)  # pyright: ignore


def _sample(x: Tensor) -> Tensor:
    """All elements, or some 4096 evenly over the memory; a view."""
    if x.numel() <= SAMPLE:
        return x
    in_memory = x.permute(sorted(range(x.ndim), key=x.stride, reverse=True)).flatten()
    return in_memory[:: (x.numel() // SAMPLE) | 1]  # odd: no column of an even width is seen again and again


def _wrong_id(found: int, classes: int) -> RangeError:
    return RangeError(
        f"target: found class id {found}, expected 0 to {classes - 1}; set ignore_index={found} if it marks what does "
        "not count, else give the model more classes"
    )
