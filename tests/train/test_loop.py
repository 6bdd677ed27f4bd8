"""The loop as a whole, on real digits; what needs processes of its own is in test_resume and test_processes."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from clearsight.doctor.replay import load_step, replay_step
from clearsight.errors import CheckpointError, ConfigError, NonFiniteLoss
from clearsight.train.average import refresh_statistics
from clearsight.train.checkpoint import load_checkpoint
from clearsight.train.early_stop import EarlyStop
from clearsight.train.loop import fit
from clearsight.train.losses import LossReader, _Pending
from clearsight.train.observe import Checkpointed, Evaluated, Observer, Started, Stepped, StopRequest


def rows(folder: Path, split: str = "train") -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def model_bytes(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / f"{name}.ckpt")["model"]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_learns_and_leaves_what_it_should(tmp_path, digits):
    result = digits.train_digits(tmp_path, digits.cpu(epochs=12), lr=0.03)
    assert result.position.step == 12 * 8
    assert (result.position.epoch, result.position.batch) == (12, 0)
    assert (result.reason, result.interrupted) == ("all steps done", None)
    assert result.best is not None
    assert result.best.score > 0.7
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert len(losses) == 96
    assert losses[-1] < losses[0] / 2
    scores = [float(row["accuracy"]) for row in rows(tmp_path, "val")]
    assert len(scores) == 12
    assert result.best.score == max(scores)
    assert (tmp_path / "weights.safetensors").is_file()
    assert load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["best"]["step"] == result.best.step


def test_overfits_eight_images(tmp_path, digits):
    loader = digits.DigitBatches(8, 8)
    trainer = digits.cpu(steps=80, eval_every=1000)
    digits.train_digits(tmp_path, trainer, loader=loader, dropout=0.0, lr=0.03, schedule="constant")
    assert float(rows(tmp_path)[-1]["loss"]) < 0.02


class Nosy(Observer):
    """Does all that an observer must be free to do."""

    def on_start(self, event: Started) -> None:
        torch.rand(5)
        self.model = event.model

    def on_step(self, event: Stepped) -> None:
        torch.manual_seed(0)
        torch.rand(3)
        sum(p.abs().sum() for p in self.model.parameters()).item()  # pyright: ignore

    def on_evaluate(self, event: Evaluated) -> None:
        torch.rand(100)


def test_observers_do_not_change_the_run(tmp_path, digits):
    for name, observers in (("with", [Nosy()]), ("without", [])):
        digits.train_digits(tmp_path / name, digits.cpu(epochs=2), observers=observers)
    assert_same(model_bytes(tmp_path / "with"), model_bytes(tmp_path / "without"))
    assert (tmp_path / "with/metrics.csv").read_bytes() == (tmp_path / "without/metrics.csv").read_bytes()


def test_evaluations_do_not_change_the_run(tmp_path, digits, monkeypatch):
    """Neither by what they draw nor by leaving the model in eval mode, where the weights are not averaged."""
    real = digits.accuracy

    def accuracy(model):
        torch.rand(7)
        return real(model)

    monkeypatch.setattr(digits, "accuracy", accuracy)
    for name, every in (("often", 1), ("once", 1000)):
        digits.train_digits(tmp_path / name, digits.cpu(epochs=3, ema=0.0, eval_every=every))
    assert_same(model_bytes(tmp_path / "often"), model_bytes(tmp_path / "once"))


def test_the_outer_random_streams_are_left_alone(tmp_path, digits):
    trainer = digits.cpu(steps=2)
    digits.make_fabric(trainer)  # what its import draws is not the loop's doing
    states = []
    for folder in ("a", "b"):
        digits.train_digits(tmp_path / folder, trainer)  # begins with torch.manual_seed(7) for the model
        states.append(torch.get_rng_state())
    torch.manual_seed(7)
    digits.DigitNet()
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[0], states[1])


class StopAt(Observer):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, event: Stepped) -> StopRequest | None:
        return StopRequest("seen enough") if event.position.step == self.step else None


def test_an_observer_can_stop_the_run_for_good(tmp_path, digits):
    trainer = digits.cpu(epochs=3)
    result = digits.train_digits(tmp_path, trainer, observers=[StopAt(11)])
    assert (result.position.step, result.reason) == (11, "StopAt: seen enough")
    assert [row["step"] for row in rows(tmp_path, "val")] == ["8", "11"]  # scored where it stopped
    again = digits.train_digits(tmp_path, trainer, observers=[StopAt(11)], resume=True)
    assert (again.position.step, again.reason) == (11, "StopAt: seen enough")


def test_early_stop_ends_at_the_epoch(tmp_path, digits):
    stop = EarlyStop(patience=2, min_delta=1.0)  # nothing improves by more than one
    result = digits.train_digits(tmp_path, digits.cpu(epochs=9), observers=[stop])
    assert result.position.epoch == 3
    assert result.reason.startswith("early_stop: accuracy has not improved")


class Signal(Observer):
    """Sends the process a signal, as a job scheduler would."""

    def __init__(self, step: int, name: str = "SIGTERM", *, during: type = Stepped) -> None:
        self.step, self.number, self.during = step, getattr(signal, name), during

    def _send(self, event: Stepped | Evaluated | Checkpointed) -> None:
        if event.position.step == self.step and isinstance(event, self.during):
            os.kill(os.getpid(), self.number)

    def on_step(self, event: Stepped) -> None:
        self._send(event)

    def on_evaluate(self, event: Evaluated) -> None:
        self._send(event)

    def on_checkpoint(self, event: Checkpointed) -> None:
        self._send(event)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
@pytest.mark.parametrize("step", [1, 5, 8])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_been(tmp_path, digits, name, step):
    trainer = digits.cpu(epochs=2)
    digits.train_digits(tmp_path / "whole", trainer)
    stopped = digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(step, name)])
    assert (stopped.interrupted, stopped.position.step) == (name, step)
    assert load_checkpoint(tmp_path / "cut/checkpoints/last.ckpt")["position"]["step"] == step
    result = digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(-1)], resume=True)
    assert (result.interrupted, result.position.step) == (None, 16)
    assert_same(model_bytes(tmp_path / "whole"), model_bytes(tmp_path / "cut"))
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "cut/metrics.csv").read_bytes()


@pytest.mark.parametrize("during", [Evaluated, Checkpointed])
def test_a_signal_right_after_an_evaluation_does_not_repeat_it(tmp_path, digits, during):
    trainer = digits.cpu(epochs=2)
    digits.train_digits(tmp_path / "whole", trainer)
    stopped = digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(8, during=during)])
    assert stopped.interrupted == "SIGTERM"
    digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(-1)], resume=True)
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "cut/metrics.csv").read_bytes()
    assert_same(model_bytes(tmp_path / "whole"), model_bytes(tmp_path / "cut"))


def test_a_signal_during_an_evaluation_breaks_it_off_and_it_is_done_again(tmp_path, digits, monkeypatch):
    trainer = digits.cpu(epochs=2)
    digits.train_digits(tmp_path / "whole", trainer)
    real, calls = digits.accuracy, []

    def accuracy(model):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the evaluation went on")
        return real(model)

    monkeypatch.setattr(digits, "accuracy", accuracy)
    stopped = digits.train_digits(tmp_path / "cut", trainer)
    assert (stopped.interrupted, stopped.position.epoch, stopped.position.batch) == ("SIGTERM", 0, 8)
    digits.train_digits(tmp_path / "cut", trainer, resume=True)
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "cut/metrics.csv").read_bytes()


def test_resuming_a_complete_run_does_nothing(tmp_path, digits):
    trainer = digits.cpu(epochs=1)
    first = digits.train_digits(tmp_path, trainer)
    before = model_bytes(tmp_path)
    again = digits.train_digits(tmp_path, trainer, resume=True)
    assert again.position.step == first.position.step
    assert again.best == first.best
    assert_same(before, model_bytes(tmp_path))


def test_more_epochs_go_on_from_the_end(tmp_path, digits):
    digits.train_digits(tmp_path, digits.cpu(epochs=1))
    result = digits.train_digits(tmp_path, digits.cpu(epochs=2), resume=True)
    assert result.position.step == 16
    assert len(rows(tmp_path)) == 16


def test_batch_statistics_are_held_from_the_share_on_that_was_asked_for(tmp_path, digits):
    class Watch(Observer):
        def __init__(self) -> None:
            self.means: list[torch.Tensor] = []

        def on_start(self, event: Started) -> None:
            self.norm = event.model.backbone[1]

        def on_step(self, event: Stepped) -> None:
            self.means.append(self.norm.running_mean.clone())

    moved = {}
    for at in (1.0, 0.5):
        watch = Watch()
        trainer = digits.cpu(epochs=2, ema=0.9, hold_norm_at=at)
        digits.train_digits(tmp_path / str(at), trainer, observers=[watch], batch_norm=True)
        moved[at] = [not torch.equal(a, b) for a, b in pairwise(watch.means)]
        saved = load_checkpoint(tmp_path / str(at) / "checkpoints" / "last.ckpt")
        name = "backbone.1.running_var"
        assert torch.equal(saved["average"]["model"][name], saved["model"][name]) == (at < 1)
    assert moved[1.0] == [True] * 15
    assert moved[0.5] == [True] * 7 + [False] * 8  # 16 steps; an evaluation lies between the halves


@pytest.mark.parametrize(
    ("length", "evaluations", "steps"),
    [({"steps": 11}, ["8", "11"], 11), ({"epochs": 3, "eval_every": 2}, ["16", "24"], 24)],
)
def test_lengths_and_the_last_evaluation(tmp_path, digits, length, evaluations, steps):
    result = digits.train_digits(tmp_path, digits.cpu(**length))
    assert result.position.step == steps
    assert [row["step"] for row in rows(tmp_path, "val")] == evaluations


def test_minutes_end_the_run_and_go_on_after_a_resume(tmp_path, digits):
    trainer = digits.cpu(minutes=0.02, eval_every=1000)
    first = digits.train_digits(tmp_path, trainer)
    assert first.reason == "all minutes used"
    assert first.position.elapsed >= 1.2
    rates = [float(row["lr"]) for row in rows(tmp_path)]
    assert rates[-1] < 0.2 * max(rates)  # the schedule followed the clock to its end
    again = digits.train_digits(tmp_path, trainer, resume=True)
    assert again.position.step == first.position.step
    assert again.position.elapsed >= first.position.elapsed


def test_the_rate_follows_the_schedule_and_ends_at_its_final_value(tmp_path, digits):
    digits.train_digits(tmp_path, digits.cpu(epochs=3), lr=0.01)
    rates = [float(row["lr"]) for row in rows(tmp_path)]
    assert rates[0] == pytest.approx(1e-4)  # warm-up starts at a hundredth
    assert rates[-1] == pytest.approx(1e-4)
    assert max(rates) == pytest.approx(0.01, rel=0.01)


def test_accumulation_steps_over_groups_and_the_rest_of_the_epoch(tmp_path, digits):
    trainer = digits.cpu(epochs=2, accumulate=3, checkpoint_steps=2)
    whole = digits.train_digits(tmp_path / "whole", trainer)
    assert whole.position.step == 2 * 3  # eight batches: 3 + 3 + 2
    digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(2)])
    digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(-1)], resume=True)
    assert_same(model_bytes(tmp_path / "whole"), model_bytes(tmp_path / "cut"))


@pytest.mark.parametrize("optimizer", ["lbfgs", "nadam", "momentum"])
def test_other_optimisers_resume_exactly(tmp_path, digits, optimizer):
    trainer = digits.cpu(epochs=1)
    options = {"optimizer": optimizer, "lr": 0.1 if optimizer == "lbfgs" else 0.01}
    digits.train_digits(tmp_path / "whole", trainer, **options)
    digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(5)], **options)
    digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(-1)], resume=True, **options)
    assert_same(model_bytes(tmp_path / "whole"), model_bytes(tmp_path / "cut"))
    assert all(math.isfinite(float(row["loss"])) for row in rows(tmp_path / "whole"))


def test_averaged_weights_are_the_ones_scored_and_kept(tmp_path, digits):
    digits.train_digits(tmp_path / "on", digits.cpu(epochs=1, ema=0.9))
    saved = load_checkpoint(tmp_path / "on/checkpoints/best.ckpt")
    from safetensors.torch import load_file

    assert_same(load_file(tmp_path / "on/weights.safetensors"), saved["average"]["model"])
    assert not torch.equal(saved["average"]["model"]["head.weight"], saved["model"]["head.weight"])
    digits.train_digits(tmp_path / "off", digits.cpu(epochs=1, ema=0.0))
    plain = load_checkpoint(tmp_path / "off/checkpoints/best.ckpt")
    assert plain["average"] is None
    assert_same(load_file(tmp_path / "off/weights.safetensors"), plain["model"])


class EpochEnds(Observer):
    """Keeps the weights at each evaluation."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_start(self, event: Started) -> None:
        self.model = event.model

    def on_evaluate(self, event: Evaluated) -> None:
        self.weights.append(self.model.head.weight.detach().clone())  # pyright: ignore


