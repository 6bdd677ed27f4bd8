"""Whether weights are still as an initialisation left them, told from how they are distributed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn

from clearsight.doctor.model.kinds import is_norm
from clearsight.doctor.run.layer_plan import untouched_statistics

__all__ = ["fresh_parameters", "is_fresh", "looks_drawn"]

LEAST = 100  # values from which a distribution is told from another
_TAKEN = 20_000  # values of a tensor that are looked at
_P = 1e-4  # of the Kolmogorov-Smirnov test, below which it is another distribution
_PLAIN = (0.02, 0.01, 0.001, 1.0)  # deviations that are given as numbers
_CUT = 0.87962566  # deviation of a standard normal distribution that is cut off at ±2


def fresh_parameters(model: nn.Module) -> dict[str, bool]:
    """For each parameter that can be judged, whether it may be as it was initialised.

    Weights are compared with the uniform and normal distributions of PyTorch's own, Kaiming's, Glorot's and LeCun's
    rules, cut off at two deviations or not, and with deviations of 0.02, 0.01, 0.001 and 1: bounds, deviation, and the
    Kolmogorov-Smirnov test. Scales of norms are fresh at 1 or 0, and their statistics at 0 and 1; biases at one number,
    or within ±1 / √fan_in. Training moves some values beyond a bound, and makes tails. Weights of fewer than 100
    values, and parameters of no layer, are not judged.

    Args:
        model: any.
    """
    found: dict[str, bool] = {}
    for name, module in model.named_modules():
        own = {f"{name}.{key}" if name else key: one.detach() for key, one in module.named_parameters(recurse=False)}
        if is_norm(module):
            tracks = isinstance(getattr(module, "running_mean", None), Tensor)
            touched = tracks and not untouched_statistics(module)
            found |= {key: not touched and _at_start(one) for key, one in own.items()}
            continue
        weights = {key: one for key, one in own.items() if one.ndim >= 2 and one.numel() >= LEAST}
        found |= {key: is_fresh(one) for key, one in weights.items() if isinstance(module, _JUDGED)}
        if weights and isinstance(module, _JUDGED):
            bound = max(1 / math.sqrt(_fans(one)[0]) for one in weights.values())
            biases = {key: one for key, one in own.items() if one.ndim == 1}
            found |= {key: _alike(one) or float(one.abs().max()) <= bound * (1 + 1e-6) for key, one in biases.items()}
    return found


_JUDGED = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)  # pyright: ignore[reportPrivateUsage]


def _alike(values: Tensor) -> bool:
    return bool((values == values.flatten()[0]).all())


def _at_start(values: Tensor) -> bool:
    return _alike(values) and float(values.flatten()[0]) in (0.0, 1.0)


def _fans(weight: Tensor) -> tuple[int, int]:
    """Numbers that a unit reads, and that read a number; of convolutions all places of the kernel count."""
    inside = weight[0, 0].numel()
    return weight.shape[1] * inside, weight.shape[0] * inside


def is_fresh(weight: Tensor) -> bool:
    """Whether a weight may have been drawn by a usual rule and not been trained.

    Args:
        weight: `(out, in, …)` with 100 values or more.
    """
    values = weight.detach().double().flatten()
    deviation, most = float(values.std()), float(values.abs().max())
    if not math.isfinite(deviation):
        return False
    if deviation <= 1e-9 * most or most == 0:
        return True  # one number
    from scipy.stats import kstest, norm, truncnorm, uniform

    some = values[:: math.ceil(len(values) / _TAKEN)].cpu().numpy()
    off = 5 / math.sqrt(2 * len(values))  # five standard errors of a deviation
    for expected in _deviations(weight):
        if abs(deviation / expected - 1) > off:
            continue
        bound, cut = math.sqrt(3) * expected, 2 * expected / _CUT
        shapes = [norm(scale=expected)]
        if bound * (1 - 10 / len(values)) <= most <= bound * (1 + 1e-6):
            shapes.append(uniform(-bound, 2 * bound))
        if most <= cut * (1 + 1e-6):
            shapes.append(truncnorm(-2, 2, scale=expected / _CUT))
        if any(kstest(some, shape.cdf).pvalue > _P for shape in shapes):
            return True
    return False


def looks_drawn(weight: Tensor) -> bool:
    """Whether a weight is distributed evenly or normally, cut off at two deviations or not, whatever its deviation.

    Training makes tails, so of large weights this tells trained ones; of small ones it may not.

    Args:
        weight: of any shape, with 100 values or more.
    """
    values = weight.detach().double().flatten()
    deviation, most = float(values.std()), float(values.abs().max())
    if not math.isfinite(deviation) or deviation <= 1e-9 * most:
        return False
    from scipy.stats import kstest, norm, truncnorm, uniform

    some = values[:: math.ceil(len(values) / _TAKEN)].cpu().numpy()
    shapes = (norm(scale=deviation), uniform(-most, 2 * most), truncnorm(-2, 2, scale=deviation / _CUT))
    return any(kstest(some, shape.cdf).pvalue > _P for shape in shapes)


def _deviations(weight: Tensor) -> Iterator[float]:
    """Of the usual rules."""
    reads, read = _fans(weight)
    yield 1 / math.sqrt(3 * reads)  # PyTorch's own: kaiming_uniform_(a=√5)
    for fan in (reads, read, (reads + read) / 2):
        yield from (math.sqrt(gain / fan) for gain in (1, 2))
    yield from (5 / 3 / math.sqrt(fan) for fan in (reads, read, (reads + read) / 2))  # tanh
    yield from _PLAIN
    yield from (one * _CUT for one in _PLAIN)  # trunc_normal_(std=…) is given what it has before the cut
