"""The two loss terms of a method that gives each object a bag of points, for any dense head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.assign.assignment import Assignment, BagOptions
from clearsight.assign.base import resolve_conflicts
from clearsight.errors import ConfigError
from clearsight.losses.bags import confidence_loss, mean_max_loss
from clearsight.losses.checks import check_same_shape
from clearsight.losses.focal import sigmoid_focal_loss
from clearsight.nn.parallel import mean_over_processes
from clearsight.nn.precision import at_least_float32
from clearsight.types import Targets

__all__ = ["bag_terms", "joint_logits"]

SURELY_NOT = -1e4  # a logit whose focal loss and slope are 0 where the truth is "no"


def bag_terms(
    found: Assignment,
    targets: Targets,
    logits: Tensor,
    box_losses: Tensor,
    *,
    options: BagOptions | None = None,
) -> dict[str, Tensor]:
    """How well each object's bag explains it, and that nothing else is anywhere.

    The likelihood of a pair is `P = p · exp(-box_weight · box loss)`, p the probability of the object's class. The
    likelihoods of an object's pairs become one (`found.combine`), and `bag` is `alpha` times the mean over the objects
    of its negative logarithm. `background` is `1 - alpha` times the sum over points and classes of the focal loss
    `-(w p)^γ log(1 - w p)`, w the weight of the background, divided by the sum of the pairs' weights. Objects and
    weights are averaged over processes, so that two processes at half the batch each equal one.

    Method: Zhang et al. 2019 (FreeAnchor), arXiv:1909.02466, sections 3.2 and 3.3; Zhu et al. 2020 (AutoAssign),
    arXiv:2007.03496, equations 5 to 10. Differs from both: objects without a pair, which have no likelihood, are not
    counted. Differs from FreeAnchor: the background is divided by the pairs that there are, not by objects times the
    size of a bag. AutoAssign divides it by the sum of the centre prior in the published code; the paper is silent.

    Args:
        found: `combine` is `mean_max` or `confidence`; pairs ascend by object.
        targets: of the batch.
        logits: `(n, l, k)` of all points; see `joint_logits` for heads with an objectness.
        box_losses: `(p,)` of each pair, at least 0, not weighted.
        options: None for those of the assignment.

    Returns:
        `bag` and `background`, scalars in float32 at least. Without objects `bag` is 0 and still part of the graph.

    Raises:
        ConfigError: the assignment is one of single pairs.
        ShapeError: there are not as many box losses as pairs.
    """
    if found.combine == "each":
        raise ConfigError("bag_terms: the assignment's pairs stand each for itself (combine='each'); there are no bags")
    check_same_shape(found.object, box_losses, "box_losses")
    numbers = options or found.bag or BagOptions()
    label = targets.labels[found.object]
    logit = at_least_float32(logits[targets.image[found.object], found.point, label])
    log_likelihood = F.logsigmoid(logit) - numbers.box_weight * box_losses
    held = (found.weight.detach() > 0).nonzero().squeeze(1)
    object_, weight = found.object[held], found.weight[held]
    if found.combine == "mean_max":
        each = mean_max_loss(log_likelihood[held], object_, len(targets.labels))
    else:
        each = confidence_loss(log_likelihood[held], weight, object_, len(targets.labels), numbers.temperature)
    counts = torch.stack((weight.new_tensor(len(object_.unique_consecutive())), weight.detach().sum()))
    objects, pairs = mean_over_processes(counts).clamp(min=1)
    background = _background(found, targets, logits, logit, gamma=numbers.gamma)
    return {"bag": numbers.alpha * each.sum() / objects, "background": (1 - numbers.alpha) * background / pairs}


def joint_logits(logits: Tensor, objectness: Tensor) -> Tensor:
    """Logits of the products of class probabilities and an objectness that is learned without a target of its own.

    Method: Zhu et al. 2020 (AutoAssign), arXiv:2007.03496, the implicit objectness.

    Args:
        logits: `(n, l, k)` of the classes.
        objectness: `(n, l)` logits.

    Returns:
        `(n, l, k)` logits of `sigmoid(logits) * sigmoid(objectness)`, float32 at least.

    Example:
        >>> joint_logits(torch.zeros(1, 1, 1), torch.zeros(1, 1)).sigmoid().item()  # 0.5 · 0.5
        0.25
    """
    a, b = -at_least_float32(logits), -at_least_float32(objectness)[..., None]
    return -torch.logaddexp(torch.logaddexp(a, b), a + b)  # 1/p - 1 = e^a + e^b + e^(a + b)


def _background(found: Assignment, targets: Targets, logits: Tensor, logit: Tensor, *, gamma: float) -> Tensor:
    """Sum of the focal losses of "no" over all points and classes, the pairs' own by their weights.

    Args:
        found: of p pairs.
        targets: of the batch.
        logits: `(n, l, k)`.
        logit: `(p,)` of each pair's class.
        gamma: of the focal loss.
    """
    image, label = targets.image[found.object], targets.labels[found.object]
    x = at_least_float32(logits).index_put((image, found.point, label), logit.new_tensor(SURELY_NOT))
    rest = sigmoid_focal_loss(x, torch.zeros_like(x), alpha=None, gamma=gamma, weight=found.background[..., None])
    if found.class_background is None:
        return rest
    count, classes = logits.shape[1:]
    place = (image * count + found.point) * classes + label
    pair = resolve_conflicts(place, found.class_background)  # of each place, what leaves the least to the background
    weight = found.class_background[pair] * found.background[image[pair], found.point[pair]]
    own = logit[pair]
    # 1 - w p = (1 + (1 - w) e^x) / (1 + e^x), whose logarithm neither overflows nor cancels at w = 1
    loss = F.softplus(own) - F.softplus(own + torch.log1p(-weight))
    return rest + (loss * (weight * own.sigmoid()).clamp(min=1e-12) ** gamma).sum()
