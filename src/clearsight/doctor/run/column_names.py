"""What a logged number is, told from its name: the habits of Lightning, Keras, fastai, timm, ultralytics and others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Meaning", "meaning_of"]

Split = Literal["train", "val", ""]
Kind = Literal["loss", "term", "score", "lr", "grad_norm", "step", "epoch", "seconds", "memory", "waiting", "other"]

_VAL = {"val", "valid", "validation", "eval", "evaluation", "test", "dev"}
_TRAIN = {"train", "training", "tr"}
_STEP = {"step", "steps", "global_step", "iteration", "iterations", "iter", "it", "trainer_global_step", "batch"}
_EPOCH = {"epoch", "epochs"}
_TIME = {"time", "seconds", "elapsed", "wall_time", "walltime", "timestamp", "runtime"}
_SCORES = {"accuracy", "acc", "top1", "top5", "score", "precision", "recall", "f1", "fscore", "auc", "auroc", "kappa"}
_SCORES |= {"map", "map50", "map75", "ap", "ap50", "miou", "iou", "dice", "jaccard", "r2", "psnr", "ssim"}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a column or tag holds.

    Args:
        kind: what it is; a `term` is a part of the loss.
        split: the images it was measured on; empty where the name does not say.
        name: without the split, `_` between words: `accuracy`, `loss`, `box_loss`, `map_50`.
        per: `step` or `epoch` where the name says how often it was logged (Lightning's endings), else empty.
    """

    kind: Kind
    split: Split
    name: str
    per: str = ""


def meaning_of(column: str) -> Meaning:
    """What a column of a CSV file or a tag of TensorBoard holds.

    Args:
        column: as written, such as `val/loss`, `train_loss_step`, `metrics/mAP50(B)`, `lr-AdamW`.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", _spaced(column)) if word]
    whole = "_".join(words)
    if whole in _STEP:
        return Meaning("step", "", "step")
    if whole in _EPOCH:
        return Meaning("epoch", "", "epoch")
    split: Split = "val" if _VAL & set(words) else "train" if _TRAIN & set(words) else ""
    words = [word for word in words if word not in _VAL | _TRAIN | {"metrics", "metric"}]
    per = ""
    if len(words) > 1 and words[-1] in ("step", "epoch"):
        per = words.pop()
    elif len(words) > 1 and words[0] in ("step", "epoch", "batch"):
        per = words.pop(0).replace("batch", "step")
    name = "_".join(words)
    return Meaning(_kind(words, name), split, name, per)


def _spaced(column: str) -> str:
    """Lower case, with a space where camel case begins a word; `mAP50(B)` stays one word."""
    text = re.sub(r"\(.*?\)", "", column).replace("mAP", "map").replace("mIoU", "miou").replace("IoU", "iou")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()


def _kind(words: list[str], name: str) -> Kind:
    if not words:
        return "other"
    if name in _TIME:
        return "seconds"
    if words[0] == "lr" or name.startswith("learning_rate"):
        return "lr"
    if {"grad", "norm"} <= set(words) or name in ("gradnorm", "gradient_norm"):
        return "grad_norm"
    if name in ("loss", "total_loss", "loss_total", "cost"):
        return "loss"
    if "loss" in words:
        return "term"
    if words[0] in ("memory", "rss"):
        return "memory"
    if _SCORES & set(words) or name == "boundary_f":
        return "score"
    return "other"
