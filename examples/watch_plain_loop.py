"""Watch a plain PyTorch loop: what is wrong with it is said while it trains, and each layer can be looked at after.

Run it as it is, then with a rate that is far too high: python examples/watch_plain_loop.py 1.0
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from clearsight.doctor import Watch
from clearsight.doctor.run.record import RunRecord


def read_digits() -> tuple[TensorDataset, TensorDataset]:
    """Images `(n, 1, 8, 8)` in [0, 1] and labels, to learn from and held out."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16
    classes = torch.from_numpy(labels).long()
    return TensorDataset(images[:1400], classes[:1400]), TensorDataset(images[1400:], classes[1400:])


def build_net() -> nn.Sequential:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


@torch.no_grad()
def score(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Loss and accuracy."""
    model.eval()
    logits = model(images)
    model.train()
    return float(cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())


def main(lr: float = 0.05, epochs: int = 4) -> Watch:
    torch.manual_seed(0)
    train, held_out = read_digits()
    loader = DataLoader(train, batch_size=64, shuffle=True, drop_last=True)
    model = build_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    known = RunRecord(name="digits", task="classification", classes=tuple("0123456789"), batch_size=64)

    with Watch(model, optimizer, budget=epochs * len(loader), about=known) as watch:
        for _ in range(epochs):
            for images, labels in watch.loading(loader):
                optimizer.zero_grad()
                logits = model(images)
                loss = cross_entropy(logits, labels)
                loss.backward()
                optimizer.step()
                watch.step(loss, accuracy=(logits.argmax(1) == labels).float().mean(), labels=labels)
            loss, accuracy = score(model, *held_out.tensors)
            watch.evaluated(loss=loss, accuracy=accuracy)
            print(f"held out: loss {loss:.3f}, accuracy {accuracy:.3f}")

    layers = watch.record().layers
    if layers is not None:
        print("layer         gradient  update/weight")
        for i, (name, kind) in enumerate(zip(layers.names, layers.kinds, strict=True)):
            gradient, update = (layers.values[measure][-1, i] for measure in ("grad_norm", "update_ratio"))
            print(f"{name:>2} {kind:11}{gradient:8.3f} {update:14.1e}")
    print(f"findings: {', '.join(finding.id for finding in watch.findings) or 'none'}")
    return watch


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.05)
