"""Sliding operations, each place against the gradient of PyTorch's own operation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clearsight.measure.reach_trace import trace

LAYERS = {
    "strided": nn.Conv2d(1, 1, (3, 4), (2, 3), (1, 0)),
    "dilated": nn.Conv2d(1, 1, 3, 1, 4, dilation=(2, 4)),
    "transposed": nn.ConvTranspose2d(1, 1, (4, 3), 2, 1, output_padding=(1, 0)),
    "transposed dilated": nn.ConvTranspose2d(1, 1, 3, 2, 2, dilation=2),
    "average, ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "adaptive": nn.AdaptiveAvgPool2d((3, 5)),
    "reflected": nn.ReflectionPad2d((2, 1, 0, 3)),
    "repeated": nn.ReplicationPad2d((2, 1, 0, 3)),
    "circular": nn.CircularPad2d((2, 1, 1, 3)),
    "cropped": nn.ZeroPad2d((2, -1, -2, 3)),
    "nearest": nn.Upsample(size=(17, 7)),
    "exact": nn.Upsample(scale_factor=1.7, mode="nearest-exact"),
    "bilinear": nn.Upsample(scale_factor=2.5, mode="bilinear"),
    "corners": nn.Upsample(size=(19, 6), mode="bilinear", align_corners=True),
    "bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_place_against_the_gradient(name):
    layer = LAYERS[name].double()
    for weight in layer.parameters():
        nn.init.ones_(weight)
    image = torch.rand(1, 1, 10, 12, dtype=torch.float64, requires_grad=True)
    out = layer(image)
    seen = trace(layer, image.detach()).modules[""][0].seen
    assert seen is not None
    up, down, left, right = (side[0, 0] for side in seen.sides)
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            (gradient,) = torch.autograd.grad(out[0, 0, row, column], image, retain_graph=True)
            rows, columns = gradient[0, 0].any(1).nonzero().flatten(), gradient[0, 0].any(0).nonzero().flatten()
            if len(rows):
                assert (-int(up[row, column]), int(down[row, column])) == (int(rows[0]), int(rows[-1]))
                assert (-int(left[row, column]), int(right[row, column])) == (int(columns[0]), int(columns[-1]))


def test_maxima_of_windows_with_dilation():
    found = trace(nn.MaxPool2d(3, 2, 1, dilation=2), torch.rand(1, 2, 11, 11)).modules[""][0].seen
    assert found is not None
    assert found.sides[1][0, 0, :, 0].tolist() == [3.0, 5.0, 7.0, 9.0, 9.0]
    assert (-found.sides[0][0, 0, :, 0]).tolist() == [1.0, 1.0, 3.0, 5.0, 7.0]


def test_weights_that_depend_on_the_image_see_it():
    class Dynamic(nn.Module):
        def forward(self, x):
            return F.conv2d(x, x.mean((0, 2, 3)).view(1, 2, 1, 1))

    found = trace(Dynamic(), torch.rand(1, 2, 6, 6)).modules[""][0].seen
    assert found is not None
    assert bool(torch.isposinf(found.sides[0]).all())
    assert found.local[1][0, 0, :, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
