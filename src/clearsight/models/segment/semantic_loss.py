"""What a segmenter minimises: cross-entropy, an overlap, or both, over the pixels that are labelled."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, RangeError, ShapeError, nearest
from clearsight.losses.classify import cross_entropy
from clearsight.losses.focal import softmax_focal_loss
from clearsight.losses.overlap import dice_loss, tversky_loss

__all__ = ["IGNORED", "SEMANTIC_LOSSES", "SemanticLoss", "SemanticLossName"]

SemanticLossName = Literal["ce_dice", "cross_entropy", "dice", "focal", "tversky"]
SEMANTIC_LOSSES: tuple[SemanticLossName, ...] = get_args(SemanticLossName)
IGNORED = 255  # of `Targets.semantic`: no label, and the padding


class SemanticLoss(nn.Module):
    """A loss of class logits for every pixel, by name; pixels of label 255 do not count.

    `ce_dice` is cross-entropy plus Dice, terms `class` and `dice`; `cross_entropy` has the term `class`, and `dice`,
    `focal` and `tversky` each have one of their own name. Overlaps are those of the batch's pixels, averaged over
    classes; means are over the pixels that count. Half precision is widened to float32. A batch without a pixel that
    counts has a loss of 0, and gradients of 0.

    Method: see `losses.overlap.dice_ce_loss` (Isensee et al. 2021, nnU-Net), `losses.classify.cross_entropy`,
    `losses.focal.softmax_focal_loss` and `losses.overlap.tversky_loss`.

    Shape: logits `(n, k, h, w)`, semantic `(n, h, w)` int64 → scalars by name.

    Attributes:
        class_weight: `(k,)`, factors of the classes in cross-entropy and focal loss: ones until `set_class_weights`.
            They belong to the data, and are not saved with the model.

    Args:
        classes: k; the background is one of them.
        name: one of `SEMANTIC_LOSSES`.
        dice_weight: factor of the Dice term of `ce_dice`.
        label_smoothing: of cross-entropy, in [0, 1), see `losses.classify.cross_entropy`.
        gamma: of the focal loss, at least 0.

    Raises:
        ConfigError: the name is unknown, or there are fewer than two classes.
        RangeError: a number is out of its range.
    """

    class_weight: Tensor

    def __init__(
        self,
        classes: int,
        *,
        name: SemanticLossName = "ce_dice",
        dice_weight: float = 1.0,
        label_smoothing: float = 0.0,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        if name not in SEMANTIC_LOSSES:
            raise ConfigError(f"loss: there is none named {name!r}{nearest(name, SEMANTIC_LOSSES)}")
        if classes < 2:
            raise ConfigError(
                f"classes: a map of {classes} leaves nothing to tell apart; the background is a class of its own, so "
                "that one kind of thing makes 2"
            )
        if dice_weight < 0 or gamma < 0 or not 0 <= label_smoothing < 1:
            raise RangeError(
                "loss: dice_weight and gamma must be at least 0 and label_smoothing in [0, 1), got "
                f"{dice_weight}, {gamma} and {label_smoothing}"
            )
        self.classes = classes
        self.name: SemanticLossName = name
        self.dice_weight = dice_weight
        self.label_smoothing = label_smoothing
        self.gamma = gamma
        self.register_buffer("class_weight", torch.ones(classes), persistent=False)

    def set_class_weights(self, weights: Tensor) -> None:
        """Weigh the classes in cross-entropy and focal loss, as by how rare each is in the data.

        Args:
            weights: `(k,)`, at least 0 and not all 0.

        Raises:
            ShapeError: it is not one number a class.
            RangeError: one is negative or not finite, or all are 0.
        """
        if weights.shape != self.class_weight.shape:
            raise ShapeError(f"class weights: expected ({self.classes},), one a class, got {tuple(weights.shape)}")
        if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()) or not bool((weights > 0).any()):
            raise RangeError(f"class weights: expected at least 0, and one above it, got {weights.tolist()}")
        self.class_weight.copy_(weights)

    def forward(self, logits: Tensor, semantic: Tensor) -> dict[str, Tensor]:
        """Named scalar terms, whose sum is minimised.

        Args:
            logits: `(n, k, h, w)`.
            semantic: `(n, h, w)` class ids; 255 does not count.

        Raises:
            ShapeError: the map has not the size of the logits.
            RangeError: a label is none of 0 … k - 1 and not 255; found where it is cheap, on CPUs.
        """
        if self.name == "dice":
            return {"dice": dice_loss(logits, semantic, ignore_index=IGNORED)}
        if self.name == "tversky":
            return {"tversky": tversky_loss(logits, semantic, ignore_index=IGNORED)}
        if self.name == "focal":
            weight = self.class_weight
            return {
                "focal": softmax_focal_loss(logits, semantic, gamma=self.gamma, weight=weight, ignore_index=IGNORED)
            }
        entropy = cross_entropy(
            logits, semantic, smoothing=self.label_smoothing, weight=self.class_weight, ignore_index=IGNORED
        )
        if self.name == "cross_entropy":
            return {"class": entropy}
        return {"class": entropy, "dice": self.dice_weight * dice_loss(logits, semantic, ignore_index=IGNORED)}

    def extra_repr(self) -> str:
        """Classes and name, for `print(model)`."""
        return f"{self.classes}, {self.name}"
