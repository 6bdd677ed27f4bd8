"""A small residual backbone for small images and few cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from clearsight.models.backbones.checks import check_images
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.init import kaiming_init

__all__ = ["LightBackbone"]


class _Residual(nn.Module):
    """Two 3×3 convolutions beside the identity, or beside a 1×1 convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.first = ConvNormAct(in_channels, out_channels, 3, stride=stride, norm=norm)
        self.second = ConvNormAct(out_channels, out_channels, 3, norm=norm, activation="none")
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = ConvNormAct(in_channels, out_channels, 1, stride=stride, norm=norm, activation="none")
        self.act = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        return self.second[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.first(x)) + self.shortcut(x))


class LightBackbone(nn.Module):
    """Two strided convolutions, then four residual stages at strides 4, 8, 16 and 32.

    Method: ResNet's basic block (He et al. 2016, arXiv:1512.03385) at a quarter of its width, two 3×3 convolutions in
    place of the 7×7 one and the pooling, and a zero scale in each block's last norm (Goyal et al. 2017,
    arXiv:1706.02677), so that a block starts as the identity.

    Shape: images `(n, c, h, w)` → `c2` … `c5`, level s of `ceil(h / s)` × `ceil(w / s)` for s in 4, 8, 16, 32.

    Attributes:
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        channels: of the images.
        widths: channels of the four stages.
        depths: blocks of the four stages.
        norm: a name of `nn.norm`.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        widths: Sequence[int] = (24, 48, 96, 160),
        depths: Sequence[int] = (1, 2, 2, 2),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        levels = ("c2", "c3", "c4", "c5")
        self.in_channels = channels
        self.embedding = widths[-1]
        self.channels: dict[str, int] = dict(zip(levels, widths, strict=True))
        self.strides: dict[str, int] = dict(zip(levels, (4, 8, 16, 32), strict=True))
        self.stem = nn.Sequential(
            ConvNormAct(channels, widths[0], 3, stride=2, norm=norm),
            ConvNormAct(widths[0], widths[0], 3, stride=2, norm=norm),
        )
        stages: list[nn.Module] = []
        before = widths[0]
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = [
                _Residual(width if k else before, width, stride=2 if number and not k else 1, norm=norm)
                for k in range(depth)
            ]
            stages.append(nn.Sequential(*blocks))
            before = width
        self.stages = nn.ModuleList(stages)
        kaiming_init(self)
        for block in self.modules():
            scale = getattr(block.last_norm, "weight", None) if isinstance(block, _Residual) else None
            if isinstance(scale, nn.Parameter):
                nn.init.zeros_(scale)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs of the four stages.

        Args:
            images: `(n, c, h, w)` float, normalised.

        Returns:
            `c2` … `c5`, `(n, width, ceil(h / s), ceil(w / s))` each.

        Raises:
            ShapeError: the images have other channels, or are smaller than 32 pixels.
        """
        check_images(images, self)
        x = self.stem(images)
        found: dict[str, Tensor] = {}
        for level, stage in zip(self.channels, self.stages, strict=True):
            x = stage(x)
            found[level] = x
        return found

    def forward(self, images: Tensor) -> Tensor:
        """The deepest feature, `(n, widths[3], ceil(h / 32), ceil(w / 32))`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean of `c5` over the image, `(n, embedding)`."""
        return self(images).mean(dim=(2, 3))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state as it is: there are no published weights of this network."""
        return dict(state)
