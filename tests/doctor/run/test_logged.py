"""Logs as other trainers write them: real ones of Lightning and TensorBoard, and the columns of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.doctor.run.logged import read_csv_log, read_tensorboard_log
from clearsight.errors import DataError


def written(folder: Path, text: str) -> Path:
    path = folder / "log.csv"
    path.write_text(text)
    return path


def test_keras_scores_without_a_split_are_of_training(tmp_path: Path) -> None:
    text = "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.2,0.4,1.3\n1,0.6,1.0,0.5,1.1\n"
    record = read_csv_log(written(tmp_path, text)).record
    assert record.loss.values.tolist() == [1.2, 1.0]
    assert record.train["accuracy"].values.tolist() == [0.5, 0.6]
    assert record.val["accuracy"].values.tolist() == [0.4, 0.5]
    assert record.val["loss"].steps.tolist() == [0, 1]
    assert record.steps_per_epoch == 1


def test_ultralytics_terms_are_added_up_and_scores_are_of_validation(tmp_path: Path) -> None:
    text = (
        "                  epoch,         time,  train/box_loss,  train/cls_loss, metrics/mAP50(B),   val/box_loss,"
        "   val/cls_loss,     lr/pg0\n"
        "                      1,      12.5,         1.5,         2.5,  0.1, 1.25, 2.0, 0.01\n"
        "                      2,      24.9,         1.0,         2.0,  0.3, 1.0, 1.5, 0.005\n"
    )
    read = read_csv_log(written(tmp_path, text))
    assert read.record.loss.values.tolist() == [4.0, 3.0]
    assert read.record.val["loss"].values.tolist() == [3.25, 2.5]
    assert set(read.record.terms) == {"box_loss", "cls_loss"}
    assert read.record.val["map50"].values.tolist() == [0.1, 0.3]
    assert read.record.lr.values.tolist() == [0.01, 0.005]
    assert any("sum of box_loss, cls_loss" in note for note in read.notes)


def test_timm_and_fastai(tmp_path: Path) -> None:
    timm = read_csv_log(written(tmp_path, "epoch,train_loss,eval_loss,eval_top1,lr\n0,2,1.9,30,0.1\n1,1,1.1,60,0.1\n"))
    assert timm.record.val["top1"].values.tolist() == [30, 60]
    fastai = read_csv_log(written(tmp_path, "epoch,train_loss,valid_loss,accuracy,time\n0,2,1.9,0.3,00:05\n"))
    assert fastai.record.val["accuracy"].values.tolist() == [0.3]
    assert fastai.record.val["loss"].values.tolist() == [1.9]


def test_a_real_lightning_log(tmp_path: Path) -> None:
    pl = pytest.importorskip("pytorch_lightning")
    import torch
    from pytorch_lightning.loggers import CSVLogger
    from torch import nn

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 1)

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            loss = self.line(batch[0]).square().mean()
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: list[torch.Tensor]) -> None:
            self.log("val_loss", self.line(batch[0]).square().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(24, 3)), batch_size=4)
    trainer = pl.Trainer(
        max_epochs=3,
        logger=CSVLogger(str(tmp_path), name=""),
        accelerator="cpu",
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Net(), data, data)
    record = read_csv_log(tmp_path / "version_0" / "metrics.csv").record
    assert record.steps_per_epoch == 6
    assert record.loss.steps.tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17]
    assert record.val["loss"].steps.tolist() == [5, 11, 17]
    assert np.isfinite(record.loss.values).all()


def test_nan_that_was_logged_stays_and_empty_cells_are_no_entries(tmp_path: Path) -> None:
    record = read_csv_log(written(tmp_path, "step,loss,val_loss\n1,0.5,\n2,nan,\n3,inf,0.7\n")).record
    np.testing.assert_array_equal(record.loss.values, [0.5, np.nan, np.inf])
    assert record.val["loss"].steps.tolist() == [3]


def test_half_a_line_at_the_end_is_left_out_and_said(tmp_path: Path) -> None:
    read = read_csv_log(written(tmp_path, "step,loss,acc\n1,0.5,0.1\n2,0.4,0.2\n3,0."))
    assert read.record.loss.steps.tolist() == [1, 2]
    assert any("half-written" in note for note in read.notes)


def test_a_run_that_was_resumed_counts_what_came_after(tmp_path: Path) -> None:
    read = read_csv_log(written(tmp_path, "step,loss\n1,5\n2,4\n3,3\n4,2\n3,30\n4,20\n5,10\n"))
    assert read.record.loss.steps.tolist() == [1, 2, 3, 4, 5]
    assert read.record.loss.values.tolist() == [5, 4, 30, 20, 10]
    assert any("2 entries before a restart" in note for note in read.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no table"),
        ("step,loss\n", "no rows"),
        ("name,colour\na,red\nb,blue\n", "none of its columns is a number of a training"),
    ],
)
def test_what_is_no_log(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_csv_log(written(tmp_path, text))


def test_a_file_of_bytes_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(DataError):
        read_csv_log(tmp_path / "log.csv")


def test_real_event_files(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "train")) as train, SummaryWriter(str(tmp_path / "validation")) as val:
        for step in range(1, 6):
            train.add_scalar("epoch_loss", 1 / step, step)
            val.add_scalar("epoch_loss", 2 / step, step)
            val.add_scalar("epoch_accuracy", step / 10, step)
    record = read_tensorboard_log(tmp_path).record
    assert record.origin == "tensorboard"
    np.testing.assert_allclose(record.loss.values, [1 / step for step in range(1, 6)], rtol=1e-6)
    np.testing.assert_allclose(record.val["loss"].values, [2 / step for step in range(1, 6)], rtol=1e-6)
    assert record.val["accuracy"].steps.tolist() == [1, 2, 3, 4, 5]


def test_event_files_without_scalars(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("note", "nothing else")
    with pytest.raises(DataError, match="no scalars"):
        read_tensorboard_log(tmp_path)
