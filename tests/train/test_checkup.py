"""A recipe checked before it is trained: sound ones stay quiet, planted faults are found, nothing is left behind."""

from __future__ import annotations

import pytest
import torch

from clearsight.errors import ConfigError, NotFound
from clearsight.recipe.resolve import load_recipe
from clearsight.train.checkup import check

SMALL = ("data.size=[128,128]", "model.widths=[8,8,8,8]", "model.fpn_channels=8", "loader.workers=0", "data.scenes=60")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "cache"))


def grave(diagnosis):
    return {finding.id for finding in diagnosis.findings if finding.severity != "info"}


def test_a_sound_recipe_is_quiet_and_nothing_is_drawn_or_written(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = check("demo", *SMALL, probes=False)
    assert torch.equal(torch.rand(3), expected)
    assert grave(found) == set()
    assert not [one for one in found.findings if one.id == "rule-failed"]
    assert {"parameters-without-gradient", "samples-mixed"} <= set(found.passed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("data.size=[32,32]", "objects-below-stride"),
        ("eval.max_detections=1", "more-objects-than-detections"),
    ],
)
def test_what_a_recipe_does_to_its_data_is_found(change, expected):
    assert expected in grave(check("demo", *SMALL, change, probes=False))


@pytest.mark.real
def test_both_empty_boxes_of_the_blood_cells(shared_data):
    found = check(shared_data / "bccd")
    assert [one.where.split(":")[0].rsplit("/", 1)[1] for one in found.findings if one.id == "box-empty"] == [
        "BloodImage_00338.xml",
        "BloodImage_00343.xml",
    ]
    assert found.worst == "error"
    assert found.verdict.startswith("Found: 2 errors")


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match="takes no changes"):
        check(tmp_path, "a=1")
    with pytest.raises(NotFound):
        check(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError):
        check("nothing")


def test_a_recipe_that_is_loaded(tmp_path):
    assert check(load_recipe("demo", SMALL), probes=False).subject == "demo"
