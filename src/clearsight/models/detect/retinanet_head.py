"""RetinaNet's two heads: what is here, and where exactly; one set of weights for all levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clearsight.nn.conv import ConvNormAct
from clearsight.nn.init import prior_bias

__all__ = ["ClassificationHead", "RegressionHead", "RetinaNetHead"]


class ClassificationHead(nn.Module):
    """Class logits of each anchor, starting at probability 0.01 (Lin et al. 2017, section 4.1).

    Shape: levels `(n, c, h, w)` → `(n, l, k)`.

    Args:
        channels: c.
        anchors: a location.
        classes: k.
        convs: 3×3 convolutions with ReLU before the output.
    """

    def __init__(self, channels: int, anchors: int, classes: int, *, convs: int) -> None:
        super().__init__()
        self.classes = classes
        self.conv = _tower(channels, convs)
        self.cls_logits = nn.Conv2d(channels, anchors * classes, 3, padding=1)
        _small_normal(self)
        self.reset_prior()

    def reset_prior(self) -> None:
        """Start the output anew: small random weights, the prior as bias."""
        nn.init.normal_(self.cls_logits.weight, std=0.01)
        nn.init.constant_(self.cls_logits.bias, prior_bias(0.01))  # pyright: ignore[reportArgumentType]

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Logits of all levels."""
        return torch.cat([_flat(self.cls_logits(self.conv(level)), self.classes) for level in levels], dim=1)


class RegressionHead(nn.Module):
    """Box deltas of each anchor.

    Shape: levels `(n, c, h, w)` → `(n, l, 4)`.

    Args:
        channels: c.
        anchors: a location.
        convs: 3×3 convolutions with ReLU before the output.
    """

    def __init__(self, channels: int, anchors: int, *, convs: int) -> None:
        super().__init__()
        self.conv = _tower(channels, convs)
        self.bbox_reg = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        _small_normal(self)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Deltas of all levels."""
        return torch.cat([_flat(self.bbox_reg(self.conv(level)), 4) for level in levels], dim=1)


class RetinaNetHead(nn.Module):
    """Both heads, with torchvision's parameter names.

    Args:
        channels: of every level.
        anchors: a location.
        classes: k.
        convs: 3×3 convolutions of each head before its output.
    """

    def __init__(self, channels: int, anchors: int, classes: int, *, convs: int = 4) -> None:
        super().__init__()
        self.classification_head = ClassificationHead(channels, anchors, classes, convs=convs)
        self.regression_head = RegressionHead(channels, anchors, convs=convs)

    def reset_prior(self) -> None:
        """Start the last layer of the class head anew, at the prior."""
        self.classification_head.reset_prior()

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits `(n, l, k)` and deltas `(n, l, 4)` of `(n, c, h, w)` levels."""
        return self.classification_head(levels), self.regression_head(levels)


def _tower(channels: int, convs: int) -> nn.Sequential:
    return nn.Sequential(*(ConvNormAct(channels, channels, 3, norm=None) for _ in range(convs)))


def _small_normal(head: nn.Module) -> None:
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _flat(x: Tensor, values: int) -> Tensor:
    """`(n, a * values, h, w)` → `(n, h * w * a, values)`; a view where x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, values)
