"""Norms that stay as they are while the rest of a model trains."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  # the base of all

from clearsight.nn.cross_iteration_norm import CrossIterationBatchNorm
from clearsight.nn.cross_mini_batch_norm import CrossMiniBatchNorm
from clearsight.nn.norm import batch_norms

__all__ = ["freeze_norm", "unfreeze_norm"]


class _StaysInEval:
    """Goes before a batch norm class: `.train()` has no effect."""

    def train(self, mode: bool = True) -> nn.Module:  # noqa: FBT001, FBT002 - PyTorch's own signature
        """Stay in evaluation mode."""
        return super().train(mode=False)  # pyright: ignore[reportAttributeAccessIssue]


class _HeldBatchNorm1d(_StaysInEval, nn.BatchNorm1d): ...


class _HeldBatchNorm2d(_StaysInEval, nn.BatchNorm2d): ...


class _HeldBatchNorm3d(_StaysInEval, nn.BatchNorm3d): ...


class _HeldSyncBatchNorm(_StaysInEval, nn.SyncBatchNorm): ...


class _HeldCrossIterationBatchNorm(_StaysInEval, CrossIterationBatchNorm): ...


class _HeldCrossMiniBatchNorm(_StaysInEval, CrossMiniBatchNorm): ...


_HELD: dict[type[_BatchNorm], type[_BatchNorm]] = {
    nn.BatchNorm1d: _HeldBatchNorm1d,
    nn.BatchNorm2d: _HeldBatchNorm2d,
    nn.BatchNorm3d: _HeldBatchNorm3d,
    nn.SyncBatchNorm: _HeldSyncBatchNorm,
    CrossIterationBatchNorm: _HeldCrossIterationBatchNorm,
    CrossMiniBatchNorm: _HeldCrossMiniBatchNorm,
}
_PLAIN = {held: plain for plain, held in _HELD.items()}


def freeze_norm(model: nn.Module, *, statistics: bool = True, affine: bool = False) -> int:
    """Freeze the batch norms of a model, whose other layers go on training.

    Statistics of a few images a batch are worse than those that came with published weights: fine-tuning in small
    batches usually goes better with them frozen. The freeze survives `.train()`, copying and saving; names of
    parameters and buffers stay. Norms over several batches (`cross_iteration`, `cross_mini_batch`) are frozen alike.
    Norms without statistics (group, layer) have nothing to freeze here, and `FrozenBatchNorm` is frozen as it is.

    Args:
        model: changed in place.
        statistics: normalise with the running statistics, and keep them.
        affine: scale and shift get no gradient either.

    Returns:
        The number of norms that were found.
    """
    found = batch_norms(model)
    for layer in found:
        if statistics and type(layer) in _HELD:
            layer.__class__ = _HELD[type(layer)]
            layer.eval()
        if affine:
            layer.requires_grad_(requires_grad=False)
    return len(found)


def unfreeze_norm(model: nn.Module) -> int:
    """Undo `freeze_norm`: the norms follow the model's mode again, and scale and shift learn.

    Args:
        model: changed in place.

    Returns:
        The number of norms that were found.
    """
    found = batch_norms(model)
    for layer in found:
        layer.__class__ = _PLAIN.get(type(layer), type(layer))
        layer.train(model.training)
        layer.requires_grad_(requires_grad=True)
    return len(found)
