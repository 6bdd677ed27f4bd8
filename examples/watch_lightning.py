"""Watch a Lightning project: one callback, and nothing else of the project changes."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl  # `import lightning.pytorch as pl` does as well
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from clearsight.doctor import Watch


class Digits(pl.LightningModule):
    """Somebody's module."""

    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        images, labels = batch
        return cross_entropy(self.net(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log what is wanted; the watch takes it from there."""
        images, labels = batch
        logits = self.net(images)
        self.log("val_loss", cross_entropy(logits, labels))
        self.log("val_acc", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Momentum SGD."""
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def loaders() -> tuple[DataLoader, DataLoader]:
    """Digits to learn from and held out, in batches."""
    pixels, labels = load_digits(return_X_y=True)
    images, classes = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(labels).long()
    train, held_out = TensorDataset(images[:1400], classes[:1400]), TensorDataset(images[1400:], classes[1400:])
    return DataLoader(train, batch_size=64, shuffle=True), DataLoader(held_out, batch_size=397)


def main(folder: Path, epochs: int = 4) -> Watch:
    pl.seed_everything(0, verbose=False)
    watch = Watch(folder=folder)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[watch],  # pyright: ignore[reportArgumentType] - it has every hook, and needs no Lightning
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), *loaders())
    record = watch.record()
    print(f"{record.steps} steps, held out: accuracy {record.val['accuracy'].values[-1]:.3f}")
    print(f"findings: {', '.join(finding.id for finding in watch.findings) or 'none'}")
    return watch


if __name__ == "__main__":
    main(Path("runs/watch-lightning"))
