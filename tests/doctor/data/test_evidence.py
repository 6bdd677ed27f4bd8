"""Evidence on data is scanned once, on first use."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.types import Record


def test_the_scan_is_made_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.png"
    dataset = Dataset(records=[Record(image=path)], classes=(), task="detection", root=tmp_path, format="coco")
    evidence = DataEvidence(dataset=dataset, train=dataset, val=None, test=None)
    Image.new("RGB", (5, 4), (255, 0, 0)).save(path)  # after the evidence, before its scan
    assert evidence.scan.size.tolist() == [[4, 5]]
    assert evidence.scan.mean.tolist() == [[1, 0, 0]]
    assert evidence.scan is evidence.scan
