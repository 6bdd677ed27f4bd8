"""Copies across and inside splits are found with their files; what others report is not said again; clean sets pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data.dataset import Dataset
from clearsight.data.splits import find_leaks, split_dataset
from clearsight.doctor.data.duplicates import Leaks, NearDuplicates, NearDuplicatesAcrossSplits
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.rule import examine
from clearsight.recipe.schema import SplitConfig
from clearsight.types import Finding, Record

RULES = (Leaks(), NearDuplicatesAcrossSplits(), NearDuplicates())


def photos(n: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 9, 12, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((96, 72), Image.Resampling.BICUBIC) for one in coarse]


def evidence_of(folder: Path, **splits: list[Image.Image | bytes]) -> DataEvidence:
    """Files `split/number.png`, from pictures or from a file's bytes."""
    records = []
    for split, pictures in splits.items():
        (folder / split).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            path = folder / split / f"{split}-{number}.png"
            if isinstance(picture, bytes):
                path.write_bytes(picture)
            else:
                picture.save(path)
            records.append(Record(image=path, label=0, split=split))
    dataset = Dataset(records=records, classes=("a",), task="classification", root=folder, format="image_folder")
    parts = {name: dataset.split(name) if name in splits else None for name in ("train", "val", "test")}
    return DataEvidence(dataset=dataset, train=parts["train"], val=parts["val"], test=parts["test"])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "cache"))


def saved_again(picture: Image.Image) -> Image.Image:
    """Another size, other brightness: what copies go through."""
    smaller = picture.resize((80, 60), Image.Resampling.LANCZOS)
    return smaller.point(lambda level: round(0.92 * level + 8))


def found_in(evidence: DataEvidence) -> dict[str, list[Finding]]:
    report = examine(RULES, evidence)
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(finding.id, []).append(finding)
    return found


def test_clean_splits(tmp_path: Path) -> None:
    pictures = photos(60)
    report = examine(RULES, evidence_of(tmp_path / "d", train=pictures[:40], val=pictures[40:50], test=pictures[50:]))
    assert report.findings == []
    assert report.passed == ("leak", "near-duplicate-across-splits", "near-duplicate")


def test_near_copies_across_splits(tmp_path: Path) -> None:
    pictures = photos(50)
    val = [*pictures[40:48], saved_again(pictures[3]), saved_again(pictures[7])]
    found = found_in(evidence_of(tmp_path / "d", train=pictures[:40], val=val))
    assert list(found) == ["near-duplicate-across-splits"]
    (finding,) = found["near-duplicate-across-splits"]
    assert finding.severity == "warning"
    assert finding.explanation.startswith("2 of 10 images of val (20.0%) are nearly the same as one of train")
    assert sorted(finding.evidence["pairs"]) == [
        ["train/train-3.png", "val/val-8.png"],
        ["train/train-7.png", "val/val-9.png"],
    ]
    assert (finding.evidence["row"], finding.evidence["images"], finding.evidence["share"]) == ("D3", 2, 0.2)
    assert min(finding.evidence["similarity"]) > 0.98


def test_a_share_below_the_threshold_is_worth_knowing_only(tmp_path: Path) -> None:
    pictures = photos(50)
    evidence = evidence_of(tmp_path / "d", train=pictures[:40], val=[*pictures[40:49], saved_again(pictures[3])])
    for share, severity in ((0.1, "info"), (0.09, "warning")):
        (finding,) = NearDuplicatesAcrossSplits(share=share).check(evidence)
        assert finding.severity == severity


def test_each_pair_of_splits_is_told(tmp_path: Path) -> None:
    pictures = photos(50)
    train, val = pictures[:30], [*pictures[30:40], saved_again(pictures[0])]
    test = [*pictures[40:], saved_again(pictures[1]), saved_again(pictures[31])]
    found = found_in(evidence_of(tmp_path / "d", train=train, val=val, test=test))
    told = [finding.evidence["splits"] for finding in found["near-duplicate-across-splits"]]
    assert told == [["train", "val"], ["train", "test"], ["val", "test"]]


def test_equal_bytes_are_told_once(tmp_path: Path) -> None:
    pictures = photos(50)
    pictures[3].save(tmp_path / "copy.png")
    val = [*pictures[40:], (tmp_path / "copy.png").read_bytes()]
    evidence = evidence_of(tmp_path / "d", train=pictures[:40], val=val)
    found = found_in(evidence)
    assert list(found) == ["leak"]
    assert len(found["leak"]) == 1
    evidence.dataset.findings += find_leaks(evidence.dataset)
    assert found_in(evidence) == {}


