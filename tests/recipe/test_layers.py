import pytest

from clearsight.errors import ConfigError
from clearsight.recipe.layers import file_layer, merge_layers, override_layer
from clearsight.recipe.yaml_text import parse_document


def layer(text, name="base.yaml"):
    return file_layer(parse_document(text, name), name)


def merged(*layers):
    return merge_layers(layers, "recipe")


def test_mappings_merge_and_lists_are_replaced():
    result = merged(layer("a: {x: 1, y: [1, 2, 3]}\nb: 1"), layer("a: {y: [9]}", "top.yaml"))
    assert result.value == {"a": {"x": 1, "y": [9]}, "b": 1}


def test_the_layers_below_are_not_changed_by_merging():
    base = layer("a: {x: 1}")
    merged(base, layer("a: {x: 2}"))
    assert base.value == {"a": {"x": 1}}


def test_origins_follow_the_value_that_won():
    result = merged(layer("a:\n  x: 1\n  y: 2"), layer("a:\n\n  y: 3", "top.yaml"), override_layer(["a.z=4"]))
    assert result.where(("a", "x")) == "base.yaml:2"
    assert result.where(("a", "y")) == "top.yaml:3"
    assert result.where(("a", "z")) == "override a.z=4"
    assert result.where(("nothing",)) == "recipe"


def test_another_model_starts_afresh():
    result = merged(layer("model: {name: light, widths: [1], norm: group}"), layer("model: {name: retinanet}"))
    assert result.value == {"model": {"name": "retinanet"}}
    assert result.where(("model", "widths")).startswith("base.yaml")


def test_the_same_model_named_again_keeps_its_values():
    result = merged(layer("model: {name: light, norm: group}"), layer("model: {name: light, head_convs: 1}"))
    assert result.value["model"] == {"name": "light", "norm": "group", "head_convs": 1}


def test_another_assigner_starts_afresh():
    base = layer("model: {name: retinanet, norm: group, assigner: {name: max_iou, positive: 0.6}}")
    result = merged(base, override_layer(["model.assigner.name=atss"]))
    assert result.value["model"] == {"name": "retinanet", "norm": "group", "assigner": {"name": "atss"}}


def test_other_names_start_nothing_afresh():
    result = merged(layer("name: a\noptimizer: {name: adamw, lr: 3}"), override_layer(["name=b", "optimizer.name=sgd"]))
    assert result.value == {"name": "b", "optimizer": {"name": "sgd", "lr": 3}}


@pytest.mark.parametrize("given", ["trainer.minutes=5", "trainer.steps=5"])
def test_one_length_puts_the_other_aside(given):
    result = merged(layer("trainer: {epochs: 3, seed: 1}"), override_layer([given]))
    assert "epochs" not in result.value["trainer"]
    assert result.value["trainer"]["seed"] == 1


def test_no_length_puts_nothing_aside():
    result = merged(layer("trainer: {epochs: 3}"), override_layer(["trainer.minutes=null"]))
    assert result.value["trainer"] == {"epochs": 3, "minutes": None}


def test_order_of_overrides_does_not_matter_across_keys_and_the_last_of_one_key_wins():
    base = layer("model: {name: light, norm: group}")
    result = merged(base, override_layer(["model.backbone=resnet50", "model.name=retinanet", "a=1", "a=2"]))
    assert result.value == {"model": {"backbone": "resnet50", "name": "retinanet"}, "a": 2}
    assert result.where(("a",)) == "override a=2"


def test_a_section_opens_where_there_was_null():
    result = merged(layer("trainer: {early_stop: null}"), override_layer(["trainer.early_stop.patience=4"]))
    assert result.value == {"trainer": {"early_stop": {"patience": 4}}}


def test_values_are_found_by_path():
    result = merged(layer("a: {b: [10, 20]}\nc: text"))
    assert result.at(("a", "b", 1)) == 20
    assert result.at(("a", "b", 2)) is None
    assert result.at(("c", 0)) is None
    assert result.at(("x", "y")) is None


@pytest.mark.parametrize("text", ["trainer.epochs", "=3", "a..b=3", "trainer.=3", "="])
def test_an_override_must_be_key_and_value(text):
    with pytest.raises(ConfigError, match="expected key=value without spaces"):
        override_layer([text])


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "the recipe is empty"), ("- a\n", "found a list"), ("hello", "found the text 'hello'"), ("3", "found 3")],
)
def test_a_file_must_hold_a_mapping(text, message):
    with pytest.raises(ConfigError, match=message):
        layer(text)
