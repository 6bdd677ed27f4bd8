"""Layer norm over the channels of each pixel; `test_norm.py` holds it against its derivation."""

from __future__ import annotations

import pytest
import torch
from timm.layers.norm import LayerNorm2d as TimmLayerNorm2d
from torchvision.models.convnext import LayerNorm2d as TorchvisionLayerNorm2d

from clearsight.errors import ShapeError
from clearsight.nn.layer_norm import LayerNorm2d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_timms_and_torchvisions(layout: torch.memory_format) -> None:
    ours, theirs, others = LayerNorm2d(6), TimmLayerNorm2d(6), TorchvisionLayerNorm2d(6, eps=1e-6)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2)
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    others.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 5, 4).contiguous(memory_format=layout)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    torch.testing.assert_close(ours(x), others(x), rtol=0, atol=0)


def test_each_pixel_has_mean_zero_and_variance_one() -> None:
    y = LayerNorm2d(64, affine=False)(torch.randn(2, 64, 3, 3) * 4 + 2)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(2, 3, 3), atol=1e-4, rtol=0)


def test_rows_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"LayerNorm2d: x: expected \(n, c, h, w\), got \(2, 6\)"):
        LayerNorm2d(6)(torch.zeros(2, 6))
