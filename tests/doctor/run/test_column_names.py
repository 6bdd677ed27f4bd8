"""Names as the loggers of other tools write them."""

from __future__ import annotations

import pytest

from clearsight.doctor.run.column_names import meaning_of


@pytest.mark.parametrize(
    ("column", "kind", "split", "name", "per"),
    [
        ("step", "step", "", "step", ""),
        ("trainer/global_step", "step", "", "step", ""),
        ("epoch", "epoch", "", "epoch", ""),
        ("loss", "loss", "", "loss", ""),
        ("epoch_accuracy", "score", "", "accuracy", "epoch"),
        ("batch_loss", "loss", "", "loss", "step"),
        ("train_loss", "loss", "train", "loss", ""),
        ("train_loss_step", "loss", "train", "loss", "step"),
        ("train_loss_epoch", "loss", "train", "loss", "epoch"),
        ("val_loss", "loss", "val", "loss", ""),
        ("valid_loss", "loss", "val", "loss", ""),
        ("Loss/validation", "loss", "val", "loss", ""),
        ("eval_top1", "score", "val", "top1", ""),
        ("val_accuracy", "score", "val", "accuracy", ""),
        ("accuracy", "score", "", "accuracy", ""),
        ("evalAccuracy", "score", "val", "accuracy", ""),
        ("train/box_loss", "term", "train", "box_loss", ""),
        ("val/dfl_loss", "term", "val", "dfl_loss", ""),
        ("metrics/mAP50(B)", "score", "", "map50", ""),
        ("metrics/mAP50-95(B)", "score", "", "map50_95", ""),
        ("lr/pg0", "lr", "", "lr_pg0", ""),
        ("lr-AdamW", "lr", "", "lr_adam_w", ""),
        ("learning_rate", "lr", "", "learning_rate", ""),
        ("train/grad_norm", "grad_norm", "train", "grad_norm", ""),
        ("time", "seconds", "", "time", ""),
        ("hp_metric", "other", "", "hp", ""),
        ("notes", "other", "", "notes", ""),
    ],
)
def test_meaning(column: str, kind: str, split: str, name: str, per: str) -> None:
    found = meaning_of(column)
    assert (found.kind, found.split, found.name, found.per) == (kind, split, name, per)
