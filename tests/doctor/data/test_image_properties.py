from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.doctor.data.image_properties import PROPERTIES, image_properties
from clearsight.types import Record


def test_each_property_says_what_it_is_named_after(evidence_of) -> None:
    rng = np.random.default_rng(0)
    plain = np.full((64, 64, 3), 100, np.uint8)
    red = plain.copy()
    red[..., 0] = 200
    framed = plain.copy()
    framed[:4] = framed[-4:] = framed[:, :4] = framed[:, -4:] = 250
    noise = rng.integers(0, 256, (64, 128, 3)).astype(np.uint8)
    evidence = evidence_of([Record(image=Path("x")) for _ in range(4)], [plain, red, framed, noise])
    table = image_properties(evidence.scan, np.arange(4))
    of = {name: table[:, i] for i, name in enumerate(PROPERTIES)}
    assert table.shape == (4, len(PROPERTIES))
    assert of["brightness"][0] == pytest.approx(100 / 255, abs=1e-3)
    assert of["redness"] == pytest.approx([0, 100 / 255, 0, 0], abs=0.02)
    assert of["blueness"][1] == pytest.approx(-50 / 255, abs=1e-3)
    assert of["size"][[0, 3]] == pytest.approx(np.log([64 * 64, 64 * 128]))
    assert of["aspect"] == pytest.approx([0, 0, 0, np.log(2)])
    assert of["border brightness"][2] == pytest.approx(250 / 255, abs=0.02)
    assert of["contrast"][0] == pytest.approx(0, abs=1e-9)
    assert [int(of[name].argmax()) for name in ("contrast", "sharpness", "detail", "border contrast")] == [3] * 4


def test_an_unreadable_image_has_finite_numbers(evidence_of) -> None:
    evidence = evidence_of([Record(image=Path("nowhere.png"))])
    assert not evidence.scan.readable.any()
    assert np.isfinite(image_properties(evidence.scan, np.array([0]))).all()