def test_equal_averages_of_epoch_ends(tmp_path, digits):
    trainer, ends = digits.cpu(epochs=4, swa_at=0.5), EpochEnds()
    digits.train_digits(tmp_path / "whole", trainer, observers=[ends], batch_norm=True)
    saved = load_checkpoint(tmp_path / "whole/checkpoints/last.ckpt")
    average = saved["average"]["model"]
    torch.testing.assert_close(average["head.weight"], torch.stack(ends.weights[1:]).mean(0))
    rates = [float(row["lr"]) for row in rows(tmp_path / "whole")]
    assert rates[-1] == rates[16] > 0.4 * max(rates)  # the cosine stopped half-way
    assert rates[10] > rates[16]
    images = [digits.batch_of(range(0, 256)).images]
    own = digits.DigitNet(batch_norm=True)
    own.load_state_dict(average)
    refresh_statistics(own, images)
    for name, value in own.state_dict().items():
        if name.endswith(("running_mean", "running_var")):  # of its own features, not an average of the path's
            torch.testing.assert_close(average[name], value, rtol=0.05, atol=0.02)
    for step, during in ((20, Stepped), (24, Evaluated), (24, Checkpointed)):
        cut = tmp_path / f"cut-{step}-{during.__name__}"
        digits.train_digits(cut, trainer, observers=[Signal(step, during=during)], batch_norm=True)
        digits.train_digits(cut, trainer, resume=True, batch_norm=True)
        assert_same(average, load_checkpoint(cut / "checkpoints/last.ckpt")["average"]["model"])


