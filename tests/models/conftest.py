"""Small models, torchvision's counterparts, and real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from clearsight.types import Targets


@pytest.fixture
def torchvision_retinanet() -> Callable[..., TorchvisionRetinaNet]:
    """torchvision's RetinaNet on a small ResNet-FPN, with scores that pass its threshold."""

    def make(
        *, classes: int = 3, size: tuple[int, int] = (128, 192), norm: type = nn.BatchNorm2d
    ) -> TorchvisionRetinaNet:
        backbone = resnet_fpn_backbone(
            backbone_name="resnet18",
            weights=None,
            norm_layer=norm,
            trainable_layers=5,
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(256, 256),
        )
        model = TorchvisionRetinaNet(backbone, num_classes=classes, min_size=min(size), max_size=max(size))
        nn.init.normal_(model.head.classification_head.cls_logits.bias, -2.0, 0.5)
        nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.05)
        nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.05)
        return model

    return make


@pytest.fixture
def as_targets() -> Callable[[list[Tensor], list[Tensor]], Targets]:
    """Boxes and labels an image, concatenated."""

    def make(boxes: list[Tensor], labels: list[Tensor]) -> Targets:
        image = torch.arange(len(boxes)).repeat_interleave(torch.tensor([len(part) for part in boxes]))
        return Targets(boxes=torch.cat(boxes), labels=torch.cat(labels), image=image)

    return make


@pytest.fixture
def cells(shared_data: Path) -> Callable[..., tuple[Tensor, list[Tensor], list[Tensor]]]:
    """Real blood-smear photos, resized: images `(n, 3, h, w)` uint8, boxes and labels an image."""
    from torchvision.transforms.v2.functional import resize

    from clearsight.data.decode import read_image
    from clearsight.data.formats import voc

    def read(count: int, size: tuple[int, int]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        records = voc.read(shared_data / "bccd").split("train").records[:count]
        images, boxes, labels = [], [], []
        for record in records:
            image = torch.from_numpy(read_image(record.image, channels=3).copy()).permute(2, 0, 1)
            factor = torch.tensor([size[1] / image.shape[2], size[0] / image.shape[1]]).repeat(2)
            images.append(resize(image, list(size), antialias=True))
            boxes.append(torch.tensor([item.box for item in record.objects], dtype=torch.float32) * factor)
            labels.append(torch.tensor([item.label for item in record.objects]))
        return torch.stack(images), boxes, labels

    return read


class Learned(NamedTuple):
    """What a detector knows of photos that it was taught.

    Args:
        losses: of each step.
        share: of the objects that are found, by class and at an overlap above a half.
        found: boxes for each object.
    """

    losses: list[float]
    share: float
    found: float

    @property
    def fell(self) -> float:
        """The mean loss of the first ten steps over that of the last ten."""
        return sum(self.losses[:10]) / sum(self.losses[-10:])


@pytest.fixture
def overfit(
    cells: Callable[..., tuple[Tensor, list[Tensor], list[Tensor]]], as_targets: Callable[..., Targets]
) -> Callable[..., Learned]:
    """Teaches a detector a few photos of cells by heart, and asks for them."""
    from torchvision.ops import box_iou

    from clearsight.ops.selection import Selection

    def teach(
        model: nn.Module, *, steps: int, lr: float, selection: Selection, photos: int = 4, clip: float = 1.0
    ) -> Learned:
        images, boxes, labels = cells(photos, (120, 160))
        targets = as_targets(boxes, labels)
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.2)
        losses = []
        for _ in range(steps):
            loss = sum(model.loss(images, targets).values(), torch.zeros(()))  # pyright: ignore[reportCallIssue]
            losses.append(loss.item())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimiser.step()
            schedule.step()
        found = model.eval().predict(images, torch.tensor([[120, 160]] * photos), selection)  # pyright: ignore
        hits = 0
        for box, label, each in zip(boxes, labels, found, strict=True):
            overlap = box_iou(box, each.boxes) * (label[:, None] == each.labels)
            hits += int((overlap.amax(dim=1) > 0.5).sum()) if len(each) else 0
        objects = sum(len(box) for box in boxes)
        return Learned(losses, hits / objects, sum(len(each) for each in found) / objects)

    return teach
