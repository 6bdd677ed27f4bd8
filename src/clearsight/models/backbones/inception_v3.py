"""Inception v3, with torchvision's parameter names and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ShapeError
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.nn.inception import InceptionA, InceptionB, InceptionC, InceptionConv, InceptionD, InceptionE

__all__ = ["INCEPTIONS", "InceptionV3"]

SMALLEST = 75  # what the published network's unpadded layers leave one pixel of


class InceptionV3(nn.Module):
    """Inception modules of factorised convolutions, without the classifiers' last layers.

    Method: Szegedy et al. 2016, arXiv:1512.00567, table 1, in the form that torchvision publishes weights for, with
    an ε of 0.001 in batch norms. Those weights were trained on pixels of mean 0.5 and deviation 0.5 in every channel
    (torchvision's `transform_input`): give the model such statistics.

    The published network does not pad its first layers and those that halve, and neither does `embed`, so that its
    images have 75×75 pixels at least. `features` pads them, with zeros on all sides: its maps are `ceil(h / stride)`
    high, and centred on the image. The form for small images has no published weights and is padded throughout.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

    Attributes:
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.
        auxiliary: by name of an auxiliary branch, the length of its vector and the published weight of its loss.

    Args:
        norm: a name of `nn.norm`; None for batch norm.
        channels: of the input.
        small_input: the first convolution has stride 1 and there is no first max-pool, for images of 28 to 64 pixels.
        auxiliary: with the branch `AuxLogits` of the auxiliary classifier, for training (`embed_all`).

    Raises:
        ConfigError: there is no such norm.
    """

    def __init__(
        self, *, norm: str | None = None, channels: int = 3, small_input: bool = False, auxiliary: bool = False
    ) -> None:
        super().__init__()
        norm = norm or "batch"
        conv = partial(InceptionConv, norm=norm)
        self.in_channels = channels
        self.channels = {"c2": 192, "c3": 288, "c4": 768, "c5": 2048}
        self.strides = {f"c{k + 2}": (1 if small_input else 4) * 2**k for k in range(4)}
        self.embedding = 2048
        self.auxiliary: dict[str, tuple[int, float]] = {}
        self.small_input = small_input
        self.Conv2d_1a_3x3 = conv(channels, 32, 3, stride=1 if small_input else 2, padded=False)
        self.Conv2d_2a_3x3 = conv(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = conv(32, 64, 3)
        self.Conv2d_3b_1x1 = conv(64, 80, 1)
        self.Conv2d_4a_3x3 = conv(80, 192, 3, padded=False)
        self.Mixed_5b = InceptionA(192, 32, norm=norm)
        self.Mixed_5c = InceptionA(256, 64, norm=norm)
        self.Mixed_5d = InceptionA(288, 64, norm=norm)
        self.Mixed_6a = InceptionB(288, norm=norm)
        self.Mixed_6b = InceptionC(768, 128, norm=norm)
        self.Mixed_6c = InceptionC(768, 160, norm=norm)
        self.Mixed_6d = InceptionC(768, 160, norm=norm)
        self.Mixed_6e = InceptionC(768, 192, norm=norm)
        if auxiliary:
            self.AuxLogits = _Auxiliary(768, norm)
            self.auxiliary = {"AuxLogits": (_Auxiliary.width, 0.4)}
        self.Mixed_7a = InceptionD(768, norm=norm)
        self.Mixed_7b = InceptionE(1280, norm=norm)
        self.Mixed_7c = InceptionE(2048, norm=norm)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=0.1, a=-2, b=2)

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
        return self._maps(images, same=True)

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean over the image of what the published network ends with, `(n, embedding)`.

        Raises:
            ShapeError: the images have other channels, or are smaller than 75×75 (with `small_input`, 8×8).
        """
        self._check(images)
        return self._maps(images, same=self.small_input)["c5"].mean(dim=(2, 3))

    def embed_all(self, images: Tensor) -> dict[str, Tensor]:
        """`embed` as `main`, and what the auxiliary branch's last layer reads, in one pass.

        Args:
            images: as for `embed`.

        Returns:
            `(n, embedding)`, and `(n, width)` for each of `auxiliary`.

        Raises:
            ShapeError: as for `embed`.
        """
        self._check(images)
        maps = self._maps(images, same=self.small_input)
        branches = {name: self.get_submodule(name)(maps["c4"]) for name in self.auxiliary}
        return {"main": maps["c5"].mean(dim=(2, 3)), **branches}

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of torchvision under ours: `fc` is `head`, and `fc` of the auxiliary branch `aux_heads.AuxLogits`.

        Without `auxiliary` the weights of that branch keep their published names, and find no place.
        """
        last = "AuxLogits.fc."
        if not self.auxiliary:
            return rename_head(state, "fc")
        return {
            f"aux_heads.AuxLogits.{key.removeprefix(last)}" if key.startswith(last) else key: value
            for key, value in rename_head(state, "fc").items()
        }

    def _check(self, images: Tensor) -> None:
        check_images(images, self)
        if torch.compiler.is_compiling() or self.small_input or min(images.shape[-2:]) >= SMALLEST:
            return
        raise ShapeError(
            f"InceptionV3: images of {images.shape[-2]}×{images.shape[-1]} are too small for its layers without "
            f"padding, whose vector needs {SMALLEST}×{SMALLEST} at least; enlarge them (`data.size`), or divide its "
            "strides by four (`small_input`)"
        )

    def _maps(self, images: Tensor, *, same: bool) -> dict[str, Tensor]:
        """The levels, all layers padded or as published."""
        x = self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images, same=same), same=same)
        x = self.Conv2d_2b_3x3(x)
        if not self.small_input:
            x = F.max_pool2d(x, 3, 2, padding=int(same))
        c2 = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x), same=same)
        c3 = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(c2, 3, 2, padding=int(same)))))
        x = self.Mixed_6b(self.Mixed_6a(c3, same=same))
        c4 = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(x)))
        c5 = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(c4, same=same)))
        return {"c2": c2, "c3": c3, "c4": c4, "c5": c5}


class _Auxiliary(nn.Module):
    """The auxiliary classifier without its last layer.

    The published one needs 17×17 maps, of images of 299×299; smaller ones are brought to its 5×5 windows directly.
    """

    width = 768

    def __init__(self, in_channels: int, norm: str) -> None:
        super().__init__()
        self.conv0 = InceptionConv(in_channels, 128, 1, norm=norm)
        self.conv1 = InceptionConv(128, self.width, 5, padded=False, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 5, 3) if min(x.shape[-2:]) >= 17 else F.adaptive_avg_pool2d(x, 5)
        return self.conv1(self.conv0(x)).mean(dim=(2, 3))


INCEPTIONS: dict[str, Callable[..., InceptionV3]] = {"inception_v3": InceptionV3}
