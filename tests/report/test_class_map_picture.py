"""Pictures of class maps: colours of classes, pixels that nobody knows, what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from clearsight.errors import ShapeError
from clearsight.report.class_map_picture import draw_class_map
from clearsight.report.palette import class_color

IMAGE = np.full((360, 400, 3), 100, np.uint8)


def labels_of(top: int, bottom: int) -> np.ndarray:
    labels = np.full((360, 400), bottom)
    labels[:180] = top
    return labels


def test_one_panel_has_the_classes_colours() -> None:
    drawn = np.asarray(draw_class_map(IMAGE, labels_of(1, 255), ("road", "sky")))
    assert drawn.shape[1] == 400
    assert drawn.shape[0] > 360  # names below
    expected = 100 * 0.55 + np.array(class_color(1)) * 0.45
    np.testing.assert_allclose(drawn[90, 200], expected, atol=1)
    assert drawn[300, 200].tolist() == [100, 100, 100]  # ignored: as the image is


def test_three_panels_mark_what_is_wrong_and_known() -> None:
    truth = labels_of(0, 255)
    drawn = np.asarray(draw_class_map(IMAGE, labels_of(1, 0), ("road", "sky"), truth=truth))
    assert drawn.shape[1] == 3 * 400 + 2 * 4
    title = drawn.shape[0] - 360 - (drawn.shape[0] - 360) // 2
    wrong = drawn[title + 90, 2 * 404 + 200]
    assert wrong[0] > 150 > wrong[1]
    assert drawn[title + 300, 2 * 404 + 200].tolist() == [100, 100, 100]  # ignored is not wrong


def test_small_pictures_are_enlarged() -> None:
    drawn = draw_class_map(IMAGE[:40, :50], labels_of(1, 1)[:40, :50], ("road", "sky"))
    assert drawn.width == 50 * 8


def test_more_classes_than_fit_below() -> None:
    labels = np.arange(360)[:, None].repeat(400, 1) // 10
    drawn = draw_class_map(IMAGE, labels, [f"a class with a long name {k}" for k in range(30)])
    assert drawn.width == 400


@pytest.mark.parametrize("name", ["labels", "truth"])
def test_sizes_must_agree(name: str) -> None:
    labels = labels_of(0, 1)
    maps = {"labels": labels, "truth": labels, name: labels[:5]}
    with pytest.raises(ShapeError, match=name):
        draw_class_map(IMAGE, maps["labels"], ("a", "b"), truth=maps["truth"])
