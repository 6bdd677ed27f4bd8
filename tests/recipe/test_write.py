import json

import pytest

from clearsight.recipe.resolve import load_recipe, recipe_names
from clearsight.recipe.schema import Recipe
from clearsight.recipe.write import recipe_schema, recipe_to_yaml

AWKWARD = [
    "description='a: b # c'",
    "data.classes=[no, '007', 'null', 'x: y', 'ä', '1e3']",
    "optimizer.lr=1e-7",
    "trainer.clip_norm=null",
    "trainer.early_stop.patience=3",
    "data.split.fractions=[0.5, 0.25, 0.25]",
    "model.assigner.name=atss",
]


@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize("overrides", [[], AWKWARD])
@pytest.mark.parametrize("name", ["cells", "retinanet"])
def test_what_is_written_reads_back_equal(tmp_path, name, overrides, comments):
    recipe = load_recipe(name, overrides)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_to_yaml(recipe, comments=comments), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_everything_is_written_defaults_included():
    text = recipe_to_yaml(load_recipe("demo"))
    assert "\n  ema: 0.99" in text
    assert "\n  zoom: [0.8, 1.25]\n" in text
    assert "\n\noptimizer:\n  name: adamw\n" in text
    assert "#" not in text


def test_comments_say_what_keys_mean():
    text = recipe_to_yaml(load_recipe("demo"), comments=True)
    assert "  # Peak learning rate of the heads.\n" in text


def test_writing_twice_gives_the_same_text():
    recipe = load_recipe("cells")
    assert recipe_to_yaml(recipe) == recipe_to_yaml(load_recipe(recipe))


def test_the_schema_names_its_draft_and_is_json():
    schema = json.loads(json.dumps(recipe_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["anyOf"] == [{"required": ["base"]}, {"required": ["task", "data", "model", "trainer"]}]
    assert schema["additionalProperties"] is False


def test_the_schema_has_every_key_with_its_description():
    schema = recipe_schema()
    assert set(schema["properties"]) == {"base", *Recipe.model_fields}
    assert schema["$defs"]["OptimizerConfig"]["properties"]["lr"]["description"] == "Peak learning rate of the heads."
    assert "discriminator" not in json.dumps(schema)


def test_asking_for_the_schema_changes_nothing():
    first = recipe_schema()
    first["properties"].clear()
    assert recipe_schema()["properties"]


TYPES = {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}


def fits(value, node, schema):
    """Whether a value is valid, by the keywords that our schema uses."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in node and not any(fits(value, one, schema) for one in node["anyOf"]):
        return False
    if ("const" in node and value != node["const"]) or ("enum" in node and value not in node["enum"]):
        return False
    kind = node.get("type")
    if kind in ("integer", "number"):
        allowed = int if kind == "integer" else int | float
        if not isinstance(value, allowed) or isinstance(value, bool):
            return False
        return node.get("minimum", value) <= value <= node.get("maximum", value) and value > node.get(
            "exclusiveMinimum", value - 1
        )
    if kind in TYPES and not isinstance(value, TYPES[kind]):
        return False
    if isinstance(value, list) and kind == "array":
        kinds = node.get("prefixItems") or [node["items"]] * len(value)
        return len(kinds) == len(value) and all(fits(*pair, schema) for pair in zip(value, kinds, strict=True))
    if isinstance(value, dict) and ("properties" in node or "required" in node):
        known = node.get("properties", {})
        if node.get("additionalProperties") is False and not value.keys() <= known.keys():
            return False
        required = set(node.get("required", ())) <= value.keys()
        return required and all(fits(value[key], known[key], schema) for key in value if key in known)
    return True


@pytest.mark.parametrize("name", recipe_names())
def test_the_schema_accepts_every_resolved_recipe(name):
    values = load_recipe(name).model_dump(mode="json")
    assert fits(values, recipe_schema(), recipe_schema())


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ({"base": "cells"}, True),
        ({"base": "cells", "model": {"widths": [8, 8, 8, 8]}}, True),
        ({"base": "cells", "trainer": {"minutes": 10}}, True),
        ({"task": "detection"}, False),
        ({"base": "cells", "optimiser": {}}, False),
        ({"base": "cells", "optimizer": {"lr": -1}}, False),
        ({"base": "cells", "model": {"wdiths": [8, 8, 8, 8]}}, False),
        ({"base": "cells", "data": {"size": [240]}}, False),
    ],
)
def test_the_schema_tells_good_files_from_bad(values, good):
    schema = recipe_schema()
    assert fits(values, schema, schema) is good
