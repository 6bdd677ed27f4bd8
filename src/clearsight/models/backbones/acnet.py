"""ACNet: a ResNet whose convolutions have a stronger cross in training, and are as ever in use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.resnet import ResNet
from clearsight.nn.init import kaiming_init
from clearsight.nn.reparam import AsymmetricConv
from clearsight.nn.residual import BasicBlock

__all__ = ["ACNETS", "AcNet"]


class AcNet(ResNet):
    """ResNet 18 or 34 with an `AsymmetricConv` in the place of every k×k convolution and its norm.

    `clearsight.fuse` makes it a ResNet in shape and cost, with equal outputs.

    Method: Ding et al. 2019, arXiv:1908.03930, section 4.3; the 7×7 stem too. The convolutions of the shortcuts are 1×1
    and stay. Nobody publishes weights in a form of its own.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

    Args:
        depth: 18 or 34.
        norm: a name of `nn.norm`; None for batch norm. Only norms with running statistics can be merged.
        channels: of the input.
        small_input: a 3×3 stem of stride 1 and no max-pool, for images of 28 to 64 pixels.
        drop_path: share of samples whose branch is left out in training, in the last block; rises from 0 in the first.

    Raises:
        ConfigError: there is no such depth.
    """

    def __init__(
        self,
        depth: int = 18,
        *,
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        if depth not in (18, 34):
            raise ConfigError(f"depth: there is no ACNet-{depth}; choose one of 18, 34")
        super().__init__(depth, norm=norm, channels=channels, small_input=small_input, drop_path=drop_path)
        for block in [self, *(layer for layer in self.modules() if isinstance(layer, BasicBlock))]:
            for number in (1, 2):
                convolution = getattr(block, f"conv{number}", None)
                if isinstance(convolution, nn.Conv2d):
                    setattr(block, f"conv{number}", _asymmetric(convolution, norm or "batch"))
                    setattr(block, f"bn{number}", nn.Identity())
        kaiming_init(self)


def _asymmetric(convolution: nn.Conv2d, norm: str) -> AsymmetricConv:
    side, stride = convolution.kernel_size[0], convolution.stride[0]
    return AsymmetricConv(convolution.in_channels, convolution.out_channels, side, stride=stride, norm=norm)


ACNETS: dict[str, Callable[..., AcNet]] = {"acnet18": partial(AcNet, 18)}
