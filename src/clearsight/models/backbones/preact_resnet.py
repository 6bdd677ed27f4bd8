"""ResNet 18 to 152 with norms and activations before the convolutions; names and numbers of timm's `resnetv2`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.models.backbones.resnet import LAYERS
from clearsight.nn.init import kaiming_init
from clearsight.nn.norm import norm as make_norm
from clearsight.nn.residual import PreActBasicBlock, PreActBottleneck

__all__ = ["PREACT_RESNETS", "PreActResNet"]


class _Stage(nn.Module):
    """A row of blocks, named `blocks` as in timm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class PreActResNet(nn.Module):
    """Residual network whose shortcuts carry sums that nothing touches, without its classifier.

    Method: He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv:1603.05027, figure 4 (e), with the widths
    and depths of ResNet. As in timm, and other than in the paper's code, the stem is the convolution and the pool alone
    (the first block's norm follows) and the 3×3 convolution has the stride.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8. `c2` to `c4`
    are the stages' sums as they are; `c5` is the last sum after a norm and ReLU.

    Attributes:
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: a name of `nn.norm`; None for batch norm.
        channels: of the input.
        small_input: a 3×3 stem of stride 1 and no max-pool, for images of 28 to 64 pixels (the paper's CIFAR form).
        drop_path: share of samples whose branch is left out in training, in the last block; rises from 0 in the first
            (Huang et al. 2016, arXiv:1603.09382, equation 4).

    Raises:
        ConfigError: there is no such depth, or no such norm.
        RangeError: the share is out of range.
    """

    def __init__(
        self,
        depth: int,
        *,
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if depth not in LAYERS:
            choice = ", ".join(map(str, LAYERS))
            raise ConfigError(f"depth: there is no pre-activation ResNet-{depth}; choose one of {choice}")
        deep, counts = LAYERS[depth]
        block = PreActBottleneck if deep else PreActBasicBlock
        norm = norm or "batch"
        kernel, stride = (3, 1) if small_input else (7, 2)
        stem = nn.Conv2d(channels, 64, kernel, stride, padding=kernel // 2, bias=False)
        pool = nn.Identity() if small_input else nn.MaxPool2d(3, 2, padding=1)
        self.in_channels = channels
        self.stem = nn.Sequential(OrderedDict(conv=stem, pool=pool))
        self.stages = nn.Sequential()
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        reached, pixels, number = 64, 1 if small_input else 4, 0
        for stage, count in enumerate(counts):
            width, pixels = 64 * 2**stage, pixels * (1 if stage == 0 else 2)
            row = _Stage()
            for k in range(count):
                drop = drop_path * number / (sum(counts) - 1)
                row.blocks.append(block(reached, width, stride=2 if stage and not k else 1, norm=norm, drop_path=drop))
                reached, number = width * block.expansion, number + 1
            self.stages.append(row)
            self.channels[f"c{stage + 2}"] = reached
            self.strides[f"c{stage + 2}"] = pixels
        self.embedding = reached
        self.norm = make_norm(norm, reached)
        self.relu = nn.ReLU(inplace=True)
        kaiming_init(self)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Returns:
            `c2` to `c5`, each `(n, channels[level], ceil(h / strides[level]), ceil(w / strides[level]))`.

        Raises:
            ShapeError: the images have other channels, or are smaller than the largest stride.
        """
        check_images(images, self)
        x = self.stem(images)
        found: dict[str, Tensor] = {}
        for level, stage in zip(self.channels, self.stages, strict=True):
            x = found[level] = stage(x)
        found["c5"] = self.relu(self.norm(x))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean of `c5` over the image, `(n, embedding)`.

        Raises:
            ShapeError: as for `features`.
        """
        return self(images).mean(dim=(2, 3))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of timm under ours: only the last layer's differ, and there it is a 1×1 convolution."""
        renamed = rename_head(state, "head.fc")
        return {name: x.flatten(1) if name == "head.weight" else x for name, x in renamed.items()}


PREACT_RESNETS: dict[str, Callable[..., PreActResNet]] = {
    f"preact_resnet{depth}": partial(PreActResNet, depth) for depth in LAYERS
}
