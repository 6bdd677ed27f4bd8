"""Faults in the data of the doctor's benchmark are as large as they are said to be, and its results outlive a stop."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

import doctor
import doctor_plan
from doctor_data import Split, split_of
from doctor_faults import FAULTS, imbalanced
from doctor_job import EVERY
from doctor_setup import Setup, resolved


@pytest.fixture
def split() -> Split:
    draws = np.random.default_rng(0)
    images = draws.random((500, 1, 8, 8), dtype=np.float32)
    return split_of(images, np.arange(500) % 5, np.full(500, -1), seed=0)


def broken(split: Split, name: str, level: float) -> Split:
    change = FAULTS[name].data
    assert change is not None
    return change(split, level, np.random.default_rng(1))


def test_split_has_each_class_in_proportion(split):
    assert np.bincount(split.labels).tolist() == [70] * 5
    assert np.bincount(split.val_labels).tolist() == [30] * 5


def test_split_does_not_tear_groups_apart():
    images = np.arange(300, dtype=np.float32).reshape(300, 1, 1, 1)
    groups = np.arange(300) // 10
    found = split_of(images, np.arange(300) % 3, groups, seed=1)
    sides = [set(groups[part.reshape(-1).astype(int)]) for part in (found.images, found.val_images)]
    assert sides[0].isdisjoint(sides[1])
    assert [len(side) for side in sides] == [21, 9]


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_so_many_labels_are_wrong(split, share):
    noisy = broken(split, "label-noise", share)
    assert (noisy.labels != split.labels).sum() == round(share * 350)
    assert noisy.labels.max() < 5
    assert (noisy.val_labels == split.val_labels).all()


@pytest.mark.parametrize("ratio", [2.0, 10.0, 50.0])
def test_largest_class_is_so_many_times_the_smallest(split, ratio):
    counts = np.bincount(imbalanced(split, ratio, np.random.default_rng(0)).labels)
    assert counts.max() == 70
    assert counts.min() == max(1, round(70 / ratio))


def test_leaked_images_are_those_of_the_validation_part(split):
    leaked = broken(split, "validation-leak", 0.5)
    added = leaked.images[350:]
    assert len(added) == 75
    assert all((split.val_images == image).all(axis=(1, 2, 3)).any() for image in added)


def test_wrong_layout_keeps_the_pixels_and_tears_them_apart():
    images = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    given = Split(images=images, labels=np.zeros(2, int), val_images=images, val_labels=np.zeros(2, int), classes=1)
    torn = broken(given, "wrong-layout", 1.0).images
    assert torn[0, 0, 0, :3].tolist() == [0.0, 16.0, 32.0]  # the channels of one pixel, side by side
    assert np.array_equal(np.sort(torn, axis=None), np.sort(images, axis=None))


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.settings is not None])
def test_knobs_are_turned(name):
    setup = resolved(Setup(data="digits", net=(FAULTS[name].nets or ("mlp",))[0]))
    turn = FAULTS[name].settings
    assert turn is not None
    assert len({turn(setup, level) for level in FAULTS[name].levels} | {setup}) == 1 + len(FAULTS[name].levels)


# ------------------------------------------------------------------------------------------------ parts
def test_parts_have_neither_data_nor_architectures_in_common():
    assert tuple(doctor_plan.PARTS) == doctor.PARTS
    sets = [name for part in doctor_plan.PARTS.values() for name in part[0]]
    nets = [name for part in doctor_plan.PARTS.values() for name in part[1]]
    assert len(sets) == len(set(sets)) == 12
    assert len(nets) == len(set(nets)) == 12


def test_sound_runs_of_each_part_are_drawn_by_a_seed_of_their_own():
    drawn = [sum(map(ord, doctor_plan.DRAWN_BY.get(part, part))) for part in doctor_plan.PARTS]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("part", doctor.PARTS)
def test_each_level_of_each_fault_has_its_runs(part):
    jobs = doctor_plan.jobs_of(part)
    seeds = doctor_plan.PARTS[part][2]
    runs = Counter(job.faults[0] for job in jobs if job.kind == "fault")
    assert runs == {(name, level): seeds for name, fault in EVERY.items() for level in fault.levels}
    assert len({job.key for job in jobs}) == len(jobs)


# ------------------------------------------------------------------------------------------------ results
def test_results_outlive_a_stop(tmp_path):
    file = tmp_path / "out" / "results.jsonl"
    doctor.mend(file)
    assert doctor.read_results(file) == {}
    file.write_text('{"key": "a", "score": 1}\n{"key": "b", "score": 2}\n{"key": "a", "sco')
    assert {key: row["score"] for key, row in doctor.read_results(file).items()} == {"a": 1, "b": 2}
    doctor.mend(file)
    with file.open("a") as results:
        results.write(json.dumps({"key": "a", "score": 3}) + "\n")
    assert {key: row["score"] for key, row in doctor.read_results(file).items()} == {"a": 3, "b": 2}
