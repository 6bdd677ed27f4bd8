from __future__ import annotations

import inspect
import runpy
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clearsight.doctor.lightning
import clearsight.doctor.watch
from clearsight.doctor.lightning import LightningHooks
from clearsight.doctor.rule import Rule
from clearsight.doctor.watch import Watch
from clearsight.types import Finding

pl = pytest.importorskip("pytorch_lightning")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, of workers and of what it calls

PIXELS, LABELS = load_digits(return_X_y=True)


class Digits(pl.LightningModule):
    """A project as people have it; `clumsy` undoes what Lightning does for evaluations."""

    def __init__(self, *, clumsy=False, manual=False) -> None:
        super().__init__()
        self.clumsy, self.automatic_optimization = clumsy, not manual
        self.net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 10))

    def training_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        loss = F.cross_entropy(logits, batch[1])
        self.log("train_acc", (logits.argmax(1) == batch[1]).float().mean(), on_epoch=True, on_step=False)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def validation_step(self, batch, batch_idx):
        if self.clumsy:
            self.train()
        logits = self.net(batch[0])
        self.log("val_loss", F.cross_entropy(logits, batch[1]))
        self.log("score", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def fit(folder, *callbacks, module=None, resume=None, **options):
    torch.manual_seed(0)
    module = module or Digits()
    images, labels = torch.from_numpy(PIXELS).float() / 16, torch.from_numpy(LABELS).long()
    train = DataLoader(TensorDataset(images[:320], labels[:320]), batch_size=32)
    held_out = DataLoader(TensorDataset(images[320:640], labels[320:640]), batch_size=160)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    plan = {"max_epochs": 3, "enable_checkpointing": False, **options}
    trainer = pl.Trainer(callbacks=list(callbacks), default_root_dir=folder, **quiet, **plan)
    trainer.fit(module, train, held_out, ckpt_path=resume)
    return module, trainer


def test_every_hook_that_a_trainer_may_call_is_there() -> None:
    wanted = {name for name, _ in inspect.getmembers(pl.Callback) if not name.startswith("_")}
    assert [name for name in sorted(wanted) if not hasattr(LightningHooks, name)] == []
    assert hasattr(LightningHooks, "_legacy_state_key")
    for name, method in inspect.getmembers(pl.Callback, inspect.isfunction):
        if name.startswith("on_"):
            inspect.signature(getattr(LightningHooks, name)).bind(None, *list(inspect.signature(method).parameters)[1:])


def test_lightning_is_not_needed(monkeypatch) -> None:
    for name in ("pytorch_lightning", "lightning", "lightning_fabric"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails now
    for module in (clearsight.doctor.lightning, clearsight.doctor.watch):
        assert runpy.run_path(module.__file__)


def test_all_is_found_and_the_bits_are_the_same(tmp_path) -> None:
    watch = Watch(rules=())
    module, _ = fit(tmp_path, watch)
    plain, _ = fit(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), plain.parameters(), strict=True))
    record = watch.record()
    assert (record.budget, record.steps_per_epoch, record.accumulate, record.clip_norm) == (30, 10, 1, None)
    assert record.finished
    for curve in (record.loss, record.grad_norm, record.lr, record.waiting):
        assert curve.steps.tolist() == list(range(1, 31))
    assert sorted(record.val) == ["loss", "score"]
    assert record.val["score"].steps.tolist() == [10, 20, 30]
    assert record.train["accuracy"].steps.tolist() == [10, 20, 30]
    assert sorted(record.train) == ["accuracy"]
    assert record.layers.names == ("net.0", "net.3")
    assert record.layers.activations == ("relu", "")
    assert record.facts["gradient_before_backward"] == 0.0
    assert record.facts["first_labels"] == [LABELS[start : start + 32].tolist() for start in range(0, 320, 32)]


def test_batches_are_accumulated_and_gradients_are_of_before_clipping(tmp_path) -> None:
    free, clipped = Watch(rules=()), Watch(rules=())
    fit(tmp_path, free, accumulate_grad_batches=5, max_epochs=1)
    fit(tmp_path, clipped, accumulate_grad_batches=5, max_epochs=1, gradient_clip_val=1e-3)
    one, other = free.record(), clipped.record()
    assert (other.accumulate, other.steps_per_epoch, other.clip_norm) == (5, 2, 1e-3)
    assert one.loss.steps.tolist() == [1, 2]
    assert one.loss.values[0] == pytest.approx(np.log(10), rel=0.05)  # the mean, not a fifth of it
    assert one.grad_norm.values[0] == pytest.approx(other.grad_norm.values[0], rel=1e-6)
    np.testing.assert_allclose(one.layers.values["grad_norm"][0], other.layers.values["grad_norm"][0], rtol=1e-6)


def test_manual_optimisation_is_seen_too(tmp_path) -> None:
    watch = Watch(rules=())
    fit(tmp_path, watch, module=Digits(manual=True), max_epochs=1)
    record = watch.record()
    assert record.loss.steps.tolist() == record.grad_norm.steps.tolist() == list(range(1, 11))
    assert np.all(record.layers.values["update_ratio"] > 0)


@pytest.mark.parametrize(("clumsy", "found"), [(False, None), (True, ["net.2"])])
def test_the_mode_of_validation_is_seen(tmp_path, clumsy, found) -> None:
    watch = Watch(rules=())
    fit(tmp_path, watch, module=Digits(clumsy=clumsy), max_epochs=1)
    assert watch.record().facts.get("eval_in_train_mode") == found


def test_a_checkpoint_has_the_record(tmp_path) -> None:
    whole = Watch(rules=())
    fit(tmp_path, whole, max_epochs=2)
    _, trainer = fit(tmp_path, Watch(rules=(), folder=tmp_path), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed = Watch(rules=(), folder=tmp_path)
    fit(tmp_path, resumed, max_epochs=2, resume=tmp_path / "one.ckpt")
    record = resumed.record()
    assert record.loss.steps.tolist() == list(range(1, 21))
    np.testing.assert_array_equal(record.loss.values[:10], whole.record().loss.values[:10])
    assert record.layers.steps.tolist() == [1, 2, 4, 8, 16]


class Stop(Rule):
    """Ends a run at its fifth step."""

    id = "stop"
    source = ""

    def check(self, evidence):
        if evidence.steps >= 5:
            yield Finding(id="stop", severity="error", where="", explanation="Enough.")


def test_the_trainer_is_stopped(tmp_path) -> None:
    watch = Watch(rules=[Stop()], stop_on="error", on_finding=lambda _: None)
    _, trainer = fit(tmp_path, watch)
    assert trainer.global_step == 5
    assert watch.should_stop
