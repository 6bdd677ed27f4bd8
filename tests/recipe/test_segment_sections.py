"""Sections of segmenters and contour models, and which task each model does."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from clearsight.errors import ConfigError
from clearsight.models import BUILDERS
from clearsight.recipe.model_sections import MODEL_SECTIONS, model_task
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.segment_sections import DeepSnakeConfig, SegmentLossConfig, SwinUnetConfig, UNetConfig


def test_what_is_refused() -> None:
    with pytest.raises(ValidationError, match="'same' or 'valid'"):
        UNetConfig(padding="mirror")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError, match="depths"):
        SwinUnetConfig(depths=(2, 2, 2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError, match="less than 1"):
        SegmentLossConfig(label_smoothing=1.0)
    with pytest.raises(ValidationError, match="max_objects"):
        DeepSnakeConfig(max_objects=0)


def test_every_model_has_one_task() -> None:
    tasks = {name: model_task(name) for name in MODEL_SECTIONS}
    assert set(tasks) == set(BUILDERS)
    assert {name for name, task in tasks.items() if task == "instance"} == {"mask_rcnn", "deep_snake"}
    assert tasks["classifier"] == "classification"
    assert tasks["unet"] == tasks["transunet"] == tasks["danet"] == "semantic"
    assert tasks["retinanet"] == tasks["centernet"] == "detection"


def test_a_recipe_whose_model_does_another_task() -> None:
    with pytest.raises(ConfigError, match="'unet' does task 'semantic', not 'detection'"):
        load_recipe("membrane-unet", ["task=detection"])


@pytest.mark.parametrize(
    "name",
    ["membrane-unet", "membrane-transunet", "membrane-swinunet", "nuclei-maskrcnn", "nuclei-snake", "fruits-maskrcnn"],
)
def test_the_recipes_name_their_method(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.task == model_task(recipe.model.name)
    assert "data.root" in recipe.description
