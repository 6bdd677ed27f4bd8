"""Objects against strides, fields and anchors of real models, at sizes just inside and just outside."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from clearsight.data.dataset import Dataset
from clearsight.data.read import read_dataset
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.object_scale import (
    AnchorsMissObjects,
    ObjectsBelowStride,
    ObjectsBeyondField,
    finest_stride,
)
from clearsight.doctor.rule import examine
from clearsight.models import create_model
from clearsight.recipe.resolve import load_recipe
from clearsight.types import Object, Record

RULES = [ObjectsBelowStride(), ObjectsBeyondField(), AnchorsMissObjects()]


def evidence(sides, model, *, image=(480, 640), recipe="cells", change=()):
    """One object of each `(height, width)` in each image."""
    records = [
        Record(image=Path(f"{n}.jpg"), size=image, objects=[Object(label=0, box=(8.0, 8.0, 8.0 + width, 8.0 + height))])
        for n, (height, width) in enumerate(sides)
    ]
    data = Dataset(records=records, classes=("a", "b"), task="detection", root=Path("d"), format="voc")
    config = load_recipe(recipe, ["data.root=d", *change])
    return DataEvidence(dataset=data, train=data, val=None, test=None, recipe=config, model=model)


@pytest.fixture(scope="module")
def light():
    return create_model("light", num_classes=2)


def small_field():
    """Sees 15 pixels of the image, in steps of 4."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1))


def found_by(rule, given):
    return examine([rule], given)


def test_small_objects_are_found_and_the_remedy_holds(light):
    stride = finest_stride(light, load_recipe("cells", ["data.root=d"]).data)
    assert stride == 8.0
    # At 240 × 320 images of 480 × 640 shrink by two: 15 pixels become 7.5.
    given = evidence([(15.0, 60.0)] * 6 + [(60.0, 60.0)] * 94, light)
    done = found_by(ObjectsBelowStride(), given)
    assert [(one.id, one.severity) for one in done.findings] == [("objects-below-stride", "warning")]
    found = done.findings[0]
    assert found.evidence["share"] == 0.06
    assert found.remedy["data.size"] == [256, 352]
    height, width = found.remedy["data.size"]
    again = evidence([(15.0, 60.0)] * 6 + [(60.0, 60.0)] * 94, light, change=[f"data.size=[{height},{width}]"])
    assert found_by(ObjectsBelowStride(), again).passed == ("objects-below-stride",)


def test_few_small_objects_and_objects_of_the_stride_are_no_fault(light):
    assert found_by(ObjectsBelowStride(), evidence([(15.0, 60.0)] * 4 + [(60.0, 60.0)] * 96, light)).findings == []
    assert found_by(ObjectsBelowStride(), evidence([(16.0, 60.0)] * 100, light)).findings == []


def test_a_remedy_is_no_larger_than_twice(light):
    found = found_by(ObjectsBelowStride(), evidence([(2.0, 2.0)] * 10, light)).findings[0]
    assert found.remedy["data.size"] == [480, 640]
    assert "tiles" in found.explanation


def test_crowds_and_difficult_objects_do_not_count(light):
    given = evidence([(60.0, 60.0)] * 10, light)
    for record in given.dataset.records:
        record.objects.append(Object(label=0, box=(0, 0, 4, 4), crowd=True))
        record.objects.append(Object(label=0, box=(0, 0, 4, 4), difficult=True))
    assert found_by(ObjectsBelowStride(), given).findings == []


def test_strides_of_models():
    data = load_recipe("cells", ["data.root=d"]).data
    assert finest_stride(create_model("centernet", backbone="resnet18", num_classes=2), data) == 4.0
    assert finest_stride(create_model("faster_rcnn", backbone="resnet18", num_classes=2), data) == 4.0


def test_objects_beyond_a_small_field():
    # 15 pixels of the image that the model sees are 30 of the file.
    done = found_by(ObjectsBeyondField(), evidence([(20.0, 32.0)] * 11 + [(20.0, 20.0)] * 89, small_field()))
    assert [(one.id, one.severity) for one in done.findings] == [("objects-beyond-field", "warning")]
    assert done.findings[0].evidence["field"] == [15, 15]
    assert done.findings[0].evidence["share"] == 0.11
    for near in ([(30.0, 30.0)] * 100, [(20.0, 32.0)] * 9 + [(20.0, 20.0)] * 91):
        assert found_by(ObjectsBeyondField(), evidence(near, small_field())).passed == ("objects-beyond-field",)


def test_real_cells_and_their_recipe_are_clean(shared_data, light):
    data = read_dataset(shared_data / "bccd")
    config = load_recipe("cells", [f"data.root={shared_data / 'bccd'}"])
    given = DataEvidence(dataset=data, train=data.split("train"), val=None, test=None, recipe=config, model=light)
    done = examine(RULES, given)
    assert [finding for finding in done.findings if finding.severity != "info"] == []
    assert "objects-below-stride" in done.passed


def test_anchors_that_reach_no_object():
    model = create_model("retinanet", backbone="resnet18", num_classes=2)
    given = evidence([(4.0, 4.0)] * 5 + [(120.0, 120.0)] * 5, model, recipe="retinanet")
    found = found_by(AnchorsMissObjects(), given).findings[0]
    assert (found.id, found.severity, found.evidence["far"]) == ("objects-without-anchor", "warning", 5)
    near = evidence([(42.0, 42.0)] * 5 + [(128.0, 128.0)] * 5, model, recipe="retinanet")
    assert [one.severity for one in found_by(AnchorsMissObjects(), near).findings] == ["info"]  # the best come near
    fits = evidence([(128.0, 128.0)] * 10, model, recipe="retinanet")
    assert found_by(AnchorsMissObjects(), fits).passed == ("objects-without-anchor",)


def test_what_is_missing_is_said(light):
    given = evidence([(60.0, 60.0)], light)
    given.model = None
    assert set(examine(RULES, given).silent.values()) == {"a recipe and its model"}
    given = evidence([], light)
    assert set(examine(RULES, given).silent.values()) == {"training objects"}
    given.dataset.task = "classification"
    assert set(examine(RULES, given).silent.values()) == {"objects with boxes"}
