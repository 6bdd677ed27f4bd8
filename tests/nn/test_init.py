"""Initial weights of whole models: what is filled by which rule, what is left alone, and the prior."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from clearsight.errors import ConfigError, RangeError
from clearsight.nn.init import Initialised, init, kaiming_init, prior_bias
from clearsight.nn.init_rules import INIT_RULES, Fans, Rule, kaiming, uniform
from clearsight.nn.upsample import PixelShuffle


def test_kaiming_by_fan_out() -> None:
    model = nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.GroupNorm(2, 128))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    assert kaiming_init(model) is model
    convolution = model[0]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert convolution.weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert convolution.bias is not None
    assert convolution.bias.abs().max() == 0
    for layer in (model[1], model[2]):
        torch.testing.assert_close(layer.weight, torch.ones(128))
        torch.testing.assert_close(layer.bias, torch.zeros(128))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9])
def test_prior(p: float) -> None:
    assert torch.sigmoid(torch.tensor(prior_bias(p))).item() == pytest.approx(p)


@pytest.mark.parametrize("p", [0.0, 1.0, -1.0])
def test_prior_out_of_range(p: float) -> None:
    with pytest.raises(RangeError, match=r"must be in \(0, 1\)"):
        prior_bias(p)


# ------------------------------------------------------------------------------------------------ whole models
class Odd(nn.Module):
    """One of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((1, 8), 7.0))
        self.convs = nn.ModuleList(
            [nn.Conv1d(4, 8, 3), nn.Conv2d(4, 8, 3), nn.Conv3d(4, 8, 3), nn.ConvTranspose2d(4, 8, 2, stride=2)]
        )
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.RMSNorm(8)]
        )
        self.words = nn.Embedding(20, 8, padding_idx=3)
        self.prelu = nn.PReLU()
        self.recurrent = nn.GRU(8, 8)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.plain = nn.BatchNorm2d(8, affine=False)
        self.head = nn.Linear(8, 20)
        self.head.weight = self.words.weight  # tied
        for parameter in self.parameters():
            nn.init.constant_(parameter, 7.0)
        for norm in (self.norms[0], self.plain):
            norm.running_mean.fill_(7.0)


def test_every_parameter_is_accounted_for() -> None:
    model = Odd()
    rows = dict(init(model, "kaiming"))
    assert list(rows) == [name for name, _ in model.named_parameters()]
    found: dict[str, list[str]] = {}
    for name, rule in rows.items():
        found.setdefault(rule, []).append(name)
    assert found == {
        "kaiming normal, fan-in, relu": [f"convs.{i}.weight" for i in range(4)] + ["words.weight"],
        "ones": [f"norms.{i}.weight" for i in range(5)],
        "zeros": [f"convs.{i}.bias" for i in range(4)] + [f"norms.{i}.bias" for i in range(4)] + ["head.bias"],
        "left alone": [
            "token",
            "prelu.weight",
            *(f"recurrent.{name}" for name, _ in model.recurrent.named_parameters()),
            "normed.bias",
            "normed.parametrizations.weight.original0",
            "normed.parametrizations.weight.original1",
        ],
    }
    for name, value in model.named_parameters():
        if rows[name] == "left alone":
            assert (value == 7).all()
        elif rows[name] in ("ones", "zeros"):
            assert (value == (rows[name] == "ones")).all()
        else:
            assert value.std() > 0
            assert value.abs().max() < 7
    assert not model.words.weight[3].any()
    assert not model.norms[0].running_mean.any()
    assert not model.plain.running_mean.any()


@pytest.mark.parametrize("name", list(INIT_RULES))
def test_every_rule_by_name_and_the_same_from_the_same_seed(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 40, 5), nn.BatchNorm2d(40), nn.ConvTranspose2d(40, 6, 4), nn.Linear(6, 50))
    torch.manual_seed(5)
    rows = init(model, name)
    assert rows[0] == Initialised("0.weight", INIT_RULES[name].name)
    first = [parameter.clone() for parameter in model.parameters()]
    init(model, name)
    assert name == "zeros" or not torch.equal(model[0].weight, first[0])
    torch.manual_seed(5)
    init(model, INIT_RULES[name])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), first, strict=True))


def test_fans_reach_the_rule() -> None:
    seen: list[tuple[tuple[int, ...], Fans]] = []
    rule = Rule("noted", lambda weight, of: seen.append((tuple(weight.shape), of)))
    init(nn.Sequential(nn.ConvTranspose2d(4, 8, 4, stride=2, groups=2), nn.Linear(3, 5)), rule)
    assert seen == [((4, 4, 4, 4), Fans(8, 64, 2)), ((5, 3), Fans(3, 5))]