def test_without_evaluation_the_last_weights_are_kept(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(digits, "accuracy", None)
    result = digits.train_digits(tmp_path, digits.cpu(epochs=1))
    assert result.best is None
    assert (tmp_path / "weights.safetensors").is_file()
    assert not (tmp_path / "checkpoints/best.ckpt").exists()


class Poisoned:
    """Batches of which one has a label that makes the loss NaN."""

    def __init__(self, digits, step: int) -> None:
        self.inner, self.step = digits.DigitBatches(), step

    def __len__(self) -> int:
        return len(self.inner)

    def epoch(self, epoch: int, start: int = 0):
        for number, batch in enumerate(self.inner.epoch(epoch, start), start=start):
            if epoch * len(self) + number + 1 == self.step:
                probs = torch.nn.functional.one_hot(batch.targets.label, 10).float()
                batch.targets.label = probs.fill_(float("nan"))
            yield batch


def test_a_non_finite_loss_stops_before_any_checkpoint_of_it(tmp_path, digits):
    trainer = digits.cpu(epochs=2, checkpoint_steps=1)
    with pytest.raises(NonFiniteLoss, match=r"step 10 \(epoch 2\): loss is nan \(class=nan, spread="):
        digits.train_digits(tmp_path, trainer, loader=Poisoned(digits, 10))
    saved = load_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert saved["position"]["step"] == 9
    assert all(torch.isfinite(value).all() for value in saved["model"].values())
    assert (tmp_path / "nonfinite.json").is_file()
    assert rows(tmp_path)[-1]["step"] == "9"


def test_the_step_that_is_not_finite_is_explained_saved_and_replayed(tmp_path, digits):
    with pytest.raises(NonFiniteLoss, match=rf"from the label.*clearsight replay {tmp_path}"):
        digits.train_digits(tmp_path, digits.cpu(epochs=2), loader=Poisoned(digits, 10))
    finding = json.loads((tmp_path / "findings.jsonl").read_text().splitlines()[-1])
    assert (finding["id"], finding["evidence"]["direction"], finding["evidence"]["step"]) == ("non-finite", "label", 10)
    saved = load_step(tmp_path)
    assert all(torch.isfinite(value).all() for value in saved.weights.values())  # those before the update
    assert replay_step(digits.DigitNet(), saved) == saved.found


class Late(LossReader):
    """Reads every step one step later, as on a GPU."""

    def push(self, info, measured) -> None:
        self.flush()
        self._pending = _Pending(info, measured.names, measured.values, None)


def test_losses_that_are_read_late_change_nothing_and_are_read_before_each_checkpoint(tmp_path, digits, monkeypatch):
    trainer = digits.cpu(epochs=2, checkpoint_steps=3)
    digits.train_digits(tmp_path / "at_once", trainer)
    monkeypatch.setattr(sys.modules[fit.__module__], "LossReader", Late)
    digits.train_digits(tmp_path / "late", trainer, observers=[Signal(5)])
    digits.train_digits(tmp_path / "late", trainer, observers=[Signal(-1)], resume=True)
    assert (tmp_path / "at_once/metrics.csv").read_bytes() == (tmp_path / "late/metrics.csv").read_bytes()
    with pytest.raises(NonFiniteLoss, match="step 9 "):
        digits.train_digits(tmp_path / "bad", digits.cpu(epochs=2, checkpoint_steps=1), loader=Poisoned(digits, 9))
    saved = load_checkpoint(tmp_path / "bad/checkpoints/last.ckpt")
    assert saved["position"]["step"] == 8
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


def test_a_plateau_goes_on_waiting_after_a_resume(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(digits, "accuracy", lambda model: {"accuracy": 0.5})
    digits_settings = digits.settings

    def settings(trainer, **options):
        found = digits_settings(trainer, **options)
        schedule = found.schedule.model_copy(update={"name": "plateau", "patience": 2, "warmup": 0.0})
        return replace(found, schedule=schedule)

    monkeypatch.setattr(digits, "settings", settings)
    trainer = digits.cpu(epochs=6)
    digits.train_digits(tmp_path / "whole", trainer)
    digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(20)])
    digits.train_digits(tmp_path / "cut", trainer, observers=[Signal(-1)], resume=True)
    rates = [float(row["lr"]) for row in rows(tmp_path / "whole")]
    assert rates[31] == pytest.approx(10 * rates[32])  # after the fourth evaluation, the third without improvement
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "cut/metrics.csv").read_bytes()


