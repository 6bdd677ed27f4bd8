"""The profile: layers and stages that add up, JSON that comes back, mistakes that are named."""

from __future__ import annotations

import json

import pytest
import torch
import torchvision.models as zoo
from torch import nn

import clearsight as cs
from clearsight.errors import ConfigError, ShapeError
from clearsight.measure.count import count
from clearsight.measure.profile import Profile, profile

ADDED = (
    "parameters",
    "multiply_adds",
    "flops",
    "backward_multiply_adds",
    "backward_flops",
    "training_bytes",
    "moved_bytes",
)


def add_up(found):
    for rows in (found.layers, found.stages):
        for name in ADDED:
            assert sum(getattr(row, name) for row in rows) == getattr(found.total, name), name
        assert max(row.inference_bytes for row in rows) == found.total.inference_bytes


@pytest.mark.parametrize("name", ["resnet18", "classifier", "retinanet", "light"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_our_models_on_pixels_and_on_floats(name, kind):
    model = cs.create_model(name, num_classes=7)
    images = torch.zeros(2, 3, 64, 96, dtype=kind)
    found = profile(model, images)
    add_up(found)
    assert (found.inputs, found.types) == (((2, 3, 64, 96),), (str(kind).removeprefix("torch."),))
    assert found.total.parameters == sum(one.numel() for one in model.parameters())
    assert found.total.backward_multiply_adds > 1.7 * found.total.multiply_adds > 0
    assert (found.uncounted, found.notes, found.counted_on) == ({}, (), "meta")
    assert {row.name.partition(".")[0].split(" ")[0] for row in found.stages} <= {
        *(name for name, _ in model.named_children()),
        "(itself)",
    }


def test_the_parts_of_training_are_those_of_a_count():
    model, x = zoo.mobilenet_v3_small(), torch.empty(2, 3, 64, 64)
    found, trained = profile(model, x), count(model, x, training=True)
    assert found.total.backward_multiply_adds == trained.backward_multiply_adds
    assert found.total.training_bytes == trained.saved_bytes
    assert found.total.inference_bytes == count(model, x).live_bytes


def test_what_cannot_be_trained_has_no_training_columns():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
    found = profile(model, size=8)
    assert found.total.backward_multiply_adds is found.total.training_bytes is None
    assert "training was not counted: Sequential: does not take" in found.notes[0]
    assert "more than 1 value per channel" in found.notes[0]
    assert found.total.multiply_adds == 4 * 27 * 36


def test_operations_without_a_rule_and_counting_with_data_are_said():
    class Values(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x).topk(2).values if float(x.sum()) > -1e9 else x

    found = profile(Values(), torch.rand(3, 4))
    assert found.uncounted == {"aten.topk": 1}
    assert found.counted_on == "cpu"
    assert "depends on values: it was counted while it ran, on cpu" in found.notes[0]


def test_json_comes_back_as_it_was_and_explains_itself():
    found = profile(cs.create_model("resnet18", num_classes=4), size=32, runs=2, by_layer=True, name="mine")
    text = found.to_json()
    assert Profile.from_json(text) == found
    read = json.loads(text)
    assert read["name"] == read["total"]["name"] == "mine"
    assert "2 x multiply_adds" in read["conventions"]["flops_usual"]
    assert set(read["conventions"]) - {"backward"} <= set(read["total"])
    assert read["latency"]["runs"] == 2
    assert str(found).count("\n") > len(found.stages)


def test_times_are_there_when_asked_for():
    model = cs.create_model("resnet18", num_classes=4)
    assert profile(model, size=32).latency is None
    timed = profile(model, size=32, runs=3, by_layer=True)
    assert timed.latency is not None
    assert timed.latency.quartiles[0] <= timed.latency.median <= timed.latency.quartiles[1]
    seconds = [row.seconds for row in timed.layers if row.calls]
    assert all(one is not None and one > 0 for one in seconds)
    assert timed.total.seconds == pytest.approx(sum(one for one in seconds if one), rel=0.5)
    assert all(row.seconds is None for row in profile(model, size=32, runs=1).layers)


def test_images_are_made_as_the_model_wants_them():
    grey = cs.create_model("resnet18", num_classes=4, channels=1)
    assert profile(grey, size=(32, 64), batch=3, channels=1).inputs == ((3, 1, 32, 64),)
    half = profile(nn.Sequential(nn.Conv2d(3, 4, 3)).bfloat16(), size=8, runs=1)
    assert half.types == ("bfloat16",)
    with torch.device("meta"):
        bare = nn.Conv2d(3, 4, 3)
    assert profile(bare, size=8).total.multiply_adds == 4 * 27 * 36
    state = torch.get_rng_state()
    profile(bare, size=8)
    profile(grey, size=32, channels=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, "give either inputs or size, got neither"),
        ({"inputs": torch.zeros(1, 3, 64, 64), "size": 64}, ConfigError, "got both"),
        ({"size": 0}, ConfigError, "must be at least 1, got 0x0, 1 and 3"),
        ({"size": 64, "batch": 0}, ConfigError, "got 64x64, 0 and 3"),
        ({"size": 64, "channels": 0}, ConfigError, "got 64x64, 1 and 0"),
        ({"size": 64, "runs": -1}, ConfigError, "runs: must be at least 0 here, got -1"),
        ({"size": 64, "by_layer": True}, ConfigError, "runs: must be at least 1 here, got 0"),
        ({"size": 31}, ShapeError, "31x31 are smaller than the model's largest stride; use 32 or more"),
        ({"inputs": torch.zeros(1, 3, 64, 16)}, ShapeError, "64x16 are smaller"),
        ({"size": 64, "channels": 1}, ShapeError, r"expected \(n, 3, h, w\), got \(1, 1, 64, 64\)"),
        ({"inputs": torch.zeros(3, 64)}, (ShapeError, ConfigError), "images|shape"),
    ],
)
def test_mistakes_are_named(options, error, message):
    with pytest.raises(error, match=message):
        profile(cs.create_model("resnet18", num_classes=4), **options)
