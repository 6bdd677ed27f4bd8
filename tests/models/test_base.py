"""The contract of a model can be asked of any module."""

from __future__ import annotations

from torch import nn

from clearsight.models.base import Backbone, Detects, Model


def test_a_plain_module_is_no_model() -> None:
    layer = nn.Linear(2, 2)
    assert not isinstance(layer, Model)
    assert not isinstance(layer, Detects)
    assert not isinstance(layer, Backbone)