def test_a_checkpoint_of_another_model_or_recipe(tmp_path, digits, monkeypatch):
    trainer = digits.cpu(epochs=1)
    digits.train_digits(tmp_path, trainer)
    with pytest.raises(CheckpointError, match=r"another recipe or other data: recipe\.trainer\.ema: 0\.999 → 0\.5"):
        digits.train_digits(tmp_path, digits.cpu(epochs=1, ema=0.5), resume=True)
    small = digits.DigitNet
    monkeypatch.setattr(digits, "DigitNet", lambda **options: small(classes=7, **options))
    with pytest.raises(
        CheckpointError, match=r"another model: 2 tensors have another shape \(head\.weight is \(10, 32\)"
    ):
        digits.train_digits(tmp_path, trainer, resume=True)


def test_a_damaged_checkpoint_and_none(tmp_path, digits):
    trainer = digits.cpu(epochs=1)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        digits.train_digits(tmp_path, trainer, resume=True)
    digits.train_digits(tmp_path, trainer)
    last = tmp_path / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"last\.ckpt: damaged.*try best\.ckpt"):
        digits.train_digits(tmp_path, trainer, resume=True)


def test_an_unknown_metric_and_an_empty_loader(tmp_path, digits, monkeypatch):
    with pytest.raises(ConfigError, match="no batch fits into an epoch"):
        digits.train_digits(tmp_path, digits.cpu(epochs=1), loader=digits.DigitBatches(8, 32))
    monkeypatch.setattr(digits, "accuracy", lambda model: {"other": 1.0})
    with pytest.raises(ConfigError, match=r"trainer\.monitor: found 'accuracy'.*use one of other"):
        digits.train_digits(tmp_path, digits.cpu(epochs=1))


