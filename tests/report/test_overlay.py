import numpy as np
import pytest
import torch
from PIL import Image

from clearsight.errors import ShapeError
from clearsight.report.overlay import display_image, draw_instances, draw_label
from clearsight.report.palette import class_color
from clearsight.types import Instances


def boxes(*values, labels=None, scores=None, **more):
    return Instances(
        boxes=torch.tensor(values, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels if labels is not None else [0] * len(values)),
        scores=None if scores is None else torch.tensor(scores),
        **more,
    )


def grey(height=480, width=640):
    return np.full((height, width, 3), 128, np.uint8)


def places(picture, color):
    """Rows and columns of the pixels of a colour."""
    return np.nonzero((np.asarray(picture) == color).all(axis=2))


def test_a_box_is_drawn_where_it_is_in_the_colour_of_its_class():
    picture = draw_instances(grey(), boxes([100, 200, 300, 400], labels=[1]), ["a", "b"])
    rows, columns = places(picture, class_color(1))
    assert picture.size == (640, 480)
    assert abs(columns.min() - 100) <= 2
    assert abs(columns.max() - 300) <= 2
    assert abs(rows.max() - 400) <= 2
    inside = np.asarray(picture)[230:370, 130:270]
    assert (inside == 128).all()


def test_truth_is_dashed_and_predictions_are_solid():
    box = boxes([100, 100, 500, 400])
    solid = draw_instances(grey(), box, [""])
    dashed = draw_instances(grey(), boxes(), [""], truth=box)
    row_solid = (np.asarray(solid)[400 - 1, 110:490] == class_color(0)).all(axis=1)
    row_dashed = (np.asarray(dashed)[400 - 1, 110:490] == class_color(0)).all(axis=1)
    assert row_solid.all()
    assert 0.35 < row_dashed.mean() < 0.75
    assert np.abs(np.diff(row_dashed.astype(int))).sum() > 10
    assert (np.asarray(dashed)[400 - 1, 110:490] == 128).all(axis=1).mean() > 0.2  # the edge is dashed too
    ignored = draw_instances(grey(), boxes(), [""], truth=boxes([100, 100, 500, 400], ignore=torch.tensor([True])))
    row_ignored = (np.asarray(ignored)[400 - 1, 110:490] == class_color(0)).all(axis=1)
    assert row_ignored.mean() < row_dashed.mean()


def test_labels_have_a_ground_and_do_not_cover_each_other():
    one = draw_instances(grey(), boxes([100, 100, 400, 300], scores=[0.9]), ["cell"])
    above = np.asarray(one)[80:98, 104:110]
    assert (above == class_color(0)).all(axis=2).mean() > 0.5
    twice = boxes([100, 100, 400, 300], [101, 101, 401, 301], labels=[0, 1], scores=[0.9, 0.8])
    both = draw_instances(grey(), twice, ["first", "second"])
    rows, _ = places(both, class_color(1))
    assert rows.min() > 95  # the second label went below its line, since the place above is taken


def test_lines_and_text_grow_with_the_picture():
    def ink(side):
        picture = draw_instances(grey(side, side), boxes([side / 4, side / 4, side / 2, side / 2]), [""])
        column = (np.asarray(picture)[:, side * 3 // 8] == class_color(0)).all(axis=1)
        return int(column.sum())

    assert ink(2000) >= 3 * ink(500)


def test_small_pictures_are_enlarged_unless_told_not_to():
    found = boxes([10, 10, 50, 50])
    assert draw_instances(grey(100, 128), found, ["a"]).size == (512, 400)
    assert draw_instances(grey(100, 128), found, ["a"], enlarge=False).size == (128, 100)
    rows, columns = places(draw_instances(grey(100, 128), found, [""]), class_color(0))
    assert abs(columns.max() - 200) <= 3
    assert abs(rows.max() - 200) <= 3


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (np.random.default_rng(0).integers(0, 60000, (60, 80), dtype=np.uint16), "16-bit grey"),
        (np.random.default_rng(0).integers(0, 60000, (60, 80, 3), dtype=np.uint16), "16-bit colour"),
        (np.random.default_rng(0).normal(size=(60, 80, 7)), "seven channels"),
        (np.random.default_rng(0).integers(0, 255, (60, 80, 2), dtype=np.uint8), "two channels"),
        (np.random.default_rng(0).integers(0, 255, (60, 80, 4), dtype=np.uint8), "with alpha"),
        (np.random.default_rng(0).uniform(size=(60, 80)) > 0.5, "binary"),
    ],
)
def test_any_depth_and_number_of_channels_can_be_seen(image, mode):
    picture = display_image(image)
    assert picture.mode == "RGB", mode
    assert picture.size == (80, 60)
    values = np.asarray(picture)
    assert values.min() < 20
    assert values.max() > 235


