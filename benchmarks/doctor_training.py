"""One small training in a plain PyTorch loop, with the doctor looking on; faults take hold of its parts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doctor_data import Split
from doctor_nets import build_net, layers_of
from doctor_setup import Setup, recipe_of

__all__ = ["Bench", "Looker"]

EVALUATIONS = 20


class Looker:
    """What is told of a training as it goes; this one does not listen. The doctor and the peers are made of it."""

    def begin(self, bench: Bench) -> None:
        """All is built and nothing trained."""

    def batches(self, given: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, which it may time."""
        return given

    def kept(self, images: Tensor, labels: Tensor) -> None:
        """A batch, before the forward pass."""

    def step(self, bench: Bench, loss: Tensor, accuracy: float) -> None:
        """A step is done."""

    def evaluated(self, bench: Bench, loss: float, accuracy: float, scores: dict[str, float]) -> None:
        """The model was scored on validation images."""

    def end(self, bench: Bench, *, stopped: str) -> None:
        """It is over; `stopped` says why before its time."""


class Bench:
    """A training whose parts faults can change.

    Args:
        setup: its knobs, resolved.
        split: its images, in [0, 1].

    Attributes:
        model: what is trained; `loss` is set as an attribute of it.
        criterion: logits and labels to a scalar.
        inputs: changes of a batch: images, labels, step → images, labels.
        graded: called after the backward pass.
        rate: factor on the rate.
        clear: gradients are cleared before each step.
        train_mode: the mode in training.
        eval_mode: the mode in evaluation.
        sign: of the loss.
        wait: seconds that a batch takes to load.
        leak: MiB that a step keeps.
        alias: batches are views of the stored images.
        soft: labels are given to the criterion as rows of shares.
    """

    def __init__(self, setup: Setup, split: Split) -> None:
        self.setup = setup
        self.split = split
        self.draws = np.random.default_rng(setup.seed)
        torch.manual_seed(setup.seed)
        self.model: nn.Module = build_net(
            setup.net,
            split.images.shape[1:],
            split.classes,
            norm=setup.norm,
            activation=setup.activation,
            dropout=setup.dropout,
            width=setup.width,
        )
        if setup.gain != 1:
            with torch.no_grad():
                for _, layer in layers_of(self.model):
                    layer.weight.mul_(setup.gain)
        self.criterion: Callable[[Tensor, Tensor], Tensor] = lambda logits, labels: F.cross_entropy(
            logits, labels, label_smoothing=setup.smoothing
        )
        self.inputs: list[Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]] = []
        self.graded: list[Callable[[], None]] = []
        self.rate, self.sign, self.wait, self.leak = 1.0, 1.0, 0.0, 0.0
        self.clear = self.train_mode = True
        self.eval_mode = self.alias = self.soft = False
        self.onset: Callable[[], None] | None = None
        self.steps_done, self.onset_step = 0, 0
        self.stopped, self.seconds = "", 0.0
        self.curve: list[float] = []
        self._hoard: list[Tensor] = []

    # -------------------------------------------------------------------------------------------- building
    def make_ready(self) -> None:
        """Tensors and optimiser, when faults have been put in."""
        setup, split = self.setup, self.split
        axes = (0, 2, 3)
        reference = split.images
        self.mean = torch.from_numpy(reference.mean(axes, keepdims=True))
        self.std = torch.from_numpy(reference.std(axes, keepdims=True) + 1e-6)
        self.images, self.val_images = (self._normalised(part) for part in (split.images, split.val_images))
        self.labels, self.val_labels = torch.from_numpy(split.labels), torch.from_numpy(split.val_labels)
        head = layers_of(self.model)[-1][1] if layers_of(self.model) else None
        kept = {id(p) for p in head.parameters()} if head is not None else set()
        if setup.frozen:
            for parameter in self.model.parameters():
                parameter.requires_grad_(id(parameter) in kept)
        chosen = [
            one for one in self.model.parameters() if one.requires_grad and not (setup.left_out and id(one) in kept)
        ]
        self.optimizer = self._optimizer(chosen)
        self.model.loss = self.loss_of  # pyright: ignore - where a keeper of steps looks for it

    def _normalised(self, images: np.ndarray) -> Tensor:
        return (torch.from_numpy(images) - self.mean) / self.std * self.setup.scale + self.setup.offset

    def _optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        decay = self.setup.weight_decay
        if self.setup.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.setup.lr, momentum=self.setup.momentum, weight_decay=decay)
        kind = torch.optim.Adam if self.setup.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, lr=self.setup.lr, weight_decay=decay)

    def recipe(self) -> dict[str, dict[str, Any]]:
        """What the doctor is told of the run."""
        return recipe_of(self.setup)

    def targets(self, labels: Tensor) -> Tensor:
        """As the criterion takes them."""
        return F.one_hot(labels, self.split.classes).float() if self.soft else labels

    def loss_of(self, images: Tensor, targets: Tensor) -> Tensor:
        """Loss of a batch."""
        logits = self.model(images)
        self.logits = logits.detach()
        return self.sign * self.criterion(logits, targets)

    def first_batch(self) -> tuple[Tensor, Tensor]:
        """A batch as in training, without consequences for it."""
        state, draws = torch.get_rng_state(), self.draws
        self.draws = np.random.default_rng(self.setup.seed)
        images, labels = next(self._batches(timed=False))
        torch.set_rng_state(state)
        self.draws = draws
        return images.clone(), labels

    # -------------------------------------------------------------------------------------------- running
    def run(self, looker: Looker) -> None:
        """Train to the end, or to where it breaks."""
        setup = self.setup
        every = max(1, setup.steps // EVALUATIONS)
        began, stopped = time.perf_counter(), ""
        looker.begin(self)
        best, since, weights = math.inf, 0, None
        batches = looker.batches(self._batches())
        for step in range(1, setup.steps + 1):
            try:
                loss, accuracy = self._step(looker, batches, step)
            except ArithmeticError as error:  # what the doctor's keeper of steps raises is one
                stopped = str(error)
                break
            self.steps_done = step
            looker.step(self, loss, accuracy)
            if step % every == 0 or step == setup.steps:
                found = self.evaluate()
                looker.evaluated(self, *found)
                since = 0 if found[0] < best else since + 1
                if setup.patience and since == 0:
                    best, weights = found[0], {k: v.clone() for k, v in self.model.state_dict().items()}
                if setup.patience and since >= setup.patience:
                    break
        if weights is not None:
            self.model.load_state_dict(weights)
            self.evaluate()
        self.stopped = stopped
        looker.end(self, stopped=stopped)
        self.seconds = time.perf_counter() - began

    @property
    def score(self) -> float:
        """Validation accuracy at the end: the mean of the last three evaluations, or of the best weights."""
        if self.stopped or not self.curve:
            return 0.0
        return self.curve[-1] if self.setup.patience else float(np.mean(self.curve[-3:]))

    def _step(self, looker: Looker, batches: Iterator[tuple[Tensor, Tensor]], step: int) -> tuple[Tensor, float]:
        setup = self.setup
        if self.onset is not None and step >= self.onset_step:
            self.onset()
            self.onset = None
        self.model.train(self.train_mode)
        for group in self.optimizer.param_groups:
            group["lr"] = setup.lr * self.rate * self._schedule(step)
        if self.clear:
            self.optimizer.zero_grad()
        total, right = torch.zeros(()), []
        for _ in range(setup.accumulate):
            images, labels = next(batches)
            targets = self.targets(labels)
            for change in self.inputs:
                images, targets = change(images, targets, step)
            with torch.autocast("cpu", torch.bfloat16, enabled=setup.bf16):
                looker.kept(images, targets)
                loss = self.loss_of(images, targets)
            (loss / setup.accumulate).backward()
            total = total + loss.detach() / setup.accumulate
            right.append((self.logits.argmax(1) == labels).float().mean())
        for change in self.graded:
            change()
        if setup.clip is not None:
            chosen = [one for group in self.optimizer.param_groups for one in group["params"]]
            nn.utils.clip_grad_norm_(chosen, setup.clip)
        self.optimizer.step()
        if self.leak:
            self._hoard.append(torch.ones(int(self.leak * 2**18)))
        return total, float(torch.stack(right).mean())

    def _schedule(self, step: int) -> float:
        setup = self.setup
        far = step / setup.steps
        warm = min(1.0, far / setup.warmup) if setup.warmup else 1.0
        if setup.schedule == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * far))
        if setup.schedule == "step":
            return warm * 0.1 ** (int(far > 0.5) + int(far > 0.8))
        if setup.schedule == "plateau":
            return warm * (1.0 if far < 0.7 else 0.1)
        if setup.schedule == "early":
            return warm * (1.0 if far < 0.05 else 1e-4)
        return 30.0**far if setup.schedule == "rising" else warm

    def _batches(self, *, timed: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        size = min(self.setup.batch, len(self.images))
        in_order = torch.argsort(self.labels, stable=True)
        while True:
            order = torch.from_numpy(self.draws.permutation(len(self.images))) if self.setup.shuffle else in_order
            for start in range(0, len(order) - size + 1, size):
                if timed and self.wait:
                    time.sleep(self.wait)
                if self.alias:
                    yield self.images[start : start + size], self.labels[start : start + size]
                    continue
                chosen = order[start : start + size]
                yield augmented(self.images[chosen], self.setup.augment, self.draws), self.labels[chosen]

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float, dict[str, float]]:
        """Loss, accuracy and accuracy of each class on the validation images."""
        self.model.train(self.eval_mode)
        logits = self.model(self.val_images)
        loss = float(self.sign * self.criterion(logits, self.targets(self.val_labels)))
        right = (logits.argmax(1) == self.val_labels).double()
        accuracy = float(right.mean())
        self.curve.append(accuracy)
        scores = {}
        for label in range(self.split.classes):
            mine = right[self.val_labels == label]
            if len(mine):
                scores[str(label)] = float(mine.mean())
        return loss, accuracy, scores


def augmented(images: Tensor, names: tuple[str, ...], draws: np.random.Generator) -> Tensor:
    """Each image changed at random."""
    for name in names:
        if name == "shift":
            rows, columns = draws.integers(-1, 2, 2).tolist()
            images = images.roll((rows, columns), (2, 3))
        elif name == "noise":
            images = images + 0.3 * torch.from_numpy(draws.standard_normal(images.shape, dtype=np.float32))
        elif name == "erase":
            images = images.clone()
            top, left = draws.integers(0, images.shape[2] // 2, 2).tolist()
            images[:, :, top : top + images.shape[2] // 4, left : left + images.shape[3] // 4] = 0
        elif name == "flip":
            turned = torch.from_numpy(draws.random(len(images)) < 0.5)
            images = torch.where(turned[:, None, None, None], images.flip(2), images)
        elif name == "turn":
            count = draws.integers(0, 4, len(images))
            images = torch.stack([image.rot90(int(k), (1, 2)) for image, k in zip(images, count, strict=True)])
        elif name == "cover":
            images = images.clone()
            keep = images.shape[2] // 4
            images[:, :, keep:] = 0
    return images
