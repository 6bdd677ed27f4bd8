"""Measures what the rules of other tools look at, once an evaluation; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from doctor_nets import layers_of
from doctor_peer_rules import Epoch, Seen
from doctor_training import Bench, Looker

__all__ = ["Side", "Together"]


class Side(Looker):
    """Looks on for the peers.

    Attributes:
        seen: what their rules are given.
    """

    def begin(self, bench: Bench) -> None:
        """The first batch."""
        images, _ = bench.first_batch()
        drops = [one.p for one in bench.model.modules() if isinstance(one, nn.Dropout)]
        self.images = images
        self.seen = Seen(
            lr=bench.setup.lr,
            low=float(images.min()),
            high=float(images.max()),
            mean=images.mean((0, 2, 3)).tolist(),
            dropout=max(drops, default=0.0),
            softmax=isinstance(list(bench.model.modules())[-1], nn.Softmax),
            counts=np.bincount(bench.split.labels, minlength=bench.split.classes).tolist(),
        )
        self._accuracies: list[float] = []
        self._weights: list[Tensor] = []

    def step(self, bench: Bench, loss: Tensor, accuracy: float) -> None:
        """Losses of steps; the scores of an epoch are their mean."""
        self.seen.losses.append(float(loss))
        self.seen.step = bench.steps_done
        self._accuracies.append(accuracy)

    @torch.no_grad()
    def evaluated(self, bench: Bench, loss: float, accuracy: float, scores: dict[str, float]) -> None:
        """Gradients of the last step, weights, and what is behind each non-linearity."""
        weights = [layer.weight for _, layer in layers_of(bench.model)]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        entries = sum(one.numel() for one in gradients)
        changed = [
            float((now - then).norm() / (now.norm() + 1e-9))
            for now, then in zip(weights, self._weights or weights, strict=True)
        ]
        count = len(self._accuracies)
        self.seen.epochs.append(
            Epoch(
                step=bench.steps_done,
                loss=float(np.mean(self.seen.losses[-count:])),
                accuracy=float(np.mean(self._accuracies)),
                val_loss=loss,
                val_accuracy=accuracy,
                grad_norm=[float(one.norm()) for one in gradients],
                grad_mean=[float(one.abs().mean()) for one in gradients],
                grad_zeros=float(sum((one == 0).sum() for one in gradients)) / max(entries, 1),
                weight_std=[float(one.std(correction=0)) for one in weights],
                update=changed if self._weights else [],
                **self._behind(bench),
            )
        )
        self._accuracies = []
        self._weights = [weight.detach().clone() for weight in weights]

    def _behind(self, bench: Bench) -> dict[str, list[float]]:
        """Shares behind each ReLU and in front of each sigmoid and tanh, for the first batch."""
        found: dict[str, list[float]] = {"zeros": [], "dead": [], "saturated": []}

        def after(out_of: str, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            if out_of == "relu":
                units = (out == 0).transpose(0, 1).flatten(1) if out.ndim > 1 else out == 0
                found["zeros"].append(float(units.float().mean()))
                found["dead"].append(float(units.all(1).float().mean()))
            else:
                found["saturated"].append(float((args[0].abs() >= 5).float().mean()))

        kinds = {nn.ReLU: "relu", nn.Sigmoid: "flat", nn.Tanh: "flat"}
        modules = [one for one in bench.model.modules() if type(one) in kinds]
        handles = [one.register_forward_hook(partial(after, kinds[type(one)])) for one in modules]
        mode = bench.model.training
        try:
            bench.model.eval()(self.images)
        finally:
            bench.model.train(mode)
            for handle in handles:
                handle.remove()
        return found

    def end(self, bench: Bench, *, stopped: str) -> None:
        """Whether all was finite."""
        self.seen.finite = not stopped and all(np.isfinite(self.seen.losses))


class Together(Looker):
    """Several that look on at one training.

    Args:
        lookers: told in this order.
    """

    def __init__(self, *lookers: Looker) -> None:
        self.lookers = lookers

    def begin(self, bench: Bench) -> None:
        """All begin."""
        for one in self.lookers:
            one.begin(bench)

    def batches(self, given: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each may time them."""
        for one in self.lookers:
            given = one.batches(given)
        return given

    def kept(self, images: Tensor, labels: Tensor) -> None:
        """All are told."""
        for one in self.lookers:
            one.kept(images, labels)

    def step(self, bench: Bench, loss: Tensor, accuracy: float) -> None:
        """All are told."""
        for one in self.lookers:
            one.step(bench, loss, accuracy)

    def evaluated(self, bench: Bench, loss: float, accuracy: float, scores: dict[str, float]) -> None:
        """All are told."""
        for one in self.lookers:
            one.evaluated(bench, loss, accuracy, scores)

    def end(self, bench: Bench, *, stopped: str) -> None:
        """All end."""
        for one in self.lookers:
            one.end(bench, stopped=stopped)
