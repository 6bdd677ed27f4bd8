"""Optimisers by name, and which parameters get which rate and which decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from clearsight.errors import ConfigError
from clearsight.recipe.schema import OptimizerConfig

__all__ = ["build_optimizer", "parameter_groups"]

BACKBONE = "backbone"


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Trainable parameters in up to four groups: backbone or head, decayed or not.

    A parameter belongs to the backbone when it lies in a module of that name (`backbone.…`, `net.backbone.…`); its rate
    is `lr × backbone_lr`. Scales of norms and biases (fewer than two dimensions) are not decayed, unless
    `decay_norm_and_bias` says so: decay is a prior on the directions that a layer computes, and those parameters set
    ranges (He et al. 2019, arXiv:1812.01187, 3.1).

    Args:
        model: the model; parameters with `requires_grad` off are left out.
        config: the recipe's `optimizer` section.

    Returns:
        Groups with the keys `params`, `name`, `lr`, `initial_lr` and `weight_decay`; empty groups are left out.

    Raises:
        ConfigError: the model has no trainable parameter.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        backbone = BACKBONE in name.split(".")[:-1]
        decayed = config.decay_norm_and_bias or parameter.ndim > 1
        key = f"{'backbone' if backbone else 'head'}, {'decayed' if decayed else 'not decayed'}"
        lr = config.lr * (config.backbone_lr if backbone else 1.0)
        decay = config.weight_decay if decayed else 0.0
        group = groups.setdefault(key, {"params": [], "name": key, "lr": lr, "initial_lr": lr, "weight_decay": decay})
        group["params"].append(parameter)
    if not groups:
        raise ConfigError(
            f"model {type(model).__name__}: no parameter is trainable, at least one was expected; "
            "set requires_grad_(True) on the part that should learn"
        )
    return list(groups.values())


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, fused: bool = True) -> Optimizer:
    """The optimiser that `config.name` names, over `parameter_groups`.

    `sgd` is plain gradient descent, `momentum` PyTorch's form `v ← μv + g; x ← x − αv`, `nesterov` its look-ahead form;
    `rmsprop` takes `momentum` too, of its scaled steps. What the recipe does not name is PyTorch's default.
    `weight_decay` is decoupled from the gradient for `adamw` and `nadam` and an L2 term of the gradient for the others.
    `lbfgs` evaluates the batch several times a step and takes one group: no decay, no backbone factor.

    Args:
        model: the model, on the device where it will be trained.
        config: the recipe's `optimizer` section.
        fused: use PyTorch's fused kernels where the method has them (False under fp16 scaling, which unscales first).

    Raises:
        ConfigError: `lbfgs` with weight decay or a backbone factor, or a model without trainable parameters.
    """
    if config.name == "lbfgs":
        return _lbfgs(model, config)
    return BUILDERS[config.name](parameter_groups(model, config), config, fused)


def _lbfgs(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    for key, value, neutral in (("weight_decay", config.weight_decay, 0.0), ("backbone_lr", config.backbone_lr, 1.0)):
        if value != neutral:
            raise ConfigError(
                f"optimizer.{key}: found {value:g}, but lbfgs has one group without decay; "
                f"set optimizer.{key}={neutral:g} or choose another optimizer.name"
            )
    parameters = [p for group in parameter_groups(model, config) for p in group["params"]]
    optimizer = torch.optim.LBFGS(parameters, lr=config.lr, max_iter=10, history_size=10)
    optimizer.param_groups[0].update(name="all", initial_lr=config.lr)
    return optimizer


def _sgd(momentum: bool, nesterov: bool) -> Callable[[Iterable[dict[str, Any]], OptimizerConfig, bool], Optimizer]:  # noqa: FBT001
    def build(groups: Iterable[dict[str, Any]], config: OptimizerConfig, fused: bool) -> Optimizer:  # noqa: FBT001
        rate = config.momentum if momentum else 0.0
        return torch.optim.SGD(groups, lr=config.lr, momentum=rate, nesterov=nesterov, fused=fused or None)

    return build


BUILDERS: dict[str, Callable[[Iterable[dict[str, Any]], OptimizerConfig, bool], Optimizer]] = {
    "sgd": _sgd(momentum=False, nesterov=False),
    "momentum": _sgd(momentum=True, nesterov=False),
    "nesterov": _sgd(momentum=True, nesterov=True),
    "adagrad": lambda groups, c, fused: torch.optim.Adagrad(groups, lr=c.lr),
    "adadelta": lambda groups, c, fused: torch.optim.Adadelta(groups, lr=c.lr),
    "rmsprop": lambda groups, c, fused: torch.optim.RMSprop(groups, lr=c.lr, momentum=c.momentum),
    "adam": lambda groups, c, fused: torch.optim.Adam(groups, lr=c.lr, betas=c.betas, fused=fused or None),
    "adamw": lambda groups, c, fused: torch.optim.AdamW(groups, lr=c.lr, betas=c.betas, fused=fused or None),
    "nadam": lambda groups, c, fused: torch.optim.NAdam(groups, lr=c.lr, betas=c.betas, decoupled_weight_decay=True),
}
