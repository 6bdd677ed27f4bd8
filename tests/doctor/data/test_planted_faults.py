"""A real data set with one of each fault planted in it: all are found, in one look."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clearsight as cs

pytestmark = pytest.mark.real
SPLIT = Path("ImageSets", "Main")


@pytest.fixture
def bccd(shared_data: Path, tmp_path: Path) -> Path:
    root = tmp_path / "bccd"
    shutil.copytree(shared_data / "bccd", root)
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


def xml(root: Path, name: str, old: str, new: str) -> None:
    """Replace the first `old` of an annotation."""
    file = root / "Annotations" / f"{name}.xml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def copied(root: Path, name: str, copy: str, split: str) -> Path:
    """A second image of the same content in a split; its file."""
    picture = root / "JPEGImages" / f"{copy}.jpg"
    shutil.copy(root / "JPEGImages" / f"{name}.jpg", picture)
    shutil.copy(root / "Annotations" / f"{name}.xml", root / "Annotations" / f"{copy}.xml")
    xml(root, copy, f"{name}.jpg", f"{copy}.jpg")
    with (root / SPLIT / f"{split}.txt").open("a") as names:
        names.write(f"{copy}\n")
    return picture


def plant(root: Path) -> dict[str, str]:
    """Fault → what its finding names."""
    train = (root / SPLIT / "train.txt").read_text().split()
    held = {name for split in ("val", "test") for name in (root / SPLIT / f"{split}.txt").read_text().split()}
    free = [name for name in train if name not in held]
    pictures = root / "JPEGImages"
    planted: dict[str, str] = {}

    def at(fault: str) -> str:
        planted[fault] = name = free[3 * len(planted)]
        return name

    cut = pictures / f"{at('truncated-image')}.jpg"
    cut.write_bytes(cut.read_bytes()[:4000])
    (pictures / f"{at('missing-image')}.jpg").unlink()
    (pictures / f"{at('empty-file')}.jpg").write_bytes(b"")
    (root / "Annotations" / f"{at('unreadable-annotation')}.xml").write_text("<annotation><object>")
    Image.fromarray(np.zeros((480, 640, 3), np.uint8)).save(pictures / f"{at('constant-image')}.jpg")
    xml(root, at("size-mismatch"), "<width>640</width>", "<width>320</width>")
    xml(root, at("class-case-mismatch"), "<name>RBC</name>", "<name>rbc</name>")
    for fault, corner in (("box-not-finite", "nan"), ("box-inverted", "9999"), ("box-outside", "-70")):
        file = root / "Annotations" / f"{at(fault)}.xml"
        text = file.read_text()
        first = text.index("<xmin>") + len("<xmin>")
        file.write_text(text[:first] + corner + text[text.index("</xmin>") :])
    planted["leak"] = copied(root, free[-2], "a_copy", "val").stem
    again = copied(root, free[-5], "saved_again", "test")
    Image.open(again).convert("RGB").save(again, quality=60)
    planted["near-duplicate-across-splits"] = again.stem
    return planted


def test_every_planted_fault_is_found_and_named(bccd: Path) -> None:
    planted = plant(bccd)
    found: dict[str, list[str]] = defaultdict(list)
    for finding in cs.check(bccd).findings:
        found[finding.id].append(f"{finding.where} {finding.explanation} {finding.evidence}")
    missed = {fault: name for fault, name in planted.items() if not any(name in text for text in found[fault])}
    assert missed == {}


def test_the_two_boxes_without_area_that_the_set_came_with(shared_data: Path) -> None:
    empty = [finding for finding in cs.check(shared_data / "bccd").findings if finding.id == "box-empty"]
    assert len(empty) == 2
    assert all(finding.severity == "error" for finding in empty)
