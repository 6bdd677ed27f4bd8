"""Gridding and chequered patterns: what the rules say is measured on the nets themselves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.kernels import CheckerboardKernel, GriddingDilations


def evidence(model, loss=None) -> ModelEvidence:
    return ModelEvidence(
        model=model,
        images=torch.randn(2, 1, 65, 65),
        targets=torch.arange(2),
        loss=loss or (lambda m, x, t: F.cross_entropy(m(x), t)),
        take=lambda t, i: t[list(i)],
    )


def stack(rates: Sequence[int], *, act=nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, 4, 1)]
    for rate in rates:
        layers += [nn.Conv2d(4, 4, 3, padding=rate, dilation=rate), nn.BatchNorm2d(4), act()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def unseen(model: nn.Sequential) -> tuple[int, int]:
    """Pixels in a row that the middle of the map looks at and not, by the gradient of an all-positive copy."""
    layers = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    x = torch.zeros(1, 1, 65, 65, requires_grad=True)
    y = x
    for layer in layers:
        y = F.conv2d(y, torch.ones_like(layer.weight), None, layer.stride, layer.padding, layer.dilation)
    y[0, 0, 32, 32].backward()
    row = x.grad[0, 0, 32] != 0
    places = row.nonzero().flatten()
    field = int(places[-1] - places[0]) + 1
    return field - len(places), field


@pytest.mark.parametrize(
    ("rates", "severity", "divisor", "gap"),
    [((2, 2, 2), "warning", 2, 2), ((2, 4, 8), "warning", 2, 4), ((2, 2), "info", 2, 2), ((1, 2, 9), "info", 1, 5)],
)
def test_rates_that_leave_holes(rates, severity, divisor, gap):
    model = stack(rates)
    (found,) = GriddingDilations().check(evidence(model))
    assert (found.id, found.severity, found.where) == ("gridding-dilations", severity, "1")
    assert (found.evidence["holes"], found.evidence["field"]) == unseen(model)
    assert found.evidence["holes"] > 0
    assert found.evidence["divisor"] == divisor
    assert found.evidence["gap"] == gap  # the paper's M2: at most 3 for kernels of 3, 5 for the rates 1, 2, 9


@pytest.mark.parametrize("rates", [(1, 2, 5), (1, 1, 2, 4, 8), (1, 2, 2), (2, 2, 1), (1, 1), (4,)])
def test_rates_that_leave_none_or_one_alone(rates):
    assert list(GriddingDilations().check(evidence(stack(rates)))) == []
    assert len(rates) == 1 or unseen(stack(rates))[0] == 0


def test_what_is_joined_with_something_is_no_row():
    class Joins(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=2, dilation=2) for _ in range(3))
            self.fc = nn.Linear(1, 2)

        def forward(self, x):
            for layer in self.rows:
                x = x + F.relu(layer(x))
            return self.fc(x.mean((2, 3)))

    assert list(GriddingDilations().check(evidence(Joins()))) == []


# ------------------------------------------------------------------------------------------------ checkerboard
def up(kernel: int, stride: int, *behind: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 2, kernel, stride), *behind)


def means(model, images, targets):
    return F.cross_entropy(model(images).mean((2, 3)), targets)


@pytest.mark.parametrize(
    ("kernel", "stride", "behind", "severity"),
    [
        (3, 2, (), "warning"),
        (3, 2, (nn.ReLU(), nn.Conv2d(2, 2, 3)), "info"),
        (2, 3, (nn.ReLU(), nn.Conv2d(2, 2, 3)), "warning"),
    ],
)
def test_kernels_that_the_stride_does_not_divide(kernel, stride, behind, severity):
    model = up(kernel, stride, *behind)
    (found,) = CheckerboardKernel().check(evidence(model, means))
    assert (found.id, found.severity, found.where) == ("checkerboard-kernel", severity, "2")
    better = found.evidence["better"][0]
    assert better % stride == 0
    assert (chequered(kernel, stride), chequered(better, stride)) == (True, False)


def chequered(kernel: int, stride: int) -> bool:
    """Whether a constant map comes out uneven, away from the border."""
    out = F.conv_transpose2d(torch.ones(1, 1, 12, 12), torch.ones(1, 1, kernel, kernel), stride=stride)
    inner = out[0, 0, kernel:-kernel, kernel:-kernel]
    return bool(inner.max() > inner.min())


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 2), (3, 1), (6, 3)])
def test_kernels_that_it_divides(kernel, stride):
    assert list(CheckerboardKernel().check(evidence(up(kernel, stride), means))) == []
    assert not chequered(kernel, stride)
