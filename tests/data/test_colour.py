from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as v2

from clearsight.data.colour import ColourChange, change_colour


@pytest.fixture
def image() -> torch.Tensor:
    # Inside the range, so that clipping at the end equals clipping after each step.
    generator = torch.Generator().manual_seed(1)
    return torch.randint(60, 180, (3, 32, 40), generator=generator, dtype=torch.uint8)


def difference(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.3])
def test_brightness_and_saturation_are_those_of_transforms_v2(image: torch.Tensor, factor: float) -> None:
    brighter = change_colour(image, ColourChange(brightness=factor))
    assert difference(brighter, v2.adjust_brightness(image, factor)) <= 1
    stronger = change_colour(image, ColourChange(saturation=factor))
    assert difference(stronger, v2.adjust_saturation(image, factor)) <= 1


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.2])
def test_contrast_is_that_of_transforms_v2(image: torch.Tensor, factor: float) -> None:
    # The mean comes from a sixteenth of the pixels, whose mean is within a grey level or two.
    changed = change_colour(image, ColourChange(contrast=factor))
    assert difference(changed, v2.adjust_contrast(image, factor)) <= 2


def test_all_at_once_is_one_after_the_other(image: torch.Tensor) -> None:
    one = change_colour(image, ColourChange(brightness=1.1, contrast=0.8, saturation=1.2))
    step = v2.adjust_saturation(v2.adjust_contrast(v2.adjust_brightness(image, 1.1), 0.8), 1.2)
    assert difference(one, step) <= 3


def test_neutral_values_change_nothing(image: torch.Tensor) -> None:
    assert torch.equal(change_colour(image, ColourChange()), image)
    assert difference(change_colour(image, ColourChange(hue=1.0)), image) <= 1


def test_hue_keeps_luma_and_turns_colours(image: torch.Tensor) -> None:
    turned = change_colour(image // 3 + 90, ColourChange(hue=0.2))
    luma = torch.tensor((0.299, 0.587, 0.114))
    before = torch.tensordot(luma, (image // 3 + 90).float(), 1)
    after = torch.tensordot(luma, turned.float(), 1)
    assert float((before - after).abs().max()) < 1.0
    back = change_colour(turned, ColourChange(hue=-0.2))
    assert difference(back, image // 3 + 90) <= 2
    assert difference(turned, image // 3 + 90) > 10


def test_grey_stays_grey() -> None:
    grey = torch.arange(0, 250, 10, dtype=torch.uint8).repeat(3, 4, 1)
    assert difference(change_colour(grey, ColourChange(saturation=1.9, hue=0.3)), grey) <= 1


def test_results_are_clipped_and_rounded() -> None:
    image = torch.tensor((0, 101, 200), dtype=torch.uint8).view(1, 1, 3)
    assert change_colour(image, ColourChange(brightness=1.5)).flatten().tolist() == [0, 152, 255]
    assert change_colour(image, ColourChange(brightness=0.0)).flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_have_no_colours(channels: int) -> None:
    image = torch.randint(0, 256, (channels, 8, 8), dtype=torch.uint8)
    assert torch.equal(change_colour(image, ColourChange(saturation=0.0, hue=0.5)), image)


def test_uint16() -> None:
    image = torch.tensor((0, 30001, 60000), dtype=torch.int32).view(1, 1, 3).to(torch.uint16)
    changed = change_colour(image, ColourChange(brightness=1.2))
    assert changed.dtype == torch.uint16
    assert changed.int().flatten().tolist() == [0, 36001, 65535]
