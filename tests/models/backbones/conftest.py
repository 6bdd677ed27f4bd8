"""What every family is held to: the numbers of its peer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from clearsight.models.base import Backbone


def randomise(model: nn.Module) -> None:
    """Norms' statistics and scales that are not one and zero, so that a norm left out shows."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.0)
            layer.bias.data.normal_(std=0.1)
            layer.running_mean.data.normal_(std=0.1)  # pyright: ignore[reportOptionalMemberAccess]
            layer.running_var.data.uniform_(0.8, 1.2)  # pyright: ignore[reportOptionalMemberAccess]


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = expected.abs().max().clamp(min=1e-12)
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance)


@pytest.fixture
def same_as_peer() -> Callable[..., None]:
    """`same_as_peer(ours, theirs, size=(64, 96))`: logits within 1e-5, gradients of every parameter and of the image
    within 1e-4, with the peer's weights through `adapt_weights`, nothing left over on either side.
    """

    def compare(
        ours: nn.Module,
        theirs: nn.Module,
        *,
        size: Sequence[int] = (64, 96),
        batch: int = 1,
        train: bool = False,
        logits: float = 1e-5,
        gradients: float = 1e-4,
        double: bool = False,
    ) -> None:
        assert isinstance(ours, Backbone)
        theirs = copy.deepcopy(theirs)
        randomise(theirs)
        adapted = ours.adapt_weights(theirs.state_dict())
        head = nn.Linear(ours.embedding, adapted["head.weight"].shape[0])
        head.load_state_dict({name: adapted.pop(f"head.{name}") for name in ("weight", "bias")})
        assert ours.load_state_dict(adapted) == ([], [])
        assert ours.adapt_weights(ours.state_dict()).keys() == ours.state_dict().keys()  # own names stay
        images = torch.randn(batch, ours.in_channels, *size)
        if double:
            ours, theirs, head, images = ours.double(), theirs.double(), head.double(), images.double()
        ours.train(train)
        theirs.train(train)
        mine, other = images.clone().requires_grad_(), images.clone().requires_grad_()
        found, expected = head(ours.embed(mine)), theirs(other)  # pyright: ignore[reportCallIssue]
        close(found, expected, logits)
        wanted = torch.randn_like(expected)
        (found * wanted).sum().backward()
        (expected * wanted).sum().backward()
        assert mine.grad is not None
        assert other.grad is not None
        close(mine.grad, other.grad, gradients)
        theirs_gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
        renamed = ours.adapt_weights(theirs_gradients)
        own = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
        own |= {f"head.{name}": p.grad for name, p in head.named_parameters() if p.grad is not None}
        assert own.keys() == renamed.keys()
        for name, gradient in own.items():
            close(gradient, renamed[name], gradients)

    return compare


@pytest.fixture
def has_levels() -> Callable[..., None]:
    """`has_levels(backbone, (97, 65))`: every level has the promised channels and `ceil(side / stride)` pixels."""

    def check(backbone: nn.Module, *sizes: tuple[int, int], batch: int = 1) -> None:
        assert isinstance(backbone, Backbone)
        backbone.eval()
        for size in sizes:
            with torch.no_grad():
                found = backbone.features(torch.randn(batch, backbone.in_channels, *size))
                pooled = backbone.embed(torch.randn(batch, backbone.in_channels, *size))
            assert list(found) == list(backbone.channels) == list(backbone.strides)
            for level, feature in found.items():
                sides = tuple(-(-side // backbone.strides[level]) for side in size)
                assert feature.shape == (batch, backbone.channels[level], *sides), (level, size)
            assert pooled.shape == (batch, backbone.embedding)

    return check
