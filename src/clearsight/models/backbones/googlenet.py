"""GoogLeNet with batch norm, with torchvision's parameter names and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.nn.inception import Inception, InceptionConv

__all__ = ["GOOGLENETS", "GoogLeNet"]


class GoogLeNet(nn.Module):
    """Inception modules in a row, without the classifiers' last layers.

    Method: Szegedy et al. 2015, arXiv:1409.4842, table 1, in the form that torchvision publishes weights for: with
    batch norm (ε 0.001), and 3×3 where the paper has 5×5. Those weights were trained on pixels of mean 0.5 and
    deviation 0.5 in every channel (torchvision's `transform_input`): give the model such statistics.

    The published network rounds odd sides down in three max-pools, and `embed` does; `features` rounds up, with zeros
    right and below, which change nothing behind a ReLU.

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
        small_input: a 3×3 stem of stride 1 and no first max-pool, for images of 28 to 64 pixels.
        auxiliary: with the branches `aux1` and `aux2` of the auxiliary classifiers, for training (`embed_all`).

    Raises:
        ConfigError: there is no such norm.
    """

    def __init__(
        self, *, norm: str | None = None, channels: int = 3, small_input: bool = False, auxiliary: bool = False
    ) -> None:
        super().__init__()
        norm = norm or "batch"
        conv, block = partial(InceptionConv, norm=norm), partial(Inception, norm=norm)
        self.in_channels = channels
        self.channels = {"c2": 192, "c3": 480, "c4": 832, "c5": 1024}
        self.strides = {f"c{k + 2}": (1 if small_input else 4) * 2**k for k in range(4)}
        self.embedding = 1024
        self.auxiliary: dict[str, tuple[int, float]] = {}
        self.small_input = small_input
        self.conv1 = conv(channels, 64, 3 if small_input else 7, stride=1 if small_input else 2)
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3)
        self.inception3a = block(192, (64, 96, 128, 16, 32, 32))
        self.inception3b = block(256, (128, 128, 192, 32, 96, 64))
        self.inception4a = block(480, (192, 96, 208, 16, 48, 64))
        self.inception4b = block(512, (160, 112, 224, 24, 64, 64))
        self.inception4c = block(512, (128, 128, 256, 24, 64, 64))
        self.inception4d = block(512, (112, 144, 288, 32, 64, 64))
        self.inception4e = block(528, (256, 160, 320, 32, 128, 128))
        self.inception5a = block(832, (256, 160, 320, 32, 128, 128))
        self.inception5b = block(832, (384, 192, 384, 48, 128, 128))
        if auxiliary:
            self.aux1 = _Auxiliary(512, norm)
            self.aux2 = _Auxiliary(528, norm)
            self.auxiliary = {"aux1": (_Auxiliary.width, 0.3), "aux2": (_Auxiliary.width, 0.3)}
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-2, b=2)

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
        maps = self._maps(images, pool=_pool_up)
        return {level: maps[level] for level in self.channels}

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean over the image of what the published network ends with, `(n, embedding)`."""
        check_images(images, self)
        return self._maps(images, pool=_pool)["c5"].mean(dim=(2, 3))

    def embed_all(self, images: Tensor) -> dict[str, Tensor]:
        """`embed` as `main`, and what each auxiliary branch's last layer reads, in one pass.

        Args:
            images: as for `features`.

        Returns:
            `(n, embedding)`, and `(n, width)` for each of `auxiliary`.

        Raises:
            ShapeError: as for `features`.
        """
        check_images(images, self)
        maps = self._maps(images, pool=_pool)
        branches = {name: self.get_submodule(name)(maps[name]) for name in self.auxiliary}
        return {"main": maps["c5"].mean(dim=(2, 3)), **branches}

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of torchvision under ours: `fc` is `head`, and `fc2` of an auxiliary branch `aux_heads.` and its name.

        Without `auxiliary` the weights of those branches keep their published names, and find no place.
        """
        adapted = rename_head(state, "fc")
        for name in self.auxiliary:
            last = f"{name}.fc2."
            adapted = {
                f"aux_heads.{name}.{key.removeprefix(last)}" if key.startswith(last) else key: value
                for key, value in adapted.items()
            }
        return adapted

    def _maps(self, images: Tensor, *, pool: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """By name, the levels and what the auxiliary branches see."""
        x = self.conv1(images)
        x = self.conv2(x if self.small_input else pool(x))
        c2 = self.conv3(x)
        c3 = self.inception3b(self.inception3a(pool(c2)))
        aux1 = self.inception4a(pool(c3))
        aux2 = self.inception4d(self.inception4c(self.inception4b(aux1)))
        c4 = self.inception4e(aux2)
        c5 = self.inception5b(self.inception5a(F.max_pool2d(c4, 2, 2, ceil_mode=True)))
        return {"c2": c2, "c3": c3, "c4": c4, "c5": c5, "aux1": aux1, "aux2": aux2}


class _Auxiliary(nn.Module):
    """An auxiliary classifier without its last layer; published with this dropout before that."""

    width = 1024

    def __init__(self, in_channels: int, norm: str) -> None:
        super().__init__()
        self.conv = InceptionConv(in_channels, 128, 1, norm=norm)
        self.fc1 = nn.Linear(128 * 16, self.width)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)
        return self.dropout(F.relu(self.fc1(x), inplace=True))


def _pool(x: Tensor) -> Tensor:
    """To `h // 2`: a last odd row and column are in no window of their own."""
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


def _pool_up(x: Tensor) -> Tensor:
    """To `ceil(h / 2)`, for maps that are nowhere negative."""
    down, right = x.shape[-2] % 2, x.shape[-1] % 2
    if torch.compiler.is_compiling() or down or right:  # compiled, the sizes may be unknown yet
        x = F.pad(x, (0, right, 0, down))
    return _pool(x)


GOOGLENETS: dict[str, Callable[..., GoogLeNet]] = {"googlenet": GoogLeNet}
