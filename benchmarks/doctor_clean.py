"""Sound runs, varied on purpose in ways that rules are apt to take for faults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from doctor_setup import Setup, resolved

__all__ = ["VARIATIONS", "clean_setups"]

# What each variation turns; batches of more images get fewer steps, as much as a run may take.
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sgd": {"optimizer": "sgd"},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.01},
    "no momentum": {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1},
    "constant rate": {"schedule": "constant", "warmup": 0.0},
    "steps of the rate": {"schedule": "step"},
    "long plateau, then a drop": {"schedule": "plateau"},
    "long warm-up": {"warmup": 0.3},
    "half the rate": {"lr": -0.5},
    "twice the rate": {"lr": -2.0},
    "batch of 8": {"batch": 8},
    "batch of 16": {"batch": 16},
    "batch of 128": {"batch": 128, "steps": 120},
    "batch of 512": {"batch": 512, "steps": 80},
    "batch norm": {"norm": "bn"},
    "group norm": {"norm": "gn"},
    "GELU": {"activation": "gelu"},
    "leaky ReLU": {"activation": "leaky"},
    "tanh": {"activation": "tanh"},
    "light dropout": {"dropout": 0.2},
    "dropout of a half": {"dropout": 0.5},
    "smoothed labels": {"smoothing": 0.1},
    "clipped": {"clip": 1.0},
    "no decay": {"weight_decay": 0.0},
    "shifts": {"augment": ("shift",)},
    "strong augmentation": {"augment": ("shift", "noise", "erase")},
    "small data": {"images": 200},
    "two steps' batches in one": {"accumulate": 2, "steps": 160},
    "four steps' batches in one": {"accumulate": 4, "batch": 16, "steps": 160},
    "bf16": {"bf16": True},
    "2 : 1": {"ratio": 2.0},
    "5 : 1": {"ratio": 5.0},
    "trained before, body frozen": {"frozen": True, "pretrained": True},
    "wider": {"width": 1.5},
    "half as wide": {"width": 0.5},
    "inputs in [0, 1]": {"scale": 0.5, "offset": 0.5},
    "stopped early": {"patience": 6},
}


def clean_setups(part: str, sets: Sequence[str], nets: Sequence[str], count: int) -> Iterator[tuple[str, Setup]]:
    """Name and setup of each sound run: every variation alone in turn, later ones two together.

    Args:
        part: its name, from which the draws come.
        sets: of data.
        nets: architectures.
        count: how many.
    """
    draws = np.random.default_rng(sum(map(ord, part)))
    names = list(VARIATIONS)
    pairs = [(data, net) for data in sets for net in nets]
    for number in range(count):
        first = names[number % len(names)]
        chosen = [first]
        if number >= len(names) * 3:
            chosen.append(names[int(draws.integers(len(names)))])
        data, net = pairs[(number + number // len(names)) % len(pairs)]
        setup = resolved(Setup(data=data, net=net, seed=number % 5))
        for name in dict.fromkeys(chosen):
            setup = _varied(setup, VARIATIONS[name])
        yield " + ".join(dict.fromkeys(chosen)), setup


def _varied(setup: Setup, changes: dict[str, Any]) -> Setup:
    """With a variation; a negative rate is a factor, and another optimiser comes with its own rate."""
    changes = dict(changes)
    if changes.get("lr", 0.0) < 0:
        changes["lr"] = -changes["lr"] * setup.lr
    if "optimizer" in changes and changes["optimizer"] != setup.optimizer and "lr" not in changes:
        changes["lr"] = 0.0
    return resolved(replace(setup, **changes))
