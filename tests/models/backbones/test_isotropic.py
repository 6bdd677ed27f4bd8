"""Pyramids of networks of one resolution: strides, sizes and values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clearsight.errors import ConfigError
from clearsight.models.backbones.isotropic import (
    isotropic_pyramid,
    isotropic_strides,
    nearest_level,
    pad_to_multiple,
    quarter_patch,
    whole_patches,
)


@pytest.mark.parametrize(
    ("patch", "level"), [(4, "c2"), (7, "c3"), (8, "c3"), (9, "c3"), (14, "c4"), (16, "c4"), (32, "c5"), (64, "c5")]
)
def test_the_nearest_level_is_so_in_ratio(patch: int, level: str) -> None:
    assert nearest_level(patch) == level


def test_strides_that_are_not_whole_are_left_out() -> None:
    assert isotropic_strides(16, "c4") == {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
    assert isotropic_strides(14, "c4") == {"c3": 7, "c4": 14, "c5": 28}
    assert isotropic_strides(7, "c3") == {"c3": 7, "c4": 14, "c5": 28}
    assert isotropic_strides(32, "c5") == {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
    assert isotropic_strides(9, "c3") == {"c3": 9, "c4": 18, "c5": 36}


def test_patches_of_small_images_are_a_quarter() -> None:
    assert [quarter_patch(patch, small_input=True) for patch in (32, 16, 14, 7, 1)] == [8, 4, 4, 2, 1]
    assert quarter_patch(7, small_input=False) == 7
    with pytest.raises(ConfigError, match="patch: must be at least 1, got 0"):
        nearest_level(0)


@pytest.mark.parametrize(("patch", "level"), [(16, "c4"), (7, "c3"), (32, "c5"), (4, "c2")])
@pytest.mark.parametrize("size", [(33, 97), (128, 64), (40, 41), (32, 32)])
def test_every_level_has_the_ceiling_of_its_size(patch: int, level: str, size: tuple[int, int]) -> None:
    images, strides = torch.zeros(2, 1, *size), isotropic_strides(patch, level)
    x = torch.randn(2, 3, *(-(-side // patch) for side in size))
    found = isotropic_pyramid(x, images, strides, level)
    assert list(found) == list(strides)
    for name, stride in strides.items():
        assert found[name].shape == (2, 3, *(-(-side // stride) for side in size)), name


def test_coarser_is_the_maximum_and_finer_is_between() -> None:
    x = torch.tensor([[[[1.0, 3.0, 5.0], [2.0, 8.0, -1.0], [0.0, 4.0, 7.0]]]])
    found = isotropic_pyramid(x, torch.zeros(1, 1, 48, 41), isotropic_strides(16, "c4"), "c4")
    assert found["c4"] is x
    assert found["c5"].tolist() == [[[[8.0, 5.0], [4.0, 7.0]]]]
    assert found["c3"][0, 0, 0].tolist() == [1.0, 1.5, 2.5, 3.5, 4.5, 5.0]
    assert found["c2"].shape[-2:] == (12, 11)
    whole = F.interpolate(F.interpolate(x, scale_factor=2, mode="bilinear"), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(found["c2"], whole[..., :11])


def test_images_are_filled_up_or_cut_to_whole_patches() -> None:
    images = torch.randn(1, 2, 17, 32)
    filled = pad_to_multiple(images, 16)
    assert filled.shape == (1, 2, 32, 32)
    assert torch.equal(filled[:, :, :17], images)
    assert not filled[:, :, 17:].any()
    assert pad_to_multiple(filled, 16) is filled
    assert torch.equal(whole_patches(images, 16), images[:, :, :16])
    assert torch.equal(whole_patches(images, 5), images[:, :, :15, :30])
