import numpy as np
import pytest
import torch
from PIL import Image

from clearsight.deploy.sources import list_items
from clearsight.errors import DataError, NotFound, RangeError, ShapeError


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name in ("b.PNG", "a.jpg", "deep/c.png", ".hidden/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (10, 20, 30)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def names(source, **options):
    return [item.name for item in list_items(source, **options)]


def test_a_folder_is_searched_to_its_depths(photos):
    assert names(photos) == ["a.jpg", "b.PNG", "deep/c.png"]
    assert names(str(photos)) == ["a.jpg", "b.PNG", "deep/c.png"]
    assert not any(item.required for item in list_items(photos))


def test_results_of_an_earlier_run_are_left_out(photos):
    assert names(photos, leave_out=photos / "deep") == ["a.jpg", "b.PNG"]
    assert names(photos, leave_out=photos / "not-there") == ["a.jpg", "b.PNG", "deep/c.png"]


def test_one_file_is_required(photos):
    (item,) = list_items(photos / "notes.txt")  # told by itself: its suffix does not matter
    assert (item.name, item.required, item.path) == ("notes.txt", True, photos / "notes.txt")


def test_patterns(photos):
    assert names(f"{photos}/*.jpg") == ["a.jpg"]
    assert names(f"{photos}/**/*.png") == ["c.png"]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "[1].png")
    assert names(tmp_path / "[1].png") == ["[1].png"]


def test_lists_of_everything(photos):
    array = np.zeros((2, 3, 3), np.uint8)
    assert names([photos / "a.jpg", array, photos / "deep", Image.new("L", (5, 4))]) == [
        "a.jpg",
        "image_00001",
        "c.png",
        "image_00003",
    ]


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (np.zeros((2, 5), np.uint8), (2, 5, 3)),
        (np.zeros((2, 5, 1), np.uint8), (2, 5, 3)),
        (np.zeros((2, 5, 4), np.uint16), (2, 5, 3)),
        (torch.zeros((3, 2, 5), dtype=torch.uint8), (2, 5, 3)),
        (torch.zeros((2, 5), dtype=torch.uint8), (2, 5, 3)),
        (Image.new("P", (5, 2)), (2, 5, 3)),
        (Image.new("RGBA", (5, 2)), (2, 5, 3)),
        (Image.new("I;16", (5, 2)), (2, 5, 3)),
        (Image.new("1", (5, 2)), (2, 5, 3)),
    ],
)
def test_images_in_memory_become_pixels_of_the_models_channels(image, shape):
    (item,) = list_items(image)
    pixels = item.read(3)
    assert pixels.shape == shape
    assert pixels.dtype in (np.uint8, np.uint16)


def test_values_are_kept():
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(list_items(image)[0].read(3), image[:, :, :3])
    tensor = torch.arange(18, dtype=torch.uint8).reshape(3, 2, 3)
    np.testing.assert_array_equal(list_items(tensor)[0].read(3), tensor.permute(1, 2, 0).numpy())
    assert list_items(torch.full((3, 1, 1), 0.5))[0].read(3).tolist() == [[[128, 128, 128]]]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.zeros((2, 3, 4, 3), np.uint8), ShapeError, "give several images as a list"),
        (np.zeros((0, 3, 3), np.uint8), ShapeError, r"found shape \(0, 3, 3\), expected \(h, w\) or \(h, w, c\)"),
        (np.zeros(3, np.uint8), ShapeError, r"expected \(h, w\)"),
        (np.zeros((2, 3, 3)), ShapeError, "found float64 pixels, expected uint8"),
        (torch.zeros((3, 2, 2), dtype=torch.int64), ShapeError, "found int64 pixels"),
        (torch.full((3, 2, 2), 255.0), RangeError, r"values from 255 to 255, expected \[0, 1\]"),
        (torch.full((3, 2, 2), torch.nan), RangeError, "expected"),
        ([], DataError, "the list is empty"),
        (3, ShapeError, "found int, expected a path"),
        ("https://example.org/a.jpg", NotFound, "addresses are not fetched; download"),
    ],
)
def test_what_is_no_image(source, error, message):
    with pytest.raises(error, match=message):
        list_items(source)


def test_channels_that_do_not_fit():
    (item,) = list_items(np.zeros((2, 2, 5), np.uint8))
    with pytest.raises(ShapeError, match="found 5 channels, the model takes 3"):
        item.read(3)


def test_files_that_are_not_there(photos, tmp_path):
    with pytest.raises(NotFound, match=r"there is no such file or folder; did you mean .*a\.jpg"):
        list_items(photos / "a.jpeg")
    with pytest.raises(NotFound, match="does not exist either"):
        list_items(tmp_path / "no" / "a.jpg")
    with pytest.raises(NotFound, match="no file fits this pattern"):
        list_items(f"{photos}/*.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder has no images; expected files ending in one of"):
        list_items(tmp_path / "empty")
