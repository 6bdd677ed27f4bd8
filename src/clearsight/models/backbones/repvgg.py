"""RepVGG A0 to B3, with timm's parameter names and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.nn.init import kaiming_init
from clearsight.nn.reparam import RepConv

__all__ = ["REPVGGS", "RepVgg"]

LEVELS = ("c2", "c3", "c4", "c5")
STEM = 64


class RepVgg(nn.Module):
    """3×3 convolutions one after the other in use; in training each has a 1×1 and an identity beside it.

    `clearsight.fuse` turns the training form into the other, with equal outputs.

    Method: Ding et al. 2021, arXiv:2101.03697, table 2 and section 3.4; parameters are named and start as in timm,
    which draws the scales and shifts of the norms from N(0.1, 0.1²) and N(0, 0.1²).

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

    Attributes:
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        depths: blocks of the four stages.
        widths: channels of the four stages; the stem has those of the first, 64 at most.
        norm: a name of `nn.norm`; None for batch norm. Only norms with running statistics can be merged.
        channels: of the input.
        small_input: stem and first stage at stride 1, for images of 28 to 64 pixels.
        deployed: make the form for use at once.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
        deployed: bool = False,
    ) -> None:
        super().__init__()
        block = partial(RepConv, norm=norm or "batch", deployed=deployed)
        reached = min(STEM, widths[0])
        first = 1 if small_input else 2
        self.in_channels = channels
        self.channels: dict[str, int] = dict(zip(LEVELS, widths, strict=True))
        self.strides: dict[str, int] = {}
        self.stem = block(channels, reached, stride=first)
        self.stages = nn.Sequential()
        pixels = first
        for level, depth, width in zip(LEVELS, depths, widths, strict=True):
            step = first if level == "c2" else 2
            pixels *= step
            self.strides[level] = pixels
            self.stages.append(nn.Sequential())
            for k in range(depth):
                self.stages[-1].append(block(reached, width, stride=1 if k else step))  # pyright: ignore
                reached = width
        self.embedding = reached
        kaiming_init(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 0.1, 0.1)
                nn.init.normal_(layer.bias, 0, 0.1)

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
        for level, stage in zip(LEVELS, self.stages, strict=True):
            found[level] = x = stage(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean of `c5` over the image, `(n, embedding)`."""
        return self(images).mean(dim=(2, 3))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of timm under ours, of either form: only the last layer's differ, `head.fc` is `head`."""
        return rename_head(state, "head.fc")


_A, _B = (2, 4, 14, 1), (4, 6, 16, 1)
REPVGGS: dict[str, Callable[..., RepVgg]] = {
    "repvgg_a0": partial(RepVgg, _A, (48, 96, 192, 1280)),
    "repvgg_a1": partial(RepVgg, _A, (64, 128, 256, 1280)),
    "repvgg_a2": partial(RepVgg, _A, (96, 192, 384, 1408)),
    "repvgg_b0": partial(RepVgg, _B, (64, 128, 256, 1280)),
    "repvgg_b1": partial(RepVgg, _B, (128, 256, 512, 2048)),
    "repvgg_b2": partial(RepVgg, _B, (160, 320, 640, 2560)),
    "repvgg_b3": partial(RepVgg, _B, (192, 384, 768, 2560)),
}
