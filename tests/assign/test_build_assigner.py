"""Assigners by configuration."""

from __future__ import annotations

from clearsight.assign import ASSIGNERS, build_assigner
from clearsight.assign.atss import Atss
from clearsight.assign.max_iou import MaxIou
from clearsight.assign.simota import SimOta
from clearsight.recipe.model_sections import AtssConfig, MaxIouConfig, SimOtaConfig


def test_every_option_arrives() -> None:
    simota = build_assigner(SimOtaConfig(candidates=7, centre_radius=1.5, iou_weight=2.0, class_weight=0.5))
    assert isinstance(simota, SimOta)
    assert vars(simota) == {"candidates": 7, "centre_radius": 1.5, "iou_weight": 2.0, "class_weight": 0.5}
    max_iou = build_assigner(MaxIouConfig(positive=0.6, negative=0.3, force_best=False))
    assert isinstance(max_iou, MaxIou)
    assert vars(max_iou) == {"positive": 0.6, "negative": 0.3, "force_best": False}
    atss = build_assigner(AtssConfig(candidates=11))
    assert isinstance(atss, Atss)
    assert vars(atss) == {"candidates": 11}


def test_defaults_are_the_recipes() -> None:
    for config in (SimOtaConfig(), MaxIouConfig(), AtssConfig()):
        assert vars(build_assigner(config)) == vars(ASSIGNERS[config.name]())
