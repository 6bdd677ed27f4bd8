"""Labels that contradict what alike examples are labelled: confident learning, and when it can be believed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.label_contrast import Contrast, label_contrast, same_kind
from clearsight.doctor.data.labelled import Labelled, condense, labelled_examples, place
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["LabelErrors", "Noise", "agreement", "estimate_noise", "out_of_sample"]

_FOLDS = 5
_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noise:
    """What out-of-sample probabilities say of labels.

    Args:
        joint: share of wrong labels by the confident joint of the labels and the probabilities.
        sure: share of labels that the classifier contradicts, among the half of the examples that it is surest of.
        sure_least: lower end of its 95 % interval (Wilson).
        unsure: the same among the next quarter.
        uneven_most: upper end of the 90 % interval of what `unsure` is more than `sure`.
        agreed: share that it does not contradict of that half, mean over classes; a class that it hardly ever names
            counts as 0.
        accuracy: share of right labels that it does not contradict, if `sure` is the share of wrong ones.
        suspects: positions of labels that are likely wrong, the likeliest first; of the surest three quarters.
        score: `(n,)` quality of each label, in [0, 1].
        doubt: `(n,)` rank of each among those that are taken for its class, in [0, 1): 0 is the surest.
    """

    joint: float
    sure: float
    sure_least: float
    unsure: float
    uneven_most: float
    agreed: float
    accuracy: float
    suspects: np.ndarray
    score: np.ndarray
    doubt: np.ndarray


class LabelErrors(Rule[DataEvidence]):
    """Labels that are likely wrong: of images for classification, else of objects by what their boxes show.

    Probabilities are those of a logistic regression on features, each fold by one that has not seen it. Its own
    confusion is not label noise: what it confuses lies where it is unsure, whereas a wrong label does not depend on
    how sure it is. So the share that it contradicts among the half that it is surest of is taken for the noise, and
    only where the next quarter is hardly worse and what is left of errors is few. And it must be sure indeed: two that
    learned from different halves have to say the same of that half, whatever the labels are. Where features cannot
    tell two classes apart (a photo and the same one upside down), both guess, and contradictions are no noise.

    Method: Northcutt et al. 2021, arXiv:1911.00068, the confident joint (section 3.1) and pruning by noise rate, with
    cleanlab. Differs: the estimate must hold where the classifier is sure, or no warning is given.

    Where classes are too alike for that, splits still tell: whatever the classifier errs in, it errs in each split of
    the same kind of images alike. Labels of a split that it contradicts more, where it is sure, are wrong by as much;
    see `label_contrast`. Of copies of an image with one label one is looked at: the others would be known by heart.

    Args:
        noise: share of wrong labels from which on it is a warning.
        accuracy: of the classifier, its estimate on right labels, below which it says nothing.
        even: least ratio of contradictions among the surest half to those among the next quarter; less shows that they
            come of the classifier.
        agreed: see `Noise`; what is below has learned too little.
        steady: share of the surest half of which classifiers from different halves of the examples say the same. In
            real sets of some hundred images with up to 30 % of wrong labels it is 0.91 and more; in one whose classes
            look alike in pairs, 0.82 and less. Guesses agree more in larger sets.
        least: examples that a class needs.
        z: standard errors that a difference between splits needs; four come by chance once in thirty thousand times.
        enough: examples that are needed in all: among fewer, chance looks like noise.
        most: examples that are looked at.
    """

    id = "label-error"
    source = "Northcutt et al. 2021, Confident learning, arXiv:1911.00068; cleanlab"

    def __init__(  # noqa: PLR0913 - thresholds
        self,
        *,
        noise: float = 0.03,
        accuracy: float = 0.8,
        even: float = 0.6,
        agreed: float = 0.6,
        steady: float = 0.87,
        z: float = 4.0,
        least: int = 5,
        enough: int = 150,
        most: int = 10_000,
    ) -> None:
        self.noise, self.accuracy, self.even, self.agreed, self.steady = noise, accuracy, even, agreed, steady
        self.z, self.least, self.enough, self.most = z, least, enough, most

    def lacks(self, evidence: DataEvidence) -> str:
        """Classes with enough examples, or cleanlab."""
        if find_spec("cleanlab") is None:
            return "cleanlab is not installed, run: pip install cleanlab"
        if evidence.dataset.task == "semantic" or len(evidence.dataset.classes) < 2:
            return "classes of images or objects to tell apart"
        labels = self._examples(evidence).labels
        if len(np.unique(labels)) < 2:
            return f"two classes with {self.least} examples each"
        return "" if len(labels) >= self.enough else f"{self.enough} examples"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for the data set; `info` where only some labels are suspect."""
        examples = self._examples(evidence)
        classes, labels = np.unique(examples.labels, return_inverse=True)
        probabilities = out_of_sample(examples.features, labels)
        noise = estimate_noise(labels, probabilities)
        suggested = classes[probabilities.argmax(axis=1)]
        believable = len(noise.suspects) > 0 and self._believable(noise)
        if believable and agreement(examples.features, labels, noise.doubt < 0.5) < self.steady:
            return
        # Half the threshold, so that a handful of odd examples in a small set is no warning.
        noisy = believable and min(noise.joint, noise.sure) > self.noise and noise.sure_least > self.noise / 2
        contrast = None if noisy else self._contrast(evidence, examples, noise, suggested)
        if contrast is not None:
            yield self._between_splits(evidence, examples, noise, contrast, suggested)
        elif believable:
            yield self._general(evidence, examples, noise, suggested, noisy=noisy)

    def _general(
        self, evidence: DataEvidence, examples: Labelled, noise: Noise, suggested: np.ndarray, *, noisy: bool
    ) -> Finding:
        total = len(examples)
        return Finding(
            id=self.id,
            severity="warning" if noisy else "info",
            where=str(evidence.dataset.root),
            explanation=_explained(noise, total, _unit(examples), noisy=noisy),
            action="kept",
            evidence={
                "row": "D2",
                "noise": round(noise.sure, 4),
                "noise_least": round(noise.sure_least, 4),
                "noise_confident_joint": round(noise.joint, 4),
                "noise_where_less_sure": round(noise.unsure, 4),
                "threshold": self.noise,
                "accuracy": round(noise.accuracy, 4),
                "examples": total,
                "suspects": len(noise.suspects),
                "first": _listed(evidence, examples, noise, suggested),
            },
            source=self.source,
        )

    def _contrast(
        self, evidence: DataEvidence, examples: Labelled, noise: Noise, suggested: np.ndarray
    ) -> Contrast | None:
        """What splits tell of each other's labels, among the half that is surest; None where that is nothing."""
        contradicted = np.where(noise.doubt < 0.5, (suggested != examples.labels).astype(np.float64), np.nan)
        found = label_contrast(evidence, examples, contradicted)
        if found is None or found.excess <= self.noise or found.z <= self.z:
            return None
        return found if same_kind(evidence, examples, (found.worse, found.better)) else None

    def _between_splits(
        self, evidence: DataEvidence, examples: Labelled, noise: Noise, found: Contrast, suggested: np.ndarray
    ) -> Finding:
        suspects = noise.suspects[found.members[noise.suspects]]
        worse, better = found.shares
        return Finding(
            id=self.id,
            severity="warning",
            where=f"data.{found.worse}",
            explanation=(
                f"Labels of {found.worse} are contradicted more than those of {found.better}: {100 * worse:.1f} % "
                f"against {100 * better:.1f} %, where a classifier that was trained on other {_unit(examples)} is "
                "surest. The images are of the same kind, so the labels are not: about the difference are wrong, or "
                f"mean something else there. Look through the {len(suspects)} that it is sure of, the likeliest first"
            ),
            action="kept",
            evidence={
                "row": "D2",
                "noise": round(found.excess, 4),
                "split": found.worse,
                "contradicted": [round(worse, 4), round(better, 4)],
                "z": round(found.z, 2),
                "threshold": self.noise,
                "threshold_z": self.z,
                "examples": len(examples),
                "suspects": len(suspects),
                "first": _listed(evidence, examples, replace(noise, suspects=suspects), suggested),
            },
            source=self.source,
        )

    def _believable(self, noise: Noise) -> bool:
        """Whether contradictions come of labels: not of a classifier that knows too little, nor of where it is unsure.

        The numbers are set on clean parts of digits, hand signs, fruit and blood cells, most with noise on their
        features; of 504 such sets one gave a warning.
        """
        if noise.accuracy < self.accuracy or noise.agreed < self.agreed or noise.sure < self.even * noise.unsure:
            return False
        return noise.accuracy >= 0.97 or noise.uneven_most <= 0.3 * noise.sure + 0.05

    def _examples(self, evidence: DataEvidence) -> Labelled:
        found = _distinct(evidence, labelled_examples(evidence))
        return found.of_classes_with(self.least).sample(self.most).of_classes_with(self.least)


