"""Assigners by configuration."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import TypeAdapter

from clearsight.assign import ASSIGNERS, build_assigner
from clearsight.assign.atss import Atss
from clearsight.assign.auto_assign import AutoAssign
from clearsight.assign.max_iou import MaxIou
from clearsight.assign.simota import SimOta
from clearsight.recipe.assigner_sections import AssignerConfig, AtssConfig, AutoAssignConfig, MaxIouConfig, SimOtaConfig


def test_every_option_arrives() -> None:
    simota = build_assigner(
        SimOtaConfig(candidates=7, centre_radius=1.5, iou_weight=2.0, class_weight=0.5), num_classes=3
    )
    assert isinstance(simota, SimOta)
    assert vars(simota) == {"candidates": 7, "centre_radius": 1.5, "iou_weight": 2.0, "class_weight": 0.5}
    max_iou = build_assigner(MaxIouConfig(positive=0.6, negative=0.3, force_best=False), num_classes=3)
    assert isinstance(max_iou, MaxIou)
    assert vars(max_iou) == {"positive": 0.6, "negative": 0.3, "force_best": False}
    atss = build_assigner(AtssConfig(candidates=11), num_classes=3)
    assert isinstance(atss, Atss)
    assert vars(atss) == {"candidates": 11}


@pytest.mark.parametrize("name", [name for name in ASSIGNERS if name != "auto_assign"])
def test_defaults_are_the_recipes(name: str) -> None:
    config = TypeAdapter(AssignerConfig).validate_python({"name": name})
    assert vars(build_assigner(config, num_classes=3)) == vars(ASSIGNERS[name]())


def test_a_learned_assigner_has_the_classes() -> None:
    assigner = build_assigner(AutoAssignConfig(gamma=1.5), num_classes=3)
    assert isinstance(assigner, AutoAssign)
    assert len(assigner.mean) == 3
    default = vars(build_assigner(AutoAssignConfig(), num_classes=3))
    kept = {name: value for name, value in vars(AutoAssign(num_classes=3)).items() if name[0] != "_"}
    assert {name: default[name] for name in kept} == kept


def test_every_section_has_its_assigner() -> None:
    kinds = get_args(get_args(AssignerConfig)[0])
    assert [kind.model_fields["name"].default for kind in kinds] == list(ASSIGNERS)