def test_eight_bit_images_are_shown_as_they_are():
    image = np.full((4, 5, 3), (10, 20, 30), np.uint8)
    assert (np.asarray(display_image(image)) == image).all()
    flat = display_image(np.full((4, 5), 7, np.uint16))
    assert np.ptp(np.asarray(flat)) == 0
    with pytest.raises(ShapeError, match=r"expected \(h, w\) or \(h, w, c\), got \(2, 3, 4, 5\)"):
        display_image(np.zeros((2, 3, 4, 5)))


def test_masks_tint_what_they_cover_and_contours_replace_the_box():
    mask = torch.zeros(1, 480, 640, dtype=torch.bool)
    mask[0, 100:200, 100:200] = True
    ring = torch.tensor([[[100.0, 100.0], [200.0, 100.0], [200.0, 200.0], [100.0, 200.0]]])
    found = boxes([50, 50, 300, 300], masks=mask, contours=ring, ring_object=torch.tensor([0]))
    values = np.asarray(draw_instances(grey(), found, [""])).astype(int)
    tint = 128 * 0.6 + np.array(class_color(0)) * 0.4
    assert np.abs(values[150, 150] - tint).max() <= 1
    assert (values[250, 250] == 128).all()
    assert (values[150, 100] == class_color(0)).all()  # the contour
    assert (values[280, 299] == 128).all()  # no box


def test_nothing_and_nonsense_are_drawn_without_an_error():
    assert (np.asarray(draw_instances(grey(), boxes(), ["a"])) == 128).all()
    odd = boxes(
        [float("nan")] * 4, [-500, -500, -400, -400], [600, 450, 900, 900], labels=[0, 1, 9], scores=[0.9, 0.8, 0.7]
    )
    assert draw_instances(grey(), odd, ["a", "b"]).size == (640, 480)


def test_a_line_of_text_below_a_picture():
    plain = draw_label(grey(), "cat 0.97")
    assert plain.width == 640
    assert plain.height > 480
    band = np.asarray(plain)[490:]
    assert band.max() > 200  # letters
    good, bad = draw_label(grey(), "cat", good=True), draw_label(grey(), "cat", good=False)
    assert (np.asarray(good) != np.asarray(bad)).any()
    assert draw_label(grey(64, 64), "a very long class name " * 20).width == 256
    assert isinstance(plain, Image.Image)


def test_what_contours_enclose_is_painted_but_for_holes() -> None:
    image = np.full((480, 480, 3), 100, np.uint8)
    ring = torch.tensor([[40.0, 40], [440, 40], [440, 440], [40, 440]])
    hole = (ring - 240) / 2 + 240
    found = Instances(
        boxes=torch.tensor([[40.0, 40, 440, 440]]),
        labels=torch.tensor([1]),
        contours=torch.stack([ring, hole]),
        ring_object=torch.tensor([0, 0]),
    )
    drawn = np.asarray(draw_instances(image, found, ("a", "b")))
    np.testing.assert_allclose(drawn[240, 90], 100 * 0.6 + np.array(class_color(1)) * 0.4, atol=1)
    assert drawn[240, 240].tolist() == [100, 100, 100]
    found.contours[1, 0] = torch.nan  # pyright: ignore[reportOptionalSubscript]
    assert np.asarray(draw_instances(image, found, ("a", "b")))[240, 90].tolist() == [100, 100, 100]


def test_many_objects_of_one_class_are_not_named() -> None:
    image = np.full((480, 480, 3), 100, np.uint8)
    many = [(x, y, x + 30, y + 30) for x in range(20, 440, 60) for y in range(30, 440, 60)]
    plain = np.asarray(draw_instances(image, boxes(*many), ("nucleus",)))
    assert np.array_equal(plain, np.asarray(draw_instances(image, boxes(*many), ("nucleus",), names=False)))
    assert not np.array_equal(plain, np.asarray(draw_instances(image, boxes(*many), ("nucleus",), names=True)))
    assert not np.array_equal(plain, np.asarray(draw_instances(image, boxes(*many), ("nucleus", "other"))))
