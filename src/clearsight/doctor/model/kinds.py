"""What a module or a function is to rules on the order of layers."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.instancenorm import _InstanceNorm  # pyright: ignore[reportPrivateUsage]

from clearsight.nn.instance_norm import InstanceNorm

__all__ = [
    "MOVES",
    "is_batch_norm",
    "is_convolution",
    "is_dropout",
    "is_linear",
    "is_norm",
    "is_plain",
    "is_transposed",
    "kernel_of",
    "passes_linearly",
    "units",
    "width_of",
]

# Functions that give each number another place, or type, and nothing else.
MOVES = frozenset(
    {
        "T", "alias", "bfloat16", "clone", "contiguous", "double", "expand", "flatten", "float", "getitem", "half",
        "mT", "movedim", "narrow", "permute", "reshape", "select", "squeeze", "swapaxes", "to", "transpose", "type",
        "type_as", "unflatten", "unsqueeze", "view",
    }
)  # fmt: skip

_FORWARDS = {
    kind.forward
    for kind in (
        nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
        _BatchNorm, nn.SyncBatchNorm,
    )
}  # fmt: skip


def is_convolution(module: nn.Module) -> bool:
    """A convolution of PyTorch's, transposed or not."""
    return isinstance(module, _ConvNd)


def is_transposed(module: nn.Module) -> bool:
    """A transposed convolution of PyTorch's."""
    return isinstance(module, _ConvTransposeNd)


def is_linear(module: nn.Module) -> bool:
    """A fully connected layer of PyTorch's."""
    return isinstance(module, nn.Linear)


def is_batch_norm(module: nn.Module) -> bool:
    """A norm over the batch, synchronised ones too."""
    return isinstance(module, _BatchNorm)


def is_norm(module: nn.Module) -> bool:
    """Any norm that computes mean and variance."""
    return isinstance(module, _BatchNorm | _InstanceNorm | InstanceNorm | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm)


def is_dropout(module: nn.Module) -> bool:
    """A dropout of PyTorch's, of single numbers or of whole maps."""
    return isinstance(module, _DropoutNd)


def is_plain(module: nn.Module) -> bool:
    """Whether a layer does what PyTorch's does, and not, say, an activation after it as some subclasses do."""
    return type(module).forward in _FORWARDS


def passes_linearly(module: nn.Module) -> bool:
    """Whether two linear layers with this between are as one: each number is moved, scaled, averaged or left out."""
    averages = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
    everywhere = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
    moves = (nn.Identity, nn.Flatten, nn.Unflatten)
    norms = is_batch_norm(module) and is_plain(module)
    return isinstance(module, (*averages, *everywhere, *moves)) or is_dropout(module) or norms


def units(module: nn.Module) -> tuple[int, int]:
    """Channels or features that a convolution or a linear layer takes and gives."""
    if isinstance(module, _ConvNd):
        return module.in_channels, module.out_channels
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    raise TypeError(f"units: expected a convolution or a linear layer, got {type(module).__name__}")


def kernel_of(module: nn.Module) -> tuple[int, ...]:
    """Sides of a convolution's kernel; empty for other layers."""
    return tuple(module.kernel_size) if isinstance(module, _ConvNd) else ()


def width_of(norm: nn.Module) -> int:
    """Channels of a norm that has statistics of each channel; 0 where it has not."""
    if isinstance(norm, _BatchNorm | _InstanceNorm):
        return norm.num_features
    if isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels:
        return norm.num_channels
    return norm.channels if isinstance(norm, InstanceNorm) else 0
