"""The learning rate over a run: a factor on each group's rate, a pure function of the share of the run that is done."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Any

from clearsight.recipe.schema import ScheduleConfig

__all__ = ["Plateau", "Schedule", "schedule_factor"]


def schedule_factor(config: ScheduleConfig, progress: float) -> float:
    """Factor on the learning rate.

    In the first `warmup` of the run the factor rises from `warmup_start` to 1: linearly, or along half a cosine for
    `one_cycle` (Smith 2018, arXiv:1803.09820, with the cosine annealing of Loshchilov & Hutter 2017, arXiv:1608.03983;
    the momentum is not cycled). After it `linear` falls linearly and `cosine` and `one_cycle` along half a cosine to
    `final`; `step` multiplies by `gamma` at each milestone; `constant` stays, and so does `plateau`, which is lowered
    by `Plateau`.

    Args:
        config: the recipe's `schedule` section.
        progress: share of the run that is done, in [0, 1]: 0 at the first step and 1 at the last.

    Returns:
        A factor in [0, 1].
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < config.warmup:
        rise = progress / config.warmup
        if config.name == "one_cycle":
            rise = (1 - math.cos(math.pi * rise)) / 2
        return config.warmup_start + (1 - config.warmup_start) * rise
    after = (progress - config.warmup) / (1 - config.warmup)
    if config.name == "linear":
        return 1 + (config.final - 1) * after
    if config.name in ("cosine", "one_cycle"):
        return config.final + (1 - config.final) * (1 + math.cos(math.pi * after)) / 2
    if config.name == "step":
        return config.gamma ** bisect.bisect_right(sorted(config.milestones), progress)
    return 1.0


@dataclass(slots=True)
class Plateau:
    """Lowers the rate when the watched metric stands still (PyTorch's ReduceLROnPlateau with threshold 0).

    Args:
        gamma: factor of one lowering.
        patience: evaluations without improvement that are endured; one more lowers the rate.
        factor: the factor now.
        best: the best score so far, larger is better; None before the first evaluation.
        waited: evaluations since the best one.
    """

    gamma: float
    patience: int
    factor: float = 1.0
    best: float | None = None
    waited: int = 0

    def see(self, score: float) -> None:
        """Take in one evaluation; `score` is larger where the model is better, and NaN is no improvement."""
        if self.best is None or score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor *= self.gamma
            self.waited = 0


class Schedule:
    """`schedule_factor`, and the state that `plateau` needs.

    Args:
        config: the recipe's `schedule` section.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        self.plateau = Plateau(gamma=config.gamma, patience=config.patience)

    def factor(self, progress: float) -> float:
        """Factor on the learning rate at a share of the run in [0, 1]."""
        return schedule_factor(self.config, progress) * self.plateau.factor

    def see(self, score: float) -> None:
        """Take in one evaluation, larger is better; only `plateau` minds."""
        if self.config.name == "plateau":
            self.plateau.see(score)

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"factor": self.plateau.factor, "best": self.plateau.best, "waited": self.plateau.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.plateau.factor, self.plateau.best, self.plateau.waited = state["factor"], state["best"], state["waited"]
