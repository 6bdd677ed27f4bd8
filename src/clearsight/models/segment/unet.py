"""U-Net: down, up, and across."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, nearest
from clearsight.models.segment.backbone_unet import BackboneUNet, build_encoder
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.models.segment.unet_sizes import (
    mirror_pad,
    pad_to_multiple,
    valid_crops,
    valid_input_size,
    valid_margin,
    valid_output_size,
)
from clearsight.nn.checks import check_dropped, check_positive, check_rank
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.init import init
from clearsight.nn.transposed import transposed_conv
from clearsight.nn.upsample import upsample

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.segment_sections import UNetConfig

__all__ = ["UNet", "build_unet"]

Padding = Literal["same", "valid"]
Up = Literal["transposed", "bilinear"]


class DoubleConv(nn.Sequential):
    """Two 3×3 convolutions, each with its norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str | None, padding: int | None) -> None:
        super().__init__(
            ConvNormAct(in_channels, out_channels, norm=norm, padding=padding),
            ConvNormAct(out_channels, out_channels, norm=norm, padding=padding),
        )


class UNet(nn.Module):
    """Contracting path, expanding path, and a skip on every level.

    Method: Ronneberger et al. 2015, arXiv:1505.04597, section 2 and figure 1: `UNet(1, 2, padding="valid", norm=None,
    dropout=0.5)`, 31 million weights. Where images end, the paper extends them by their mirror image (section 2), and
    so does this net: without padding inside (`valid`) by all that its convolutions cut off, otherwise (`same`) to the
    next multiple of `2 ** depth`. Dropout acts on the two deepest levels, "the end of the contracting path".

    Shape: x `(n, in_channels, h, w)` → logits `(n, classes, h, w)`, for any h and w from 1 on.

    Attributes:
        margin: pixels that `cropped` cuts off at each side; 0 for `same`.
        step: tiles that begin at multiples of it meet without a seam; see `unet_sizes.valid_step`.
        class_layer: names of the parameters whose shape depends on `classes`.

    Args:
        in_channels: of the input.
        classes: channels of the output.
        width: channels of the finest level; they double with every pooling.
        depth: number of poolings.
        norm: a name of `nn.norm`, or None. Tiles have no seams only where the norm in use has fixed statistics: `batch`
            has, `group`, `layer` and `instance` have not.
        padding: `same` pads every convolution with zeros; `valid` does not, and cuts the skips to fit.
        dropout: share that is dropped on the two deepest levels, in [0, 1).
        up: `transposed`, a 2×2 up-convolution as in the paper, or `bilinear` after a 1×1 convolution (`same` only: it
            makes up values at the border).

    Raises:
        ConfigError: a name is unknown, a number is below 1, or `valid` is to enlarge bilinearly.
        RangeError: the dropout is out of range.
    """

    class_layer = ("out.weight", "out.bias")

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        width: int = 64,
        depth: int = 4,
        norm: str | None = "batch",
        padding: Padding = "same",
        dropout: float = 0.0,
        up: Up = "transposed",
    ) -> None:
        super().__init__()
        for number, what in ((in_channels, "in_channels"), (classes, "classes"), (width, "width"), (depth, "depth")):
            check_positive(number, what)
        check_dropped(dropout, "dropout")
        for name, known, what in ((padding, get_args(Padding), "padding"), (up, get_args(Up), "up")):
            if name not in known:
                raise ConfigError(f"{what}: there is none named {name!r}{nearest(name, known)}")
        if (padding, up) == ("valid", "bilinear"):
            raise ConfigError(
                "up: bilinear makes up values at the border, which padding: valid rules out; use transposed"
            )
        self.depth = depth
        self.padding: Padding = padding
        self.crops = valid_crops(depth) if padding == "valid" else (0,) * depth
        self.margin = valid_margin(depth) if padding == "valid" else 0
        self.step = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        pad = 0 if padding == "valid" else None
        self.down = nn.ModuleList(
            DoubleConv(before, after, norm=norm, padding=pad)
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # from the bottom up
        self.up = nn.ModuleList(_enlarge(up, before, after) for before, after in pairs)
        self.merge = nn.ModuleList(DoubleConv(before, after, norm=norm, padding=pad) for before, after in pairs)
        self.out = nn.Conv2d(width, classes, 1)
        init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel: the image is extended to what `cropped` needs, and its output cut."""
        check_rank(x, "UNet: x", "n c h w")
        height, width = x.shape[-2:]
        if self.padding == "same":
            x = pad_to_multiple(x, self.step)
        else:
            below, right = (valid_input_size(side, self.depth) - side - self.margin for side in (height, width))
            x = mirror_pad(x, self.margin, right, self.margin, below)
        return self._run(x)[..., :height, :width]

    def cropped(self, x: Tensor) -> Tensor:
        """The bare net: nothing is extended, and what the convolutions cut off is gone.

        The output's pixel `(i, j)` is that of the input's `(i + margin, j + margin)`.

        Shape: x `(n, in_channels, h, w)` → `(n, classes, h - 2 margin, w - 2 margin)`.

        Args:
            x: of sides that `unet_sizes.valid_input_size` gives; of `same` multiples of `step`.

        Raises:
            ShapeError: a pooling would meet an odd side.
        """
        check_rank(x, "UNet: x", "n c h w")
        if self.padding == "valid":
            for side in x.shape[-2:]:
                valid_output_size(side, self.depth)
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            if level >= self.depth - 1:
                x = self.dropout(x)
            skips.append(x)
        x = skips.pop()
        for enlarge, merge, crop in zip(self.up, self.merge, reversed(self.crops), strict=True):
            skip = skips.pop()
            if crop:
                skip = skip[..., crop:-crop, crop:-crop]
            x = merge(torch.cat((skip, enlarge(x)), dim=1))
        return self.out(x)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state as it is: there are no published weights of other names."""
        return dict(state)

    def reset_classes(self) -> None:
        """Start the last layer anew."""
        init(self.out)


def _enlarge(name: Up, before: int, after: int) -> nn.Module:
    if name == "transposed":
        return transposed_conv(before, after, 2, stride=2)
    return upsample(name, before, out_channels=after)


def build_unet(config: UNetConfig, *, num_classes: int, channels: int, statistics: Statistics) -> Segmenter:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    With a backbone, `norm` is that of the decoder; another than `batch`, which is the default, is the backbone's too.

    Args:
        config: of name `unet`.
        num_classes: k, the background one of them.
        channels: of the input.
        statistics: of the input's channels.

    Raises:
        ConfigError: the backbone has no such option, or cannot be put under a U-Net.
    """
    loss = SemanticLoss(num_classes, **config.loss.model_dump())
    if config.backbone is None:
        net: UNet | BackboneUNet = UNet(
            channels,
            num_classes,
            width=config.width,
            depth=config.depth,
            norm=config.norm,
            padding=config.padding,
            dropout=config.dropout,
            up=config.up,
        )
    else:
        if config.padding != "same":
            raise ConfigError("padding: backbones pad their convolutions; padding: valid needs backbone: null")
        own = None if config.norm == "batch" else config.norm  # transformers have layer norms and take no other
        net = BackboneUNet(
            build_encoder(config.backbone, norm=own, channels=channels, drop_path=config.drop_path),
            num_classes,
            widths=config.decoder_channels,
            norm=config.norm or "batch",
        )
    return Segmenter(net, statistics=statistics, loss=loss)
