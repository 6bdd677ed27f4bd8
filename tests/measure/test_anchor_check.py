"""What of the objects anchors miss, and what the assigner does with those; against the assigner and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clearsight.assign import Atss, MaxIou, ShapeRatio
from clearsight.data.dataset import Dataset
from clearsight.data.findings_text import format_findings
from clearsight.data.read import read_dataset
from clearsight.errors import DataError
from clearsight.measure.anchor_check import anchor_findings, anchored_part, check_anchors
from clearsight.models import create_model
from clearsight.ops.boxes import box_iou
from clearsight.recipe.model_sections import RetinaNetConfig
from clearsight.types import Object, Record

SIZE = (256, 256)


def dataset(*lists):
    records = [
        Record(image=Path(f"{n}.jpg"), size=SIZE, objects=[Object(label=k, box=box) for k, box in one])
        for n, one in enumerate(lists)
    ]
    return Dataset(records=records, classes=("big", "tiny"), task="detection", root=Path("d"), format="voc")


BIG, TINY = (0, (64.0, 64.0, 128.0, 128.0)), (1, (197.0, 197.0, 203.0, 203.0))


@pytest.fixture
def model():
    return create_model("retinanet", backbone="resnet18", num_classes=2)


def test_the_part_with_anchors(model):
    part = anchored_part(model)
    assert (part.module, part.measure, part.threshold) == (model, "placed", 0.5)
    two = create_model("faster_rcnn", backbone="resnet18", num_classes=2)
    assert (anchored_part(two).module, anchored_part(two).threshold) == (two.rpn, 0.7)
    assert anchored_part(create_model("ssd", backbone="resnet18", num_classes=2)).measure == "placed"
    for name in ("light", "fcos", "resnet18"):
        assert anchored_part(create_model(name, num_classes=2)) is None
    model.criterion.assigner = ShapeRatio(ratio=3)
    assert (anchored_part(model).measure, anchored_part(model).threshold) == ("ratio", 3)
    model.criterion.assigner = Atss()  # takes the nearest, whatever their overlap
    assert anchored_part(model) is None
    assert check_anchors(model, dataset([BIG]), SIZE) is None


def test_every_object_with_an_anchor_is_no_finding(model):
    found = check_anchors(model, dataset([BIG], [BIG, BIG]), SIZE)
    assert (found.recall.matched, found.recall.objects, found.best_only) == (3, 3, 0)
    assert found.proposed is None
    one = check_anchors(model, dataset([BIG]), SIZE)
    assert (one.without, one.finding()) == (0, None)
    assert anchor_findings(model, dataset([BIG]), SIZE, fit="letterbox") == []


def test_a_tiny_object_learns_from_the_best_anchor_and_sizes_are_proposed(model):
    found = check_anchors(model, dataset([BIG, TINY], [BIG]), SIZE)
    points = model.points.make(SIZE, torch.device("cpu"))
    best = float(box_iou(torch.tensor([TINY[1]]), points.boxes).amax())
    assert (found.recall.matched, found.best_only, found.without) == (2, 1, 0)
    (missed,) = found.recall.missed
    assert (missed.file, missed.name, missed.sides, missed.best) == ("0.jpg", "tiny", (6, 6), round(best, 4))
    assert found.proposed.matched == 3
    finding = found.finding()
    assert (finding.id, finding.severity, finding.where) == ("objects-without-anchor", "warning", "model.anchor_sizes")
    assert finding.explanation == (
        "1 of 3 objects overlap no anchor by 0.5 or more at 256×256 (width × height 6×6 to 6×6 px, best overlap 0.03 "
        "to 0.03; tiny 1). Of them 1 gets the anchors that fit best all the same; none is left without an anchor."
    )
    assert finding.evidence["recall_with_remedy"] == 1.0
    assert finding.evidence["classes"] == {"big": 0, "tiny": 1}
    assert json.loads(json.dumps(finding.as_dict()))["evidence"]["first"][0]["file"] == "0.jpg"
    # The remedy is a recipe that a model can be made of.
    RetinaNetConfig(anchor_sizes=finding.remedy["model.anchor_sizes"])
    assert "remedy: model.anchor_sizes=[" in format_findings([finding])


def test_a_better_fit_needs_no_warning_when_it_is_rare(model):
    found = check_anchors(model, dataset(*[[BIG]] * 25, [BIG, TINY]), SIZE)
    assert found.finding().severity == "info"
    assert found.without == 0


def test_without_the_rule_of_the_best_a_tiny_object_has_none(model):
    model.criterion.assigner = MaxIou(force_best=False)
    found = check_anchors(model, dataset(*[[BIG]] * 40, [BIG, TINY]), SIZE)  # in a block of images of its own
    assert (found.best_only, found.without) == (0, 1)
    assert found.finding().severity == "info"  # one of forty-two
    assert check_anchors(model, dataset(*[[BIG]] * 10, [BIG, TINY]), SIZE).finding().severity == "warning"
    assert found.otherwise == (
        "1 object has none at all: nothing is learned there, and what overlaps them by less than 0.4 is taught as "
        "background"
    )


def test_an_object_whose_anchors_all_go_to_its_twin_has_none(model):
    found = check_anchors(model, dataset([BIG, BIG], [TINY, TINY, BIG]), SIZE)
    # Of each pair of twins the second is left out, though the anchors fit the big ones.
    assert (found.recall.matched, found.best_only, found.without) == (3, 1, 2)


def test_ratios(model):
    model.criterion.assigner = ShapeRatio(ratio=4)
    found = check_anchors(model, dataset([BIG, TINY], [(0, (0.0, 0.0, 250.0, 5.0))]), SIZE)
    # 32 × 32 is more than four times 6 × 6, and 22 × 46 and 46 × 22 are farther still; 250 × 5 is below none
    assert found.recall.measure == "ratio"
    assert [(one.file, one.sides) for one in found.recall.missed] == [("0.jpg", (6, 6)), ("1.jpg", (250, 5))]
    assert found.without == 2
    assert "differ from every anchor's sides by 4 times or more" in found.finding().explanation
    assert "every anchor on them is taught as background" in str(found)
    assert found.override.keys() == {"model.anchor_sizes"}


def test_a_sample_is_said_to_be_one(model):
    data = dataset(*[[TINY]] * 400)
    (finding,) = anchor_findings(model, data, SIZE, fit="letterbox")
    assert finding.evidence["objects"] == 250  # an eighth of 2,000 images
    assert finding.explanation.startswith("250 of 250 objects (a sample of 400) overlap no anchor")
    assert anchor_findings(model, dataset([]), SIZE, fit="letterbox") == []
    with pytest.raises(DataError, match="no object has a box"):
        check_anchors(model, dataset([]), SIZE)


def test_nothing_of_the_model_changes(model):
    state = torch.get_rng_state()
    check_anchors(model, dataset([BIG, TINY]), SIZE)
    assert torch.equal(state, torch.get_rng_state())
    assert model.points._known == {}


@pytest.mark.real
def test_platelets_of_blood_cells(shared_data, model):
    data = read_dataset(shared_data / "bccd", images="skip").split("train")
    found = check_anchors(model, data, (240, 320), most=800)
    lost = {group.name: group.objects - group.matched for group in found.recall.by_class}
    # Platelets are some 20 pixels there, and the smallest anchors 32.
    assert lost["Platelets"] > 0.7 * next(one.objects for one in found.recall.by_class if one.name == "Platelets")
    assert lost["RBC"] == 0
    assert found.proposed.share > found.recall.share
    assert found.override["model.anchor_sizes"][0] < 25
