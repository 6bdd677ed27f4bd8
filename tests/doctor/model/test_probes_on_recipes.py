"""The probes say nothing of clearsight's own models on real data."""

from __future__ import annotations

import pytest
import torch

from clearsight.doctor.model.activations import ActivationScale
from clearsight.doctor.model.dead_at_start import DeadAtStart
from clearsight.doctor.model.dependence import ImagesNotLearned, SamplesMixed
from clearsight.doctor.model.gradient_check import WrongGradient
from clearsight.doctor.model.initial_loss import InitialLossOff
from clearsight.doctor.model.input_check import InputNotNormalised, WrongLayout
from clearsight.doctor.model.loss_form import find_form
from clearsight.doctor.model.loss_target import LossTargetMismatch
from clearsight.doctor.model.overfit import CannotOverfit
from clearsight.doctor.model.precision import PrecisionOverflow
from clearsight.doctor.model.probing import untouched
from clearsight.doctor.rule import examine

RULES = (
    InitialLossOff(),
    LossTargetMismatch(),
    ActivationScale(),
    DeadAtStart(),
    PrecisionOverflow(),
    CannotOverfit(seconds=2.0),
    ImagesNotLearned(seconds=2.0),
    SamplesMixed(),
    WrongGradient(),
    InputNotNormalised(),
    WrongLayout(),
)

LIGHT = ("model.widths=[8, 8, 16, 16]", "model.depths=[1, 1, 1, 1]", "model.fpn_channels=16")


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "folder", "overrides", "asked"),
    [
        ("cells", "bccd", ("data.size=[96, 128]", *LIGHT), 10),
        ("digits", "sign_digits", ("data.size=[16, 16]", "data.normalize=imagenet", "loader.batch_size=16"), 11),
        ("membrane-unet", "membrane", ("data.size=[64, 64]", "model.width=6", "loader.batch_size=16"), 11),
    ],
)
def test_they_are_quiet(recipe_evidence, name, folder, overrides, asked):
    evidence = recipe_evidence(name, folder, *overrides)
    before = {key: value.clone() for key, value in evidence.model.state_dict().items()}
    examination = examine(RULES, evidence)
    assert examination.findings == []
    assert len(examination.passed) == asked
    assert all(torch.equal(before[key], value) for key, value in evidence.model.state_dict().items())
    with untouched(evidence.model):
        form = find_form(evidence)
    assert (form is None) == (name == "cells")
