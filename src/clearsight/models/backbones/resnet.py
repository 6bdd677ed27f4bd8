"""ResNet 18 to 152, with torchvision's parameter names and outputs."""

from __future__ import annotations

from torch import Tensor, nn

from clearsight.errors import ConfigError, WeightsError
from clearsight.nn.conv import conv_norm
from clearsight.nn.init import kaiming_init
from clearsight.nn.norm import norm as make_norm
from clearsight.nn.residual import BasicBlock, Bottleneck

__all__ = ["ResNet", "adapt_first_layer"]


LAYERS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Residual network without its classifier.

    Method: He et al. 2016, arXiv:1512.03385, table 1, in the form that torchvision publishes weights for.

    Attributes:
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: a name of `nn.norm`.
        channels: of the input.
        small_input: a 3×3 stem of stride 1 and no max-pool, for images of 32 to 64 pixels (the paper's CIFAR form).

    Raises:
        ConfigError: there is no such depth.
    """

    def __init__(self, depth: int, *, norm: str = "batch", channels: int = 3, small_input: bool = False) -> None:
        super().__init__()
        if depth not in LAYERS:
            raise ConfigError(f"depth: there is no ResNet-{depth}; choose one of {', '.join(map(str, LAYERS))}")
        block, counts = LAYERS[depth]
        kernel, stride = (3, 1) if small_input else (7, 2)
        self.conv1 = nn.Conv2d(channels, 64, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = make_norm(norm, 64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_input else nn.MaxPool2d(3, 2, padding=1)
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        stages: list[nn.Sequential] = []
        reached, pixels = 64, 1 if small_input else 4
        for stage, count in enumerate(counts):
            width, step = 64 * 2**stage, 1 if stage == 0 else 2
            blocks = [block(reached, width, stride=step, norm=norm)]
            reached, pixels = width * block.expansion, pixels * step
            blocks += [block(reached, width, norm=norm) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            self.channels[f"c{stage + 2}"] = reached
            self.strides[f"c{stage + 2}"] = pixels
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        kaiming_init(self)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Returns:
            `c2` to `c5`, each `(n, channels[level], ceil(h / strides[level]), ceil(w / strides[level]))`.
        """
        x = self.maxpool(self.relu(conv_norm(self.conv1, self.bn1, images)))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return {"c2": c2, "c3": c3, "c4": c4, "c5": self.layer4(c4)}

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]


def adapt_first_layer(weight: Tensor, channels: int) -> Tensor:
    """Weights of a first convolution for another number of input channels.

    The sum over the old input channels is shared out evenly: one channel gets the sum, c channels get a c-th of it
    each. An image whose channels are all alike then gives the same response as a grey photo did.

    Args:
        weight: `(out, old, kh, kw)`.
        channels: of the new input.

    Returns:
        `(out, channels, kh, kw)`; `weight` itself when nothing changes.

    Raises:
        WeightsError: the weight is not that of a convolution.
    """
    if weight.ndim != 4:
        raise WeightsError(f"first layer: expected weights (out, in, kh, kw), got {tuple(weight.shape)}")
    if weight.shape[1] == channels:
        return weight
    shared = weight.sum(dim=1, keepdim=True) / channels
    return shared.repeat(1, channels, 1, 1)
