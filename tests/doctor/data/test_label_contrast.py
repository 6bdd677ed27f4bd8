"""Contrasts of splits by hand, how often chance makes one, and what else than labels may make one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.doctor.data.label_contrast import label_contrast, same_kind
from clearsight.doctor.data.labelled import Labelled
from clearsight.types import Record


def records_of(labels, *, val: int, group: int | None = None) -> list[Record]:
    splits = ["train"] * (len(labels) - val) + ["val"] * val
    return [
        Record(image=Path("x"), label=int(label), split=split, group=group and f"{split} {number // group}")
        for number, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]


def examples_of(labels) -> Labelled:
    rows = np.arange(len(labels))
    return Labelled(features=np.zeros((len(labels), 1)), labels=np.array(labels), record=rows, item=rows * 0 - 1)


def noise_of(count: int, *, seed: int = 0, mean: float = 120.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.clip(rng.normal(mean, 30, (16, 16)), 0, 255).astype(np.uint8) for _ in range(count)]


def test_a_contrast_by_hand(evidence_of) -> None:
    labels = np.arange(160) % 2
    evidence = evidence_of(records_of(labels, val=60), noise_of(160))
    contradicted = np.zeros(160)
    contradicted[:30], contradicted[100:103] = 1, 1
    found = label_contrast(evidence, examples_of(labels), contradicted)
    assert found is not None
    assert (found.worse, found.better, found.shares) == ("train", "val", (0.3, 0.05))
    both = 33 / 160
    error = (30 * (1 - both) ** 2 + 70 * both**2) / 100**2 + (3 * (1 - both) ** 2 + 57 * both**2) / 60**2
    assert found.z == pytest.approx(0.25 / np.sqrt(error))
    assert found.members.tolist() == [True] * 100 + [False] * 60
    contradicted[40:100] = np.nan  # not counted
    found = label_contrast(evidence, examples_of(labels), contradicted)
    assert found is not None
    assert found.shares == (0.75, 0.05)
    contradicted[:40] = np.nan
    assert label_contrast(evidence, examples_of(labels), contradicted) is None  # nothing left of one


def test_images_of_one_group_are_no_independent_evidence(evidence_of) -> None:
    """Two groups of twenty that are hard make a large difference, and no certain one."""
    labels = np.arange(1300) % 2
    contradicted = np.zeros(1300)
    contradicted[:60] = 1
    alone = label_contrast(evidence_of(records_of(labels, val=600)), examples_of(labels), contradicted)
    assert alone is None  # no file could be read, so there is no split
    pictures = noise_of(1300)
    alone = label_contrast(evidence_of(records_of(labels, val=600), pictures), examples_of(labels), contradicted)
    groups = label_contrast(
        evidence_of(records_of(labels, val=600, group=20), pictures), examples_of(labels), contradicted
    )
    assert alone is not None
    assert groups is not None
    assert alone.z > 6
    assert groups.z < 2.5


def test_chance_seldom_makes_one(evidence_of) -> None:
    labels = np.arange(400) % 2
    evidence = evidence_of(records_of(labels, val=120), noise_of(400))
    rng = np.random.default_rng(0)
    found = [label_contrast(evidence, examples_of(labels), (rng.random(400) < 0.1).astype(float)) for _ in range(400)]
    z = np.array([one.z for one in found if one is not None])
    assert len(z) == 400
    assert z.max() < 4
    assert (z > 2).mean() == pytest.approx(0.0455, abs=0.03)


def test_other_reasons_for_a_contrast(evidence_of) -> None:
    labels = np.arange(120) % 2
    names = ("train", "val")
    assert same_kind(evidence_of(records_of(labels, val=50), noise_of(120)), examples_of(labels), names)
    brighter = noise_of(70) + noise_of(50, seed=1, mean=190)
    assert not same_kind(evidence_of(records_of(labels, val=50), brighter), examples_of(labels), names)
    leaked = noise_of(70) + noise_of(70)[:50]
    assert not same_kind(evidence_of(records_of(labels, val=50), leaked), examples_of(labels), names)
    other = np.where(np.arange(120) < 70, labels, 0)
    assert not same_kind(evidence_of(records_of(other, val=50), noise_of(120)), examples_of(other), names)
