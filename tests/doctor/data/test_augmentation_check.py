"""Real digits and cells under changes that break their labels, and under those of the recipes."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data.dataset import Dataset
from clearsight.data.read import read_dataset
from clearsight.doctor.data.augmentation_check import OPERATIONS, AugmentationBreaksLabel, only
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.rule import examine
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import AugmentConfig

NONE = [f"augment.{key}={'null' if value is None else value}" for key, value in OPERATIONS.items()]


@pytest.fixture(scope="module")
def digits(shared_data, tmp_path_factory):
    """A folder of 250 written digits."""
    folder = tmp_path_factory.mktemp("digits")
    pixels, labels = (
        np.frombuffer(gzip.decompress(next((shared_data / "mnist_t10k").glob(f"*{kind}*.gz")).read_bytes()), np.uint8)
        for kind in ("images", "labels")
    )
    for number, (image, label) in enumerate(zip(pixels[16:].reshape(-1, 28, 28)[:250], labels[8:], strict=False)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number}.png")
    return read_dataset(folder)


def judged(data: Dataset, recipe: str, *change: str, size: tuple[int, int], plain: bool = True):
    config = load_recipe(
        recipe, [f"data.root={data.root}", f"data.size=[{size[0]},{size[1]}]", *(NONE if plain else []), *change]
    )
    given = DataEvidence(dataset=data, train=data, val=None, test=None, recipe=config)
    return examine([AugmentationBreaksLabel()], given)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ("augment.flip_horizontal=0.5", {"augment.flip_horizontal": 0.0}),
        ("augment.flip_vertical=0.5", {"augment.flip_vertical": 0.0}),
        ("augment.zoom=[2.0,4.0]", {"augment.zoom": None}),
    ],
    ids=["mirrored", "upside down", "cut"],
)
def test_what_breaks_digits(digits, change, remedy):
    done = judged(digits, "digits", change, size=(28, 28))
    assert [(found.id, found.severity, found.remedy) for found in done.findings] == [
        ("augmentation-breaks-label", "warning", remedy)
    ]
    assert done.findings[0].where == next(iter(remedy))


def owned(data: Dataset, **changes):
    return examine(
        [AugmentationBreaksLabel()], DataEvidence(dataset=data, train=data, val=None, test=None, changes=changes)
    )


def test_changes_of_ones_own_that_hide_what_is_seen(digits):
    def covered(image):
        image[len(image) // 4 :] = 0
        return image

    (found,) = owned(digits, covered=covered).findings
    assert (found.id, found.severity, found.where) == ("augmentation-breaks-label", "warning", "changes.covered")
    assert found.remedy == {}
    assert found.evidence["lost"] > 0.4


def test_changes_of_ones_own_that_leave_enough_to_see(digits):
    rng = np.random.default_rng(0)

    def strong(image):
        noisy = np.roll(image, rng.integers(-2, 3, 2), (0, 1)) + rng.normal(0, 30, image.shape)
        noisy[10:17, 10:17] = 0
        return np.clip(noisy, 0, 255).astype(np.uint8)

    done = owned(digits, same=lambda image: image, strong=strong)
    assert done.findings == []
    assert done.passed == ("augmentation-breaks-label",)


def test_images_that_are_hardly_known_say_nothing_of_changes(digits):
    mixed = np.random.default_rng(0).permutation([record.label for record in digits.records])
    records = [replace(record, label=int(label)) for record, label in zip(digits.records, mixed, strict=True)]
    assert owned(replace(digits, records=records), black=np.zeros_like).findings == []


def test_the_digits_recipe_is_clean(digits):
    done = judged(digits, "digits", size=(28, 28), plain=False)
    assert done.findings == []
    assert done.passed == ("augmentation-breaks-label",)


def test_cuts_that_take_most_objects_away(shared_data):
    cells = read_dataset(shared_data / "bccd").split("val")
    assert judged(cells, "cells", size=(240, 320), plain=False).passed == ("augmentation-breaks-label",)
    assert judged(cells, "cells", "augment.zoom=[1.0,1.7]", size=(240, 320)).passed == ("augmentation-breaks-label",)
    found = judged(cells, "cells", "augment.zoom=[3.0,5.0]", "augment.flip_vertical=0.5", size=(240, 320)).findings[0]
    assert (found.severity, found.remedy) == ("warning", {"augment.zoom": None})
    assert found.evidence["lost"] > 0.8
    assert found.evidence["alone"]["flip_vertical"] == 0.0
    small = judged(cells, "cells", "augment.zoom=[0.1,0.3]", size=(240, 320)).findings[0]
    assert small.evidence["shrunk"] > 0.7


def test_one_operation_alone():
    alone = only(AugmentConfig(flip_horizontal=0.5, zoom=(0.5, 2.0), rotate=9.0, mosaic=1.0, mixup=0.5), "rotate")
    assert (alone.flip_horizontal, alone.zoom, alone.rotate, alone.mosaic, alone.mixup) == (0.0, None, 9.0, 0.0, 0.0)


def test_what_is_missing_is_said(digits):
    assert judged(digits, "digits", size=(28, 28)).silent == {"augmentation-breaks-label": "augmentation"}
    given = DataEvidence(dataset=digits, train=digits, val=None, test=None)
    assert examine([AugmentationBreaksLabel()], given).silent == {
        "augmentation-breaks-label": "a recipe and training images"
    }


def test_files_that_cannot_be_read_are_left_out(digits, tmp_path):
    for record in digits.records[:30]:
        folder = tmp_path / Path(record.image).parent.name
        folder.mkdir(exist_ok=True)
        (folder / record.image.name).write_bytes(record.image.read_bytes())
    data = read_dataset(tmp_path)
    data.records[3].image.write_bytes(b"no picture")
    assert judged(data, "digits", "augment.rotate=5", size=(28, 28)).passed == ("augmentation-breaks-label",)
