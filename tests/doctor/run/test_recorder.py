from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.recorder import Recorder
from clearsight.doctor.run.telemetry import LayerNote
from clearsight.errors import ConfigError

NOTES = [LayerNote("a", "Linear", "relu", False, 0), LayerNote("b", "Linear", "", True, 1)]


def filled() -> Recorder:
    recorder = Recorder(RunRecord(name="mine", task="classification", budget=500, facts={"known": 1}))
    for step in range(1, 201):
        recorder.put("loss", "", step, torch.tensor(1.0 / step))
        recorder.put("terms", "box", step, 2.0 * step)
    recorder.put("val", "accuracy", 200, 0.5)
    recorder.put_layers(1, NOTES, {"grad_norm": np.array([1.0, 2.0])})
    recorder.put_layers(2, NOTES, {"grad_norm": np.array([3.0, np.nan]), "inactive": np.array([0.5, np.nan])})
    recorder.facts["found"] = ["x"]
    return recorder


def test_everything_is_in_the_record() -> None:
    record = filled().record(finished=True)
    assert (record.name, record.task, record.budget, record.finished, record.steps) == (
        "mine", "classification", 500, True, 200,
    )  # fmt: skip
    np.testing.assert_allclose(record.loss.values, 1 / np.arange(1, 201), rtol=1e-7)
    assert record.loss.steps.tolist() == list(range(1, 201))
    assert record.terms["box"].values[-1] == 400
    assert record.val["accuracy"].values.tolist() == [0.5]
    assert record.layers.names == ("a", "b")
    assert record.layers.exempt == (False, True)
    assert record.facts == {"known": 1, "found": ["x"]}


def test_a_record_stays_as_it_was() -> None:
    recorder = filled()
    before = recorder.record()
    recorder.put("loss", "", 200, 7.0)
    recorder.put("loss", "", 201, 8.0)
    recorder.facts["later"] = True
    assert before.loss.values[-1] == pytest.approx(1 / 200)
    assert len(before.loss) == 200
    assert "later" not in before.facts
    assert recorder.record().loss.values[-2:].tolist() == [7, 8]


def test_numbers_that_wait_on_a_device_keep_their_order() -> None:
    recorder = Recorder(RunRecord())
    for step in range(1, 601):  # more than may wait
        value = torch.tensor(float(step), device="cpu")
        recorder._pending.append((("loss", ""), step, value)) if step % 3 else recorder.put("loss", "", step, step)
    assert recorder.record().loss.values.tolist() == list(range(1, 601))
    assert not recorder._pending


def test_state_goes_through_a_file_without_pickled_classes() -> None:
    file = io.BytesIO()
    torch.save(filled().state_dict(), file)
    file.seek(0)
    taken = Recorder(RunRecord(name="mine", task="classification", budget=500))
    facts = taken.facts
    taken.load_state_dict(torch.load(file, weights_only=True))
    one, other = filled().record(), taken.record()
    assert taken.facts is facts
    assert (other.facts, other.layers.names, taken.step) == (one.facts, ("a", "b"), 200)
    np.testing.assert_array_equal(one.loss.values, other.loss.values)
    for measure, values in one.layers.values.items():
        np.testing.assert_array_equal(values, other.layers.values[measure])
    taken.put("loss", "", 201, 1.0)
    assert len(taken.record().loss) == 201


def test_steps_that_go_back_and_whole_tensors_are_refused() -> None:
    recorder = filled()
    with pytest.raises(ConfigError, match=r"terms box: step 3 comes after a later one.*load_state_dict"):
        recorder.put("terms", "box", 3, 1.0)
    with pytest.raises(ConfigError, match=r"accuracy: expected one number, found a tensor of shape \(2,\)"):
        recorder.put("val", "accuracy", 201, torch.ones(2))


def test_other_layers_replace_what_was_measured() -> None:
    recorder = filled()
    recorder.put_layers(3, NOTES[:1], {"grad_norm": np.array([5.0])})
    assert recorder.record().layers.steps.tolist() == [3]
