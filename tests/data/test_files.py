"""Finding, reading, placing files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clearsight.data.files import (
    ImageIndex,
    encodable,
    list_files,
    list_images,
    output_names,
    place_image,
    printable,
    read_text,
    write_text,
)
from clearsight.types import Finding, Record


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def test_images_are_listed_by_suffix_in_any_case_and_sorted(tmp_path: Path):
    touch(*[tmp_path / name for name in ("b.JPG", "a.png", "c.txt", ".hidden.png", ".git/d.png", "deep/e.Tiff")])
    assert [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)] == ["a.png", "b.JPG", "deep/e.Tiff"]
    assert [path.name for path in list_images(tmp_path, recursive=False)] == ["a.png", "b.JPG"]
    assert [path.name for path in list_files(tmp_path, {".txt"})] == ["c.txt"]
    assert list_images(tmp_path / "none") == []


def test_the_index_prefers_the_exact_case():
    index = ImageIndex([Path("x/a.jpg"), Path("y/A.JPG"), Path("z/b.png")])
    assert index.named("a.jpg") == [Path("x/a.jpg")]
    assert index.named("A.jpg") == [Path("x/a.jpg"), Path("y/A.JPG")]
    assert index.stemmed("A") == [Path("y/A.JPG")]
    assert index.stemmed("B") == [Path("z/b.png")]
    assert index.named("c.png") == index.stemmed("c") == []


def test_names_that_are_not_utf8_can_be_told_and_printed():
    name = os.fsdecode(b"caf\xe9.png")
    assert not encodable(name)
    assert encodable("café.png")
    assert printable(name) == r"caf\xe9.png"
    assert printable("café.png") == "café.png"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_whatever_its_mark(tmp_path: Path, encoding: str):
    findings: list[Finding] = []
    (tmp_path / "a.txt").write_text("é\nß", encoding=encoding)
    assert read_text(tmp_path / "a.txt", findings) == "é\nß"
    assert findings == []


def test_text_of_another_encoding_is_told_with_its_line(tmp_path: Path):
    findings: list[Finding] = []
    (tmp_path / "a.txt").write_bytes("a\né".encode("latin-1"))
    assert read_text(tmp_path / "a.txt", findings) == "a\né"
    assert [(finding.id, finding.severity) for finding in findings] == [("encoding-name", "warning")]
    assert findings[0].where.endswith("a.txt:2")
    assert "byte 0xe9 in line 2" in findings[0].explanation


def test_text_is_written_whole_or_not_at_all(tmp_path: Path):
    file = tmp_path / "deep/a.txt"
    write_text(file, "one\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "two" * 100_000 + "\udce9")
    assert file.read_bytes() == b"one\n"
    assert [path.name for path in file.parent.iterdir()] == ["a.txt"]


def test_images_are_linked_where_possible(tmp_path: Path):
    touch(tmp_path / "a.png")
    target = tmp_path / "deep/b.png"
    place_image(tmp_path / "a.png", target)
    assert target.samefile(tmp_path / "a.png")
    place_image(tmp_path / "a.png", target)  # a second time does no harm
    touch(tmp_path / "c.png")
    place_image(tmp_path / "c.png", target)
    assert target.read_bytes() == b"c.png"
    assert (tmp_path / "a.png").read_bytes() == b"a.png"
    assert [path.name for path in target.parent.iterdir()] == ["b.png"]


def test_images_are_copied_where_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path, source: Path) -> None:
        raise OSError("another device")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    touch(tmp_path / "a.png")
    place_image(tmp_path / "a.png", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == b"a.png"
    assert not (tmp_path / "b.png").samefile(tmp_path / "a.png")


def test_a_missing_image_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        place_image(tmp_path / "gone.png", tmp_path / "out/a.png")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_is_placed_as_what_it_points_to(tmp_path: Path):
    touch(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    place_image(tmp_path / "link.png", tmp_path / "out/b.png")
    assert not (tmp_path / "out/b.png").is_symlink()
    assert (tmp_path / "out/b.png").read_bytes() == b"a.png"


def test_names_that_would_collide_are_told_apart(tmp_path: Path):
    paths = ["x/a.jpg", "y/a.jpg", "y/A.png", "c.jpg", "y_a.jpg", "x/a.png"]
    records = [Record(image=tmp_path / path) for path in paths]
    assert output_names(records, tmp_path) == ["x_a.jpg", "y_a_2.jpg", "y_A_3.png", "c.jpg", "y_a.jpg", "x_a_2.png"]
    assert output_names([Record(image=Path("/p/q/a.jpg")), Record(image=Path("/p/r/a.jpg"))], tmp_path) == [
        "q_a.jpg",
        "r_a.jpg",
    ]
