"""An LSTM that tells the language of a surname, on names it never saw, beside letter n-grams with a linear classifier.

Reading, splitting and training are those of `examples/names.py`; both sides learn and answer the same names. On a
batch of real names, the module is also timed beside the same weights behind PyTorch's packed sequences.
"""

from __future__ import annotations

import argparse
import runpy
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import Options, Row, alternate, arguments, compare, need, report, seconds

EXAMPLE = runpy.run_path(str(Path(__file__).resolve().parent.parent / "examples" / "names.py"))
PEER = "scikit-learn: TF-IDF of 1 to 4 letters, logistic regression"


def _extra(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of split and training")
    parser.add_argument("--epochs", type=int, default=10)


def best_possible(problem: Any) -> float:  # noqa: ANN401 - a class of the example
    """Accuracy on the names held out of somebody who knows each, but not whose it is when several languages have it."""
    languages: dict[tuple[int, ...], Counter[int]] = {}
    for row, label in zip(problem.held_out.tokens.tolist(), problem.held_out.labels.tolist(), strict=True):
        languages.setdefault(tuple(row), Counter())[label] += 1
    return sum(max(count.values()) for count in languages.values()) / len(problem.held_out.labels)


def by_letters(folder: Path, problem: Any, *, seed: int) -> dict[str, Any]:  # noqa: ANN401
    """The peer's scores, without and with its own class weights."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from clearsight.metrics.classify import score_classification

    names, labels, languages = EXAMPLE["read_names"](folder)
    learn, held_out = EXAMPLE["split_names"](names, labels, seed=seed)
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
    x = vectors.fit_transform([names[i] for i in learn])
    x_held_out = vectors.transform([names[i] for i in held_out])
    scores = {}
    for way, weight in (("plain", None), ("weighted", "balanced")):
        model = LogisticRegression(C=10, max_iter=300, class_weight=weight).fit(x, [labels[i] for i in learn])
        probs = torch.from_numpy(model.predict_proba(x_held_out))
        scores[way] = score_classification(probs, problem.held_out.labels, languages)
    return scores


def speeds(problem: Any, *, quick: bool) -> dict[str, list[float]]:  # noqa: ANN401
    """Names a second, forward and backward, of the module and of packed sequences with the same weights."""
    from clearsight.nn.recurrent import SequenceClassifier

    torch.manual_seed(0)
    batch = next(EXAMPLE["batches"](problem.train, 128, pool=1))  # lengths as they come
    ours = SequenceClassifier(problem.letters + 1, len(problem.languages), embed=32, width=96)
    packed = nn.LSTM(32, 96, batch_first=True, bidirectional=True)

    def by_packing() -> Tensor:
        pack = nn.utils.rnn.pack_padded_sequence
        x = pack(ours.embed(batch.tokens), batch.lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = packed(x)
        return ours.head(torch.cat(list(hidden), dim=1))

    def rate(forward: Callable[[], Tensor]) -> float:
        return 20 * len(batch.labels) / seconds(lambda: [forward().sum().backward() for _ in range(20)])

    ways = {"ours": lambda: rate(lambda: ours(batch.tokens, batch.lengths)), "packed": lambda: rate(by_packing)}
    return alternate(ways, rounds=7, quick=quick)


def learn(folder: Path, options: Options) -> list[dict[str, Any]]:
    """The scores of both sides, by seed."""
    outcomes = []
    for seed in options.extra.seeds:
        problem = EXAMPLE["prepare"](folder, seed=seed)
        weights = EXAMPLE["class_weights"](problem.train.labels, len(problem.languages))
        outcome: dict[str, Any] = {"problem": problem, "peer": by_letters(folder, problem, seed=seed)}
        for way, weight in (("plain", None), ("weighted", weights)):
            start = time.perf_counter()
            model = EXAMPLE["train"](
                problem.train, problem.letters, len(problem.languages), epochs=options.extra.epochs, weight=weight,
                seed=seed,
            )  # fmt: skip
            outcome[f"{way} seconds"] = time.perf_counter() - start
            outcome[way] = EXAMPLE["evaluate"](model, problem)
            print(seed, way, {key: round(value, 3) for key, value in outcome[way].summary.items()}, flush=True)
        outcomes.append(outcome)
    return outcomes


def rows_of(outcomes: Sequence[dict[str, Any]]) -> list[Row]:
    rows = []
    for way, said in (("plain", ""), ("weighted", ", with class weights")):
        for key, title in (("accuracy", "accuracy"), ("balanced_accuracy", "mean recall of the languages")):
            ours = [outcome[way].summary[key] for outcome in outcomes]
            theirs = [outcome["peer"][way].summary[key] for outcome in outcomes]
            if (way, key) == ("plain", "accuracy"):
                rows.append(compare("accuracy on names held out", ours, unit="share", better="higher", bar=0.75))
            rows.append(compare(title + said, ours, unit="share", better="higher", peer=PEER, theirs=theirs))
        rows.append(_rarest(outcomes, way, said))
    ceiling = [best_possible(outcome["problem"]) for outcome in outcomes]
    note = "a spelling that several languages share can only be given one of them"
    rows.append(compare("accuracy that spelling allows at best", ceiling, unit="share", better="higher", note=note))
    spent = [outcome["plain seconds"] for outcome in outcomes]
    rows.append(compare("training, one thread", spent, unit="s", better="lower"))
    return rows


def _rarest(outcomes: Sequence[dict[str, Any]], way: str, said: str) -> Row:
    """The mean recall of the rarest languages, each by itself in the note."""
    found: dict[str, list[float]] = {}
    ours, theirs = [], []
    for outcome in outcomes:
        languages = EXAMPLE["rarest"](outcome["problem"])
        recalls = EXAMPLE["recalls"](outcome[way], languages)
        for language, recall in recalls.items():
            found.setdefault(language, []).append(recall)
        ours.append(statistics.mean(recalls.values()))
        theirs.append(statistics.mean(EXAMPLE["recalls"](outcome["peer"][way], languages).values()))
    note = ", ".join(f"{language} {statistics.median(values):.2f}" for language, values in found.items())
    title = f"mean recall of the {EXAMPLE['RAREST']} rarest{said}"
    return compare(title, ours, unit="share", better="higher", peer=PEER, theirs=theirs, note=note)


def main() -> int:
    """Learn with each seed, compare, and time a batch."""
    options = arguments(__doc__ or "", extra=_extra)
    folder = need(options, "names")
    if options.quick:
        options.extra.seeds, options.extra.epochs = options.extra.seeds[:1], 1
    torch.set_num_threads(1)
    outcomes = learn(folder, options)
    measured = speeds(outcomes[0]["problem"], quick=options.quick)
    rows = rows_of(outcomes)
    rows.append(
        compare(
            "forward and backward, a batch of names", measured["ours"], unit="names/s", better="higher",
            peer="torch.nn.LSTM on packed sequences", theirs=measured["packed"], bar=1.0,
        )
    )  # fmt: skip
    return report("names_lstm", rows, options)


if __name__ == "__main__":
    sys.exit(main())
