"""The heads: torchvision's numbers, names and initial weights."""

from __future__ import annotations

import torch
from torchvision.models.detection.ssd import SSDHead as Theirs

from clearsight.models.detect.ssd_head import SsdHead


def test_is_torchvisions() -> None:
    theirs, ours = Theirs([8, 16], [4, 6], 6), SsdHead([8, 16], [4, 6], 5)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    levels = [torch.randn(2, 8, 6, 4), torch.randn(2, 16, 3, 2)]
    expected = theirs(levels)
    for form in (torch.contiguous_format, torch.channels_last):
        logits, deltas = ours.to(memory_format=form)([level.contiguous(memory_format=form) for level in levels])
        torch.testing.assert_close(logits, expected["cls_logits"])
        torch.testing.assert_close(deltas, expected["bbox_regression"])


def test_initial_weights() -> None:
    head = SsdHead([64], [4], 20)
    for scoring, outputs in ((head.classification_head, 84), (head.regression_head, 16)):
        layer = scoring.module_list[0]
        bound = (6 / (9 * (64 + outputs))) ** 0.5  # Xavier's uniform weights
        assert 0.98 * bound < layer.weight.abs().max().item() <= bound
        assert layer.bias.abs().max().item() == 0