def test_the_smallest_loss_is_the_best(tmp_path, digits, monkeypatch):
    values = iter([0.4, 0.2, 0.3])
    monkeypatch.setattr(digits, "accuracy", lambda model: {"loss": next(values)})
    find = digits.settings
    monkeypatch.setattr(
        digits, "settings", lambda trainer, **options: replace(find(trainer, **options), monitor="loss")
    )
    result = digits.train_digits(tmp_path, digits.cpu(epochs=3))
    assert (result.best.score, result.best.epoch) == (-0.2, 2)


def test_a_nan_metric_is_never_the_best_once_there_is_a_number(tmp_path, digits, monkeypatch):
    values = iter([float("nan"), 0.4, float("nan"), 0.3])
    monkeypatch.setattr(digits, "accuracy", lambda model: {"accuracy": next(values)})
    result = digits.train_digits(tmp_path, digits.cpu(epochs=4))
    assert (result.best.score, result.best.epoch) == (0.4, 2)


def test_mixed_precision_trains_and_resumes(tmp_path, digits):
    trainer = digits.cpu(epochs=2, precision="bf16-mixed")
    digits.train_digits(tmp_path / "whole", trainer, lr=0.03)
    digits.train_digits(tmp_path / "cut", trainer, lr=0.03, observers=[Signal(3)])
    digits.train_digits(tmp_path / "cut", trainer, lr=0.03, observers=[Signal(-1)], resume=True)
    assert_same(model_bytes(tmp_path / "whole"), model_bytes(tmp_path / "cut"))
    losses = [float(row["loss"]) for row in rows(tmp_path / "whole")]
    assert losses[-1] < losses[0]


def test_fp16_scaling_is_part_of_the_checkpoint(tmp_path, digits, monkeypatch):
    """On the CPU, with a scale that overflows at first and grows soon: skipped steps and growth are in the run."""

    def make_fabric(trainer):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18, growth_interval=3)
        return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    monkeypatch.setattr(digits, "make_fabric", make_fabric)
    trainer = digits.cpu(epochs=2)
    digits.train_digits(tmp_path / "whole", trainer, lr=0.02)
    digits.train_digits(tmp_path / "cut", trainer, lr=0.02, observers=[Signal(6)])
    digits.train_digits(tmp_path / "cut", trainer, lr=0.02, observers=[Signal(-1)], resume=True)
    norms = [float(row["grad_norm"] or "nan") for row in rows(tmp_path / "whole")]
    assert not math.isfinite(norms[0])  # overflowed and was skipped
    assert math.isfinite(norms[-1])
    scale = load_checkpoint(tmp_path / "whole/checkpoints/last.ckpt")["precision"]["scale"]
    assert scale != 2.0**18
    assert_same(model_bytes(tmp_path / "whole"), model_bytes(tmp_path / "cut"))
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "cut/metrics.csv").read_bytes()
