"""ResNet 18 to 152, ResNeXt, wide and squeeze-and-excitation forms, with torchvision's parameter names and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.nn.conv import conv_norm, norm_after
from clearsight.nn.init import kaiming_init
from clearsight.nn.residual import BasicBlock, Bottleneck

__all__ = ["RESNETS", "ResNet"]

LAYERS: dict[int, tuple[bool, tuple[int, int, int, int]]] = {  # bottlenecks or not, blocks of the four stages
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Residual network without its classifier.

    Method: He et al. 2016, arXiv:1512.03385, table 1, in the form that torchvision publishes weights for; with `groups`
    Xie et al. 2017 (ResNeXt), arXiv:1611.05431; with `base_width=128` Zagoruyko and Komodakis 2016 (wide),
    arXiv:1605.07146; with `squeeze_excite=16` Hu et al. 2018 (SE), arXiv:1709.01507, named as in timm.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

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
        groups: of the bottlenecks' 3×3 convolutions; depth 50 and above.
        base_width: channels of each group in the first stage; depth 50 and above.
        squeeze_excite: reduction of the gate at the end of each branch; None for none.
        drop_path: share of samples whose branch is left out in training, in the last block; rises from 0 in the first
            (Huang et al. 2016, arXiv:1603.09382, equation 4).

    Raises:
        ConfigError: there is no such depth, or it has no groups.
    """

    def __init__(
        self,
        depth: int,
        *,
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
        groups: int = 1,
        base_width: int = 64,
        squeeze_excite: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if depth not in LAYERS:
            raise ConfigError(f"depth: there is no ResNet-{depth}; choose one of {', '.join(map(str, LAYERS))}")
        deep, counts = LAYERS[depth]
        if not deep and (groups, base_width) != (1, 64):
            raise ConfigError(f"ResNet-{depth}: only bottlenecks have groups and a base width; take a depth from 50 on")
        norm = norm or "batch"
        plain = partial(BasicBlock, norm=norm, squeeze_excite=squeeze_excite)
        bottleneck = partial(Bottleneck, norm=norm, squeeze_excite=squeeze_excite, groups=groups, base_width=base_width)
        kernel, stride = (3, 1) if small_input else (7, 2)
        self.in_channels = channels
        self.conv1 = nn.Conv2d(channels, 64, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = norm_after(norm, self.conv1)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_input else nn.MaxPool2d(3, 2, padding=1)
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        stages: list[nn.Sequential] = []
        reached, pixels, number = 64, 1 if small_input else 4, 0
        for stage, count in enumerate(counts):
            width, pixels = 64 * 2**stage, pixels * (1 if stage == 0 else 2)
            stages.append(nn.Sequential())
            for k in range(count):
                step = 2 if stage and not k else 1
                drop = drop_path * number / (sum(counts) - 1)
                stages[-1].append((bottleneck if deep else plain)(reached, width, stride=step, drop_path=drop))
                reached, number = width * (Bottleneck if deep else BasicBlock).expansion, number + 1
            self.channels[f"c{stage + 2}"] = reached
            self.strides[f"c{stage + 2}"] = pixels
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.embedding = reached
        kaiming_init(self)

    def show_stem(self) -> None:
        """From now on `features` gives what the stem says before its max-pool too: level `c1`, of 64 channels.

        Its stride is half that of `c2`; of `small_input`, which pools nothing, it is that of `c2`.
        """
        stride = self.strides["c2"] if isinstance(self.maxpool, nn.Identity) else self.strides["c2"] // 2
        self.channels = {"c1": 64, **self.channels}
        self.strides = {"c1": stride, **self.strides}

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Returns:
            `c2` to `c5`, each `(n, channels[level], ceil(h / strides[level]), ceil(w / strides[level]))`; before them
            `c1` after `show_stem`.

        Raises:
            ShapeError: the images have other channels, or are smaller than the largest stride.
        """
        check_images(images, self)
        c1 = self.relu(conv_norm(self.conv1, self.bn1, images))
        c2 = self.layer1(self.maxpool(c1))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        levels = {"c2": c2, "c3": c3, "c4": c4, "c5": self.layer4(c4)}
        return {"c1": c1, **levels} if "c1" in self.channels else levels

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean of `c5` over the image, `(n, embedding)`."""
        return self(images).mean(dim=(2, 3))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Torchvision's or timm's names under ours: only the last layer's differ, `fc` is `head`."""
        return rename_head(state, "fc")


RESNETS: dict[str, Callable[..., ResNet]] = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in LAYERS},
    "resnext50_32x4d": partial(ResNet, 50, groups=32, base_width=4),
    "resnext101_32x8d": partial(ResNet, 101, groups=32, base_width=8),
    "resnext101_64x4d": partial(ResNet, 101, groups=64, base_width=4),
    "wide_resnet50_2": partial(ResNet, 50, base_width=128),
    "wide_resnet101_2": partial(ResNet, 101, base_width=128),
    **{f"seresnet{depth}": partial(ResNet, depth, squeeze_excite=16) for depth in LAYERS},
}
