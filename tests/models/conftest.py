"""Small models, torchvision's counterparts, and real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
