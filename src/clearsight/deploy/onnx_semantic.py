"""Segmenters as graphs: a class for every pixel and how probable each one is; or its depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.deploy.onnx_file import ExportGraph
from clearsight.errors import ConfigError
from clearsight.models.detect.regions import size_of
from clearsight.models.segment.depth import DepthNet
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.transunet import STRIDE, TransUNet
from clearsight.models.segment.unet import UNet

__all__ = ["DepthGraph", "SemanticAnswer", "SemanticGraph"]

AGREEING = 0.9999  # share of the pixels
FEW = 256  # classes that uint8 can number


class SemanticAnswer(NamedTuple):
    """What an exported segmenter gives.

    Args:
        labels: `(n, h, w)` the most probable class, uint8 (int64 where there are more than 256).
        probabilities: `(n, k, h, w)`, sum to one over the classes.
    """

    labels: Tensor
    probabilities: Tensor


class SemanticGraph(ExportGraph):
    """A segmenter whose answer is a label map and probabilities.

    Args:
        model: it is set to evaluation mode.
        size: `(height, width)` of the images that it will be traced on.

    Shape: images `(n, c, h, w)` → `SemanticAnswer`.

    Attributes:
        multiple: of which sides the file takes any multiple; None where the net is traced for one size: Swin-Unet,
            the valid U-Net, or images whose size is no multiple itself.
    """

    task = "semantic"
    outputs = SemanticAnswer._fields

    def __init__(self, model: Segmenter, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model.eval()
        self.multiple = _multiple(model.net, size)

    def forward(self, images: Tensor) -> SemanticAnswer:
        """Every pixel."""
        probabilities = self.model(images).float().softmax(dim=1)
        labels = probabilities.argmax(dim=1)
        return SemanticAnswer(labels.to(torch.uint8) if probabilities.shape[1] <= FEW else labels, probabilities)

    def check(self, given: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        """Probabilities are equal, and labels but for a pixel in ten thousand."""
        labels, probabilities = answers
        sizes = torch.tensor([size_of(given[0])] * len(given[0]))
        expected = self.model.predict(given[0], sizes)
        self.require("probabilities", probabilities, torch.stack([each.probs for each in expected]))
        share = (labels == torch.stack([each.labels for each in expected])).double().mean().item()
        if share < AGREEING:
            raise ConfigError(
                f"export: {1 - share:.2%} of the labels differ between ONNX Runtime and the model; no file was written"
            )


class DepthGraph(ExportGraph):
    """A net of depths, whose answer is `depth` `(n, h, w)`.

    Args:
        model: it is set to evaluation mode.
        size: `(height, width)` of the images that it will be traced on.

    Shape: images `(n, c, h, w)` → `(n, h, w)`.

    Attributes:
        multiple: see `SemanticGraph`.
    """

    task = "depth"
    outputs = ("depth",)

    def __init__(self, model: DepthNet, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model.eval()
        self.multiple = _multiple(model.net, size)

    def forward(self, images: Tensor) -> Tensor:
        """Every pixel."""
        return self.model(images)[:, 0]

    def check(self, given: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        """Depths are equal."""
        sizes = torch.tensor([size_of(given[0])] * len(given[0]))
        self.require("depths", answers[0], torch.stack(self.model.predict(given[0], sizes)))


def _multiple(net: object, size: tuple[int, int]) -> int | None:
    """Sides that are multiples of it reach the net without padding; None where these do not."""
    step = getattr(net, "multiple", None)
    if isinstance(net, TransUNet):
        step = STRIDE
    elif isinstance(net, UNet) and net.padding == "same":
        step = net.step
    return None if step is None or any(side % step for side in size) else step
