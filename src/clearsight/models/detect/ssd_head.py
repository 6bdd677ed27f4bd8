"""SSD's two heads: one convolution each on every map, with weights of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clearsight.models.detect.ssd_levels import xavier_init

__all__ = ["SsdHead", "SsdScoring"]


class SsdScoring(nn.Module):
    """Some values of each default box.

    Shape: maps `(n, channels[i], h, w)` → `(n, l, values)`, map by map, row by row, at each place box by box.

    Args:
        channels: of the maps.
        anchors: boxes a place, of each map.
        values: of each box.
    """

    def __init__(self, channels: Sequence[int], anchors: Sequence[int], values: int) -> None:
        super().__init__()
        self.values = values
        self.module_list = nn.ModuleList(
            nn.Conv2d(width, count * values, 3, padding=1) for width, count in zip(channels, anchors, strict=True)
        )
        xavier_init(self)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The values of all maps' boxes."""
        maps = [layer(level) for layer, level in zip(self.module_list, levels, strict=True)]
        return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, self.values) for x in maps], dim=1)


class SsdHead(nn.Module):
    """Both heads, with torchvision's parameter names.

    Args:
        channels: of the maps.
        anchors: boxes a place, of each map.
        classes: k; the head has one more, the first, for background.
    """

    def __init__(self, channels: Sequence[int], anchors: Sequence[int], classes: int) -> None:
        super().__init__()
        self.classification_head = SsdScoring(channels, anchors, classes + 1)
        self.regression_head = SsdScoring(channels, anchors, 4)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits `(n, l, k + 1)` and deltas `(n, l, 4)` of `(n, c, h, w)` maps."""
        return self.classification_head(levels), self.regression_head(levels)
