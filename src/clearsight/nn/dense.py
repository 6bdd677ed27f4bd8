"""DenseNet's parts: layers that see everything before them, blocks of them, and the step between two blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clearsight.errors import ConfigError
from clearsight.nn.activation import activation as make_activation
from clearsight.nn.checks import check_positive, check_rank
from clearsight.nn.conv import conv_norm, norm_after
from clearsight.nn.cross_mini_batch_norm import CrossMiniBatchNorm
from clearsight.nn.norm import batch_norms
from clearsight.nn.norm import norm as make_norm

__all__ = ["DenseBlock", "DenseLayer", "DenseTransition"]


class DenseLayer(nn.Module):
    """Norm, activation, 1×1; norm, activation, 3×3: a few new channels from all channels so far.

    Method: Huang et al. 2017, arXiv:1608.06993, section 3 (DenseNet-B); parameters are named as in torchvision.

    Shape: features `(n, in_channels, h, w)`, or a list whose channels add up to that → `(n, growth, h, w)`.

    Args:
        in_channels: of all features together.
        growth: the paper's k, channels that the layer adds.
        bottleneck: the 1×1 gives this many times `growth`.
        drop: share of the new features that is dropped in training.
        recompute: forget what lies between the features and the 1×1's output, and compute it again on the way back.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.

    Raises:
        ConfigError: a name is unknown, or the norm cannot stand `recompute`.
    """

    def __init__(
        self,
        in_channels: int,
        growth: int,
        *,
        bottleneck: int = 4,
        drop: float = 0.0,
        recompute: bool = False,
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, in_channels)
        self.act1 = make_activation(activation)
        self.conv1 = nn.Conv2d(in_channels, bottleneck * growth, 1, bias=False)
        self.norm2 = norm_after(norm, self.conv1)
        self.act2 = make_activation(activation)
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)
        self.drop = nn.Dropout(drop) if drop else None
        self.recompute = recompute
        if recompute and isinstance(self.norm1, CrossMiniBatchNorm):
            raise ConfigError("recompute: a norm over several mini-batches would count one twice; use another norm")

    def forward(self, features: Tensor | Sequence[Tensor]) -> Tensor:
        """The new features alone."""
        parts = [features] if isinstance(features, Tensor) else features
        for part in parts:
            check_rank(part, "DenseLayer: features", "n c h w")
        # Compilers choose for themselves what to compute twice.
        if self.recompute and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            x = checkpoint(self._squeeze, *parts, use_reentrant=False, context_fn=self._passes)
            x = self.norm2(x)
        else:
            x = conv_norm(self.conv1, self.norm2, self._ready(*parts))
        x = self.conv2(self.act2(x))
        return x if self.drop is None else self.drop(x)

    def _ready(self, *parts: Tensor) -> Tensor:
        return self.act1(self.norm1(parts[0] if len(parts) == 1 else torch.cat(parts, 1)))

    def _squeeze(self, *parts: Tensor) -> Tensor:
        return self.conv1(self._ready(*parts))

    def _passes(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _CountedAlready(self.norm1)


class DenseBlock(nn.Module):
    """Layers each of which sees the input and all layers before it.

    Method: Huang et al. 2017, arXiv:1608.06993, equation 2; with `recompute` Pleiss et al. 2017, arXiv:1707.06990.
    Layers are named `denselayer1` … as in torchvision. Features are joined as they come, one copy a layer; with
    `recompute` the joins are not kept, so that memory grows with the layers and not with their square.

    Shape: x `(n, in_channels, h, w)` → `(n, in_channels + layers * growth, h, w)`.

    Args:
        layers: number of layers.
        in_channels: of the input.
        growth: the paper's k, channels that each layer adds.
        bottleneck: the 1×1 convolutions give this many times `growth`.
        drop: share of the new features that is dropped in training.
        recompute: save memory for about a quarter more time; norms count each batch once, values are the same.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
    """

    def __init__(
        self,
        layers: int,
        in_channels: int,
        growth: int,
        *,
        bottleneck: int = 4,
        drop: float = 0.0,
        recompute: bool = False,
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_positive(layers, "layers")
        self.recompute = recompute
        for number in range(layers):
            layer = DenseLayer(
                in_channels + number * growth,
                growth,
                bottleneck=bottleneck,
                drop=drop,
                recompute=recompute,
                norm=norm,
                activation=activation,
            )
            self.add_module(f"denselayer{number + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """The input and what every layer adds, side by side."""
        check_rank(x, "DenseBlock: x", "n c h w")
        if self.recompute:
            features = [x]
            for layer in self.children():
                features.append(layer(features))
            return torch.cat(features, 1)
        for layer in self.children():
            x = torch.cat((x, layer(x)), 1)
        return x


class DenseTransition(nn.Sequential):
    """Norm, activation, 1×1 and 2×2 average pooling between two blocks.

    Method: Huang et al. 2017, arXiv:1608.06993, section 3; parameters are named as in torchvision. Averages are taken
    before the 1×1 rather than after it: both are linear, so that the result is the same at a quarter of the products.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, floor(h / 2), floor(w / 2))`.

    Args:
        in_channels: of the input.
        out_channels: half as many in the paper's DenseNet-C.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: str = "batch", activation: str = "relu") -> None:
        layers = OrderedDict[str, nn.Module](
            norm=make_norm(norm, in_channels),
            act=make_activation(activation),
            pool=nn.AvgPool2d(2),
            conv=nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )
        super().__init__(layers)


class _CountedAlready:
    """Batch norms leave their running statistics alone: a batch that is computed twice would count twice.

    A class, for a graph that is kept is walked, and this entered, more than once.
    """

    def __init__(self, norm: nn.Module) -> None:
        self.layers = batch_norms(norm)
        self.before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        for layer in self.layers:
            count = layer.num_batches_tracked
            self.before.append((layer.momentum, None if count is None else count.clone()))
            layer.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for layer, (momentum, count) in zip(self.layers, self.before, strict=True):
            layer.momentum = momentum
            if count is not None and layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(count)
        self.before.clear()
