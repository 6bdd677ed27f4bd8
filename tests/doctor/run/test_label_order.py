"""Sorted and shuffled digits in a real loop; what is kept of their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from clearsight.doctor.rule import examine
from clearsight.doctor.run.label_order import UnshuffledBatches, note_labels
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.watch import Watch

PIXELS, LABELS = load_digits(return_X_y=True)
KNOWN = {"task": "classification", "classes": tuple("0123456789"), "class_counts": tuple(np.bincount(LABELS).tolist())}


def trained(order: np.ndarray, *, batch: int = 32, **about: Any) -> Watch:
    images, labels = torch.from_numpy(PIXELS[order]).float() / 16, torch.from_numpy(LABELS[order])
    net = nn.Linear(64, 10)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    rules = [UnshuffledBatches()]
    said = Watch(net, optimizer, budget=50, about=RunRecord(**about), rules=rules, on_finding=lambda finding: None)
    with said as watch:
        for start in range(0, 20 * batch, batch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images[start : start + batch]), labels[start : start + batch])
            loss.backward()
            optimizer.step()
            watch.step(loss, labels=labels[start : start + batch])
    return said


def ids(watch: Watch) -> list[str]:
    return [finding.id for finding in watch.findings if finding.severity != "info"]


@pytest.mark.parametrize("about", [KNOWN, {}], ids=["counts-known", "nothing-known"])
def test_sorted_labels_are_told_and_shuffled_ones_are_not(about: dict[str, Any]) -> None:
    assert ids(trained(np.argsort(LABELS, kind="stable"), **about)) == ["unshuffled"]
    assert ids(trained(np.random.default_rng(0).permutation(len(LABELS)), **about)) == []


def test_classes_in_turn_are_no_runs() -> None:
    in_turn = np.argsort(np.argsort(LABELS, kind="stable") % 180, kind="stable")
    assert ids(trained(in_turn, **KNOWN)) == []


def test_nothing_is_said_before_all_batches_are_there() -> None:
    facts: dict[str, Any] = {}
    for number in range(15):
        note_labels(facts, torch.full((32,), number % 10), epoch=None)
        silent = examine([UnshuffledBatches()], RunRecord(facts=facts)).silent
        assert silent["unshuffled"] == "the labels of the first 16 batches"
    note_labels(facts, torch.full((32,), 5), epoch=None)
    assert [finding.id for finding in examine([UnshuffledBatches()], RunRecord(facts=facts)).findings] == ["unshuffled"]


def test_sixteen_batches_of_sixty_four_are_kept_and_no_second_epoch() -> None:
    facts: dict[str, Any] = {}
    for _ in range(20):
        note_labels(facts, torch.arange(100), epoch=None)
    assert [len(batch) for batch in facts["first_labels"]] == [64] * 16
    short: dict[str, Any] = {}
    for _ in range(20):
        note_labels(short, [1, 2, 3], epoch=11)
    assert short["first_labels"] == [[1, 2, 3]] * 11


@pytest.mark.parametrize("labels", [torch.zeros(4, 10), torch.zeros(4), torch.zeros(4, 8, 8).long()])
def test_labels_of_another_kind_are_left(labels: torch.Tensor) -> None:
    facts: dict[str, Any] = {}
    note_labels(facts, labels, epoch=None)
    assert facts["first_labels"] == []


def test_ignored_labels_and_counts_that_do_not_fit_end_nothing() -> None:
    facts = {"first_labels": [[-100, 0, 1, 0]] * 16}
    for counts in ((3, 3), (), (100, 100)):
        examined = examine([UnshuffledBatches()], RunRecord(facts=facts, class_counts=counts))
        assert [finding.id for finding in examined.findings if finding.id == "rule-failed"] == []
