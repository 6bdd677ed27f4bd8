from __future__ import annotations

import torch
from torch import nn

from clearsight.doctor.run.layer_plan import modes_matter, plan_of


class Tokens(nn.Module):
    """Has a parameter of its own and a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(4))
        self.linear = nn.Linear(4, 4)
        self.again = self.linear
        self.act = nn.ReLU()

    def forward(self, x):
        return self.again(self.act(self.linear(x + self.token)))


def test_layers_are_modules_with_parameters_of_their_own_once() -> None:
    plan = plan_of(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), Tokens()))
    assert [layer.name for layer in plan.layers] == ["0", "2", "2.linear"]
    assert plan.hidden == ""
    assert nn.ReLU in {type(region) for region in plan.regions}


def test_parameters_of_the_model_itself_have_its_class_as_name() -> None:
    assert plan_of(Tokens()).layers[0].name == "Tokens"


def test_a_frozen_layer_is_exempt_and_a_bias_before_a_norm() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    model[1].weight.requires_grad_(False)
    layers = plan_of(model).layers
    assert [layer.exempt for layer in layers] == [True, False, False]
    layers[1].before_norm = layers[2].before_norm = True
    assert [layer.exempt for layer in layers] == [True, True, False]


def test_a_compiled_model_is_looked_through_and_its_outputs_are_hidden() -> None:
    plan = plan_of(torch.compile(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), backend="eager"))
    assert [layer.name for layer in plan.layers] == ["0"]
    assert plan.hidden == "the model is compiled"
    assert not plan.layers[0].visible
    assert plan.regions == []


def test_of_a_compiled_part_the_rest_is_visible() -> None:
    inner = torch.compile(nn.Sequential(nn.Linear(2, 2)), backend="eager")
    plan = plan_of(nn.Sequential(inner, nn.Linear(2, 2)))
    assert [(layer.name, layer.visible) for layer in plan.layers] == [("0.0", False), ("1", True)]
    assert plan.hidden == "parts of the model are compiled"


def test_the_threads_of_data_parallel_are_not_looked_into() -> None:
    plan = plan_of(nn.DataParallel(nn.Linear(2, 2)))
    assert "DataParallel" in plan.hidden
    assert [layer.visible for layer in plan.layers] == [False]


def test_modes_matter_to_dropout_and_running_statistics_only() -> None:
    model = nn.Sequential(
        nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.1), nn.Dropout(0.0), nn.LayerNorm(2),
        nn.BatchNorm1d(2, track_running_stats=False),
    )  # fmt: skip
    assert [name for name, _ in modes_matter(model)] == ["1", "2"]
