"""What to do about each verdict, the best first: the change of a recipe, what it should do, and who says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ADVICE", "Advice", "Remedy", "advise", "falling_rate", "usual_momentum"]

Patch = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One thing to try.

    Args:
        what: in words.
        patch: from a recipe, nested plain values, to the keys that change; None where no key does it.
        effect: what is to be expected.
        source: who found it.
    """

    what: str
    effect: str
    source: str
    patch: Patch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A remedy for one recipe.

    Args:
        what: in words.
        changes: dotted keys and values; empty where no key of this recipe does it.
        effect: what is to be expected.
        source: who found it.
    """

    what: str
    changes: Mapping[str, Any]
    effect: str
    source: str


def advise(fault: str, recipe: Mapping[str, Any]) -> list[Advice]:
    """What to try about a fault, the best first.

    Args:
        fault: id of a finding.
        recipe: nested plain values; empty for a run of another trainer.

    Returns:
        Remedies whose changes this recipe does not have already; none for a fault without an entry in `ADVICE`.
    """
    found = []
    for remedy in ADVICE.get(fault, ()):
        changes = remedy.patch(recipe) if remedy.patch is not None and recipe else {}
        if remedy.patch is not None and recipe and not changes:
            continue  # it is so already, or the recipe has no such key
        found.append(Advice(what=remedy.what, changes=changes, effect=remedy.effect, source=remedy.source))
    return found


# ------------------------------------------------------------------------------------------------ changes of a recipe
def value_of(recipe: Mapping[str, Any], key: str) -> object:
    """What a recipe says at a dotted key; None where it has none."""
    found: object = recipe
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def put(key: str, value: Any) -> Patch:  # noqa: ANN401 - whatever the key takes
    """Set a key that the recipe has."""

    def patch(recipe: Mapping[str, Any]) -> dict[str, Any]:
        section, _, name = key.rpartition(".")
        inside = value_of(recipe, section)
        there = isinstance(inside, Mapping) and name in inside
        return {key: value} if there and value_of(recipe, key) != value else {}

    return patch


def scale(key: str, factor: float, *, least: float = 0.0, most: float = float("inf")) -> Patch:
    """Multiply a number that the recipe has, within bounds; whole numbers stay whole."""

    def patch(recipe: Mapping[str, Any]) -> dict[str, Any]:
        now = value_of(recipe, key)
        if not isinstance(now, int | float) or isinstance(now, bool):
            return {}
        new = min(max(now * factor, least), most)
        new = max(1, round(new)) if isinstance(now, int) else float(f"{new:.3g}")
        return {} if new == now else {key: new}

    return patch


def longer(factor: int = 2) -> Patch:
    """Train longer, in the unit of the recipe."""

    def patch(recipe: Mapping[str, Any]) -> dict[str, Any]:
        for unit in ("epochs", "steps", "minutes"):
            given = value_of(recipe, f"trainer.{unit}")
            if isinstance(given, int | float):
                return {f"trainer.{unit}": given * factor}
        return {}

    return patch


def falling_rate(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A rate that falls along a cosine to the end, behind a short warm-up."""
    warmup = value_of(recipe, "schedule.warmup")
    shorter = {"schedule.warmup": 0.05} if isinstance(warmup, int | float) and warmup > 0.1 else {}
    return put("schedule.name", "cosine")(recipe) | shorter


