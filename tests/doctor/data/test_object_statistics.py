from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from clearsight.data.digit_scenes import read_digit_scenes
from clearsight.data.read import read_dataset
from clearsight.doctor.data.object_statistics import OddObject, tail_distance
from clearsight.doctor.rule import examine
from clearsight.types import Object, Record

SIDE = 400


def boxes_of(sizes: np.ndarray, *, start: float = 10.0) -> list[Record]:
    """Ten objects an image of the given widths and heights."""
    rng = np.random.default_rng(0)
    records = []
    for first in range(0, len(sizes), 10):
        objects = []
        for width, height in sizes[first : first + 10]:
            left, top = rng.uniform(start, SIDE - start - width), rng.uniform(start, SIDE - start - height)
            objects.append(Object(label=0, box=(left, top, left + width, top + height), where=f"box {len(objects)}"))
        records.append(Record(image=Path("x"), objects=objects, split="train"))
    return records


def usual(number: int = 200, spread: float = 0.15) -> np.ndarray:
    side = np.exp(np.random.default_rng(1).normal(np.log(20), spread, (number, 2)))
    return np.minimum(side, SIDE - 30)


def found_in(evidence_of, sizes: np.ndarray, *, start: float = 10.0) -> list:
    records = boxes_of(sizes, start=start)
    images = [np.full((SIDE, SIDE), 90, np.uint8)] * len(records)
    return list(OddObject().check(evidence_of(records, images, classes=("cell",), task="detection")))


def test_a_box_of_twenty_times_the_area_is_found_and_named(evidence_of) -> None:
    sizes = usual()
    sizes[57] = 90, 90
    (found,) = found_in(evidence_of, sizes)
    assert (found.id, found.severity, found.where) == ("odd-object", "info", "box 7")
    assert found.evidence["kind"] == "size"
    assert found.evidence["count"] == 1
    assert found.evidence["ratios"][0] == pytest.approx(8100 / 400, rel=0.1)
    assert "'cell'" in found.explanation


def test_a_tiny_box_and_a_long_one_are_found_worst_first(evidence_of) -> None:
    sizes = usual()
    sizes[3], sizes[4], sizes[5] = (4, 4), (2, 2), (150, 5)
    size, shape = found_in(evidence_of, sizes)
    assert size.evidence["objects"] == ["box 4", "box 3"]
    assert shape.evidence["kind"] == "shape"
    assert shape.evidence["objects"] == ["box 5"]


def test_eight_times_the_area_is_let_pass(evidence_of) -> None:
    sizes = usual(spread=0.02)
    sizes[57] = 56, 56
    assert found_in(evidence_of, sizes) == []


def test_a_class_with_heavy_tails_of_its_own_is_let_be(evidence_of) -> None:
    sizes = usual(spread=1.0)
    areas = np.log(sizes.prod(axis=1))
    assert np.ptp(areas) > 2 * np.log(10)  # boxes of ten times the median and of a tenth are there
    assert found_in(evidence_of, sizes) == []


def test_objects_cut_by_the_border_are_not_judged(evidence_of) -> None:
    sizes = usual()
    sizes[57] = SIDE, 100
    assert found_in(evidence_of, sizes[50:60], start=0) == []


def test_few_objects_are_not_judged(evidence_of) -> None:
    sizes = usual(29)
    sizes[7] = 90, 90
    assert found_in(evidence_of, sizes) == []


def test_tail_distance_is_in_deviations_where_values_are_normal() -> None:
    values = stats.norm.ppf((np.arange(2000) + 0.5) / 2000) * 3 + 7
    assert tail_distance(values) == pytest.approx((values - 7) / 3, abs=0.05)


def test_each_side_has_a_measure_of_its_own() -> None:
    left, right = -np.linspace(0.001, 1, 500), np.linspace(0.001, 10, 500)
    distance = tail_distance(np.concatenate([left, right]))
    assert distance[499] == pytest.approx(-distance[-1], rel=0.01)
    assert tail_distance(np.array([3.0, 3, 3, 4])) == pytest.approx([0, 0, 0, 1.645 / 0.7], rel=0.01)


@pytest.mark.real
def test_blood_cells_and_digit_scenes_have_nothing_above_information(read_evidence, shared_data: Path) -> None:
    seen = examine([OddObject()], read_evidence(read_dataset(shared_data / "bccd")))
    assert {finding.severity for finding in seen.findings} <= {"info"}
    assert sum(finding.evidence["count"] for finding in seen.findings) < 10  # of 4,886
    scenes = examine([OddObject()], read_evidence(read_digit_scenes(scenes=60)))
    assert scenes.passed == ("odd-object",)
