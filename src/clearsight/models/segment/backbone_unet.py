"""A U-Net whose way down is any of our backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.published import backbone_weights
from clearsight.models.base import Backbone
from clearsight.models.segment.unet_decoder import UNetDecoder
from clearsight.models.segment.unet_sizes import pad_to_multiple
from clearsight.nn.checks import check_positive, check_rank
from clearsight.nn.init import init

__all__ = ["BackboneUNet", "build_encoder"]


class BackboneUNet(nn.Module):
    """A backbone, `UNetDecoder`, and a 3×3 convolution to the classes.

    Method: Ronneberger et al. 2015, arXiv:1505.04597, in the form of segmentation-models-pytorch's `Unet(encoder)`,
    whose weights fit (`adapt_weights`). Images of any size are extended by their mirror image to a multiple of the
    backbone's largest stride, and the logits cut.

    Shape: x `(n, c, h, w)` → logits `(n, classes, h, w)`, for any h and w from 1 on.

    Attributes:
        class_layer: names of the parameters whose shape depends on `classes`.

    Args:
        backbone: see `build_encoder`.
        classes: channels of the output.
        widths: see `UNetDecoder`.
        norm: of the decoder, a name of `nn.norm`.

    Raises:
        ConfigError: the backbone's strides do not fit, or `classes` is below 1.
    """

    class_layer = ("head.weight", "head.bias")

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        widths: Sequence[int] = (256, 128, 64, 32, 16),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        check_positive(classes, "classes")
        self.backbone = backbone
        self.decoder = UNetDecoder(backbone.channels, strides=backbone.strides, widths=widths, norm=norm)
        self.head = nn.Conv2d(widths[-1], classes, 3, padding=1)
        self.multiple = max(backbone.strides.values())
        init(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        check_rank(x, "BackboneUNet: x", "n c h w")
        height, width = x.shape[-2:]
        features = self.backbone.features(pad_to_multiple(x, self.multiple))
        return self.head(self.decoder(features))[..., :height, :width]

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published weights under this net's names: segmentation-models-pytorch's `Unet`, or a classifier's."""
        if not any(name.startswith("encoder.") for name in state):
            return backbone_weights(self.backbone, state)
        body = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
        found = backbone_weights(self.backbone, body)
        for name, value in state.items():
            if name.startswith("decoder."):
                found[name] = value
            elif name.startswith("segmentation_head.0."):
                found[name.replace("segmentation_head.0.", "head.")] = value
        return found

    def reset_classes(self) -> None:
        """Start the last layer anew."""
        init(self.head)


def build_encoder(name: str, *, norm: str | None = None, channels: int = 3, drop_path: float = 0.0) -> Backbone:
    """A backbone for a decoder that goes back to the image's size; one that can gives its stem too, as level `c1`.

    Args:
        name: see `build_backbone`.
        norm: a name of `nn.norm`; None for the published network's.
        channels: of the images.
        drop_path: see `build_backbone`.

    Raises:
        ConfigError: there is no such backbone, or it has no such option.
    """
    backbone = build_backbone(name, norm=norm, channels=channels, drop_path=drop_path, levels=("c5",))
    if (show_stem := getattr(backbone, "show_stem", None)) is not None:
        show_stem()
    return backbone
