"""Names and first layers of published weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.errors import WeightsError
from clearsight.models.backbones.published import adapt_first_layer, backbone_weights, rename_head
from clearsight.models.backbones.resnet import ResNet


def test_only_the_last_layer_is_renamed() -> None:
    state = {"fc.weight": torch.zeros(2), "fc2.weight": torch.zeros(3), "conv.fc.bias": torch.zeros(4)}
    found = rename_head(state, "fc")
    assert list(found) == ["head.weight", "fc2.weight", "conv.fc.bias"]
    assert found["head.weight"] is state["fc.weight"]


def test_a_detector_takes_all_but_the_class_layers() -> None:
    backbone = ResNet(18)
    state = {**backbone.state_dict(), "fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)}
    found = backbone_weights(backbone, state)
    assert found.keys() == {f"backbone.{name}" for name in backbone.state_dict()}
    assert backbone_weights(backbone, found) == found


def test_a_first_layer_for_other_channels() -> None:
    weight = torch.randn(8, 3, 7, 7)
    grey = adapt_first_layer(weight, 1)
    torch.testing.assert_close(grey, weight.sum(1, keepdim=True))
    five = adapt_first_layer(weight, 5)
    assert five.shape == (8, 5, 7, 7)
    x = torch.randn(1, 1, 9, 9)
    expected = nn.functional.conv2d(x.expand(-1, 3, -1, -1), weight)
    torch.testing.assert_close(nn.functional.conv2d(x, grey), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(nn.functional.conv2d(x.expand(-1, 5, -1, -1), five), expected, rtol=1e-4, atol=1e-4)
    assert adapt_first_layer(weight, 3) is weight
    with pytest.raises(WeightsError, match=r"expected weights \(out, in, kh, kw\), got \(3,\)"):
        adapt_first_layer(torch.zeros(3), 1)
