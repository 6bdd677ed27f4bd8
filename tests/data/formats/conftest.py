"""Small data sets on disk, and what it means that two of them say the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data.dataset import Dataset
from clearsight.types import Finding, Object


@pytest.fixture
def photo() -> Callable[..., Path]:
    """Writes a small image, 40 wide and 30 high unless told otherwise."""

    def write(path: Path, *, width: int = 40, height: int = 30, value: int = 90) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width, 3), value, dtype=np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def only() -> Callable[..., Finding]:
    """The one finding of an id."""

    def find(findings: list[Finding], id_: str) -> Finding:
        found = [finding for finding in findings if finding.id == id_]
        assert len(found) == 1, [(finding.id, finding.where, finding.explanation) for finding in findings]
        return found[0]

    return find


def facts(item: Object, *, attributes: bool = True) -> tuple[object, ...]:
    rings = [ring.tolist() for ring in item.polygons]
    return (item.label, item.box, rings, item.rle, item.crowd, item.difficult, item.attributes if attributes else None)


@pytest.fixture
def same() -> Callable[..., None]:
    """Two data sets say the same of images of the same name: every value equal, none rounded."""

    def compare(left: Dataset, right: Dataset, *, attributes: bool = True) -> None:
        assert left.classes == right.classes
        theirs = {record.image.name: record for record in right.records}
        assert len(theirs) == len(left) == len(right)
        for record in left.records:
            other = theirs[record.image.name]
            assert record.size == other.size or record.size is None or other.size is None
            assert record.split == other.split
            assert sorted(record.attributes.get("lists", [])) == sorted(other.attributes.get("lists", []))
            assert record.group == other.group
            mine = [facts(item, attributes=attributes) for item in record.objects]
            assert mine == [facts(item, attributes=attributes) for item in other.objects], record.image
            if attributes:
                assert record.attributes == other.attributes
            assert record.image.read_bytes() == other.image.read_bytes()

    return compare