def test_a_near_copy_of_a_file_that_lies_in_both_splits(tmp_path: Path) -> None:
    pictures = photos(50)
    pictures[3].save(tmp_path / "copy.png")
    train = [*pictures[:40], saved_again(pictures[3])]
    found = found_in(
        evidence_of(tmp_path / "d", train=train, val=[*pictures[40:], (tmp_path / "copy.png").read_bytes()])
    )
    (finding,) = found["near-duplicate-across-splits"]
    assert finding.evidence["pairs"] == [["train/train-40.png", "val/val-10.png"]]


def test_copies_inside_a_split(tmp_path: Path) -> None:
    pictures = photos(60)
    pictures[5].save(tmp_path / "copy.png")
    again = [saved_again(pictures[9]), (tmp_path / "copy.png").read_bytes()]
    found = found_in(evidence_of(tmp_path / "d", train=[*pictures[:48], *again], val=pictures[48:]))
    assert list(found) == ["near-duplicate"]
    (finding,) = found["near-duplicate"]
    assert finding.severity == "info"
    assert finding.explanation.startswith("2 of 50 images of train (4.0%) repeat another one: 1 are the same file, 1 n")
    assert finding.evidence["pairs"] == [
        ["train/train-5.png", "train/train-49.png"],
        ["train/train-9.png", "train/train-48.png"],
    ]
    (strict,) = NearDuplicates(share=0.04).check(evidence_of(tmp_path / "e", train=[*pictures[:48], *again]))
    assert strict.severity == "warning"


def test_one_picture_five_times_could_go_four_times(tmp_path: Path) -> None:
    pictures = photos(30)
    copies = [saved_again(pictures[0]).point(lambda level, by=by: level - by) for by in range(4)]
    (finding,) = found_in(evidence_of(tmp_path / "d", train=[*pictures, *copies]))["near-duplicate"]
    assert (finding.evidence["near"], finding.evidence["exact"], finding.severity) == (4, 0, "warning")


def test_without_splits_the_whole_is_one(tmp_path: Path) -> None:
    pictures = photos(30)
    evidence = evidence_of(tmp_path / "d", any=[*pictures, saved_again(pictures[2])])
    report = examine(RULES, evidence)
    assert [finding.where for finding in report.findings] == [f"{tmp_path / 'd'} (the data)"]
    assert report.silent == {"near-duplicate-across-splits": "a second split"}


def test_blank_pictures_are_no_copies(tmp_path: Path) -> None:
    pictures, blank = photos(30), [Image.new("RGB", (96, 72), (level, level, level)) for level in range(100, 110)]
    (tmp_path / "x.png").parent.mkdir(exist_ok=True)
    blank[0].save(tmp_path / "x.png")
    same = [(tmp_path / "x.png").read_bytes()] * 3
    found = found_in(evidence_of(tmp_path / "d", train=[*pictures, *blank[:5], *same], val=blank[5:]))
    assert found == {}


@pytest.mark.real
@pytest.mark.parametrize("name", ["membrane", "nuclei", "sign_digits"])
def test_clean_real_data_passes(shared_data: Path, tmp_path: Path, name: str) -> None:
    """Slices of one volume and photos of one person's hand are alike, and no copies."""
    from clearsight.data.read import read_dataset

    dataset = read_dataset(shared_data / name)
    dataset.records = dataset.records[:300]
    dataset = split_dataset(dataset, SplitConfig())
    parts = {part: dataset.split(part) for part in ("train", "val", "test")}
    evidence = DataEvidence(dataset=dataset, train=parts["train"], val=parts["val"], test=parts["test"])
    assert [finding for finding in examine(RULES, evidence).findings if finding.id != "leak"] == []


@pytest.mark.real
def test_one_field_photographed_twice_is_found_in_real_data(shared_data: Path) -> None:
    from clearsight.data.read import read_dataset

    dataset = read_dataset(shared_data / "bccd")
    dataset.records = [record for record in dataset.records if record.image.stem < "BloodImage_00100"]
    parts = {part: dataset.split(part) for part in ("train", "val", "test")}
    evidence = DataEvidence(dataset=dataset, train=parts["train"], val=parts["val"], test=parts["test"])
    found = found_in(evidence)
    assert list(found) == ["near-duplicate-across-splits"]
    (finding,) = found["near-duplicate-across-splits"]
    assert finding.evidence["pairs"] == [["JPEGImages/BloodImage_00037.jpg", "JPEGImages/BloodImage_00038.jpg"]]
