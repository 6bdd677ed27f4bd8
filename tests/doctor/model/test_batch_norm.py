"""Norms with too few values: small batches, single images, single values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.batch_norm import OneValueNorm, TinyBatchNorm
from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.rule import examine
from clearsight.nn.frozen_norm import FrozenBatchNorm
from clearsight.nn.instance_norm import InstanceNorm


def evidence(model, images=None, recipe=None, counts=()) -> ModelEvidence:
    images = torch.randn(2, 1, 12, 12) if images is None else images
    return ModelEvidence(
        model=model,
        images=images,
        targets=torch.arange(len(images)) % 4,
        loss=lambda m, x, t: F.cross_entropy(m(x), t),
        take=lambda t, i: t[list(i)],
        task="classification",
        class_counts=counts,
        recipe=recipe or {},
    )


def net(norm) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


# ------------------------------------------------------------------------------------------------ few images
@pytest.mark.parametrize("size", [1, 2, 7])
def test_few_images(size):
    (found,) = TinyBatchNorm().check(evidence(net(nn.BatchNorm2d(8)), torch.randn(size, 1, 8, 8)))
    assert (found.id, found.severity, found.where) == ("tiny-batch-norm", "warning", "1")
    assert (found.evidence["images"], found.evidence["values"]) == (size, size * 36)


def test_enough_images_or_another_norm():
    assert list(TinyBatchNorm().check(evidence(net(nn.BatchNorm2d(8)), torch.randn(8, 1, 8, 8)))) == []
    held = nn.BatchNorm2d(8).eval()
    held.train = lambda mode=True: held
    for norm in (nn.GroupNorm(2, 8), FrozenBatchNorm(8), held, nn.Identity()):
        assert list(TinyBatchNorm().check(evidence(net(norm)))) == []


def test_large_maps_have_values_enough_not_to_warn():
    (found,) = TinyBatchNorm().check(evidence(net(nn.BatchNorm2d(8)), torch.randn(2, 1, 32, 32)))
    assert (found.severity, found.evidence["values"]) == ("info", 2 * 900)


def test_the_batch_of_the_recipe():
    model = net(nn.BatchNorm2d(8))
    rule = TinyBatchNorm()
    assert list(rule.check(evidence(model, recipe={"loader": {"batch_size": 16}}))) == []
    recipe = {"loader": {"batch_size": 16}, "trainer": {"devices": 4}}
    (found,) = rule.check(evidence(model, recipe=recipe))
    assert found.evidence["images"] == 4
    assert found.remedy == {"loader.batch_size": 64}
    assert (
        list(rule.check(evidence(model, recipe={"loader": {"batch_size": 16}, "trainer": {"devices": "auto"}}))) == []
    )


def test_a_last_batch_of_one():
    model = net(nn.BatchNorm2d(8))
    kept = {"loader": {"batch_size": 16, "drop_last": False}}
    (found,) = TinyBatchNorm().check(evidence(model, recipe=kept, counts=(20, 29)))
    assert (found.severity, found.where, found.remedy) == (
        "warning", "loader.drop_last", {"loader.drop_last": True}
    )  # fmt: skip
    assert list(TinyBatchNorm().check(evidence(model, recipe=kept, counts=(20, 30)))) == []
    dropped = {"loader": {"batch_size": 16, "drop_last": True}}
    assert list(TinyBatchNorm().check(evidence(model, recipe=dropped, counts=(20, 29)))) == []


# ------------------------------------------------------------------------------------------------ one value
def pooled(norm) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))


@pytest.mark.parametrize(
    ("norm", "images", "stops"),
    [
        (nn.BatchNorm2d(8), 1, True),
        (nn.InstanceNorm2d(8), 4, True),
        (InstanceNorm(8), 4, True),
        (nn.GroupNorm(8, 8), 4, False),
        (nn.LayerNorm(1), 4, False),
    ],
)
def test_one_value(norm, images, stops):
    item = evidence(pooled(norm), torch.randn(images, 1, 8, 8))
    seen = examine([OneValueNorm()], item)
    (found,) = seen.findings
    assert (found.id, found.severity, found.where) == ("one-value-norm", "error", "2")
    assert found.evidence["norms"] == {"2": [images, 8, 1, 1]}
    assert bool(item.flow.stopped) == stops
    if not stops:  # nothing of the image passes
        out = item.model.train()(item.images)
        torch.testing.assert_close(out, out[:1].expand_as(out))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.GroupNorm(4, 8), nn.LayerNorm([8, 1, 1])])
def test_two_values_are_enough(norm):
    item = evidence(pooled(norm), torch.randn(2, 1, 8, 8))
    assert examine([OneValueNorm()], item).passed == ("one-value-norm",)


def test_another_error_is_said():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(3, 4))
    seen = examine([OneValueNorm(), TinyBatchNorm()], evidence(model))
    assert seen.findings == []
    assert len(seen.silent) == 2
    assert all("shapes cannot be multiplied" in said for said in seen.silent.values())
