"""Rows of layers and stages: what belongs to which, and that they add up."""

from __future__ import annotations

import torch
from torch import nn

import clearsight as cs
from clearsight.measure.count import count, count_both
from clearsight.measure.profile import profile
from clearsight.measure.rows import Rows

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


def test_layers_have_names_kinds_shapes_and_calls():
    found = profile(cs.create_model("retinanet", num_classes=3), size=64)
    rows = {row.name: row for row in found.layers}
    first = rows["backbone.conv1"]
    assert (first.kind, first.outputs, first.calls) == ("Conv2d", ((1, 64, 32, 32),), 1)
    assert first.parameters == first.multiply_adds // (32 * 32) == 3 * 64 * 49
    assert first.flops_usual == 2 * first.multiply_adds == first.flops + 64 * 32 * 32
    assert first.moved_bytes == 4 * (3 * 64 * 64 + 3 * 64 * 49 + 64 * 32 * 32)
    assert first.intensity == round(first.flops / first.moved_bytes, 3)
    shared = rows["head.classification_head.cls_logits"]
    assert shared.calls == 5  # once a level
    assert shared.outputs == ((1, 27, 8, 8),)


def test_stages_open_what_does_nearly_everything():
    classifier = profile(cs.create_model("resnet18", num_classes=10), size=64)
    names = [row.name for row in classifier.stages]
    assert [name for name in names if "layer" in name] == [f"backbone.layer{n}" for n in (1, 2, 3, 4)]
    assert {"input_norm", "head"} <= set(names)
    detector = profile(cs.create_model("light", num_classes=10), size=64)
    assert {"backbone", "neck", "head"} <= {row.name for row in detector.stages}
    many = profile(nn.Sequential(nn.Sequential(*(nn.Linear(4, 4) for _ in range(30)))), torch.empty(1, 4))
    assert [row.name for row in many.stages] == ["0"]  # thirty would be no figure


def test_what_a_container_does_itself_has_a_row():
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return x + self.inner(x) * self.scale

    found = profile(Shortcut(), torch.empty(2, 4))
    (itself,) = [row for row in found.layers if row.name == "(itself)"]
    assert (itself.flops, itself.parameters, itself.kind) == (16, 4, "Shortcut")
    add_up(found)


def test_shared_parameters_count_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    found = profile(model, torch.empty(1, 4))
    assert (found.total.parameters, found.total.multiply_adds) == (16, 32)
    assert [row.parameters for row in found.layers] == [16, 0]


def test_rows_of_what_only_training_has():
    class Helped(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.helper = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            x = self.body(x)
            return (x, self.helper(x)) if self.training else x

    model, x = Helped(), torch.empty(2, 4)
    used, trained = count_both(model, x)
    found = {row.name: row for row in Rows(model, used, trained, {}).layers()}
    assert (found["helper"].multiply_adds, found["helper"].backward_multiply_adds) == (0, 2 * 16)
    assert (found["helper"].calls, found["helper"].outputs, found["helper"].parameters) == (0, (), 10)
    alone = Rows(model, count(model, x), None, {"body": 0.25, "": 0.5})
    assert alone.total("it").backward_multiply_adds is None
    assert alone.total("it").seconds == 0.75
    assert [row.seconds for row in alone.layers()] == [0.25, None]


def test_a_model_that_multiplies_nothing_has_its_children_as_stages():
    found = profile(nn.Sequential(nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Tanh()), torch.empty(1, 4))
    assert [row.name for row in found.stages] == ["0", "1"]
    assert profile(nn.ReLU(), torch.empty(1, 4)).stages[0].name == "(itself)"
