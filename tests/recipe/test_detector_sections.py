"""Sections of detectors: what is refused, and that all have their weights."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from clearsight.recipe.detector_sections import DetectorSection, FcosConfig, YoloV3Config
from clearsight.recipe.model_sections import MODEL_SECTIONS, model_task


def test_every_model_can_name_weights() -> None:
    for section in MODEL_SECTIONS.values():
        assert {"weights", "weights_sha256"} <= section.model_fields.keys()
    detectors = {name: one for name, one in MODEL_SECTIONS.items() if model_task(name) in ("detection", "instance")}
    assert all("backbone" in one.model_fields for one in detectors.values())
    assert all(issubclass(one, DetectorSection) for name, one in detectors.items() if name != "light")


def test_yolo_has_two_levels_or_three() -> None:
    assert len(YoloV3Config(anchors=((10, 14),) * 6).anchors) == 6
    with pytest.raises(ValidationError, match=r"expected six \(two levels\) or nine \(three levels\), found 5"):
        YoloV3Config(anchors=((10, 14),) * 5)
    with pytest.raises(ValidationError, match="greater than 0"):
        YoloV3Config(anchors=((10, 0),) * 6)


def test_a_neck_that_is_none() -> None:
    assert FcosConfig(neck="pan").neck == "pan"
    with pytest.raises(ValidationError, match="'fpn' or 'pan'"):
        FcosConfig(neck="pna")  # pyright: ignore[reportArgumentType]
