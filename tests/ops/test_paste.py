"""Masks are pasted as torchvision pastes them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from clearsight.errors import ShapeError
from clearsight.ops import paste
from clearsight.ops.paste import paste_masks

SIZE = (75, 90)
SIDES = {
    "small": (4.0, 30.0),
    "large": (40.0, 90.0),
    "tiny": (0.01, 2.0),
    "larger than the image": (100.0, 900.0),
}


def random_boxes(count: int, least: float, most: float) -> Tensor:
    """Boxes that share a pixel with the image at least, many of them partly outside."""
    height, width = SIZE
    centre = torch.rand(count, 2) * torch.tensor([width - 1.0, height - 1.0]) + 0.5
    half = (least + torch.rand(count, 2) * (most - least)) / 2
    return torch.cat((centre - half, centre + half), dim=1)


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("side", [28, 14, 1])
def test_as_torchvision(sides: str, side: int, *, clipped: bool) -> None:
    boxes = random_boxes(40, *SIDES[sides])
    if clipped:
        boxes = boxes.clamp(min=0).minimum(torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]]))
    probs = torch.rand(40, side, side)
    expected = paste_masks_in_image(probs[:, None], boxes, SIZE)[:, 0]
    assert (expected > 0).any()
    found = paste_masks(probs, boxes, SIZE, threshold=None)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(found > 0, expected > 0)
    for threshold in (0.5, 0.3):
        mask = paste_masks(probs, boxes, SIZE, threshold=threshold)
        assert mask.dtype == torch.bool
        assert torch.equal(mask, expected > threshold)
    expected = paste_masks_in_image(probs.double()[:, None], boxes, SIZE)[:, 0]
    torch.testing.assert_close(paste_masks(probs.double(), boxes, SIZE, threshold=None), expected, rtol=0, atol=1e-11)


def test_by_hand() -> None:
    # With its border a 2 by 2 mask has 4 by 4 values; the box from 2 to 6 grows to 0 to 8, whose last pixel, 8, counts:
    # 9 pixels of 4/9 each, and the middle one, 4, lies in the middle.
    probs = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    found = paste_masks(probs, torch.tensor([[2.0, 2.0, 6.0, 6.0]]), (10, 12), threshold=None)[0]
    assert found[4, 4] == 0.5
    torch.testing.assert_close(found[4, 2], torch.tensor(0.5 * (4 / 9 * 2.5 - 0.5)))  # 0.6111 of the way to the mask
    assert not found[9].any()
    assert not found[:, 9:].any()
    assert not paste_masks(probs, torch.tensor([[2.0, 2.0, 6.0, 6.0]]), (10, 12))[0, 4, 4]  # one half does not exceed


def test_boxes_of_every_size_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = torch.cat([random_boxes(15, *sides) for sides in SIDES.values()])
    boxes = boxes[torch.randperm(60)]
    probs = torch.rand(60, 28, 28)
    expected = paste_masks(probs, boxes, SIZE)
    assert torch.equal(expected, paste_masks_in_image(probs[:, None], boxes, SIZE)[:, 0] > 0.5)
    assert torch.equal(expected, torch.cat([paste_masks(p[None], b[None], SIZE) for p, b in zip(probs, boxes)]))  # noqa: B905
    monkeypatch.setattr(paste, "WINDOW_PIXELS", 500)
    assert torch.equal(paste_masks(probs, boxes, SIZE), expected)


@pytest.mark.parametrize(
    "box",
    [
        [-50.0, 10, -20, 30],
        [10.0, -50, 30, -20],
        [200.0, 10, 220, 30],
        [10.0, 200, 30, 220],
        [30.0, 10, 20, 30],
        [10.0, 30, 20, 20],
        [float("nan"), 10, 20, 30],
        [10.0, 10, 20, float("inf")],
    ],
)
def test_what_gives_an_empty_mask(box: list[float]) -> None:
    probs = torch.ones(2, 28, 28)
    mask = paste_masks(probs, torch.tensor([box, [10.0, 10, 20, 20]]), SIZE)
    assert not mask[0].any()
    assert mask[1, 10:20, 10:20].all()


def test_edges() -> None:
    assert paste_masks(torch.rand(0, 28, 28), torch.zeros(0, 4), SIZE).shape == (0, *SIZE)
    point = torch.tensor([[10.0, 10.0, 10.0, 10.0]])  # torchvision gives a pixel to a box without area
    expected = paste_masks_in_image(torch.ones(1, 1, 28, 28), point, SIZE)[:, 0]
    assert torch.equal(paste_masks(torch.ones(1, 28, 28), point, SIZE, threshold=None), expected)
    assert expected.sum() == 1
    half = paste_masks(torch.rand(3, 28, 28).bfloat16(), random_boxes(3, 20, 40), SIZE, threshold=None)
    assert half.dtype == torch.float32
    unknown = torch.rand(1, 28, 28)
    unknown[0, 14, 14] = float("nan")
    box = torch.tensor([[10.0, 10.0, 60.0, 60.0]])
    found = paste_masks(unknown, box, SIZE, threshold=None)
    assert torch.equal(found, paste_masks(unknown.nan_to_num(0.0), box, SIZE, threshold=None))


def test_what_is_refused() -> None:
    for probs, boxes in ((torch.rand(2, 4, 5), torch.rand(2, 4)), (torch.rand(2, 4, 4), torch.rand(3, 4))):
        with pytest.raises(ShapeError, match="paste_masks: expected"):
            paste_masks(probs, boxes, SIZE)
