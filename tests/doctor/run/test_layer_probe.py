from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.run.layer_probe import LayerProbe


def one_step(model, x, loss_of=lambda out: out.square().mean(), *, probe=None, lr=0.1):
    """A measured step of SGD; returns the measurement by layer name and measure."""
    probe = probe or LayerProbe(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    probe.arm()
    optimizer.zero_grad()
    loss_of(model(x)).backward()
    probe.before_update()
    optimizer.step()
    row = probe.after_update()
    names = [layer.name for layer in probe.layers]
    return {name: {measure: values[i] for measure, values in row.items()} for i, name in enumerate(names)}


def hooks_in(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Functional(nn.Module):
    """Uses functions where others use modules, one layer twice, and adds in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = self.shared(torch.tanh(self.shared(x)))
        return self.last((x + 1).sigmoid())


def test_numbers_are_those_of_plain_formulas() -> None:
    model = Functional().double()
    x = torch.randn(5, 4, dtype=torch.float64)
    twin = copy.deepcopy(model)
    found = one_step(model, x)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin(x).square().mean().backward()
    for name in ("first", "shared", "last"):
        layer = getattr(twin, name)
        weights = torch.cat([p.detach().flatten() for p in layer.parameters()])
        gradient = torch.cat([p.grad.flatten() for p in layer.parameters()])
        assert found[name]["weight_norm"] == pytest.approx(float(weights.norm()), rel=1e-9)
        assert found[name]["grad_norm"] == pytest.approx(float(gradient.norm()), rel=1e-9)
        assert found[name]["update_ratio"] == pytest.approx(float(0.1 * gradient.norm() / weights.norm()), rel=1e-9)
        assert found[name]["parameters"] == len(weights)
    optimizer.step()
    torch.testing.assert_close(list(model.parameters()), list(twin.parameters()), rtol=0, atol=0)


def test_outputs_of_several_calls_count_together() -> None:
    model = Functional().double()
    x = torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad():
        once = model.shared(F.relu(model.first(x)))
        both = torch.cat([once, model.shared(once.tanh())])
    found = one_step(model, x)["shared"]
    assert found["out_mean"] == pytest.approx(float(both.mean()), abs=1e-12)
    assert found["out_std"] == pytest.approx(float(both.std(correction=0)), rel=1e-9)


def test_functions_and_modules_are_seen_behind_their_layer_only() -> None:
    probe = LayerProbe(model := Functional())
    one_step(model, torch.randn(5, 4), probe=probe)
    assert [layer.activation for layer in probe.layers] == ["relu", "tanh", ""]  # sigmoid works on a sum
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.GELU())
    probe = LayerProbe(model)
    one_step(model, torch.randn(2, 1, 3, 3), probe=probe)
    assert [layer.activation for layer in probe.layers] == ["relu", "", "gelu"]
    assert [layer.before_norm for layer in probe.layers] == [False, True, False]


def test_what_was_changed_in_place_is_not_a_layers_output_any_more() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            out = self.linear(x)
            out += x
            return F.relu(out)

    probe = LayerProbe(model := Residual())
    assert "inactive" not in one_step(model, torch.ones(1, 2), probe=probe)["linear"]
    assert probe.layers[0].activation == ""


def test_layers_are_numbered_as_they_run() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.unused, self.first = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.second(self.first(x))

    probe = LayerProbe(model := Backwards())
    found = one_step(model, torch.ones(1, 2), probe=probe)
    assert {layer.name: layer.turn for layer in probe.layers} == {"first": 0, "second": 1, "unused": None}
    assert np.isnan(found["unused"]["grad_norm"])
    assert found["unused"]["update_ratio"] == 0


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6()])
def test_dead_channels_are_counted_not_zeros(relu) -> None:
    model = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), relu, nn.Conv2d(12, 1, 1))
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-1e4, 0.0, -1e4, -1e4] * 3))
    found = one_step(model, torch.randn(8, 1, 6, 6), lr=0)
    assert found["0"]["inactive"] == 0.75
    assert np.isnan(found["2"]["inactive"])


def test_a_unit_is_inactive_only_over_the_whole_window() -> None:
    model = nn.Sequential(nn.Linear(1, 10, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]] * 5))
    probe = LayerProbe(model, window=2)
    shares = [
        one_step(model, torch.full((3, 1), sign), probe=probe, lr=0)["0"]["inactive"] for sign in (1.0, -1.0, -1.0)
    ]
    assert shares == [0.5, 0, 0.5]


def test_saturation_of_sigmoid_and_tanh() -> None:
    for function, edge in ((nn.Sigmoid(), 5), (nn.Tanh(), 3)):
        model = nn.Sequential(nn.Linear(1, 1, bias=False), function)
        model[0].weight.data.fill_(1.0)
        x = torch.tensor([[edge + 0.1], [-edge - 0.1], [edge - 0.1], [0.0]])
        assert one_step(model, x)["0"]["saturated"] == 0.5


def test_batch_norm_is_held_against_its_running_statistics_and_left_as_it_is() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2, momentum=None))
    model[0].running_var.fill_(4.0)
    x = torch.tensor([[4.0, 4.0], [8.0, 0.0]])  # means 6 and 2, variances 8 and 8 with n - 1
    found = one_step(model, x)["0"]
    assert found["bn_gap"] == pytest.approx((6 / 2 + 2 / 2) / 2, rel=1e-5)
    assert found["bn_ratio"] == pytest.approx(2.0, rel=1e-5)
    assert model[0].num_batches_tracked == 1
    frozen = nn.Sequential(nn.BatchNorm1d(2)).eval()
    assert "bn_gap" not in one_step(frozen, x)["0"]


def test_no_hook_stays_also_after_an_error() -> None:
    probe = LayerProbe(model := Functional())
    probe.arm()
    assert hooks_in(model) > 0
    with pytest.raises(RuntimeError, match="shapes"):
        model(torch.ones(1, 3))
    assert torch.overrides._get_current_function_mode() is None
    probe.disarm()
    assert hooks_in(model) == 0
    one_step(model, torch.ones(1, 4), probe=probe)
    assert hooks_in(model) == 0


def test_passes_without_gradients_are_not_measured() -> None:
    probe = LayerProbe(model := nn.Sequential(nn.Linear(1, 1, bias=False)))
    model[0].weight.data.fill_(1.0)
    probe.arm()
    with torch.no_grad():
        model(torch.full((100, 1), 50.0))
    model(torch.ones(1, 1)).sum().backward()
    probe.before_update()
    assert probe.after_update()["out_mean"][0] == 1


def test_a_copy_of_an_armed_model_has_no_live_hook() -> None:
    probe = LayerProbe(model := Functional())
    probe.arm()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin(torch.ones(1, 4))
    model(torch.ones(1, 4)).sum().backward()
    probe.before_update()
    probe.after_update()
    assert [layer.turn for layer in probe.layers] == [0, 1, 2]
    assert len(probe._order) == 0


@pytest.mark.parametrize(
    ("clear", "found"), [("before", False), ("after forward", False), ("zeros", False), ("never", True)]
)
def test_gradients_of_before_are_seen_where_backward_begins(clear, found) -> None:
    model = Functional()
    probe = LayerProbe(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(4):  # the first tells which layer to ask
        probe.arm()
        if clear in ("before", "zeros"):
            optimizer.zero_grad(set_to_none=clear == "before")
        loss = model(torch.randn(3, 4)).square().mean()
        if clear == "after forward":
            optimizer.zero_grad()
        loss.backward()
        probe.before_update()
        optimizer.step()
        probe.after_update()
    assert list(probe.leftovers) == [found] * 3


def test_scaled_gradients_are_given_their_true_size() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    probe = LayerProbe(model)
    probe.arm()
    (model(torch.ones(1, 1)).sum() * 1024).backward()
    probe.before_update(torch.tensor(1024.0))
    assert probe.after_update()["grad_norm"].tolist() == [1.0]


def test_a_compiled_model_gives_gradients_and_is_not_compiled_anew() -> None:
    compiles = []

    def backend(graph, inputs):
        compiles.append(graph)
        return graph.forward

    model = Functional()
    compiled = torch.compile(model, backend=backend)
    probe = LayerProbe(compiled)
    row = {}
    for _ in range(3):
        probe.arm()
        compiled(torch.ones(2, 4)).sum().backward()
        probe.before_update()
        row = probe.after_update() or {}
    assert len(compiles) == 1
    assert "out_mean" not in row
    assert np.all(row["grad_norm"] > 0)
