from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.data.normalisation import Statistics, measure_statistics
from clearsight.data.read import read_dataset
from clearsight.data.samples import SampleSet
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.normalisation_check import NormalisationMismatch
from clearsight.doctor.rule import examine
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe
from clearsight.types import Record


def records(number: int = 30) -> list[Record]:
    return [Record(image=Path("x"), label=i % 2, split="train") for i in range(number)]


def noise(mean: float, std: float, *, shape: tuple[int, ...] = (24, 24, 3), number: int = 30) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.clip(rng.normal(mean, std, shape), 0, 255).astype(np.uint8) for _ in range(number)]


def recipe(normalize: str, *more: str) -> Recipe:
    return load_recipe("digits", [f"data.normalize={normalize}", *more])


def check(evidence: DataEvidence) -> list:
    return list(NormalisationMismatch().check(evidence))


def test_statistics_of_the_images_themselves_are_right(evidence_of) -> None:
    evidence = evidence_of(records(), noise(100, 30), recipe=recipe("data"))
    own = measure_statistics(SampleSet(evidence.dataset, data=evidence.recipe.data))
    assert check(evidence) == []
    evidence.statistics = own
    assert check(evidence) == []


@pytest.mark.parametrize("normalize", ["imagenet", "unit"])
def test_ordinary_photos_do_with_fixed_statistics(evidence_of, normalize: str) -> None:
    assert check(evidence_of(records(), noise(100, 50), recipe=recipe(normalize))) == []


@pytest.mark.parametrize("normalize", ["imagenet", "unit"])
def test_images_in_a_hundredth_of_the_range_are_a_warning(evidence_of, normalize: str) -> None:
    (found,) = check(evidence_of(records(), noise(12, 1.5), recipe=recipe(normalize)))
    assert (found.id, found.severity, found.where) == ("normalisation-mismatch", "warning", "data.normalize")
    assert found.remedy == {"data.normalize": "data"}
    assert found.evidence["std"][0] < 0.05
    cured = load_recipe(recipe(normalize), ["data.normalize=data"])
    assert check(evidence_of(records(), noise(12, 1.5), recipe=cured)) == []


def test_a_mean_of_five_deviations_is_information(evidence_of) -> None:
    (found,) = check(evidence_of(records(), noise(200, 39), recipe=recipe("unit")))
    assert found.severity == "info"
    assert check(evidence_of(records(), noise(140, 50), recipe=recipe("unit"))) == []  # 2.8 deviations


def test_pixels_that_were_not_scaled_and_statistics_of_other_images_are_warnings(evidence_of) -> None:
    raw = Statistics(mean=(0.0,) * 3, std=(1 / 255,) * 3)
    (found,) = check(evidence_of(records(), noise(100, 50), statistics=raw))
    assert (found.severity, found.remedy) == ("warning", {})
    assert found.evidence["std"][0] > 20
    dark = Statistics(mean=(0.05,) * 3, std=(0.08,) * 3)
    (found,) = check(evidence_of(records(), noise(200, 30), statistics=dark))
    assert found.evidence["mean"][0] == pytest.approx((200 / 255 - 0.05) / 0.08, abs=0.1)


def test_a_channel_that_is_always_the_same_is_named_and_spoils_no_other_judgement(evidence_of) -> None:
    images = noise(100, 50)
    for image in images:
        image[..., 2] = 0
    (found,) = check(evidence_of(records(), images, recipe=recipe("unit")))
    assert (found.severity, found.where, found.evidence["channels"]) == ("info", "data.channels", [2])


def test_imagenet_on_one_channel_is_refused_and_on_grey_files_is_information(evidence_of) -> None:
    images = noise(100, 50, shape=(24, 24))
    (found,) = check(evidence_of(records(), images, recipe=recipe("imagenet", "data.channels=1")))
    assert (found.severity, found.remedy) == ("error", {"data.normalize": "data"})
    (found,) = check(evidence_of(records(), images, recipe=recipe("imagenet")))
    assert (found.severity, found.evidence["grey"]) == ("info", 30)
    published = recipe("imagenet", "model.weights=somewhere.pt")
    assert check(evidence_of(records(), images, recipe=published)) == []


def test_imagenet_on_16_bits_is_a_warning(evidence_of, tmp_path: Path) -> None:
    import tifffile

    rng = np.random.default_rng(0)
    files = records(5)
    for number, record in enumerate(files):
        record.image = tmp_path / f"{number}.tif"
        tifffile.imwrite(record.image, rng.integers(0, 4096, (24, 24, 3), dtype=np.uint16), photometric="rgb")
    (found,) = check(evidence_of(files, recipe=recipe("imagenet")))
    assert (found.severity, found.evidence["bits"]) == ("warning", 16)
    assert "0.tif" in found.explanation
    (found,) = check(evidence_of(files, recipe=recipe("unit")))
    assert found.evidence["std"][0] < 0.05  # twelve bits in sixteen
    assert check(evidence_of(files, recipe=recipe("data"))) == []


def test_what_is_lacking_is_said(evidence_of) -> None:
    rule = NormalisationMismatch()
    assert examine([rule], evidence_of(records(3), noise(9, 9, number=3))).silent
    stretched = evidence_of(records(3), noise(9, 9, number=3), recipe=recipe("percentile"))
    assert "percentiles" in examine([rule], stretched).silent["normalisation-mismatch"]
    assert examine([rule], evidence_of(records(3), recipe=recipe("unit"))).silent == {
        "normalisation-mismatch": "an image that can be read"
    }


@pytest.mark.real
@pytest.mark.parametrize("normalize", ["data", "unit", "imagenet"])
def test_blood_cells_give_no_warning(shared_data: Path, normalize: str) -> None:
    dataset = read_dataset(shared_data / "bccd")
    evidence = DataEvidence(
        dataset=dataset,
        train=dataset.split("train"),
        val=None,
        test=None,
        recipe=load_recipe("cells", [f"data.normalize={normalize}"]),
    )
    assert [finding for finding in check(evidence) if finding.severity != "info"] == []
