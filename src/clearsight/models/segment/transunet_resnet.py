"""The convolutions of TransUNet: a ResNet of three stages, standardised weights and group norms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.checks import check_images
from clearsight.nn.norm import norm
from clearsight.nn.residual import Bottleneck

__all__ = ["HybridResNet", "StandardisedConv2d", "standardise"]

STAGES = 3


class StandardisedConv2d(nn.Conv2d):
    """A convolution without a bias whose kernels have mean 0 and variance 1, whatever its parameters are.

    Method: Qiao et al. 2019, arXiv:1903.10520, equation 6, with the small epsilon that Kolesnikov et al. 2020 (BiT),
    arXiv:1912.11370, train with. Padding is theirs too, "SAME": with a stride s and a kernel k, k - s pixels in all,
    the odd one on the right and below; x has sides that s divides. Parameters are named as those of a convolution.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, h / stride, w / stride)`.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of the kernel.
        stride: step.
        eps: added to the variance of each kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, eps: float = 1e-8) -> None:
        missing = max(kernel - stride, 0)
        before, after = missing // 2, missing - missing // 2
        super().__init__(in_channels, out_channels, kernel, stride, before if before == after else 0, bias=False)
        self.eps = eps
        self.around = None if before == after else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Standardise the kernels, then convolve."""
        flat = self.weight.flatten(1)
        weight = F.layer_norm(flat, flat.shape[1:], eps=self.eps).view_as(self.weight)
        if self.around is not None:
            x = F.pad(x, self.around)
        return F.conv2d(x, weight, None, self.stride, self.padding)


def standardise(layer: nn.Module) -> None:
    """Give a layer standardised kernels, and groups of at least two channels, in place; the weights are new.

    Groups of one channel, which narrow group norms have otherwise, would leave nothing of a map of a single pixel.

    Args:
        layer: whose convolutions are square, without bias, groups or dilation.
    """
    for name, part in layer.named_children():
        if isinstance(part, nn.Conv2d):
            kernel, stride = part.kernel_size[0], part.stride[0]
            setattr(layer, name, StandardisedConv2d(part.in_channels, part.out_channels, kernel, stride=stride))
        elif isinstance(part, nn.GroupNorm):
            setattr(layer, name, _group_norm(part.num_channels))
        else:
            standardise(part)


def _group_norm(channels: int) -> nn.Module:
    groups = math.gcd(32, channels)
    return norm("group", channels, groups=max(channels // 2, 1) if groups == channels else groups)


class HybridResNet(nn.Module):
    """What stands before the transformer in R50+ViT: a ResNet whose fourth stage's blocks are in the third.

    Method: Dosovitskiy et al. 2021, arXiv:2010.11929, section 4.1 (hybrids) and appendix B.1, with (3, 4, 9) blocks.
    The blocks are `Bottleneck`s: norms and activations come after the convolutions, although the paper calls the
    network ResNetV2. Numbers are those of the published weights' network, as in timm; the authors of TransUNet pad
    its convolutions on both sides and normalise each channel of a shortcut by itself, with as many parameters.

    Shape: images `(n, channels, h, w)`, whose sides 16 divides → four maps of strides 2, 4, 8 and 16, of `width`, 4, 8
    and 16 times `width` channels.

    Attributes:
        in_channels: of the images.
        channels: of the four maps.
        strides: by stage, of the four maps.

    Args:
        width: channels of the stem, 64 as published.
        blocks: of the three stages.
        channels: of the images.

    Raises:
        ConfigError: there are not three stages of a block or more.
    """

    def __init__(self, width: int = 64, blocks: Sequence[int] = (3, 4, 9), *, channels: int = 3) -> None:
        super().__init__()
        if len(blocks) != STAGES or min(blocks) < 1:
            raise ConfigError(f"backbone_blocks: expected three stages of at least one block each, got {tuple(blocks)}")
        self.in_channels = channels
        self.channels = (width, 4 * width, 8 * width, 16 * width)
        self.strides = {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16}
        self.stem = nn.Sequential(
            StandardisedConv2d(channels, width, 7, stride=2), _group_norm(width), nn.ReLU(inplace=True)
        )
        self.stages = nn.Sequential()
        for stage, count in enumerate(blocks):
            row = nn.Sequential()
            for k in range(count):
                reached = self.channels[stage + 1 if k else stage]
                row.append(Bottleneck(reached, width * 2**stage, stride=2 if stage and not k else 1, norm="group"))
            self.stages.append(row)
        standardise(self.stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four maps, the finest first.

        Raises:
            ShapeError: the images have other channels, or a side below 16.
        """
        check_images(images, self)
        found = [self.stem(images)]
        # After a ReLU zeros are as good around the pool as minus infinity.
        x = F.max_pool2d(F.pad(found[0], (0, 1, 0, 1)), 3, 2)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found