def _distinct(evidence: DataEvidence, examples: Labelled) -> Labelled:
    """Of images with the same bytes and label one; all objects."""
    if not len(examples) or examples.item[0] >= 0:
        return examples
    pairs = [(evidence.scan.md5[row], label) for row, label in zip(examples.record, examples.labels, strict=True)]
    first = {pair: position for position, pair in reversed(list(enumerate(pairs)))}
    return examples.select(np.array(sorted(first.values()), np.int64))


def _unit(examples: Labelled) -> str:
    return "images" if examples.item[0] < 0 else "objects"


def out_of_sample(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Class probabilities of each example by a logistic regression on the others' folds, of five.

    Args:
        features: `(n, d)`.
        labels: `(n,)` int64 from 0, at least five of each class.

    Returns:
        `(n, k)`, rows sum to one.
    """
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly converged probabilities are as good
        model, points = LogisticRegression(C=0.01, max_iter=200), condense(features)
        return np.asarray(cross_val_predict(model, points, labels, cv=folds, method="predict_proba"))


def agreement(features: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> float:
    """Share of some examples of which logistic regressions on either half of all examples say the same.

    Args:
        features: `(n, d)`.
        labels: `(n,)` int64 from 0, at least two of each class.
        chosen: `(n,)` bool, the examples that are asked of.
    """
    points = condense(features)
    halves = next(StratifiedKFold(2, shuffle=True, random_state=0).split(points, labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        said = [
            LogisticRegression(C=0.01, max_iter=200).fit(points[half], labels[half]).predict(points[chosen])
            for half in halves
        ]
    return float((said[0] == said[1]).mean())


def estimate_noise(labels: np.ndarray, probabilities: np.ndarray) -> Noise:
    """How many labels are wrong, and which.

    Args:
        labels: `(n,)` int64 from 0, every class present.
        probabilities: `(n, k)` of each example by a classifier that was not trained on it.
    """
    from cleanlab.count import compute_confident_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from scipy.stats import binomtest

    joint = np.asarray(compute_confident_joint(labels, probabilities))
    flagged = find_label_issues(labels, probabilities, n_jobs=1)
    score = get_label_quality_scores(labels, probabilities, method="normalized_margin")
    predicted = probabilities.argmax(axis=1)
    contradicted = predicted != labels
    rank = _doubt(probabilities, predicted)
    sure, unsure = rank < 0.5, (rank >= 0.5) & (rank < 0.75)
    share, next_share = float(contradicted[sure].mean()), float(contradicted[unsure].mean()) if unsure.any() else 1.0
    spread = share * (1 - share) / sure.sum() + next_share * (1 - next_share) / max(1, unsure.sum())
    wrong = binomtest(int(contradicted[sure].sum()), int(sure.sum()))
    suspects = np.flatnonzero(flagged & contradicted & (rank < 0.75))  # the rest is where it errs itself
    return Noise(
        joint=1 - float(joint.trace() / joint.sum()),
        sure=share,
        sure_least=float(wrong.proportion_ci(0.95, method="wilson").low),
        unsure=next_share,
        uneven_most=next_share - share + 1.645 * float(np.sqrt(spread)),
        agreed=_agreed(labels, predicted, sure),
        accuracy=1 - max(0.0, float(contradicted.mean()) - share) / max(1 - share, 1e-9),
        suspects=suspects[np.argsort(score[suspects], kind="stable")],
        score=score,
        doubt=rank,
    )


def _doubt(probabilities: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Rank of each example among those that are taken for its class, `(n,)` in [0, 1): 0 is the surest."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    margin = two[:, 1] - two[:, 0]
    rank = np.zeros(len(margin))
    for label in np.unique(predicted):
        own = np.flatnonzero(predicted == label)
        rank[own[np.argsort(-margin[own], kind="stable")]] = np.arange(len(own)) / len(own)
    return rank


def _agreed(labels: np.ndarray, predicted: np.ndarray, sure: np.ndarray) -> float:
    """Mean over classes of the share of the surest that have the label they are taken for."""
    shares = []
    for label in np.unique(labels):
        named = predicted == label
        enough = named.sum() >= 0.25 * (labels == label).sum()
        shares.append(float((labels[named & sure] == label).mean()) if enough else 0.0)
    return float(np.mean(shares))


def _explained(noise: Noise, total: int, what: str, *, noisy: bool) -> str:
    count = len(noise.suspects)
    if not noisy:
        return (
            f"{count} of {total} {what} look like another class than they are labelled; that is no sign of general "
            "noise, but they are worth a look"
        )
    return (
        f"About {100 * noise.sure:.1f} % of the labels are likely wrong: where a classifier that was trained on other "
        f"{what} is surest, so many of {total} {what} have another label than it says; with right labels it would be "
        f"hardly any. Look through the {count} that it is sure of, the likeliest first, and correct or remove them"
    )


def _listed(evidence: DataEvidence, examples: Labelled, noise: Noise, suggested: np.ndarray) -> list[dict[str, Any]]:
    dataset = evidence.dataset
    return [
        {
            "where": place(dataset, int(examples.record[at]), int(examples.item[at])),
            "given": dataset.classes[examples.labels[at]],
            "suggested": dataset.classes[suggested[at]],
            "score": round(float(noise.score[at]), 4),
        }
        for at in noise.suspects[:_LISTED].tolist()
    ]
