"""What a small training is told to do, as a recipe that the doctor reads and whose remedies are taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

__all__ = ["HABITS", "Setup", "patched", "recipe_of", "resolved"]

# Net → optimiser, rate and steps with which it learns well.
HABITS: dict[str, tuple[str, float, int]] = {
    "mlp": ("sgd", 0.05, 240),
    "cnn": ("sgd", 0.03, 240),
    "cnn_bn": ("sgd", 0.05, 240),
    "resnet": ("sgd", 0.05, 240),
    "depthwise": ("adam", 5e-3, 240),
    "vit": ("adamw", 3e-3, 400),
    "dense": ("sgd", 0.05, 240),
    "mixer": ("adamw", 3e-3, 240),
    "next": ("adam", 5e-3, 240),
    "vgg": ("sgd", 0.05, 240),
    "inception": ("adamw", 5e-3, 240),
    "rows": ("adam", 5e-3, 240),
}
_RATES = {"sgd": 0.03, "adam": 3e-3, "adamw": 3e-3}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Knobs of one training.

    Args:
        data: key of `doctor_data.SETS`.
        net: key of `doctor_nets.NETS`.
        seed: of the split, the weights and the order.
        optimizer: `sgd`, `adam` or `adamw`; empty takes the net's own.
        lr: 0 takes the net's own.
        momentum: of SGD.
        weight_decay: coupled for `sgd` and `adam`.
        schedule: `cosine`, `step`, `constant`, `plateau` (flat, then ten times lower), `early` (falls to a ten
            thousandth at a twentieth of the run) or `rising`.
        warmup: share of the run.
        steps: of the optimiser; 0 takes the net's own.
        batch: images of a batch.
        accumulate: batches of a step.
        clip: norm that gradients are clipped to.
        smoothing: of labels.
        dropout: before the last layer.
        norm: `bn`, `gn`, `none`; empty takes the net's own.
        activation: empty takes the net's own.
        width: factor on all widths.
        augment: names of random changes: `shift`, `noise`, `erase`, `flip`, `turn`, `cover`.
        images: training images at most; 0 takes all.
        ratio: of the largest to the smallest class.
        bf16: autocast.
        frozen: only the last layer is trained.
        pretrained: all of it was trained before.
        shuffle: each epoch.
        scale: what normalised images are multiplied by.
        offset: what is then added.
        gain: what initial weights are multiplied by.
        left_out: the last layer is not given to the optimiser.
        patience: evaluations without a lower validation loss after which it stops and takes the best weights; 0 never.
    """

    data: str
    net: str
    seed: int = 0
    optimizer: str = ""
    lr: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup: float = 0.05
    steps: int = 0
    batch: int = 32
    accumulate: int = 1
    clip: float | None = None
    smoothing: float = 0.0
    dropout: float = 0.0
    norm: str = ""
    activation: str = ""
    width: float = 1.0
    augment: tuple[str, ...] = ()
    images: int = 0
    ratio: float = 1.0
    bf16: bool = False
    frozen: bool = False
    pretrained: bool = False
    shuffle: bool = True
    scale: float = 1.0
    offset: float = 0.0
    gain: float = 1.0
    left_out: bool = False
    patience: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def resolved(setup: Setup) -> Setup:
    """With the net's own optimiser, rate and steps where none are given."""
    own, rate, steps = HABITS[setup.net]
    name = setup.optimizer or own
    if name != own:
        rate = _RATES[name]
    return replace(setup, optimizer=name, lr=setup.lr or rate, steps=setup.steps or steps)


def recipe_of(setup: Setup) -> dict[str, dict[str, Any]]:
    """The run as nested plain values, keys as in the recipes of `clearsight`.

    Args:
        setup: of the run, resolved.
    """
    optimizer, lr = setup.optimizer, setup.lr
    return {
        "optimizer": {"name": optimizer, "lr": lr, "momentum": setup.momentum, "weight_decay": setup.weight_decay},
        "schedule": {"name": setup.schedule, "warmup": setup.warmup},
        "trainer": {
            "steps": setup.steps,
            "clip_norm": setup.clip,
            "accumulate": setup.accumulate,
            "precision": "bf16-mixed" if setup.bf16 else "32-true",
        },
        "loader": {"batch_size": setup.batch, "workers": 0, "cache": "none", "drop_last": True},
        "model": {"dropout": setup.dropout, "label_smoothing": setup.smoothing},
    }


# Key of a remedy → knob.
_KEYS = {
    "optimizer.lr": "lr",
    "optimizer.name": "optimizer",
    "optimizer.momentum": "momentum",
    "optimizer.weight_decay": "weight_decay",
    "schedule.name": "schedule",
    "schedule.warmup": "warmup",
    "trainer.clip_norm": "clip",
    "trainer.steps": "steps",
    "trainer.early_stop.patience": "patience",
    "loader.batch_size": "batch",
    "model.dropout": "dropout",
    "model.label_smoothing": "smoothing",
}

# Finding → knobs, where the remedy is in words and a knob of the benchmark is just that.
_ADVICE: dict[str, dict[str, Any]] = {
    "unshuffled": {"shuffle": True},
    "input-not-normalised": {"scale": 1.0, "offset": 0.0},
    "normalisation-mismatch": {"scale": 1.0, "offset": 0.0},
    "activation-scale": {"gain": 1.0},
    "initial-loss-off": {"gain": 1.0},
    "identical-units": {"gain": 1.0},
    "not-in-optimizer": {"left_out": False},
    "not-updated": {"left_out": False, "frozen": False},
    "frozen-parameters": {"frozen": False},
    "underfitting": {"width": 1.0},
    "vanishing-gradient": {"norm": "bn", "activation": "relu"},
    "saturated-units": {"norm": "bn", "activation": "relu"},
    "tiny-batch-norm": {"norm": "gn"},
    "norm-statistics-drift": {"norm": "gn"},
    "augmentation-breaks-label": {"augment": ()},
    "few-examples": {"images": 0},
    "over-regularised": {"dropout": 0.0, "weight_decay": 1e-4, "smoothing": 0.0},
}


def patched(setup: Setup, finding: Mapping[str, Any]) -> Setup | None:
    """With the remedy of a finding: its recipe patch, else what its words say; None where no knob is that.

    Args:
        setup: with the fault in it.
        finding: its `id` and `remedy`.
    """
    changes: dict[str, Any] = {}
    for key, value in finding["remedy"].items():
        if key in _KEYS:
            changes[_KEYS[key]] = value
        elif key == "loader.drop_last":
            return None  # batches of the benchmark are full already
        elif key == "trainer.precision":
            changes["bf16"] = "bf16" in str(value)
    changes = changes or _ADVICE.get(finding["id"], {})
    if not changes:
        return None
    new = replace(setup, **changes)
    return None if new == setup else new
