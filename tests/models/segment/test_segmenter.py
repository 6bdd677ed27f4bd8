"""The segmenter around any net: statistics, loss, valid parts, names of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clearsight.data.normalisation import Statistics
from clearsight.errors import ConfigError
from clearsight.models.base import Segments
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.models.weights import load_weights
from clearsight.types import Targets

STATISTICS = Statistics(mean=(0.5, 0.25), std=(0.25, 0.5))


class Pointwise(nn.Module):
    """The smallest net: one convolution of one pixel."""

    class_layer = ("conv.weight", "conv.bias")

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def reset_classes(self) -> None:
        nn.init.zeros_(self.conv.weight)
        nn.init.ones_(self.conv.bias)  # pyright: ignore[reportArgumentType]

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("fc.", "conv."): value for name, value in state.items()}


def make(classes: int = 3) -> Segmenter:
    return Segmenter(Pointwise(classes), statistics=STATISTICS, loss=SemanticLoss(classes))


def mapped(semantic: Tensor | None) -> Targets:
    none = torch.zeros(0).long()
    return Targets(boxes=torch.zeros(0, 4), labels=none, image=none, semantic=semantic)


def test_the_net_sees_normalised_pixels() -> None:
    model = make()
    images = torch.randint(0, 256, (2, 2, 5, 4), dtype=torch.uint8)
    normal = (images / 255 - torch.tensor(STATISTICS.mean).view(2, 1, 1)) / torch.tensor(STATISTICS.std).view(2, 1, 1)
    torch.testing.assert_close(model(images), model.net(normal))
    assert isinstance(model, Segments)


def test_loss_is_the_objectives() -> None:
    model = make()
    images, semantic = torch.rand(2, 2, 5, 4), torch.randint(0, 3, (2, 5, 4))
    found, expected = model.loss(images, mapped(semantic)), model.objective(model(images), semantic)
    assert found == expected
    with pytest.raises(ConfigError, match=r"targets\.semantic is None"):
        model.loss(images, mapped(None))


def test_predictions_are_cut_to_the_valid_part() -> None:
    model = make()
    images = torch.rand(2, 2, 6, 8)
    first, second = model.predict(images, torch.tensor([[6, 8], [3, 5]]))
    whole = model(images).softmax(1)
    assert not first.probs.requires_grad
    torch.testing.assert_close(first.probs, whole[0].detach())
    torch.testing.assert_close(second.probs, whole[1, :, :3, :5].detach())
    assert second.labels.tolist() == whole[1, :, :3, :5].argmax(0).tolist()
    assert model.predict(images[:0], torch.zeros(0, 2).long()) == []


def test_probabilities_are_float32_under_autocast() -> None:
    model = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = model.predict(torch.rand(1, 2, 4, 4), torch.tensor([[4, 4]]))
    assert found.probs.dtype == torch.float32
    torch.testing.assert_close(found.probs.sum(0), torch.ones(4, 4))


def test_weights_of_the_net_and_of_the_whole(tmp_path: Path) -> None:
    model = make()
    published = {"fc.weight": torch.full((3, 2, 1, 1), 2.0), "fc.bias": torch.zeros(3)}
    assert set(model.adapt_weights(published)) == {"net.conv.weight", "net.conv.bias"}
    own = model.state_dict()
    assert model.adapt_weights(own).keys() == own.keys()
    torch.save(make(4).state_dict(), tmp_path / "four.pt")
    report = load_weights(model, tmp_path / "four.pt")  # of another number of classes
    assert [line.split(":")[0] for line in report.reinitialised] == ["net.conv.bias", "net.conv.weight"]
    assert not report.missing
    assert model.net.conv.bias.tolist() == [1, 1, 1]  # pyright: ignore[reportAttributeAccessIssue]
    torch.save(published, tmp_path / "published.pt")
    assert len(load_weights(model, tmp_path / "published.pt").matched) == 2
    assert (model.net.conv.weight == 2).all()  # pyright: ignore[reportAttributeAccessIssue]
