"""How long a model takes: wall clock of its forward pass, and of each module in it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from clearsight.errors import ConfigError
from clearsight.measure.count import Inputs, call
from clearsight.measure.replica import tensors_in

__all__ = ["Latency", "latency", "latency_of_layers"]


class Latency(BaseModel):
    """Times of one forward pass, in seconds.

    Args:
        median: half of the runs took longer.
        quartiles: first and third; between them lies half of the runs.
        runs: how many were measured.
        device: `cpu`, or the name of the accelerator.
        threads: that PyTorch computes with on the CPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    median: float
    quartiles: tuple[float, float]
    runs: int
    device: str
    threads: int


def latency(model: nn.Module, inputs: Inputs, *, runs: int = 10, warmup: int = 2) -> Latency:
    """Time the forward pass, in evaluation mode and without gradients.

    Args:
        model: is put back into the mode that it was in.
        inputs: one tensor, a sequence of arguments or a mapping of keyword arguments, on the model's device.
        runs: measured ones.
        warmup: runs before, thrown away.

    Returns:
        Median and quartiles. On an accelerator each run is waited for.

    Raises:
        ConfigError: there are no runs.
    """
    if runs < 1:
        raise ConfigError(f"runs: at least 1 is needed to measure, got {runs}")
    device = _device(model, inputs)
    times = []
    with _evaluation(model), torch.no_grad():
        for run in range(-warmup, runs):
            began = _now(device)
            call(model, inputs)
            if run >= 0:
                times.append(_now(device) - began)
    first, middle, third = _quartiles(times)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Latency(median=middle, quartiles=(first, third), runs=runs, device=name, threads=torch.get_num_threads())


def latency_of_layers(model: nn.Module, inputs: Inputs, *, runs: int = 10, warmup: int = 2) -> dict[str, float]:
    """Median seconds that each module takes, those within it not counted.

    Looking on costs time: small modules come out slower than they are, and so does what is fused when nobody looks,
    such as a convolution with the norm after it (`nn.conv.conv_norm`). The sum is more than `latency` measures.

    Args:
        model: as for `latency`.
        inputs: as for `latency`.
        runs: measured ones.
        warmup: runs before, thrown away.

    Returns:
        By name as in `named_modules`; modules that are not called are left out.

    Raises:
        ConfigError: there are no runs.
    """
    if runs < 1:
        raise ConfigError(f"runs: at least 1 is needed to measure, got {runs}")
    device = _device(model, inputs)
    spent: dict[str, float] = {}
    open_: list[list[float]] = []  # of each module that is at work: when it began, and what those within took

    def enter(module: nn.Module, args: object) -> None:
        open_.append([_now(device), 0.0])

    def leave(name: str, module: nn.Module, args: object, out: object) -> None:
        began, within = open_.pop()
        took = _now(device) - began
        spent[name] = spent.get(name, 0.0) + took - within
        if open_:
            open_[-1][1] += took

    handles = []
    every: list[dict[str, float]] = []
    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(enter, prepend=True))
            handles.append(module.register_forward_hook(partial(leave, name), always_call=True))
        with _evaluation(model), torch.no_grad():
            for run in range(-warmup, runs):
                spent.clear()
                call(model, inputs)
                if run >= 0:
                    every.append(dict(spent))
    finally:
        for handle in handles:
            handle.remove()
    return {name: statistics.median(one[name] for one in every if name in one) for name in every[0]}


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _device(model: nn.Module, inputs: Inputs) -> torch.device:
    tensors = [*model.parameters(), *tensors_in(inputs)]
    return tensors[0].device if tensors else torch.device("cpu")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, middle, third
