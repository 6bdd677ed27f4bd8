"""Unreadable, constant and odd images are named, worst first; even sets and sets of two kinds pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.odd_images import ConstantImages, OddImages, UnreadableImages
from clearsight.doctor.rule import examine
from clearsight.types import Finding, Record

Change = Callable[[Image.Image], Image.Image]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "cache"))


def photo(rng: np.random.Generator, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Coarse and fine detail, brightness and size as cameras vary them."""
    coarse = Image.fromarray(rng.integers(20, 236, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = rng.normal(0, 12, (size[1], size[0], 1)) + rng.normal(0, 10)
    return Image.fromarray((np.asarray(coarse) + fine).clip(0, 255).astype(np.uint8))


def evidence_of(folder: Path, changes: dict[int, Change], n: int = 60, label: int | None = 0) -> DataEvidence:
    rng = np.random.default_rng(0)
    folder.mkdir()
    records = []
    for number in range(n):
        picture = photo(rng)
        path = folder / f"{number:02d}.png"
        changes.get(number, lambda image: image)(picture).save(path)
        records.append(Record(image=path, label=label))
    dataset = Dataset(records=records, classes=("a",), task="classification", root=folder, format="image_folder")
    return DataEvidence(dataset=dataset, train=None, val=None, test=None)


def scaled(factor: float, offset: float = 0) -> Change:
    return lambda image: image.point(lambda level: round(factor * level + offset))


def odd(evidence: DataEvidence) -> dict[str, Finding]:
    found = list(OddImages().check(evidence))
    assert {finding.severity for finding in found} <= {"info"}
    return {finding.evidence["kind"]: finding for finding in found}


def test_an_even_set_passes(tmp_path: Path) -> None:
    report = examine((UnreadableImages(), ConstantImages(), OddImages()), evidence_of(tmp_path / "d", {}))
    assert report.findings == []
    assert report.passed == ("unreadable-image", "constant-image", "odd-image")


@pytest.mark.parametrize(
    ("kind", "change", "mild"),
    [
        ("dark", scaled(0.15), scaled(0.85)),
        ("light", scaled(0.2, 200), scaled(0.9, 20)),
        ("blurred", lambda x: x.filter(ImageFilter.GaussianBlur(4)), lambda x: x.filter(ImageFilter.GaussianBlur(0.3))),
        ("size", lambda x: x.resize((40, 30)), lambda x: x.resize((140, 105))),
        ("aspect", lambda x: x.crop((0, 0, 160, 24)), lambda x: x.crop((0, 0, 160, 110))),
    ],
)
def test_each_kind(tmp_path: Path, kind: str, change: Change, mild: Change) -> None:
    found = odd(evidence_of(tmp_path / "d", {17: change, 40: mild}))
    assert kind in found
    assert found[kind].evidence["files"] == ["17.png"]
    assert found[kind].evidence["row"] == "D6"
    assert found[kind].where.endswith("17.png")
    assert found[kind].evidence["z"][0] >= 6


def test_worst_first(tmp_path: Path) -> None:
    found = odd(evidence_of(tmp_path / "d", {3: scaled(0.3), 9: scaled(0.05), 30: scaled(0.2)}))
    assert found["dark"].evidence["files"] == ["09.png", "30.png", "03.png"]
    assert found["dark"].explanation.startswith("3 images are much darker than the others")
    assert found["dark"].where == str(tmp_path / "d")


def test_what_many_have_is_a_kind_of_its_own(tmp_path: Path) -> None:
    night = {number: scaled(0.1) for number in range(0, 60, 10)}
    assert "dark" not in odd(evidence_of(tmp_path / "d", night))


def test_upright_pictures_are_not_odd_among_wide_ones(tmp_path: Path) -> None:
    assert odd(evidence_of(tmp_path / "d", {5: lambda image: image.transpose(Image.Transpose.ROTATE_90)})) == {}


def test_few_images_are_not_judged(tmp_path: Path) -> None:
    report = examine((OddImages(),), evidence_of(tmp_path / "d", {0: scaled(0.1)}, n=19))
    assert report.silent == {"odd-image": "20 images to compare with (19 can be read)"}


# ------------------------------------------------------------------------------------------------ nothing to see
@pytest.mark.parametrize(("label", "severity"), [(0, "warning"), (None, "info")])
def test_constant_images(tmp_path: Path, label: int | None, severity: str) -> None:
    blank: Change = lambda image: Image.new("RGB", image.size, (9, 90, 200))  # noqa: E731
    spot: Change = lambda image: Image.new("L", image.size).point(lambda _: 7)  # noqa: E731
    evidence = evidence_of(tmp_path / "d", {4: blank, 6: spot}, n=10, label=label)
    (finding,) = ConstantImages().check(evidence)
    assert (finding.id, finding.severity) == ("constant-image", severity)
    assert finding.evidence["files"] == ["04.png", "06.png"]


def test_a_single_other_pixel_is_not_constant(tmp_path: Path) -> None:
    def speck(image: Image.Image) -> Image.Image:
        plain = Image.new("RGB", image.size, (50, 50, 50))
        plain.putpixel((3, 3), (51, 50, 50))
        return plain

    assert list(ConstantImages().check(evidence_of(tmp_path / "d", {4: speck}, n=10))) == []


def test_unreadable_images_are_said_once(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path / "d", {}, n=6)
    records = evidence.dataset.records
    records[1].image.write_bytes(records[1].image.read_bytes()[:3000])
    records[3].image.write_bytes(b"")
    found = list(UnreadableImages().check(evidence))
    assert [(finding.id, finding.where) for finding in found] == [
        ("truncated-image", str(records[1].image)),
        ("empty-file", str(records[3].image)),
    ]
    evidence.dataset.findings.append(found[1])
    assert list(UnreadableImages().check(evidence)) == found[:1]
