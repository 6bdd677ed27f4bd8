import pytest
from pydantic import ValidationError

from clearsight.errors import ConfigError
from clearsight.recipe.explain import expected_text, explain, locate
from clearsight.recipe.layers import Layer, merge_layers
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "unknown key 'lrr' in section 'optimizer'; did you mean 'optimizer.lr'?"),
        ("optimiser.lr=3", "unknown key 'optimiser' in the recipe; did you mean 'optimizer'?"),
        ("epochs=3", "unknown key 'epochs' in the recipe; did you mean 'trainer.epochs'?"),
        (
            "model.anchor_sizes=[3]",
            "unknown key 'anchor_sizes' in section 'model' of name 'light'; "
            "cascade_rcnn, efficientdet, faster_rcnn, mask_rcnn and retinanet have it",
        ),
        ("model.nme=light", "unknown key 'nme' in section 'model' of name 'light'; did you mean 'model.name'?"),
        (
            "model.assigner.positive=0.2",
            "unknown key 'positive' in section 'model.assigner' of name 'simota'; "
            "max_iou, multibox and predicted_iou have it",
        ),
        ("optimizer.lr=-1", "found -1, expected a number > 0 and ≤ 100"),
        ("optimizer.lr=abc", "found 'abc', expected a number > 0 and ≤ 100"),
        ("optimizer.lr=.nan", "found .nan, expected a number > 0 and ≤ 100"),
        ("trainer.epochs=0", "found 0, expected a whole number ≥ 1"),
        ("trainer.epochs=1.5", "found 1.5, expected a whole number ≥ 1"),
        ("data.size=240", "found 240, expected a list of 2 whole numbers ≥ 8 and ≤ 16384"),
        ("data.size=[240]", "found [240], expected a list of 2 whole numbers ≥ 8 and ≤ 16384"),
        ("data.size=[1,2,3]", "found [1, 2, 3], expected a list of 2 whole numbers"),
        ("data.size=[1,32]", "data.size.0: found 1, expected a whole number ≥ 8 and ≤ 16384"),
        ("data=3", "found 3, expected a section of `key: value` lines"),
        ("optimizer.name=adan", "lbfgs; did you mean 'adam'?"),
        ("loader.workers=x", "found 'x', expected a whole number ≥ 0 and ≤ 128, or 'auto'"),
        (
            "model.name=retinanett",
            "model.name: found 'retinanett', expected one of cascade_rcnn, centernet, classifier, cornernet, danet, "
            "deep_snake, densebox, efficientdet, fast_rcnn, faster_rcnn, fcos, light, mask_rcnn, rcnn, reppoints, "
            "retinanet, semantic_fpn, ssd, swin_unet, transunet, unet, yolov3; did",
        ),
        (
            "model.name=null",
            "model.name: no name, expected one of cascade_rcnn, centernet, classifier, cornernet, danet, "
            "deep_snake, densebox, efficientdet, fast_rcnn, faster_rcnn, fcos, light, mask_rcnn, rcnn, reppoints, "
            "retinanet, semantic_fpn, ssd, swin_unet, transunet, unet, yolov3",
        ),
        ("model.assigner.name=simoto", "did you mean 'simota'?"),
        ("trainer.epochs=null", "trainer: give exactly one of epochs, steps or minutes; found none"),
        ("data.split.fractions=[0.5,0.5,0.5]", "data.split: fractions must add up to 1, they add up to 1.5"),
        ("task=classification", "model.name 'light' does task 'detection', not 'classification'"),
        ("data.train={a: 1}", "found {a: 1}, expected a text, or a list of texts"),
    ],
)
def test_mistakes_in_plain_words(override, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe("cells", [override])
    text = str(caught.value)
    assert message in text
    assert text.startswith((f"override {override}", "cells: "))
    assert "\n" not in text
    for jargon in ("pydantic", "Value error", "tagged-union", "Extra inputs", "Input should", "tuple["):
        assert jargon not in text


def test_every_mistake_is_listed_once():
    with pytest.raises(ConfigError) as caught:
        load_recipe("cells", ["eval.bootstrap=-1", "loader.batch_size=0", "oops=1"])
    head, *lines = str(caught.value).splitlines()
    assert head == "cells: 3 mistakes"
    assert len(lines) == 3
    assert sum("oops" in line for line in lines) == 1


def test_locations_lose_the_names_of_union_members():
    merged = merge_layers([Layer({"model": {"name": "light", "assigner": {"name": "atss"}}})], "recipe")
    path, schema = locate(("model", "light", "assigner", "atss", "candidates"), merged)
    assert path == ("model", "assigner", "candidates")
    assert expected_text(schema) == "a whole number ≥ 1"


def test_missing_sections_are_asked_for():
    merged = merge_layers([Layer({"name": "x", "task": "detection"})], "my.yaml")
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(merged.value)
    lines = explain(caught.value, merged)
    assert [line.split(";")[0] for line in lines] == [
        f"my.yaml: {key}: missing" for key in ("data", "model", "trainer")
    ]