def test_other_numbers_than_those_by_name() -> None:
    model = nn.Sequential(nn.Linear(400, 300))
    init(model, uniform(2.0))
    assert 0.0999 < model[0].weight.abs().max() <= 0.1
    init(model, kaiming(fan="out", activation="leaky_relu", slope=1.0))
    assert model[0].weight.std().item() == pytest.approx(300**-0.5, rel=0.01)


def test_pixel_shuffles_stay_free_of_chequerboards() -> None:
    model = nn.Sequential(PixelShuffle(4))
    rows = dict(init(model, "xavier"))
    assert rows["0.conv.weight"] == "xavier uniform, gain 1, repeated"
    weight = model[0].conv.weight
    assert torch.equal(weight, weight[::4].repeat_interleave(4, 0))
    out = model(torch.randn(1, 4, 5, 5))
    torch.testing.assert_close(out, F.interpolate(out[..., ::2, ::2], scale_factor=2))


# ------------------------------------------------------------------------------------------------ last layers
def test_the_classifier_starts_at_the_prior() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3))
    rows = dict(init(model, "normal", classifier="2", prior=0.02))
    assert rows["2.bias"] == "prior 0.02"
    assert rows["0.bias"] == "zeros"
    probability = model(torch.randn(4, 3, 9, 9)).sigmoid()
    torch.testing.assert_close(probability.mean().item(), 0.02, rtol=0.05, atol=0)
    init(model, classifier=["0", "2"])
    assert model[0].bias.tolist() == pytest.approx([prior_bias(0.01)] * 8)


class Block(nn.Module):
    """x plus a branch."""

    def __init__(self, last: nn.Module | None) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 3, padding=1), last

    @property
    def last_norm(self) -> nn.Module | None:
        return self.bn

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv(x)
        return x + (branch if self.bn is None else self.bn(branch))


def test_blocks_start_as_the_identity() -> None:
    model = nn.Sequential(Block(nn.BatchNorm2d(8)), Block(nn.GroupNorm(2, 8)))
    x = torch.randn(2, 8, 6, 6)
    init(model)
    assert not torch.allclose(model(x), x)
    rows = dict(init(model, zero_last_norm=True))
    assert torch.equal(model(x), x)
    assert [rows[f"{i}.bn.weight"] for i in range(2)] == ["zeros, last norm"] * 2
    model(x).square().sum().backward()
    assert all(block.bn.weight.grad.abs().min() > 0 for block in model)  # they learn from there
    init(nn.Sequential(Block(None), model), zero_last_norm=True)  # a block may have none


@pytest.mark.parametrize("names", ["layer1.0.bn2", ["layer1.0.bn2", "layer2.1.bn2"]])
def test_last_norms_by_name(names: str | list[str]) -> None:
    model = resnet18()
    rows = init(model, "kaiming_fan_out", classifier="fc", zero_last_norm=names)
    zero = {row.parameter for row in rows if row.rule == "zeros, last norm"}
    assert zero == {f"{name}.weight" for name in ([names] if isinstance(names, str) else names)}
    assert all(row.rule != "left alone" for row in rows)
    assert not model.layer1[0].bn2.weight.any()
    assert model.layer1[1].bn2.weight.all()


def test_what_does_not_fit_is_refused_before_anything_changes() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4, affine=False), Block(nn.Identity()))
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ConfigError, match="there is no rule named 'kaming'; did you mean 'kaiming'"):
        init(model, "kaming")
    with pytest.raises(ConfigError, match=r"classifier: there is no layer named '2.con'; did you mean '2.conv'"):
        init(model, classifier="2.con")
    with pytest.raises(ConfigError, match=r"classifier: 0 \(Linear\) has no bias"):
        init(model, classifier="0")
    with pytest.raises(ConfigError, match=r"zero_last_norm: 1 \(BatchNorm1d\) has no weight"):
        init(model, zero_last_norm=["1"])
    with pytest.raises(ConfigError, match=r"the last norm of '2': Identity \(Identity\) has no weight"):
        init(model, zero_last_norm=True)
    with pytest.raises(ConfigError, match="no block of the model has a last_norm"):
        init(model[0], zero_last_norm=True)
    with pytest.raises(RangeError, match=r"p: must be in \(0, 1\), got 1"):
        init(model, prior=1.0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
