"""Levels of a neck have the names of its strides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.measure.levels import listen_to_levels


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.strides = {"c3": 8}

    def features(self, x):
        return {"c3": x}


class Neck(nn.Module):
    def __init__(self):
        super().__init__()
        self.strides = {"p3": 8, "p4": 16}

    def forward(self, features):
        return [features["c3"], features["c3"][..., ::2]]


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.neck = Backbone(), Neck()

    def forward(self, x):
        return self.neck(self.backbone.features(x))


def test_backbone_first_then_neck():
    model, heard = Detector(), []
    with listen_to_levels(model, lambda name, level: heard.append((name, level.shape[-1]))):
        model(torch.rand(1, 1, 4, 4))
    assert heard == [("c3", 4), ("p3", 4), ("p4", 2)]
    assert not model.neck._forward_hooks


def test_all_is_as_before_after_an_error():
    model = Detector()
    with pytest.raises(TypeError), listen_to_levels(model, lambda name, level: None):
        model()
    assert "features" not in vars(model.backbone)
    assert not model.neck._forward_hooks
