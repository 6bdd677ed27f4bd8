"""The mask head: targets as torchvision crops them, and a loss that counts what it should."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import maskrcnn_loss, project_masks_on_boxes

from clearsight.errors import ConfigError
from clearsight.models.detect.rois import Rois
from clearsight.models.segment import mask_head
from clearsight.models.segment.mask_head import MaskHead, crop_masks
from clearsight.types import Targets


def boxes_in(count: int, height: int, width: int) -> Tensor:
    low = torch.rand(count, 2) * torch.tensor([width * 0.8, height * 0.8]) - 3
    return torch.cat((low, low + 0.3 + torch.rand(count, 2) * torch.tensor([width * 0.6, height * 0.6])), dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets_are_torchvisions(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.rand(7, 50, 70) > 0.5
    boxes = boxes_in(40, 50, 70).to(dtype)
    index = torch.randint(0, 7, (40,))
    expected = project_masks_on_boxes(masks, boxes, index, 28)
    assert 0.3 < expected.mean() < 0.6
    found = crop_masks(masks, boxes, index, 28)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    monkeypatch.setattr(mask_head, "CROPPED_PIXELS", 50 * 70 * 2)  # two masks at a time
    assert torch.equal(crop_masks(masks, boxes, index, 28), found)


def test_a_square_cropped_by_hand() -> None:
    masks = torch.zeros(1, 20, 20, dtype=torch.bool)
    masks[0, 4:12, 4:12] = True
    seen = crop_masks(masks, torch.tensor([[3.5, 3.5, 11.5, 11.5], [12.0, 12, 18, 18]]), torch.tensor([0, 0]), 4)
    assert torch.equal(seen[0], torch.ones(4, 4))  # without the half-pixel shift the square lies from 3.5 to 11.5
    assert not seen[1].any()
    assert crop_masks(masks, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 4).shape == (0, 4, 4)


def scene() -> tuple[MaskHead, list[Tensor], Rois, Targets]:
    head = MaskHead(6, 3, strides=(4, 8), width=8, convs=2, size=5)
    head.mask_fcn_logits.weight.data.normal_()
    levels = [torch.rand(2, 6, 16, 24), torch.rand(2, 6, 8, 12)]
    targets = Targets(
        boxes=torch.tensor([[4.0, 4, 40, 50], [10, 10, 30, 30], [50, 20, 90, 60]]),
        labels=torch.tensor([0, 2, 1]),
        image=torch.tensor([0, 0, 1]),
        masks=torch.rand(3, 64, 96) > 0.5,
    )
    rois = Rois(
        torch.tensor([[5.0, 5, 38, 52], [12, 9, 33, 31], [1, 1, 9, 9], [48, 22, 88, 63], [60, 40, 90, 60]]),
        torch.tensor([0, 0, 0, 1, 1]),
        torch.tensor([0, 1, -1, 2, -1]),
    )
    return head, levels, rois, targets


def test_loss_is_torchvisions() -> None:
    head, levels, rois, targets = scene()
    assert targets.masks is not None
    found = head.loss(levels, rois, targets)
    holds = torch.tensor([0, 1, 3])
    logits = head(levels, rois.boxes[holds], rois.image[holds])
    expected = maskrcnn_loss(
        torch.cat((torch.zeros(3, 1, 10, 10), logits), dim=1),  # there the background has a mask too
        [rois.boxes[:2], rois.boxes[3:4]],
        [targets.masks[:2], targets.masks[2:]],
        [targets.labels[:2] + 1, targets.labels[2:] + 1],
        [torch.tensor([0, 1]), torch.tensor([0])],
    )
    assert expected > 0.5
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_masks_of_other_classes_learn_nothing() -> None:
    head, levels, rois, targets = scene()
    targets.labels[:] = 1
    head.loss(levels, rois, targets).backward()
    gradient = head.mask_fcn_logits.weight.grad
    assert gradient is not None
    assert gradient[1].abs().max() > 0
    assert not gradient[[0, 2]].any()


def test_it_begins_undecided_and_can_begin_anew() -> None:
    head, levels, rois, targets = scene()
    before = head.convs[0][0].weight.clone()  # pyright: ignore[reportIndexIssue]
    head.reset_outputs()
    assert head.loss(levels, rois, targets).item() == pytest.approx(math.log(2), abs=0.01)
    assert torch.equal(head.convs[0][0].weight, before)  # pyright: ignore[reportIndexIssue]


def test_empty_masks_are_left_out() -> None:
    head, levels, rois, targets = scene()
    assert targets.masks is not None
    targets.masks[1] = False  # lost when the image was made smaller
    masks, kept = targets.masks, torch.tensor([0, 3])
    logits = head(levels, rois.boxes[kept], rois.image[kept])
    wanted = crop_masks(masks, rois.boxes[kept], rois.object[kept], 10)
    expected = F.binary_cross_entropy_with_logits(logits[[0, 1], [0, 1]], wanted)
    torch.testing.assert_close(head.loss(levels, rois, targets), expected)

    masks[2] = False
    masks[2, 21, 49] = True  # a mask of a pixel, which the box of this region does not see
    far = rois._replace(boxes=rois.boxes + torch.tensor([2.0, 4, 2, 4]))
    assert not crop_masks(masks, far.boxes[3:4], torch.tensor([2]), 10).any()
    logits = head(levels, far.boxes[kept], far.image[kept])
    wanted = crop_masks(masks, far.boxes[kept], far.object[kept], 10)
    expected = F.binary_cross_entropy_with_logits(logits[[0, 1], [0, 1]], wanted)
    torch.testing.assert_close(head.loss(levels, far, targets), expected)


@pytest.mark.parametrize("case", ["no objects", "no positives", "all masks empty"])
def test_nothing_to_learn_from(case: str) -> None:
    head, levels, rois, targets = scene()
    if case == "all masks empty":
        targets.masks = torch.zeros(3, 64, 96, dtype=torch.bool)
    else:
        rois = rois._replace(object=torch.full((5,), -1))
    if case == "no objects":
        targets = Targets(
            boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), image=torch.zeros(0, dtype=torch.int64)
        )
    loss = head.loss(levels, rois, targets)
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_probabilities_are_those_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    head, levels, rois, _ = scene()
    labels = torch.tensor([0, 2, 1, 1, 0])
    found = head.probabilities(levels, rois.boxes, rois.image, labels)
    expected = head(levels, rois.boxes, rois.image)[torch.arange(5), labels].sigmoid()
    torch.testing.assert_close(found, expected)
    monkeypatch.setattr(mask_head, "REGIONS", 2)
    torch.testing.assert_close(head.probabilities(levels, rois.boxes, rois.image, labels), found)
    none = head.probabilities(levels, rois.boxes[:0], rois.image[:0], labels[:0])
    assert none.shape == (0, 10, 10)


def test_half_precision() -> None:
    head, levels, rois, targets = scene()
    expected = head.loss(levels, rois, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(levels, rois, targets)
        probs = head.probabilities(levels, rois.boxes, rois.image, torch.zeros(5, dtype=torch.int64))
    assert (loss.dtype, probs.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.02)


def test_strides_that_do_not_double() -> None:
    with pytest.raises(ConfigError, match="powers of two"):
        MaskHead(6, 3, strides=(4, 16))
