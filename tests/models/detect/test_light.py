"""The light detector: its losses by hand, its boxes, and that it learns real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clearsight.assign.assignment import Predictions
from clearsight.data.normalisation import Statistics
from clearsight.models.detect.light import LightDetector, build_light
from clearsight.ops.boxes import box_iou, paired_giou, paired_iou
from clearsight.ops.selection import Selection
from clearsight.recipe.detector_sections import LightConfig
from clearsight.types import Targets


def _statistics(channels: int = 3) -> Statistics:
    return Statistics(mean=(0.5,) * channels, std=(0.25,) * channels, scale=255.0, mode="unit")


def _targets(boxes: list[list[float]], labels: list[int], image: list[int]) -> Targets:
    return Targets(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        image=torch.tensor(image, dtype=torch.int64),
    )


def _model(**options: object) -> LightDetector:
    config = LightConfig.model_validate({"name": "light", **options})
    return build_light(config, num_classes=3, channels=3, statistics=_statistics())


@pytest.mark.parametrize("size", [(240, 320), (97, 130)])
def test_outputs_cover_the_three_levels(size: tuple[int, int]) -> None:
    model = _model().eval()
    outputs = model(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    count = sum(-(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32))
    assert outputs.logits.shape == (2, count, 3)
    assert outputs.distances.shape == (2, count, 4)
    assert bool((outputs.distances > 0).all())
    # the class prior: a new model thinks every class about 1 % likely
    assert outputs.logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.3)


def test_losses_equal_a_hand_written_sum() -> None:
    torch.manual_seed(3)
    model = _model().eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    targets = _targets([[4, 4, 30, 28], [30, 30, 60, 62], [10, 8, 50, 40]], [0, 2, 1], [0, 0, 1])
    found = model.loss(images, targets)

    outputs = model(images)
    points = model.points((64, 64), images.device)
    reach = outputs.distances * points.stride[:, None]
    boxes = torch.cat((points.xy - reach[..., :2], points.xy + reach[..., 2:]), dim=-1)
    pairs = model.assigner(points, targets, Predictions(outputs.logits, boxes), images=2)
    wanted, box_loss, total = torch.zeros_like(outputs.logits), torch.zeros(()), 0.0
    for obj, point in zip(pairs.object.tolist(), pairs.point.tolist(), strict=True):
        image, label = int(targets.image[obj]), int(targets.labels[obj])
        overlap = float(paired_iou(boxes[image, point], targets.boxes[obj]).detach())
        wanted[image, point, label] = overlap
        box_loss = box_loss + overlap * (1 - paired_giou(boxes[image, point], targets.boxes[obj]))
        total += overlap
    entropy = F.binary_cross_entropy_with_logits(outputs.logits, wanted.detach(), reduction="sum")
    assert len(pairs.object) >= 3
    torch.testing.assert_close(found["class"], entropy / max(total, 1.0))
    torch.testing.assert_close(found["box"], 2.0 * box_loss / max(total, 1.0))


def test_a_batch_without_objects_has_a_finite_loss_and_gradient() -> None:
    model = _model()
    losses = model.loss(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), _targets([], [], []))
    sum(losses.values(), torch.zeros(())).backward()
    assert losses["box"].item() == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_ignored_objects_are_no_background() -> None:
    torch.manual_seed(0)
    model = _model().eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    targets = _targets([[0, 0, 64, 64]], [0], [0])
    targets.ignore = torch.tensor([True])
    # every point lies inside the ignored object, so nothing is left to learn from
    assert model.loss(images, targets)["class"].item() == 0


def test_predictions_are_clipped_and_capped() -> None:
    model = _model().eval()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    sizes = torch.tensor([[64, 96], [40, 50]])
    found = model.predict(images, sizes, Selection(score_threshold=0.0, max_detections=7))
    assert [len(one) for one in found] == [7, 7]
    for one, (height, width) in zip(found, sizes.tolist(), strict=True):
        assert one.scores is not None
        assert bool((one.boxes >= 0).all())
        assert one.boxes[:, 2].max() <= width
        assert one.boxes[:, 3].max() <= height
        assert bool((one.scores[:-1] >= one.scores[1:]).all())


def test_every_assigner_gives_a_loss() -> None:
    targets = _targets([[4, 4, 30, 28], [30, 30, 60, 62]], [0, 2], [0, 1])
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for name in ("max_iou", "atss", "simota"):
        losses = _model(assigner={"name": name}).loss(images, targets)
        assert losses["class"].item() > 0
        assert losses["box"].item() > 0


@pytest.mark.real
def test_it_overfits_eight_real_images(shared_data: Path) -> None:
    from clearsight.data.decode import read_image
    from clearsight.data.formats import voc

    torch.manual_seed(0)
    data = voc.read(shared_data / "bccd").split("train")
    images, boxes, labels, image = [], [], [], []
    for number, record in enumerate(data.records[:8]):
        pixels = torch.from_numpy(read_image(record.image, channels=3)).permute(2, 0, 1)[None]
        images.append(F.interpolate(pixels.float(), (120, 160), mode="area").byte())
        boxes += [[v / 4 for v in one.box] for one in record.objects]
        labels += [one.label for one in record.objects]
        image += [number] * len(record.objects)
    batch, targets = torch.cat(images), _targets(boxes, labels, image)
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(90):
        optimizer.param_groups[0]["lr"] = 4e-3 * min(1, (step + 1) / 10) * (1 - step / 90)
        loss = sum(model.loss(batch, targets).values(), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model.eval().predict(batch, torch.tensor([[120, 160]] * 8), Selection(score_threshold=0.3))
    hit = 0
    for number, one in enumerate(found):
        mine = targets.image == number
        overlap = box_iou(targets.boxes[mine], one.boxes) * (targets.labels[mine][:, None] == one.labels)
        hit += int((overlap.max(dim=1).values > 0.5).sum()) if len(one) else 0
    assert hit / len(targets.labels) > 0.9
