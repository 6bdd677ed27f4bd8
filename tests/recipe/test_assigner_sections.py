"""Bounds of the assigners' sections: what an assigner would refuse, the recipe refuses first."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from clearsight.assign import ASSIGNERS, build_assigner
from clearsight.recipe.assigner_sections import AssignerConfig, CentreSamplingConfig

SECTION = TypeAdapter(AssignerConfig)


@pytest.mark.parametrize("name", ASSIGNERS)
def test_a_section_of_its_name_alone_is_whole(name: str) -> None:
    assert build_assigner(SECTION.validate_python({"name": name}), num_classes=2) is not None


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("max_iou", "positive", 1.1),
        ("ota", "steps", 0),
        ("ota", "epsilon", 0.0),
        ("paa", "iou", 0.0),
        ("paa", "box_weight", float("inf")),
        ("shape_ratio", "ratio", 1.0),
        ("centre_sampling", "radius", 0.0),
        ("free_anchor", "threshold", 1.0),
        ("auto_assign", "temperature", 0.0),
        ("iqdet", "alpha", 1.5),
        ("simota", "anchors", 3),
    ],
)
def test_values_out_of_bounds(name: str, option: str, value: float) -> None:
    with pytest.raises(ValidationError, match=option):
        SECTION.validate_python({"name": name, option: value})


def test_levels_give_way_where_told() -> None:
    section = SECTION.validate_python({"name": "centre_sampling", "bounds": [32, 64]})
    assert isinstance(section, CentreSamplingConfig)
    assert section.bounds == (32.0, 64.0)
