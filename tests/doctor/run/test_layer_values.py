"""Reading layers over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from clearsight.doctor.run.layer_values import held_since, last_rows, measured, weight_layers
from clearsight.doctor.run.record import LayerSeries, RunRecord


def test_held_since() -> None:
    steps = np.array([10, 20, 30, 40])
    assert held_since(steps, np.array([True, True, True, True]), 3) == 10
    assert held_since(steps, np.array([True, False, True, True]), 2) == 30
    assert held_since(steps, np.array([True, False, True, True]), 3) is None
    assert held_since(steps, np.array([True, True, True, False]), 1) is None


def test_rows_without_a_number_are_passed_over() -> None:
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, 4.0]])
    np.testing.assert_array_equal(last_rows(values, 2), values[[0, 2]])


def test_norms_and_exempt_layers_are_no_weight_layers(layer_series: Callable[..., LayerSeries]) -> None:
    layers = layer_series(grad_norm=[1.0, 1.0, 1.0], kinds=("Conv2d", "BatchNorm2d", "Linear"))
    assert weight_layers(replace(layers, exempt=(False, False, True))).tolist() == [True, False, False]


def test_a_measure_of_nothing_is_not_measured(layer_series: Callable[..., LayerSeries]) -> None:
    assert measured(RunRecord(), "grad_norm") is None
    layers = layer_series(grad_norm=[np.nan, np.nan], out_std=[1.0, 1.0])
    assert measured(RunRecord(layers=layers), "grad_norm") is None
    assert measured(RunRecord(layers=layers), "out_std") is not None
    assert measured(RunRecord(layers=layers), "inactive") is None
