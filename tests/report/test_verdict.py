import math

import pytest

from clearsight.metrics import Scores
from clearsight.report import ReportContent
from clearsight.report.verdict import verdict
from clearsight.types import Finding

RECIPE = "task: detection\ndata:\n  root: photos/bccd\nmodel:\n  name: light\n"


def scores(**changes):
    values = {
        "task": "detection",
        "classes": ("RBC", "WBC"),
        "images": 72,
        "summary": {"map": 0.5831, "map_50": 0.912},
        "intervals": {"map": (0.5561, 0.6094)},
        "per_class": [{"class": "RBC", "ap": 0.41}, {"class": "WBC", "ap": 0.78}],
        "mistakes": {"missed": 10, "background": 30},
        "settings": {"threshold": 0.43},
    }
    return Scores(**{**values, **changes})


def test_a_detector_in_plain_words(make_content):
    content = make_content()
    content.scores = {"test": scores()}
    assert verdict(content) == [
        "The light detector, trained on 205 images of bccd for 10 min 3 s (15 epochs), reaches mAP 0.583 (95 % "
        "interval 0.556 – 0.609) on the 72 images of the test split.",
        "AP50, for which boxes need to overlap only by half, is 0.912. It does best on WBC (AP 0.780) and worst on RBC "
        "(AP 0.410).",
        "From score 0.43 on it makes 40 mistakes, most of them detections where nothing is labelled (75 %).",
        "The checks of data and run gave 1 error (box-empty), 8 warnings (box-outside ×8) and 1 note (imbalance).",
    ]


def test_a_classifier_in_plain_words():
    made = scores(
        task="classification",
        summary={"accuracy": 0.9},
        intervals={},
        per_class=[{"class": "a", "recall": 0.8}, {"class": "b", "recall": 1.0}],
        mistakes={"wrong class": 7},
        settings={},
    )
    recipe = "task: classification\ndata:\n  format: digit_scenes\nmodel:\n  name: classifier\n  backbone: resnet18\n"
    sentences = verdict(ReportContent(title="x", recipe_yaml=recipe, scores={"val": made}))
    assert sentences == [
        "The classifier on resnet18, trained on digit_scenes, reaches accuracy 0.900 on the 72 images of the val "
        "split.",
        "It does best on b (recall 1.000) and worst on a (recall 0.800).",
        "It gives 7 of 72 images the wrong class.",
        "The checks of data and run found nothing to report.",
    ]


def test_a_segmenter_in_plain_words():
    made = scores(
        task="semantic",
        summary={"miou": 0.79},
        intervals={},
        per_class=[{"class": "RBC", "iou": 0.67}, {"class": "WBC", "iou": 0.91}],
        confusion=[[60, 10], [10, 120]],
        mistakes={"wrong class": 20},
        settings={},
    )
    recipe = "task: semantic\ndata:\n  root: slices\nmodel:\n  name: unet\n"
    assert verdict(ReportContent(title="x", recipe_yaml=recipe, scores={"test": made}))[:3] == [
        "The U-Net, trained on slices, reaches mean IoU 0.790 on the 72 images of the test split.",
        "It does best on WBC (IoU 0.910) and worst on RBC (IoU 0.670).",
        "It gives 10 % of the pixels the wrong class.",
    ]


def test_what_is_unknown_is_left_out():
    assert verdict(ReportContent(title="x")) == [
        "The model has not been scored yet.",
        "The checks of data and run found nothing to report.",
    ]
    unscored = scores(summary={"map": math.nan}, per_class=[], mistakes={}, intervals={})
    assert verdict(ReportContent(title="x", recipe_yaml=RECIPE, scores={"test": unscored}))[0] == (
        "The light detector, trained on bccd, could not be scored on the 72 images of the test split: they have "
        "nothing that could be found."
    )


@pytest.mark.parametrize(
    ("mistakes", "text"),
    [
        ({"missed": 3}, "makes 3 mistakes, all of them objects that were missed."),
        (
            {"missed": 4, "duplicate": 3, "background": 3},
            "makes 10 mistakes, the largest part of them objects",
        ),
    ],
)
def test_the_share_of_the_most_frequent_mistake_is_not_overstated(mistakes, text):
    assert text in verdict(ReportContent(title="x", scores={"test": scores(mistakes=mistakes)}))[2]


def test_many_kinds_of_findings_are_shortened():
    findings = [Finding(id=f"kind-{i}", severity="warning", where="", explanation="") for i in range(5)]
    assert verdict(ReportContent(title="x", findings=findings))[-1] == (
        "The checks of data and run gave 5 warnings (kind-0, kind-1, kind-2, …)."
    )
