"""What travels between the rooms keeps its parts together when it is selected, copied or moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from clearsight.types import Batch, Classification, Finding, ImageMeta, Instances, Sample, Targets


def three_objects() -> Instances:
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 6], [1, 1, 3, 3]])
    return Instances(
        boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(8, 9)),  # pyright: ignore[reportCallIssue]
        labels=torch.tensor([5, 6, 7]),
        scores=torch.tensor([0.5, 0.25, 0.75]),
        masks=tv_tensors.Mask(torch.arange(3 * 8 * 9).reshape(3, 8, 9) % 2 == 0),
        contours=torch.arange(4 * 2 * 2, dtype=torch.float32).reshape(4, 2, 2),
        ring_object=torch.tensor([0, 1, 1, 2]),
        ignore=torch.tensor([False, True, False]),
    )


def test_select_reorders_every_part_and_rings_follow_their_objects() -> None:
    whole = three_objects()
    part = whole.select(torch.tensor([2, 1]))
    assert len(part) == 2
    assert part.labels.tolist() == [7, 6]
    assert part.scores is not None
    assert part.scores.tolist() == [0.75, 0.25]
    assert part.ignore is not None
    assert part.ignore.tolist() == [False, True]
    # Rings stay in file order; object 1 is now second, object 2 first.
    assert part.ring_object is not None
    assert part.ring_object.tolist() == [1, 1, 0]
    torch.testing.assert_close(part.contours, whole.contours[1:])
    torch.testing.assert_close(part.masks.as_subclass(torch.Tensor), whole.masks[[2, 1]].as_subclass(torch.Tensor))


def test_select_keeps_types_and_canvas() -> None:
    part = three_objects().select(torch.tensor([True, False, False]))
    assert isinstance(part.boxes, tv_tensors.BoundingBoxes)
    assert part.boxes.canvas_size == (8, 9)
    assert isinstance(part.masks, tv_tensors.Mask)
    assert part.boxes.tolist() == [[0, 0, 4, 4]]


@pytest.mark.parametrize("keep", [torch.zeros(3, dtype=torch.bool), torch.zeros(0, dtype=torch.int64)])
def test_select_nothing(keep: torch.Tensor) -> None:
    part = three_objects().select(keep)
    assert len(part) == 0
    assert part.boxes.shape == (0, 4)
    assert part.masks.shape == (0, 8, 9)
    assert part.contours.shape == (0, 2, 2)


def test_to_moves_what_is_there_and_leaves_what_is_not() -> None:
    plain = Instances(boxes=torch.zeros(1, 4), labels=torch.zeros(1, dtype=torch.int64)).to("meta")
    assert (plain.boxes.device.type, plain.labels.device.type) == ("meta", "meta")
    assert (plain.scores, plain.masks, plain.contours, plain.ignore) == (None, None, None, None)
    assert three_objects().to("meta").contours.device.type == "meta"


def batch() -> Batch:
    targets = Targets(boxes=torch.ones(2, 4), labels=torch.tensor([0, 1]), image=torch.tensor([0, 0]))
    meta = [ImageMeta(path=Path("a.png"), index=0, size=(8, 8))]
    sizes = torch.tensor([[8, 8]])
    return Batch(images=torch.zeros(1, 3, 8, 8, dtype=torch.uint8), sizes=sizes, targets=targets, meta=meta)


def test_batch_moves_with_its_targets() -> None:
    moved = batch().to("meta")
    assert len(moved) == 1
    assert moved.images.dtype == torch.uint8
    devices = {moved.images.device.type, moved.sizes.device.type, moved.targets.boxes.device.type}
    assert devices == {"meta"}
    assert moved.targets.masks is None
    assert moved.meta == batch().meta


@pytest.mark.gpu
def test_batch_is_pinned() -> None:
    pinned = batch().pin_memory()
    assert pinned.images.is_pinned()
    assert pinned.targets.labels.is_pinned()


def test_sample_with_other_fields() -> None:
    meta = ImageMeta(path=Path("a.png"), index=3, size=(8, 9))
    sample = Sample(image=torch.zeros(3, 8, 9, dtype=torch.uint8), label=1, meta=meta)
    changed = sample.with_(label=2)
    assert (sample.label, changed.label, changed.meta) == (1, 2, meta)
    with pytest.raises(TypeError, match="lable"):
        sample.with_(lable=2)


def test_classification_names_its_best_class() -> None:
    says = Classification(probs=torch.tensor([0.25, 0.75]))
    assert (says.label, says.score) == (1, 0.75)


def test_finding_is_plain_json() -> None:
    finding = Finding(id="box-empty", severity="error", where="a.xml:3", explanation="no area", evidence={"width": 0})
    assert finding.as_dict() == {
        "id": "box-empty",
        "severity": "error",
        "where": "a.xml:3",
        "explanation": "no area",
        "action": "",
        "evidence": {"width": 0},
        "remedy": {},
        "source": "",
        "because": "",
    }
