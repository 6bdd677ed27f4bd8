"""RepVGG: timm's names and numbers, in both forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from clearsight.deploy.fuse import fuse
from clearsight.errors import ShapeError
from clearsight.models.backbones.repvgg import REPVGGS, RepVgg

SMALL = {"depths": (1, 2, 2, 1), "widths": (8, 16, 24, 32)}


def test_numbers_are_timms(same_as_peer: Callable[..., None]) -> None:
    same_as_peer(REPVGGS["repvgg_a0"](), timm.create_model("repvgg_a0"), size=(65, 47))


def test_numbers_in_training_are_timms(same_as_peer: Callable[..., None]) -> None:
    # float64: batch statistics of few values blow up the rounding of float32
    same_as_peer(REPVGGS["repvgg_a0"](), timm.create_model("repvgg_a0"), batch=2, train=True, double=True)


def test_the_form_for_use_is_timms() -> None:
    theirs = timm.create_model("repvgg_a0").eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.uniform_(0.2, 0.6)
    for layer in list(theirs.modules()):
        if hasattr(layer, "reparameterize"):
            layer.reparameterize()
    ours = REPVGGS["repvgg_a0"](deployed=True).eval()
    adapted = ours.adapt_weights(theirs.state_dict())
    head = {name: adapted.pop(f"head.{name}") for name in ("weight", "bias")}
    assert ours.load_state_dict(adapted) == ([], [])
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = theirs(x), nn.functional.linear(ours.embed(x), **head)
    torch.testing.assert_close(found / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", REPVGGS)
def test_names_and_counts_are_timms(name: str) -> None:
    with torch.device("meta"):
        theirs, ours = timm.create_model(name), REPVGGS[name]()
    adapted = ours.adapt_weights(theirs.state_dict())
    own = ours.state_dict()
    assert adapted.keys() - own.keys() == {"head.weight", "head.bias"}
    assert all(adapted[key].shape == value.shape for key, value in own.items())


@pytest.mark.parametrize(
    ("name", "millions"),
    [("a0", 8.30), ("a1", 12.78), ("a2", 25.49), ("b0", 14.33), ("b1", 51.82), ("b2", 80.31), ("b3", 110.96)],
)
def test_parameters_are_the_papers(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = REPVGGS[f"repvgg_{name}"](deployed=True)
    count = sum(p.numel() for p in model.parameters()) + 1000 * (model.embedding + 1)
    assert count / 1e6 == pytest.approx(millions, abs=0.02)  # its table 4 does not count all biases


def test_both_forms_give_the_same() -> None:
    model = RepVgg(**SMALL)
    model.train()(torch.randn(4, 3, 64, 64))  # statistics of something
    report = fuse(model)
    assert len(report.fused) == 7
    assert report.kept == ()
    assert report.difference is not None
    assert report.difference < 1e-5
    assert report.model.state_dict().keys() == RepVgg(**SMALL, deployed=True).state_dict().keys()
    model.eval()
    x = torch.randn(1, 3, 50, 70)
    for level, feature in model.features(x).items():
        close = report.model.features(x)[level] - feature  # pyright: ignore[reportCallIssue]
        assert close.abs().max() < 1e-5 * feature.abs().max()


@pytest.mark.parametrize("small_input", [False, True])
@pytest.mark.parametrize("deployed", [False, True])
def test_levels(small_input: bool, deployed: bool, has_levels: Callable[..., None]) -> None:
    model = RepVgg(**SMALL, channels=2, small_input=small_input, deployed=deployed)
    has_levels(model, (97, 65), (32, 32), (64, 33))
    assert model.strides["c5"] == (8 if small_input else 32)


def test_it_starts_as_timms() -> None:
    torch.manual_seed(0)
    ours, theirs = REPVGGS["repvgg_a0"](), timm.create_model("repvgg_a0")
    for name, value in ours.named_parameters():
        other = theirs.get_parameter(name)
        if value.numel() >= 1000:
            assert value.std().item() == pytest.approx(other.std().item(), rel=0.1)
            assert value.mean().item() == pytest.approx(other.mean().item(), abs=0.02)
        assert name.endswith("conv.weight") or (0.05 < other.std().item() < 0.15 and 0.05 < value.std().item() < 0.15)


@pytest.mark.parametrize("norm", ["batch", "group", "frozen_batch"])
def test_any_norm_and_channels_give_gradients(norm: str) -> None:
    model = RepVgg(**SMALL, norm=norm, channels=5)
    model(torch.randn(2, 5, 64, 64)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert len(fuse(model).kept) == (23 if norm == "group" else 0)  # 7 blocks, their 14 branches and 2 identities


def test_bad_images() -> None:
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        RepVgg(**SMALL).features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="31×64 are smaller than its largest stride, 32"):
        RepVgg(**SMALL).embed(torch.zeros(1, 3, 31, 64))
