from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clearsight.data.dataset import Dataset
from clearsight.data.formats import voc
from clearsight.data.splits import choose_fractions, find_leaks, kfold, name_order, split_dataset
from clearsight.errors import ConfigError, DataError
from clearsight.recipe.schema import SplitConfig
from clearsight.types import Object, Record


def images(n: int, *, labels: int | None = None, groups: int | None = None) -> Dataset:
    records = [
        Record(
            image=Path(f"{i}.png"),
            label=None if labels is None else i % labels,
            group=None if groups is None else f"patient {i % groups}",
        )
        for i in range(n)
    ]
    classes = tuple(f"class {i}" for i in range(labels or 1))
    return Dataset(records=records, classes=classes, task="classification", root=Path(), format="csv")


def splits_of(dataset: Dataset) -> list[str | None]:
    return [record.split for record in dataset.records]


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, (0.6, 0.2, 0.2)),
        (10_000, (0.6, 0.2, 0.2)),
        (10_001, (0.8, 0.1, 0.1)),
        (1_000_000, (0.8, 0.1, 0.1)),
        (1_000_001, (0.98, 0.01, 0.01)),
    ],
)
def test_shares_by_size(n: int, expected: tuple[float, float, float]) -> None:
    assert choose_fractions(n) == expected


@pytest.mark.parametrize("method", ["auto", "random", "stratified"])
def test_every_image_has_one_split_and_the_input_is_left_alone(method: str) -> None:
    dataset = images(50, labels=3)
    result = split_dataset(dataset, SplitConfig(method=method))
    assert result.splits == {"train": 30, "val": 10, "test": 10}
    assert splits_of(dataset) == [None] * 50
    assert [r.image for r in result.records] == [r.image for r in dataset.records]
    assert splits_of(result) == splits_of(split_dataset(dataset, SplitConfig(method=method)))
    assert splits_of(result) != splits_of(split_dataset(dataset, SplitConfig(method=method, seed=1)))


def test_classes_stay_in_proportion() -> None:
    result = split_dataset(images(90, labels=3), SplitConfig())
    for split, each in (("train", 18), ("val", 6), ("test", 6)):
        assert set(result.split(split).counts().values()) == {each}


def test_given_shares_and_given_splits_are_kept() -> None:
    dataset = images(20)
    dataset.records[3].split = "holdout"
    result = split_dataset(dataset, SplitConfig(fractions=(0.5, 0.5, 0.0)))
    assert result.records[3].split == "holdout"
    assert result.splits["train"] + result.splits["val"] == 19
    assert "test" not in result.splits
    done = split_dataset(result, SplitConfig())
    assert done is result


def test_few_images_still_give_three_splits() -> None:
    assert set(splits_of(split_dataset(images(3), SplitConfig()))) == {"train", "val", "test"}
    assert splits_of(split_dataset(images(1), SplitConfig())) == ["train"]
    assert set(splits_of(split_dataset(images(40), SplitConfig(fractions=(0.98, 0.01, 0.01))))) == {
        "train",
        "val",
        "test",
    }


@pytest.mark.parametrize("method", ["auto", "grouped"])
def test_groups_stay_whole(method: str) -> None:
    dataset = images(60, labels=2, groups=12)
    result = split_dataset(dataset, SplitConfig(method=method))
    for group in range(12):
        assert len({record.split for record in result.records if record.group == f"patient {group}"}) == 1
    assert result.splits["train"] == pytest.approx(36, abs=5)
    assert len(result.splits) == 3
    assert find_leaks(result) == []


def test_a_record_without_a_group_is_its_own(tmp_path: Path) -> None:
    dataset = images(30, groups=5)
    for record in dataset.records[:15]:
        record.group = None
    result = split_dataset(dataset, SplitConfig())
    assert len({record.split for record in result.records[:15]}) > 1


def test_grouped_needs_groups() -> None:
    with pytest.raises(ConfigError, match="no record has a group"):
        split_dataset(images(9), SplitConfig(method="grouped"))


@pytest.mark.real
def test_objects_stay_in_proportion_on_real_photos(shared_data: Path) -> None:
    dataset = voc.read(shared_data / "bccd")
    bare = replace(dataset, records=[replace(r, split=None, attributes={}) for r in dataset.records])
    result = split_dataset(bare, SplitConfig())
    for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        for name, count in result.split(split).counts().items():
            assert count / bare.counts()[name] == pytest.approx(share, abs=0.02)
    assert find_leaks(dataset) == []


