"""What segmenters and depth share: names below `net.`, weights on their way to the net, a class layer of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clearsight.data.normalisation import Statistics
from clearsight.models.segment.pixel_model import PixelModel

STATISTICS = Statistics(mean=(0.5, 0.25), std=(0.25, 0.5))


class Net(nn.Module):
    """One layer, whose published name is another."""

    class_layer = ("out.weight",)

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Conv2d(2, 3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)

    def reset_classes(self) -> None:
        nn.init.zeros_(self.out.weight)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("classifier", "out"): value for name, value in state.items()}


def test_names_and_channels() -> None:
    model = PixelModel(Net(), statistics=STATISTICS)
    assert model.class_layer == ("net.out.weight",)
    assert model.in_channels == 2
    assert model.state_dict().keys() == {"input_norm.mean", "input_norm.std", "net.out.weight"}


def test_weights_come_from_elsewhere_or_from_here() -> None:
    model, weight = PixelModel(Net(), statistics=STATISTICS), torch.rand(3, 2, 1, 1)
    assert model.adapt_weights({"classifier.weight": weight}) == {"net.out.weight": weight}
    own = model.state_dict()
    assert model.adapt_weights(own) == dict(own)


def test_the_last_layer_starts_anew() -> None:
    model = PixelModel(Net(), statistics=STATISTICS)
    model.reset_classes()
    assert not model.get_parameter("net.out.weight").any()
