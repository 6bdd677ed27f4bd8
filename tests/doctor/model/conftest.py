"""Sound networks of six kinds, real digits, and the evidence of rules on models made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from clearsight.doctor.model.evidence import ModelEvidence


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.last_norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(x + self.last_norm(self.second(F.relu(self.norm(self.first(x))))))


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Depthwise(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
            Squeeze(channels),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return x + self.body(x)


class TinyViT(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.position = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 64, dropout=0.1, batch_first=True, norm_first=True, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.norm(self.encoder(self.patches(x).flatten(2).mT + self.position)).mean(1))


def _stem(channels: int, act: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), act]


def _end(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def _cnn_bn() -> nn.Module:
    second = [nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*_stem(16, nn.ReLU()), nn.MaxPool2d(2), *second, *_end(32))


def _resnet() -> nn.Module:
    return nn.Sequential(*_stem(16, nn.ReLU()), Residual(16), Residual(16), *_end(16))


def _depthwise() -> nn.Module:
    return nn.Sequential(*_stem(32, nn.ReLU6()), Depthwise(32), Depthwise(32), *_end(32))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "cnn_bn": _cnn_bn,
    "resnet": _resnet,
    "depthwise": _depthwise,
    "vit": TinyViT,
}


@pytest.fixture(params=list(NETWORKS))
def sound(request) -> nn.Module:
    """A network without a fault, of each of six kinds."""
    return NETWORKS[request.param]()


@pytest.fixture
def mlp() -> nn.Module:
    return _mlp()


@pytest.fixture
def cnn() -> nn.Module:
    return _cnn()


@pytest.fixture
def cnn_bn() -> nn.Module:
    return _cnn_bn()


@pytest.fixture(scope="session")
def digit_images() -> tuple[Tensor, Tensor]:
    """All of scikit-learn's digits in a random order, `(1797, 1, 8, 8)` of mean 0 and deviation 1, and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8)[order]
    return (images - images.mean()) / images.std(), torch.tensor(labels)[order]


@pytest.fixture
def evidence_of(digit_images) -> Callable[..., ModelEvidence]:
    """Makes the evidence of a classifier of digits; anything of it can be changed."""

    def make(model: nn.Module, *, number: int = 32, **changes: Any) -> ModelEvidence:
        images, labels = digit_images
        parts: dict[str, Any] = {
            "model": model,
            "images": images[:number].clone(),
            "targets": labels[:number].clone(),
            "loss": lambda m, x, t: F.cross_entropy(m(x), t),
            "take": lambda t, indices: t[list(indices)],
            "task": "classification",
            "classes": 10,
        }
        return ModelEvidence(**(parts | changes))

    return make


def _taken(targets: Any, indices: Any) -> Any:
    """Targets of some images, as clearsight's loaders give them."""
    from dataclasses import replace

    found = [(targets.image == index).nonzero().flatten() for index in indices]
    rows = torch.cat(found)
    image = torch.cat([torch.full((len(one),), number) for number, one in enumerate(found)])
    given = {
        name: value[list(indices)] for name in ("semantic", "label") if (value := getattr(targets, name)) is not None
    }
    ignore = None if targets.ignore is None else targets.ignore[rows]
    return replace(targets, boxes=targets.boxes[rows], labels=targets.labels[rows], image=image, ignore=ignore, **given)


@pytest.fixture(scope="session")
def recipe_evidence(shared_data) -> Callable[..., ModelEvidence]:
    """Makes the evidence of a built-in recipe on real data, from its first batch of training."""

    def make(name: str, folder: str, *overrides: str) -> ModelEvidence:
        from clearsight.recipe.resolve import load_recipe
        from clearsight.train.compose import compose
        from clearsight.train.devices import make_fabric
        from clearsight.train.optimise import build_optimizer

        fixed = ("loader.workers=0", "loader.cache=none", "trainer.accelerator=cpu", "trainer.precision=32-true")
        recipe = load_recipe(name, [f"data.root={shared_data / folder}", *fixed, *overrides])
        parts = compose(recipe, make_fabric(recipe.trainer))
        batch = next(parts.loader.epoch(0))
        parts.close()
        return ModelEvidence(
            model=parts.model,
            images=batch.images,
            targets=batch.targets,
            loss=lambda m, x, t: torch.stack(list(m.loss(x, t).values())).sum(),
            take=_taken,
            task=recipe.task,
            classes=len(parts.data.whole.classes),
            optimizer=build_optimizer(parts.model, recipe.optimizer),
            recipe=recipe.model_dump(mode="json") | {"trainer": {"precision": "bf16-mixed"}},
        )

    return make
