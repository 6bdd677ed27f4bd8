from __future__ import annotations

import json
import math

import numpy as np
import pytest

from clearsight.doctor.run.telemetry import FILE, LayerNote, TelemetryFile, layer_series, read_telemetry
from clearsight.errors import ConfigError

NOTES = [
    LayerNote("late", "Linear", turn=1),
    LayerNote("early", "Conv2d", "relu", turn=0),
    LayerNote("never", "Linear"),
]


def row(*numbers: float) -> dict[str, np.ndarray]:
    return {"grad_norm": np.array(numbers)}


def test_layers_come_in_the_order_in_which_they_run() -> None:
    series = layer_series(NOTES, [1, 2], [row(1, 2, 3), {**row(4, 5, 6), "inactive": np.array([0.1, 0.2, 0.3])}])
    assert series.names == ("early", "late", "never")
    assert series.activations == ("relu", "", "")
    np.testing.assert_array_equal(series.values["grad_norm"], [[2, 1, 3], [5, 4, 6]])
    np.testing.assert_array_equal(series.values["inactive"], [[np.nan] * 3, [0.2, 0.1, 0.3]])
    assert layer_series(NOTES, [], []) is None


def test_what_is_written_is_read_with_nan_and_infinity(tmp_path) -> None:
    file = TelemetryFile(tmp_path / "run")
    file.write(1, NOTES, row(1 / 3, math.inf, math.nan), {"not_in_optimizer": ["a"]})
    file.write(2, NOTES, row(1, -math.inf, 2), {"not_in_optimizer": ["a"]})
    series, facts = read_telemetry(tmp_path / "run")
    np.testing.assert_allclose(series.values["grad_norm"], [[np.inf, 1 / 3, np.nan], [-np.inf, 1, 2]], rtol=1e-5)
    assert series.steps.tolist() == [1, 2]
    assert facts == {"not_in_optimizer": ["a"]}
    text = (tmp_path / "run" / FILE).read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert [sorted(line) for line in lines] == [["layers", "step"], ["facts", "step", "values"], ["step", "values"]]


def test_what_is_learnt_of_layers_later_holds_for_all(tmp_path) -> None:
    file = TelemetryFile(tmp_path)
    file.write(1, [LayerNote("a", "Linear")], row(1), {})
    file.write(2, [LayerNote("a", "Linear", "relu")], row(2), {})
    series, _ = read_telemetry(tmp_path)
    assert series.activations == ("relu",)
    assert series.steps.tolist() == [1, 2]


def test_another_model_begins_anew(tmp_path) -> None:
    file = TelemetryFile(tmp_path)
    file.write(1, NOTES, row(1, 2, 3), {})
    file.write(2, NOTES[:1], row(9), {})
    series, _ = read_telemetry(tmp_path)
    assert (series.names, series.steps.tolist()) == (("late",), [2])


def test_a_fresh_run_begins_with_an_empty_file_and_a_resumed_one_where_it_was(tmp_path) -> None:
    file = TelemetryFile(tmp_path)
    for step in (1, 2, 4):
        file.write(step, NOTES, row(step, step, step), {})
    resumed = TelemetryFile(tmp_path)
    resumed.cut(2)
    assert read_telemetry(tmp_path)[0].steps.tolist() == [1, 2]
    resumed.write(3, NOTES, row(3, 3, 3), {})
    assert read_telemetry(tmp_path)[0].steps.tolist() == [1, 2, 3]
    TelemetryFile(tmp_path).write(1, NOTES, row(7, 7, 7), {})
    assert read_telemetry(tmp_path)[0].values["grad_norm"].tolist() == [[7, 7, 7]]


def test_half_a_line_is_left_out(tmp_path) -> None:
    file = TelemetryFile(tmp_path)
    file.write(1, NOTES, row(1, 2, 3), {})
    with file.path.open("a") as half:
        half.write('{"step": 2, "values": {"grad_no')
    assert read_telemetry(tmp_path)[0].steps.tolist() == [1]
    file.cut(5)
    assert file.path.read_text().endswith("}\n")


def test_no_file_is_nothing_measured(tmp_path) -> None:
    assert read_telemetry(tmp_path) == (None, {})
    TelemetryFile(tmp_path / "new").cut(3)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"telemetry\.jsonl: cannot be written"):
        TelemetryFile(tmp_path / "file").write(1, NOTES, row(1, 2, 3), {})
