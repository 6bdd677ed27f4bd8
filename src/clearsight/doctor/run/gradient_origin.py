"""Whether the gradient that the optimiser uses is the one that the backward pass gave."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from clearsight.doctor.run.hook import Hook

__all__ = ["GradientOrigin"]

TURNED = 0.1  # share of values with another sign; noise that brings the cosine below 0.8 turns a fifth and more
TINY = torch.finfo(torch.float32).tiny


class GradientOrigin:
    """Keeps gradients as backward leaves them, and holds against them what the optimiser is given.

    In a measured step a few parameters have hooks. The result is the cosine between both gradients, and is 1 for what
    sound loops do to gradients: a factor on all or on a layer (unscaling, clipping by norm); weight decay by hand (what
    is a multiple of the weights is not counted); batches accumulated in `.grad` or in buffers of the loop's own (the
    sum of what several passes left will do as well as the last one); and all that turns hardly any sign: clipping by
    value, masks. With several processes gradients are averaged between them, and nothing is looked at.

    Args:
        model: without wrappers.
        count: parameters that are looked at, spread over the model.
        largest: values of a parameter; larger ones are left out, so that copies cost nothing.

    Attributes:
        cosine: of the last step that was measured, in [0, 1]; None where nothing could be compared.
    """

    def __init__(self, model: nn.Module, *, count: int = 4, largest: int = 2**16) -> None:
        self.cosine: float | None = None
        self._model, self._count, self._largest = model, count, largest
        self._handles: list[RemovableHandle] = []
        self._clear()

    def arm(self) -> None:
        """Put the hooks in, for the step that comes."""
        self.disarm()
        if _alone():
            self._chosen = self._choice()
            for index, parameter in enumerate(self._chosen):
                self._handles.append(parameter.register_post_accumulate_grad_hook(Hook(self._behind_backward, index)))

    def disarm(self) -> None:
        """Take the hooks out and forget what is half measured."""
        self._unhook()
        self._clear()

    def compare(self) -> None:
        """Hold the gradients of now against those that were kept; right before the optimiser's step."""
        self._unhook()
        found = []
        with torch.no_grad():
            for index, (last, total) in self._kept.items():
                parameter, now = self._chosen[index], self._chosen[index].grad
                if now is not None and _is_plain(now) and now.shape == last.shape and now.device == last.device:
                    weights = parameter.detach().flatten().float()
                    found.append(torch.stack([_parts(before, now, weights) for before in (last, total)]))
            self._found = torch.stack(found).sum(0) if found else None

    def fetch(self) -> None:
        """Bring in `cosine`, once the step is done."""
        cosines = [_cosine(*row) for row in self._found.tolist()] if self._found is not None else [math.nan]
        self.cosine = None if math.isnan(sum(cosines)) else max(cosines)

    def _choice(self) -> list[nn.Parameter]:
        """Of each part of the model the parameter with the most values that is not too large."""
        learning = [p for p in self._model.parameters() if p.is_leaf and p.requires_grad]
        fit = [p for p in learning if not nn.parameter.is_lazy(p) and _is_plain(p.detach())]
        fit = [p for p in fit if 1 < p.numel() <= self._largest and p.device == fit[0].device]
        parts = [fit[len(fit) * k // self._count : len(fit) * (k + 1) // self._count] for k in range(self._count)]
        return [max(part, key=lambda parameter: parameter.numel()) for part in parts if part]

    def _behind_backward(self, index: int, parameter: Tensor) -> None:
        gradient = parameter.grad
        if torch.compiler.is_compiling() or gradient is None or not _is_plain(gradient):
            return
        with torch.no_grad():
            last = gradient.detach().clone()
            self._kept[index] = (last, self._kept[index][1] + last if index in self._kept else last)

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _clear(self) -> None:
        self._chosen: list[nn.Parameter] = []
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}  # gradient behind the last pass, sum of those behind all
        self._found: Tensor | None = None


def _alone() -> bool:
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1


def _is_plain(tensor: Tensor) -> bool:
    """Dense numbers, and no tensor of a kind of its own, such as those that are split over devices."""
    return type(tensor) is Tensor and tensor.layout == torch.strided and tensor.is_floating_point()


def _parts(before: Tensor, now: Tensor, weights: Tensor) -> Tensor:
    """What of a gradient is neither that of before nor the weights' own direction.

    Args:
        before: as backward left it.
        now: of the same shape.
        weights: `(n,)` float32, the parameter's values.

    Returns:
        `(4,)`: squared length of what is foreign, and of all; values whose sign has turned, and values that had one.
    """
    before, now = before.flatten().float(), now.flatten().float()
    signs, length = before.sign(), now.dot(now)
    turned = (signs * now.sign() < 0).sum()
    before, now = _without(before, weights), _without(now, weights)
    common = (before.dot(now) / before.norm().clamp_min(TINY)).clamp_min(0)
    foreign = (now.dot(now) - common.square()).clamp_min(0)
    return torch.stack([foreign, length, turned.float(), (signs != 0).sum().float()])


def _without(vector: Tensor, direction: Tensor) -> Tensor:
    return vector - direction * (vector.dot(direction) / direction.dot(direction).clamp_min(TINY))


def _cosine(foreign: float, length: float, turned: float, signs: float) -> float:
    """NaN where there was no gradient, or one that is not finite."""
    if not math.isfinite(foreign + length) or length <= 0 or not signs:
        return math.nan
    return 1.0 if turned <= TURNED * signs else math.sqrt(max(0.0, 1 - foreign / length))
