"""The heads: order of anchors, shared weights, the prior."""

from __future__ import annotations

import torch
from torchvision.models.detection.retinanet import RetinaNetHead as Theirs

from clearsight.models.detect.retinanet_head import RetinaNetHead


def test_is_torchvisions() -> None:
    theirs, ours = Theirs(16, 9, 5), RetinaNetHead(16, 9, 5)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    levels = [torch.randn(2, 16, 6, 4), torch.randn(2, 16, 3, 2)]
    expected = theirs(levels)
    for form in (torch.contiguous_format, torch.channels_last):
        logits, deltas = ours.to(memory_format=form)([level.contiguous(memory_format=form) for level in levels])
        torch.testing.assert_close(logits, expected["cls_logits"])
        torch.testing.assert_close(deltas, expected["bbox_regression"])


def test_channels_last_logits_are_not_copied() -> None:
    head = RetinaNetHead(16, 9, 5).to(memory_format=torch.channels_last)
    raw = head.classification_head.cls_logits(torch.randn(2, 16, 6, 4).contiguous(memory_format=torch.channels_last))
    assert raw.permute(0, 2, 3, 1).reshape(2, -1, 5).data_ptr() == raw.data_ptr()


def test_the_prior_and_its_return() -> None:
    head = RetinaNetHead(16, 9, 5, convs=1).classification_head
    level = [torch.randn(1, 16, 8, 8)]
    assert abs(head(level).sigmoid().mean().item() - 0.01) < 1e-3
    torch.nn.init.constant_(head.cls_logits.bias, 3.0)
    head.reset_prior()
    assert abs(head(level).sigmoid().mean().item() - 0.01) < 1e-3


def test_no_convolutions() -> None:
    logits, deltas = RetinaNetHead(8, 2, 3, convs=0)([torch.randn(1, 8, 2, 2)])
    assert logits.shape == (1, 8, 3)
    assert deltas.shape == (1, 8, 4)
