"""Steps that are not finite: known before the update, kept out of the weights, told in the run's folder."""

from __future__ import annotations

import json

import pytest
import torch

from clearsight.doctor.replay import load_step
from clearsight.errors import NotFound
from clearsight.train.spoiled import StepMemory, spoiled


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_spoiled(value):
    assert spoiled(torch.tensor([1.0, value, 2.0]))
    assert not spoiled(torch.tensor([1.0, 3e38, 2.0]))


def memory_of(tmp_path, model, recipe=None):
    return StepMemory(model, "32-true", tmp_path, recipe or {})


def test_a_sound_step_leaves_nothing_behind(tmp_path, digits):
    memory = memory_of(tmp_path, digits.DigitNet())
    batch = digits.batch_of([0, 1, 2, 3])
    memory.begin()
    memory.keep(batch)
    assert memory.explain(step=3, files=[["a", "b", "c", "d"]]) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound):
        load_step(tmp_path)


def test_the_batch_of_several_in_which_it_happens_is_named(tmp_path, digits):
    model = digits.DigitNet(dropout=0.5)
    sound, dirty = digits.batch_of([0, 1]), digits.batch_of([2, 3])
    dirty.images = dirty.images.float()
    dirty.images[1, 0, 2, 2] = float("nan")
    memory = memory_of(tmp_path, model, {"optimizer": {"lr": 0.1}})
    memory.begin()
    for batch in (sound, dirty):
        memory.keep(batch)
    found = memory.explain(step=7, files=[["a", "b"], ["c", "d"]])
    assert (found.direction, found.samples, found.files, found.step) == ("input", (1,), ("d",), 7)
    saved = load_step(tmp_path)
    assert saved.facts == {"step": 7, "files": ["c", "d"]}
    assert saved.recipe == {"optimizer": {"lr": 0.1}}
    (line,) = (tmp_path / "findings.jsonl").read_text().splitlines()
    assert json.loads(line)["where"] == "d"


def test_numbers_that_grew_too_large_are_told_with_a_remedy(tmp_path, digits):
    for recipe, remedy in (
        ({"trainer": {"clip_norm": None}}, {"trainer.clip_norm": 10.0}),
        ({"trainer": {"clip_norm": 5.0}}, {"optimizer.lr": 0.05}),
    ):
        memory_of(tmp_path, digits.DigitNet(), recipe).report_size(step=9, loss=1e30, norm=float("inf"), lr=0.5)
        told = json.loads((tmp_path / "findings.jsonl").read_text().splitlines()[-1])
        assert (told["severity"], told["remedy"], told["evidence"]["step"]) == ("error", remedy, 9)
