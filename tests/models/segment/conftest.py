"""Real slices of membranes, and learning two crops of them by heart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from clearsight.models.segment.segmenter import Segmenter
from clearsight.types import Targets


@pytest.fixture
def membrane_dice(shared_data: Path) -> Callable[..., float]:
    """Dice of the membrane on crops of real slices that a segmenter of one grey channel has learned by heart."""
    from clearsight.data.decode import read_image

    def read(kind: str, count: int) -> Tensor:
        files = [shared_data / "membrane" / kind / f"{number}.png" for number in range(count)]
        whole = np.stack([read_image(file, channels=1).reshape(512, 512) for file in files])
        return torch.from_numpy(whole[:, 200:296, 200:296].copy())

    def learn(model: Segmenter, *, steps: int, lr: float, crops: int = 2, warm: float = 0.3) -> float:
        images, membrane = read("image", crops)[:, None], (read("label", crops) < 128).long()
        none = torch.zeros(0, dtype=torch.int64)
        targets = Targets(boxes=torch.zeros(0, 4), labels=none, image=none, semantic=membrane)
        assert 0.1 < membrane.float().mean() < 0.5
        model.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        optimiser = torch.optim.AdamW(model.parameters(), lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=warm)
        for _ in range(steps):
            loss = torch.stack(list(model.loss(images, targets).values())).sum()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        found = torch.stack([one.labels for one in model.eval().predict(images, torch.tensor([[96, 96]] * crops))])
        return float(2 * (found & membrane).sum() / (found.sum() + membrane.sum()))

    return learn