def usual_momentum(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """0.9, under the key that the recipe's method reads, where it has more."""
    if "adam" not in str(value_of(recipe, "optimizer.name")):
        momentum = value_of(recipe, "optimizer.momentum")
        return {"optimizer.momentum": 0.9} if isinstance(momentum, int | float) and momentum > 0.9 else {}
    betas = value_of(recipe, "optimizer.betas")
    return {"optimizer.betas": [0.9, *betas[1:]]} if isinstance(betas, list | tuple) and betas[0] > 0.9 else {}


# ------------------------------------------------------------------------------------------------ the table
_PLAYBOOK = "Google 2023, Deep learning tuning playbook"
_GOYAL = "Goyal et al. 2017, arXiv:1706.02677"
_BENGIO = "Bengio 2012, arXiv:1206.5533"

_LOWER = Remedy(
    what="a third of the learning rate",
    patch=scale("optimizer.lr", 1 / 3),
    effect="the loss falls evenly; where the rate was the cause, most of what was lost comes back",
    source=_BENGIO,
)
_WARM = Remedy(
    what="a longer warm-up",
    patch=put("schedule.warmup", 0.1),
    effect="the first steps no longer throw the weights far off; the peak rate can stay",
    source=_GOYAL,
)
_CLIP = Remedy(
    what="clip the gradient's norm to 1",
    patch=put("trainer.clip_norm", 1.0),
    effect="single bad batches move the weights no farther than others",
    source="Pascanu et al. 2013, arXiv:1211.5063",
)
_HIGHER = Remedy(
    what="ten times the learning rate",
    patch=scale("optimizer.lr", 10.0, most=100.0),
    effect="the same loss in a tenth of the steps, until it becomes unstable",
    source=_BENGIO,
)
_LONGER = Remedy(
    what="train twice as long",
    patch=longer(),
    effect="the score goes on rising as it did at the end; the schedule stretches with the run",
    source=_PLAYBOOK,
)
_MIRROR = Remedy(
    what="mirror images at random, where left and right mean nothing",
    patch=put("augment.flip_horizontal", 0.5),
    effect="as if there were twice the images",
    source="Krizhevsky et al. 2012, section 4.1",
)
_ZOOM = Remedy(
    what="random zoom",
    patch=put("augment.zoom", [0.8, 1.25]),
    effect="a smaller gap between training and validation; training takes longer to converge",
    source="Szegedy et al. 2015, arXiv:1409.4842, section 6",
)
_DECAY = Remedy(
    what="three times the weight decay",
    patch=scale("optimizer.weight_decay", 3.0, most=0.5),
    effect="a smaller gap between training and validation",
    source="Loshchilov and Hutter 2019, arXiv:1711.05101",
)
_STOP = Remedy(
    what="stop where the validation score was best",
    patch=put("trainer.early_stop", {"patience": 10}),
    effect="the weights of the best evaluation in less time; these are kept in any case",
    source="Prechelt 1998, Early stopping – but when?",
)
_MORE_DATA = Remedy(
    what="more training images, and labels looked through",
    effect="the only remedy that raises what can be reached",
    source="Sun et al. 2017, arXiv:1707.02968",
)
_GROUP_NORM = Remedy(
    what="group norm in place of batch norm",
    patch=put("model.norm", "group"),
    effect="the same in training and in use, whatever the batch",
    source="Wu and He 2018, arXiv:1803.08494",
)
_LARGER_BATCH = Remedy(
    what="twice the batch",
    patch=scale("loader.batch_size", 2),
    effect="batch statistics half as noisy, twice the memory",
    source="Wu and Johnson 2021, arXiv:2105.07576",
)
_COME_DOWN = Remedy(
    what="a rate that falls to the end, after a short warm-up",
    patch=falling_rate,
    effect="the last steps are the finest; most of the score is gained in them",
    source="Loshchilov and Hutter 2017, arXiv:1608.03983",
)
_USUAL_MOMENTUM = Remedy(
    what="a momentum of 0.9",
    patch=usual_momentum,
    effect="the weights follow the last ten steps; SGD may then bear a higher rate",
    source="Sutskever et al. 2013, ICML",
)
_FLOAT32 = Remedy(
    what="train in float32",
    patch=put("trainer.precision", "32-true"),
    effect="the range of float32 at about half the speed; tells whether precision is the cause",
    source="Micikevicius et al. 2018, arXiv:1710.03740",
)


def _weighted(method: str, source: str) -> Remedy:
    return Remedy(
        what="weigh classes by how rare they are",
        patch=put("model.class_weights", method),
        effect="higher recall of rare classes, a little lower precision",
        source=source,
    )


ADVICE: dict[str, tuple[Remedy, ...]] = {
    "learning-rate-too-high": (_LOWER, _WARM, _CLIP),
    "learning-rate-out-of-band": (_LOWER, _WARM),
    "momentum-too-long": (_USUAL_MOMENTUM, _LONGER),
    "rate-still-rising": (_COME_DOWN, _LOWER),
    "gradient-changed": (
        Remedy(
            what="take out what changes gradients between backward() and step(); noise for privacy with a larger batch",
            effect="the optimiser follows the loss; noise of three deviations costs nine times the steps",
            source="Abadi et al. 2016, arXiv:1607.00133",
        ),
    ),
    "diverging-loss": (_LOWER, _WARM, _CLIP),
    "exploding-gradient": (_CLIP, _WARM, _LOWER),
    "loss-spike": (_CLIP, _LOWER),
    "oscillating-score": (_LOWER, _LARGER_BATCH),
    "non-finite": (_LOWER, _CLIP, _FLOAT32),
    "precision-overflow": (_FLOAT32,),
    "dead-units": (_LOWER, _WARM),
    "weights-grow": (_DECAY, _LOWER),
    "most-steps-clipped": (_WARM, _LOWER),
    "learning-rate-too-low": (_HIGHER, _LONGER),
    "not-converged": (_LONGER, _HIGHER),
    "stuck-at-prior": (_HIGHER, _LOWER),
    "plateau": (_LOWER, _LONGER),
    "underfitting": (_LONGER, _HIGHER),
    "overfitting": (_MIRROR, _ZOOM, _DECAY, _STOP, _MORE_DATA),
    "over-regularised": (
        Remedy(
            what="a third of the weight decay",
            patch=scale("optimizer.weight_decay", 1 / 3),
            effect="the training score rises first, the validation score with it",
            source=_PLAYBOOK,
        ),
        Remedy(
            what="no zoom",
            patch=put("augment.zoom", None),
            effect="images as they will be in use",
            source=_PLAYBOOK,
        ),
        _LONGER,
    ),
    "norm-statistics-drift": (_LARGER_BATCH, _GROUP_NORM, _LOWER),
    "tiny-batch-norm": (_LARGER_BATCH, _GROUP_NORM),
    "one-value-norm": (_LARGER_BATCH, _GROUP_NORM),
    "vanishing-gradient": (
        Remedy(
            what="a network with residual connections and norms",
            effect="gradients of the first layers as large as those of the last",
            source="He et al. 2016, arXiv:1512.03385",
        ),
        _WARM,
    ),
    "saturated-units": (
        Remedy(
            what="smaller first weights (Xavier), a norm before the function, or ReLU",
            effect="pre-activations in the steep part, where gradients pass",
            source="Glorot and Bengio 2010",
        ),
        _LOWER,
    ),
    "loader-bound": (
        Remedy(
            what="keep decoded images in memory",
            patch=put("loader.cache", "ram"),
            effect="no decoding after the first epoch",
            source="benchmarks/loader.py",
        ),
        Remedy(
            what="twice the loader processes",
            patch=scale("loader.workers", 2),
            effect="up to twice the images a second, as long as there are cores",
            source="PyTorch, performance tuning guide",
        ),
    ),
    "normalisation-mismatch": (
        Remedy(
            what="normalise by the data's own statistics",
            patch=put("data.normalize", "data"),
            effect="channels of mean 0 and deviation 1: the first layer learns from the first step on",
            source="LeCun et al. 1998, Efficient BackProp",
        ),
        Remedy(
            what="stretch each image by its own percentiles, where exposure differs from image to image",
            patch=put("data.normalize", "percentile"),
            effect="dim and bright images look alike",
            source="Isensee et al. 2021, nnU-Net",
        ),
    ),
    "objects-below-stride": (
        Remedy(
            what="larger images",
            patch=lambda recipe: (
                {"data.size": [2 * side for side in size]}
                if isinstance(size := value_of(recipe, "data.size"), list | tuple)
                else {}
            ),
            effect="objects cover twice the cells, at four times the cost",
            source="Lin et al. 2017, arXiv:1612.03144",
        ),
    ),
    "more-objects-than-detections": (
        Remedy(
            what="keep three times the detections",
            patch=scale("eval.max_detections", 3),
            effect="recall is no longer cut off; suppression takes a little longer",
            source="Lin et al. 2014, arXiv:1405.0312",
        ),
    ),
    "class-imbalance": (
        _weighted("inverse_sqrt", "Cui et al. 2019, arXiv:1901.05555"),
        _MORE_DATA,
    ),
    "class-never-predicted": (
        _weighted("median", "Eigen and Fergus 2015, arXiv:1411.4734"),
        _LONGER,
    ),
}
"""Id of a finding → what to try, the best first."""
