"""The language of a surname, letter by letter: an LSTM learns 18 languages of which one has 127 times another's names.

Names are kept in Unicode, composed (NFC), in lower case and without outer spaces: accents tell languages apart. A fifth
is held out, every name on one side, however often and in however many languages it occurs. What is learnt plainly
leaves rare languages aside; class weights bring them up, at some cost to the others.

python examples/names.py ../shared/data/names
"""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clearsight.losses.classify import cross_entropy
from clearsight.metrics.classify import score_classification
from clearsight.metrics.scores import Scores
from clearsight.nn.recurrent import SequenceClassifier

UNKNOWN = 0  # the number of a letter that training never showed, or that is hidden
HIDDEN = 0.2  # share of the letters that training hides
RAREST = 5  # languages whose recall is told apart


class Names(NamedTuple):
    """Names as numbers."""

    tokens: Tensor  # (n, t) int64 letters, 0 beyond a name's end
    lengths: Tensor  # (n,)
    labels: Tensor  # (n,) int64 languages


def read_names(folder: Path) -> tuple[list[str], list[int], list[str]]:
    """Every name, the index of its language, and the languages, one for each file `Language.txt`."""
    files = sorted(folder.glob("*.txt"))
    if not files:
        sys.exit(f"{folder}: no .txt file; expected one for each language, a name a line")
    names, labels = [], []
    for label, file in enumerate(files):
        for line in file.read_text(encoding="utf-8").splitlines():
            if name := unicodedata.normalize("NFC", line).strip().lower():
                names.append(name)
                labels.append(label)
    return names, labels, [file.stem for file in files]


def split_names(names: Sequence[str], labels: Sequence[int], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of four fifths to train on and of a fifth held out; equal names stay together.

    Every fifth name of each kind is held out, where names of a kind have the same languages and occur about as often:
    so names of several languages, which nobody can get right, are in proportion on both sides, and so are languages
    that repeat few names (2000 lines of Arabic have 108).
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    rng = np.random.default_rng(seed)
    groups = [list(places.values())[i] for i in rng.permutation(len(places))]
    groups.sort(key=lambda group: (sorted({labels[i] for i in group}), len(group)))  # keeps the order of equals
    first = int(rng.integers(5))
    held_out = [i for group in groups[first::5] for i in group]
    return np.setdiff1d(np.arange(len(names)), held_out), np.sort(held_out)


def letters_of(names: Sequence[str]) -> dict[str, int]:
    """A number for each letter, from 1."""
    return {letter: i for i, letter in enumerate(sorted({letter for name in names for letter in name}), start=1)}


def as_tensors(names: Sequence[str], labels: Sequence[int], letters: dict[str, int]) -> Names:
    """Names as numbers, padded to the longest."""
    lengths = torch.tensor([len(name) for name in names])
    tokens = torch.zeros(len(names), int(lengths.max()), dtype=torch.int64)
    for row, name in zip(tokens, names, strict=True):
        row[: len(name)] = torch.tensor([letters.get(letter, UNKNOWN) for letter in name])
    return Names(tokens, lengths, torch.tensor(labels))


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """One over the square root of a language's names, 1 on average over the names: half-way to equal languages."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    weight = counts.double().rsqrt()
    return (weight * len(labels) / (weight * counts).sum()).float()


def batches(data: Names, size: int, *, pool: int = 16) -> Iterator[Names]:
    """Shuffled batches of names of similar length: a batch takes as many steps as its longest name has letters."""
    order = torch.randperm(len(data.lengths))
    order = torch.cat([some[data.lengths[some].argsort()] for some in order.split(size * pool)])
    parts = order.split(size)
    for i in torch.randperm(len(parts)).tolist():
        lengths = data.lengths[parts[i]]
        yield Names(data.tokens[parts[i], : int(lengths.max())], lengths, data.labels[parts[i]])


def train(
    data: Names, letters: int, classes: int, *, epochs: int, weight: Tensor | None = None, seed: int = 0
) -> SequenceClassifier:
    """An LSTM of both directions, by AdamW with a rate that rises and falls once.

    Letters are hidden at random: so the unknown one is learnt, and names that are repeated are not learnt by heart.
    """
    torch.manual_seed(seed)
    model = SequenceClassifier(letters + 1, classes, kind="lstm", embed=32, width=96, dropout=0.5)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = epochs * math.ceil(len(data.labels) / 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(epochs):
        for batch in batches(data, 128):
            tokens = batch.tokens.masked_fill(torch.rand(batch.tokens.shape) < HIDDEN, UNKNOWN)
            loss = cross_entropy(model(tokens, batch.lengths), batch.labels, weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


class Problem(NamedTuple):
    """Names to learn and names held out."""

    train: Names
    held_out: Names
    letters: int
    languages: list[str]


def prepare(folder: Path, *, seed: int = 0) -> Problem:
    """Read, split, and number the letters that are in the part to learn from."""
    names, labels, languages = read_names(folder)
    parts = split_names(names, labels, seed=seed)
    letters = letters_of([names[i] for i in parts[0]])
    train_, held_out = (as_tensors([names[i] for i in part], [labels[i] for i in part], letters) for part in parts)
    return Problem(train_, held_out, len(letters), languages)


def evaluate(model: SequenceClassifier, problem: Problem) -> Scores:
    """All figures on the names held out."""
    with torch.no_grad():
        logits = model(problem.held_out.tokens, problem.held_out.lengths)
    return score_classification(logits.softmax(1), problem.held_out.labels, problem.languages)


def rarest(problem: Problem) -> list[str]:
    """The languages with the fewest names, the rarest first."""
    counts = torch.bincount(problem.train.labels, minlength=len(problem.languages))
    return [problem.languages[i] for i in counts.argsort(stable=True)[:RAREST].tolist()]


def recalls(scores: Scores, languages: Sequence[str]) -> dict[str, float]:
    """Recall of some of the languages."""
    found = {row["class"]: row["recall"] for row in scores.per_class}
    return {language: found[language] for language in languages}


def main(folder: Path, *, epochs: int = 10, seed: int = 0) -> dict[str, Scores]:
    """Learn with and without class weights, and say what each gives."""
    problem = prepare(folder, seed=seed)
    print(f"{len(problem.train.labels)} names to learn, {len(problem.held_out.labels)} held out")
    both = {"plain": None, "weighted": class_weights(problem.train.labels, len(problem.languages))}
    scores = {}
    for way, weight in both.items():
        model = train(problem.train, problem.letters, len(problem.languages), epochs=epochs, weight=weight, seed=seed)
        scores[way] = evaluate(model, problem)
        summary, rare = scores[way].summary, recalls(scores[way], rarest(problem))
        print(f"{way}: accuracy {summary['accuracy']:.3f}, mean recall {summary['balanced_accuracy']:.3f}")
        print("  recall of the rarest: " + ", ".join(f"{name} {share:.2f}" for name, share in rare.items()))
    return scores


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    main(Path(sys.argv[1]))
