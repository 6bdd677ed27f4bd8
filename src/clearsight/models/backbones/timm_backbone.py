"""Any network of timm as a backbone, by its name there."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, MissingExtra, nearest
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.isotropic import (
    LEVELS,
    isotropic_pyramid,
    isotropic_strides,
    nearest_level,
    pad_to_multiple,
)

__all__ = ["TimmBackbone", "timm_names"]


class TimmBackbone(nn.Module):
    """A network that timm makes, with random weights and without its classifier.

    Levels are timm's feature maps of strides 4, 8, 16 and 32, as many as the network has; images are filled up with
    zeros to a multiple of its largest stride, and the maps cut. A network of one resolution (ViT and the like) gives
    the pyramid of `isotropic_pyramid` of its last map after the last norm. Parameters are named as in timm, below
    `net.`.

    Shape: images `(n, channels, h, w)` → some of `c2` … `c5`.

    Attributes:
        in_channels: of the images.
        channels: by level.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        name: of the network in timm.
        norm: must be None: the norms are timm's.
        channels: of the input.
        small_input: must be False: the strides are timm's.
        drop_path: timm's `drop_path_rate`, 0 also where timm has another default.

    Raises:
        MissingExtra: timm is not installed.
        ConfigError: timm has no such network, an argument does not fit it, or it takes images of
            one size only or says nothing of its feature maps.
    """

    def __init__(
        self,
        name: str,
        *,
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if norm is not None or small_input:
            option = "norm" if norm is not None else "small_input"
            raise ConfigError(f"timm:{name}: norms and strides are timm's own; leave `{option}` out")
        self.name, self.in_channels = name, channels
        self.net = _create(name, channels, drop_path)
        maps = _maps(self.net, name)
        self.reduction = max(reduction for _, reduction in maps)
        self.level: str | None = None
        if len({reduction for _, reduction in maps}) == 1:
            self.level = nearest_level(self.reduction)
            self.strides = isotropic_strides(self.reduction, self.level)
            self.channels = dict.fromkeys(self.strides, maps[-1][0])
            self.indices = [len(maps) - 1]
        else:
            last = {reduction: index for index, (_, reduction) in enumerate(maps)}
            self.strides = {level: stride for level, stride in LEVELS.items() if stride in last}
            if not self.strides:
                raise ConfigError(f"timm:{name}: none of its maps has a stride of 4, 8, 16 or 32, but {list(last)}")
            self.indices = [last[stride] for stride in self.strides.values()]
            self.channels = {level: maps[index][0] for level, index in zip(self.strides, self.indices, strict=True)}
        self.embedding = int(getattr(self.net, "head_hidden_size", None) or self.net.num_features)  # pyright: ignore
        patches: Any = getattr(self.net, "patch_embed", None)
        fills_up = getattr(patches, "dynamic_img_pad", True)
        self.patch = 1 if fills_up else max(patches.patch_size)  # whose multiples alone are taken

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Returns:
            By level `(n, channels[level], ceil(h / strides[level]), ceil(w / strides[level]))`.

        Raises:
            ShapeError: the images have other channels, or are smaller than the largest stride.
            ConfigError: the network's maps are smaller than that, for it has convolutions without padding.
        """
        check_images(images, self)
        padded = pad_to_multiple(images, self.reduction)
        options: dict[str, Any] = {"indices": self.indices, "output_fmt": "NCHW", "intermediates_only": True}
        if self.level is not None:
            (x,) = self.net.forward_intermediates(padded, norm=True, **options)  # pyright: ignore
            found = isotropic_pyramid(x, images, self.strides, self.level)
        else:
            found = dict(zip(self.strides, self.net.forward_intermediates(padded, **options), strict=True))  # pyright: ignore
        for level, stride in self.strides.items():
            height, width = ((side + stride - 1) // stride for side in images.shape[-2:])
            x = found[level] = found[level][..., :height, :width]
            if not torch.compiler.is_compiling() and x.shape[-2:] != (height, width):
                raise ConfigError(
                    f"timm:{self.name}: its {level} of images {tuple(images.shape)} is {tuple(x.shape)}, less than "
                    f"{height}×{width}: it has layers without padding; choose another network"
                )
        return found

    def forward(self, images: Tensor) -> Tensor:
        """The deepest level."""
        return self.features(images)[list(self.strides)[-1]]

    def embed(self, images: Tensor) -> Tensor:
        """What timm's classifier reads, `(n, embedding)`.

        Images that timm would refuse, for their sides are no multiples of the patch, are filled up with zeros.

        Raises:
            ShapeError: as for `features`.
        """
        check_images(images, self)
        x = self.net.forward_features(pad_to_multiple(images, self.patch))  # pyright: ignore
        return self.net.forward_head(x, pre_logits=True)  # pyright: ignore

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of this network in timm under ours; its classifier, a layer or a 1×1 convolution, is `head`."""
        own = self.state_dict().keys()
        classifier = self.net.pretrained_cfg.get("classifier")  # pyright: ignore
        last = {f"{classifier}.{kind}": f"head.{kind}" for kind in ("weight", "bias")}
        found: dict[str, Tensor] = {}
        for name, value in state.items():
            if name in own or name in last.values():
                found[name] = value
            elif name in last:
                found[last[name]] = value.flatten(1) if name.endswith("weight") else value
            else:
                found[f"net.{name}"] = value
        return found


def timm_names() -> list[str]:
    """Every network that timm can make; not all give feature maps.

    Raises:
        MissingExtra: timm is not installed.
    """
    return _timm().list_models()


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise MissingExtra("timm: networks of this name need it, run: pip install 'clearsight[timm]'") from error
    return timm


def _create(name: str, channels: int, drop_path: float) -> Any:  # noqa: ANN401 - timm's classes have no common type
    """The network, for images of any size where it has an option for that."""
    timm = _timm()
    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        hint = near if near.startswith("; did you mean") else "; timm.list_models() has all names"
        raise ConfigError(f"timm: there is no network named {name!r}{hint}")
    options: dict[str, Any] = {
        "drop_path_rate": drop_path,
        "dynamic_img_size": True,
        "dynamic_img_pad": True,
        "strict_img_size": False,
    }
    while True:
        try:
            net: Any = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=0, **options)
            break
        except TypeError as error:  # constructors differ in what they take, and say what they do not
            message = str(error).partition("Did you mean")[0]
            refused = [option for option in options if f"'{option}'" in message]
            if not refused:
                raise ConfigError(f"timm:{name}: timm cannot make it as a backbone ({error})") from error
            if "drop_path_rate" in refused and drop_path:
                raise ConfigError(f"timm:{name}: there is no drop_path in this network; leave it out") from error
            for option in refused:
                del options[option]
    flexible = options.keys() & {"dynamic_img_size", "strict_img_size"}
    if net.pretrained_cfg.get("fixed_input_size") and not flexible:
        height, width = net.pretrained_cfg["input_size"][1:]
        raise ConfigError(f"timm:{name}: it takes images of {height}×{width} only; choose another network")
    return net


def _maps(net: nn.Module, name: str) -> list[tuple[int, int]]:
    """Channels and stride of every feature map that timm says the network has."""
    known: Any = getattr(net, "feature_info", None)
    entries = known.get_dicts() if hasattr(known, "get_dicts") else known
    if not entries or not hasattr(net, "forward_intermediates"):
        raise ConfigError(f"timm:{name}: timm does not say what feature maps it has; choose another network")
    return [(entry["num_chs"], int(entry["reduction"])) for entry in entries]
