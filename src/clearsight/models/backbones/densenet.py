"""DenseNet 121 to 201, with torchvision's parameter names and outputs."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.nn.conv import conv_norm, norm_after
from clearsight.nn.dense import DenseBlock, DenseTransition
from clearsight.nn.norm import norm as make_norm

__all__ = ["DENSENETS", "DenseNet", "DenseNetFeatures"]

OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # of the published files: `norm.1.weight`
Layers = tuple[int, int, int, int]


class DenseNetFeatures(nn.Sequential):
    """The layers of a DenseNet, named as published; a call gives the pyramid.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, each of `ceil(h / stride)` rows and `ceil(w / stride)` columns.

    Args:
        layers: of the four dense blocks.
        growth: channels that each layer adds.
        width: channels of the stem.
        bottleneck: see `nn.dense.DenseBlock`.
        drop: see `nn.dense.DenseBlock`.
        recompute: see `nn.dense.DenseBlock`.
        norm: a name of `nn.norm`.
        channels: of the input.
        small_input: a 3×3 stem of stride 1 and no max-pool.
    """

    conv0: nn.Conv2d
    norm0: nn.Module
    relu0: nn.ReLU
    pool0: nn.Module
    norm5: nn.Module

    def __init__(  # noqa: PLR0913 - what the network takes
        self,
        layers: Layers,
        *,
        growth: int,
        width: int,
        bottleneck: int,
        drop: float,
        recompute: bool,
        norm: str,
        channels: int,
        small_input: bool,
    ) -> None:
        kernel, stride = (3, 1) if small_input else (7, 2)
        stem = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
        parts = OrderedDict[str, nn.Module](conv0=stem, norm0=norm_after(norm, stem), relu0=nn.ReLU(inplace=True))
        parts["pool0"] = nn.Identity() if small_input else nn.MaxPool2d(3, 2, padding=1)
        block = partial(DenseBlock, bottleneck=bottleneck, drop=drop, recompute=recompute, norm=norm)
        by_level: dict[str, int] = {}
        reached = width
        for number, count in enumerate(layers, start=1):
            parts[f"denseblock{number}"] = block(count, reached, growth)
            reached += count * growth
            by_level[f"c{number + 1}"] = reached
            if number < len(layers):
                parts[f"transition{number}"] = DenseTransition(reached, reached // 2, norm=norm)
                reached //= 2
        parts["norm5"] = make_norm(norm, reached)
        super().__init__(parts)
        self.in_channels = channels
        self.channels = by_level
        self.strides = {f"c{k + 2}": (1 if small_input else 4) * 2**k for k in range(len(layers))}

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The levels; a transition's windows at the right and lower border average what there is."""
        check_images(images, self)
        return self.levels(images, ceil=True)

    def levels(self, images: Tensor, *, ceil: bool) -> dict[str, Tensor]:
        """The levels.

        Args:
            images: `(n, channels, h, w)`.
            ceil: odd sides are rounded up between the blocks; the published network rounds them down.
        """
        x = self.pool0(self.relu0(conv_norm(self.conv0, self.norm0, images)))
        blocks: list[Tensor] = []
        for layer in self.children():
            if isinstance(layer, DenseBlock):
                x = layer(x)
                blocks.append(x)
            elif isinstance(layer, DenseTransition):
                x = _halve_up(layer, x) if ceil else layer(x)
        blocks[-1] = F.relu(self.norm5(x), inplace=True)
        return dict(zip(self.channels, blocks, strict=True))


class DenseNet(nn.Module):
    """Densely connected network without its classifier.

    Method: Huang et al. 2017, arXiv:1608.06993, table 1 (DenseNet-BC), in the form that torchvision publishes weights
    for. Levels are the outputs of the dense blocks, the last behind the final norm and ReLU. Where a side is odd
    between two blocks the published network drops its last row, and `embed` does; `features` keeps it.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

    Attributes:
        features: called with images, it gives the pyramid: each level `(n, channels[level], ceil(h / strides[level]),
            ceil(w / strides[level]))`.
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        layers: of the four dense blocks.
        growth: the paper's k, channels that each layer adds.
        width: channels of the stem.
        bottleneck: the 1×1 convolutions of the layers give this many times `growth`.
        drop: share of the new features that is dropped in training.
        recompute: save memory in training for about a quarter more time (Pleiss et al. 2017, arXiv:1707.06990).
        norm: a name of `nn.norm`; None for batch norm.
        channels: of the input.
        small_input: a 3×3 stem of stride 1 and no max-pool, for images of 28 to 64 pixels (the paper's CIFAR form).

    Raises:
        ConfigError: a number is below 1, there is no such norm, or it cannot stand `recompute`.
    """

    def __init__(  # noqa: PLR0913 - what the network takes
        self,
        layers: Layers,
        *,
        growth: int = 32,
        width: int = 64,
        bottleneck: int = 4,
        drop: float = 0.0,
        recompute: bool = False,
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
    ) -> None:
        super().__init__()
        self.features = DenseNetFeatures(
            layers,
            growth=growth,
            width=width,
            bottleneck=bottleneck,
            drop=drop,
            recompute=recompute,
            norm=norm or "batch",
            channels=channels,
            small_input=small_input,
        )
        self.in_channels = channels
        self.channels = self.features.channels
        self.strides = self.features.strides
        self.embedding = self.channels["c5"]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean over the image of what the published network ends with, `(n, embedding)`."""
        check_images(images, self)
        return self.features.levels(images, ceil=False)["c5"].mean(dim=(2, 3))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of torchvision and of its files (`norm.1` for `norm1`) under ours; `classifier` is `head`."""
        return {OLD_NAME.sub(r"\1\2", name): value for name, value in rename_head(state, "classifier").items()}


def _halve_up(transition: DenseTransition, x: Tensor) -> Tensor:
    """A transition that keeps a last odd row and column."""
    ready = transition.get_submodule("act")(transition.get_submodule("norm")(x))
    return transition.get_submodule("conv")(F.avg_pool2d(ready, 2, ceil_mode=True))


DENSENETS: dict[str, Callable[..., DenseNet]] = {
    "densenet121": partial(DenseNet, (6, 12, 24, 16)),
    "densenet161": partial(DenseNet, (6, 12, 36, 24), growth=48, width=96),
    "densenet169": partial(DenseNet, (6, 12, 32, 32)),
    "densenet201": partial(DenseNet, (6, 12, 48, 32)),
}
