"""The heads: torchvision's numbers and names, the prior, and levels of one pixel."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.fcos import FCOSHead as Theirs

from clearsight.models.detect.fcos_head import FcosHead


def test_is_torchvisions() -> None:
    theirs, ours = Theirs(64, 1, 5), FcosHead(64, 5)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    levels = [torch.randn(2, 64, 6, 4), torch.randn(2, 64, 3, 2)]
    expected = theirs(levels)
    for form in (torch.contiguous_format, torch.channels_last):
        logits, distances, central = ours.to(memory_format=form)(
            [level.contiguous(memory_format=form) for level in levels]
        )
        torch.testing.assert_close(logits, expected["cls_logits"])
        torch.testing.assert_close(distances, expected["bbox_regression"])
        torch.testing.assert_close(central[..., None], expected["bbox_ctrness"])


def test_initial_weights_are_spread_as_torchvisions() -> None:
    theirs, ours = dict(Theirs(64, 1, 20).named_parameters()), FcosHead(64, 20)
    for name, value in ours.named_parameters():
        assert value.mean().item() == pytest.approx(theirs[name].mean().item(), abs=1e-3)
        assert value.std(correction=0).item() == pytest.approx(theirs[name].std(correction=0).item(), rel=0.1, abs=1e-6)


def test_channels_last_logits_are_not_copied() -> None:
    head = FcosHead(16, 5).classification_head.to(memory_format=torch.channels_last)
    level = torch.randn(2, 16, 6, 4).contiguous(memory_format=torch.channels_last)
    assert head.conv(level).is_contiguous(memory_format=torch.channels_last)
    raw = head.cls_logits(level)
    assert raw.permute(0, 2, 3, 1).flatten(1, 2).data_ptr() == raw.data_ptr()


def test_the_prior_and_its_return() -> None:
    head = FcosHead(16, 5, convs=1).classification_head
    level = [torch.randn(1, 16, 8, 8)]
    assert abs(head(level).sigmoid().mean().item() - 0.01) < 1e-3
    torch.nn.init.constant_(head.cls_logits.bias, 3.0)
    head.reset_prior()
    assert abs(head(level).sigmoid().mean().item() - 0.01) < 1e-3


@pytest.mark.parametrize("channels", [16, 32, 48, 256])
def test_a_level_of_one_pixel_can_be_normalised(channels: int) -> None:
    head = FcosHead(channels, 2, convs=1)
    assert torch.isfinite(head([torch.randn(1, channels, 1, 1)])[0]).all()
    groups = head.regression_head.conv[1].num_groups
    assert groups == {16: 8, 32: 16, 48: 16, 256: 32}[channels]


def test_other_norms_and_no_convolutions() -> None:
    head = FcosHead(8, 2, convs=2, norm="batch")
    assert isinstance(head.classification_head.conv[4], torch.nn.BatchNorm2d)
    logits, distances, central = FcosHead(8, 3, convs=0)([torch.randn(1, 8, 2, 2)])
    assert (logits.shape, distances.shape, central.shape) == ((1, 4, 3), (1, 4, 4), (1, 4))
