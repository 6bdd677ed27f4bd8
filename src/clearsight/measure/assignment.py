"""Which points of a detector each object gets, under several methods of label assignment at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clearsight.assign import ASSIGNERS, Assigner
from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.errors import ConfigError
from clearsight.types import Targets

__all__ = ["Situation", "assign_by_each", "points_an_object", "situation_of"]


class Situation(NamedTuple):
    """What a detector gives its assigner to decide on.

    Args:
        points: where the head predicts.
        targets: of the batch.
        predictions: what the head says now; None where it does not tell its assigner.
        images: n.
        own: the detector's own assigner.
    """

    points: Points
    targets: Targets
    predictions: Predictions | None
    images: int
    own: Assigner

    @property
    def own_name(self) -> str:
        """Its name in a recipe."""
        named = [name for name, kind in ASSIGNERS.items() if type(self.own) is kind]
        return named[0] if named else type(self.own).__name__


class _Listener:
    """Stands in an assigner's place, notes what it is asked, and answers as the assigner does."""

    def __init__(self, own: Assigner) -> None:
        self.needs_predictions = True
        self.own = own
        self.heard: Situation | None = None

    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        if predictions is not None:
            predictions = Predictions(predictions.logits.detach().float(), predictions.boxes.detach().float())
        self.heard = Situation(points, targets, predictions, images, self.own)
        return self.own(points, targets, predictions, images=images)


@torch.no_grad()
def situation_of(model: nn.Module, images: Tensor, targets: Targets) -> Situation:
    """Run the loss of a detector and listen to what its assigner is asked.

    Args:
        model: a detector whose head, or first stage, has an assigner. It is as before afterwards.
        images: `(n, c, h, w)`.
        targets: of the batch.

    Raises:
        ConfigError: the model has no assigner, or did not ask it.
    """
    holder = _holder(model)
    listener = _Listener(holder.assigner)
    training = model.training
    model.eval()
    holder.__dict__["assigner"] = listener  # before a registered module of the same name
    try:
        _listen(model, images, targets, listener)
    finally:
        del holder.__dict__["assigner"]
        if not isinstance(listener.own, nn.Module):
            holder.__dict__["assigner"] = listener.own
        model.train(training)
    if listener.heard is None:
        raise ConfigError(f"{type(model).__name__}: its loss did not ask its assigner")
    return listener.heard


def _holder(model: nn.Module) -> Any:  # noqa: ANN401 - a module, or a loss that is none
    """The first part, or loss of a part, that has an assigner."""
    for part in model.modules():
        for one in (part, getattr(part, "criterion", None)):
            if callable(getattr(one, "assigner", None)):
                return one
    raise ConfigError(
        f"{type(model).__name__}: has no assigner, so there is nothing to explain; "
        "models with one: retinanet, fcos, ssd, yolov3, efficientdet, reppoints, light, faster_rcnn"
    )


def _listen(model: nn.Module, images: Tensor, targets: Targets, listener: _Listener) -> None:
    try:
        model.loss(images, targets)  # pyright: ignore[reportCallIssue]
    except ConfigError:  # a head without boxes of classes refuses an assigner that looks at them
        listener.needs_predictions = False
        model.loss(images, targets)  # pyright: ignore[reportCallIssue]


@torch.no_grad()
def assign_by_each(situation: Situation, assigners: Mapping[str, Assigner]) -> dict[str, Assignment | str]:
    """What each method makes of the same situation.

    Args:
        situation: of a detector.
        assigners: by name.

    Returns:
        By name the assignment, or why there is none.
    """
    points, targets, predictions, images, _ = situation
    found: dict[str, Assignment | str] = {}
    for name, assigner in assigners.items():
        if assigner.needs_predictions and predictions is None:
            found[name] = "looks at predictions of classes and boxes, which this head does not tell its assigner"
        else:
            found[name] = assigner(points, targets, predictions, images=images)
    return found


def points_an_object(assignment: Assignment, objects: int) -> Tensor:
    """`(m,)` int64: how many points of weight above 0 each object got."""
    return torch.bincount(assignment.object[assignment.weight > 0], minlength=objects)
