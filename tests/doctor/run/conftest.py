"""Records of runs, built number by number, or by small nets that learn digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord


@pytest.fixture
def layer_series() -> Callable[..., LayerSeries]:
    """Measurements of layers `l0`, `l1`, … at steps 10, 20, …, each measure as `(t, L)` or as one row for all times."""

    def build(*, times: int = 6, kinds: Sequence[str] = (), activation: str = "", **measures: object) -> LayerSeries:
        rows = {name: np.atleast_2d(np.asarray(values, dtype=np.float64)) for name, values in measures.items()}
        full = {name: np.repeat(row, times, axis=0) if len(row) == 1 else row for name, row in rows.items()}
        count = next(iter(full.values())).shape[1]
        return LayerSeries(
            names=tuple(f"l{number}" for number in range(count)),
            kinds=tuple(kinds) or ("Conv2d",) * count,
            activations=(activation,) * count,
            exempt=(False,) * count,
            steps=np.arange(1, len(next(iter(full.values()))) + 1) * 10,
            values=full,
        )

    return build


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """The digits of scikit-learn in a fixed order, standardised, with their labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return torch.from_numpy(images[order]).float().sub_(4.884).div_(6.017), torch.from_numpy(labels[order])


@pytest.fixture
def digits_run(digits: tuple[Tensor, Tensor]) -> Callable[..., RunRecord]:
    """Trains a small net on digits in its own loop, and says what it saw."""

    def train(
        *,
        rate: float = 2e-3,
        optimizer: str = "adam",
        epochs: int = 16,
        batch: int = 40,
        per_class: Sequence[int] = (60,) * 10,
        width: int = 64,
        dropout: float = 0.0,
        smoothing: float = 0.0,
        softmax: bool = False,
        sign: float = 1.0,
        mislabelled: float = 0.0,
    ) -> RunRecord:
        images, labels = digits
        kept = torch.cat([(labels[:1200] == digit).nonzero()[: per_class[digit], 0] for digit in range(10)])
        inputs, targets, held, truth = images[kept], labels[kept], images[1200:], labels[1200:]
        wrong = (torch.rand(len(targets)) < mislabelled).nonzero()[:, 0]
        targets[wrong] = targets[wrong][torch.randperm(len(wrong))]
        net = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(width, 10), nn.Softmax(1) if softmax else nn.Identity(),
        )  # fmt: skip
        weights = [layer.weight for layer in net if isinstance(layer, nn.Linear)]
        step = {
            "adam": lambda: torch.optim.Adam(net.parameters(), rate),
            "sgd": lambda: torch.optim.SGD(net.parameters(), rate),
            "momentum": lambda: torch.optim.SGD(net.parameters(), rate, momentum=0.9),
        }[optimizer]()
        criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
        loss, updates, at, val, scores, fitted, recalls = [], [], [], [], [], [], []
        for _ in range(epochs):
            right = 0
            for indices in torch.randperm(len(kept)).split(batch):
                out = net.train()(inputs[indices])
                value = criterion(out, targets[indices])
                step.zero_grad()
                (sign * value).backward()
                before = [weight.detach().clone() for weight in weights]
                step.step()
                moved = [
                    float((new.detach() - old).norm() / old.norm()) for new, old in zip(weights, before, strict=True)
                ]
                loss.append(value.item())
                updates.append(moved)
                right += int((out.argmax(1) == targets[indices]).sum())
            with torch.no_grad():
                out = net.eval()(held)
            hit = out.argmax(1) == truth
            at.append(len(loss))
            val.append(criterion(out, truth).item())
            scores.append(hit.float().mean().item())
            fitted.append(right / len(kept))
            recalls.append([hit[truth == digit].float().mean().item() for digit in range(10)])
        steps = np.arange(1, len(loss) + 1)
        return RunRecord(
            task="classification",
            classes=tuple("0123456789"),
            class_counts=tuple(torch.bincount(targets, minlength=10).tolist()),
            budget=len(loss),
            steps_per_epoch=len(loss) // epochs,
            batch_size=batch,
            loss=Curve.of(steps, loss),
            val={"loss": Curve.of(at, val), "accuracy": Curve.of(at, scores)},
            train={"accuracy": Curve.of(at, fitted)},
            class_scores={str(digit): Curve.of(at, [row[digit] for row in recalls]) for digit in range(10)},
            layers=LayerSeries(
                names=("0", "3", "6"),
                kinds=("Linear",) * 3,
                activations=("relu", "relu", ""),
                exempt=(False,) * 3,
                steps=steps,
                values={"update_ratio": np.array(updates)},
            ),
            recipe={"optimizer": {"lr": rate}, "trainer": {"epochs": epochs}},
            finished=True,
        )

    return train


@pytest.fixture
def odd_records() -> list[RunRecord]:
    """Records with parts missing, one value long, not finite, constant, negative, all without an end or finished."""
    rng, steps = np.random.default_rng(0), np.arange(1, 61)
    courses = [
        np.full(60, np.nan),
        np.full(60, np.inf),
        np.zeros(60),
        np.full(60, 2.3026),
        np.r_[np.full(30, 2.0), np.full(30, np.nan)],
        np.where(rng.random(60) < 0.5, np.nan, rng.normal(size=60)),
        rng.normal(size=60) * 1e30,
        -np.exp(rng.normal(size=60)),
    ]
    found = [RunRecord(), RunRecord(finished=True), RunRecord(loss=Curve.of([1], [2.0]), budget=100)]
    for values in courses:
        curve = Curve.of(steps, values)
        few = {"loss": curve, "accuracy": curve}
        base = {"task": "classification", "classes": tuple("abcdefgh")}
        found += [
            RunRecord(loss=curve, finished=True, **base),
            RunRecord(loss=curve, val=few, train=few, budget=120),
            RunRecord(loss=curve, val=few, train=few, budget=80, recipe={"optimizer": 3}, **base),
            RunRecord(
                loss=curve, val=few, class_scores=dict.fromkeys("abc", curve), class_counts=(99, *(1,) * 7),
                finished=True, **base,
            ),
        ]  # fmt: skip
    return found
