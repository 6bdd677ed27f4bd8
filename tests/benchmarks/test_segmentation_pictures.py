"""Pictures of a run: which images are drawn, how they are put together, how large the file is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmentation_pictures import page, save_small, three


def test_three_places_in_order() -> None:
    assert list(three([0.5, 0.1, 0.9, 0.3, 0.7]).items()) == [(1, "worst"), (0, "median"), (2, "best")]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([], {}),
        ([math.nan], {}),
        ([0.4], {0: "worst"}),
        ([0.4, 0.2], {1: "worst", 0: "best"}),
        ([math.nan, 0.4, math.nan, 0.6, 0.5], {1: "worst", 4: "median", 3: "best"}),
    ],
)
def test_no_place_twice_and_none_without_a_value(values: list[float], names: dict[int, str]) -> None:
    assert three(values) == names


def test_page_is_as_wide_as_asked_and_no_wider_than_its_narrowest_strip() -> None:
    strips = [("first", Image.new("RGB", (600, 300), "red")), ("second", Image.new("RGB", (300, 300), "blue"))]
    whole = page(strips, width=1000)
    assert whole.width == 300
    titles = whole.height - 150 - 300
    assert 40 < titles < 120
    assert page(strips, width=150).width == 150
    colors = {whole.getpixel((150, whole.height - 5)), whole.getpixel((150, 100))}
    assert colors == {(0, 0, 255), (255, 0, 0)}


def test_noise_is_made_small_enough(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    file = save_small(Image.fromarray(noise), tmp_path / "deep" / "noise.jpg", most=60_000)
    assert 20_000 < file.stat().st_size <= 60_000
    with Image.open(file) as picture:
        assert picture.width < 600
    plain = save_small(Image.new("RGB", (600, 400), "green"), tmp_path / "plain.jpg", most=60_000)
    with Image.open(plain) as picture:
        assert picture.size == (600, 400)
    with pytest.raises(ValueError, match="does not fit"):
        save_small(Image.fromarray(noise), tmp_path / "none.jpg", most=500)
    assert not (tmp_path / "none.jpg").exists()