# ------------------------------------------------------------------------------------------------ folds
def test_folds_show_every_image_once_as_val() -> None:
    dataset = images(23, labels=2)
    dataset.records[4].split = "test"
    folds = kfold(dataset, 5)
    val = np.array([[record.split == "val" for record in fold.records] for fold in folds])
    assert val.sum(axis=0).tolist() == [0 if i == 4 else 1 for i in range(23)]
    assert all(fold.records[4].split == "test" for fold in folds)
    assert {fold.splits["val"] for fold in folds} <= {4, 5}
    assert splits_of(kfold(dataset, 5)[0]) == splits_of(folds[0])


def test_folds_keep_groups_whole() -> None:
    for fold in kfold(images(40, groups=8), 4, seed=2):
        for group in range(8):
            assert len({record.split for record in fold.records if record.group == f"patient {group}"}) == 1


def test_folds_need_enough_images() -> None:
    with pytest.raises(ConfigError, match="k is 1"):
        kfold(images(9), 1)
    with pytest.raises(DataError, match="only 3 of 4 folds"):
        kfold(images(3), 4)
    with pytest.raises(DataError, match="only 2 of 3 folds"):
        kfold(images(30, groups=2), 3)


# ------------------------------------------------------------------------------------------------ leaks
def test_leaks_are_found_and_named(tmp_path: Path) -> None:
    content = {"a/1.png": b"same", "b/2.png": b"same", "a/3.png": b"else", "b/3.png": b"ELSE", "a/4.png": b"twice"}
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    shutil.copy(tmp_path / "a/4.png", tmp_path / "a/5.png")  # a duplicate within one split is no leak
    records = [
        Record(image=tmp_path / name, split="train" if name[0] == "a" else "val", group=group)
        for name, group in [
            ("a/1.png", "x"),
            ("b/2.png", "y"),
            ("a/3.png", "y"),
            ("b/3.png", None),
            ("a/4.png", "x"),
            ("a/5.png", "x"),
            ("b/gone.png", None),
        ]
    ]
    leaky = Dataset(records=records, classes=("a",), task="detection", root=tmp_path, format="coco")
    same, group, names = find_leaks(leaky)
    assert same.id == group.id == names.id == "leak"
    assert (same.severity, group.severity, names.severity) == ("warning", "warning", "info")
    assert "a/1.png (train)" in same.explanation
    assert "b/2.png (val)" in same.explanation
    assert group.explanation == "group 'y' is in several splits: 1 in val, 1 in train"
    assert names.explanation == "1 file names are in train and in val: 3.png"
    assert same.evidence == {"images": 2, "splits": {"train": 1, "val": 1}}


def test_records_without_a_split_cannot_leak() -> None:
    dataset = images(4, groups=1)
    dataset.records[0].split = "train"
    assert find_leaks(dataset) == []
    both = replace(
        dataset,
        records=[
            dataset.records[0],
            Record(image=Path("0.png"), split="val", objects=[Object(label=0, box=(0, 0, 1, 1))]),
        ],
    )
    assert [finding.severity for finding in find_leaks(both)] == ["info"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["9", "10", "2"], [2, 0, 1]),
        (["a_2_1", "a_1_10", "a_1_9"], [2, 1, 0]),
        (["0b9", "0b10", "0a11"], [2, 1, 0]),  # hashes: as text
    ],
)
def test_names_in_order(names: list[str], expected: list[int]) -> None:
    assert name_order(names) == expected


def test_ordered_splits_are_stretches() -> None:
    slices = [Record(image=Path(f"volume/{number}.png")) for number in (*range(10, 30), *range(10))]
    found = split_dataset(
        replace(images(0), records=slices), SplitConfig(method="ordered", fractions=(0.8, 0.0, 0.2), seed=3)
    )
    by_number = {int(record.image.stem): record.split for record in found.records}
    assert [number for number, split in by_number.items() if split == "test"] == list(range(24, 30))
    assert set(by_number.values()) == {"train", "test"}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_ordered_splits_of_few_images(count: int) -> None:
    found = splits_of(split_dataset(images(count), SplitConfig(method="ordered", fractions=(0.98, 0.01, 0.01))))
    assert found == sorted(found, key=("train", "val", "test").index)
    assert len(set(found)) == 3 or count < 3
