"""Images and maps paired by name."""

from __future__ import annotations

from clearsight.data.formats.image_pairs import find_pairs, has_pairs

MAPS = {"masks", "label"}


def test_pairs_of_any_suffix_case_and_ending(tmp_path, photo):
    for name in (
        "Images/A.JPG",
        "Images/b.png",
        "Images/sub/c.png",
        "masks/a.png",
        "masks/b_mask.png",
        "masks/sub/c.PNG",
    ):
        photo(tmp_path / name)
    findings = []
    pairs = find_pairs(tmp_path, MAPS, findings)
    assert [(one.image.name, one.map.name, one.split) for one in pairs] == [
        ("A.JPG", "a.png", None),
        ("b.png", "b_mask.png", None),
        ("c.png", "c.PNG", None),
    ]
    assert findings == []
    assert has_pairs(tmp_path, MAPS)


def test_splits_outside_and_inside(tmp_path, photo):
    for name in ("train/image/a.png", "train/label/a.png", "images/val/b.png", "masks/val/b.png"):
        photo(tmp_path / name)
    assert {(one.image.name, one.split) for one in find_pairs(tmp_path, MAPS, [])} == {
        ("a.png", "train"),
        ("b.png", "val"),
    }


def test_what_has_no_partner(tmp_path, photo, only):
    for name in ("images/a.png", "images/alone.png", "masks/a.png", "masks/orphan.png"):
        photo(tmp_path / name)
    findings = []
    assert len(find_pairs(tmp_path, MAPS, findings)) == 1
    bare = only(findings, "image-without-label")
    assert bare.where.endswith("alone.png")
    assert (bare.severity, bare.action) == ("error", "image dropped")
    orphan = only(findings, "missing-image")
    assert orphan.where.endswith("orphan.png")
    assert orphan.action == "map dropped"


def test_what_could_be_several(tmp_path, photo):
    for name in ("images/a.png", "images/b.jpg", "images/b.png", "masks/a.png", "masks/a.tif", "masks/b.png"):
        photo(tmp_path / name)
    findings = []
    pairs = find_pairs(tmp_path, MAPS, findings)
    assert [one.image.name for one in pairs] == ["b.jpg"]
    doubled = [finding for finding in findings if finding.id == "duplicate-file-name"]
    assert [finding.where.rsplit("/", 1)[1] for finding in doubled] == ["a.png", "b.png"]


def test_text_labels_are_no_maps(tmp_path, photo):
    photo(tmp_path / "images" / "a.png")
    (tmp_path / "label").mkdir()
    (tmp_path / "label" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    assert not has_pairs(tmp_path, MAPS)
