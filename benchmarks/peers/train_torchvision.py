"""Peer: train torchvision's RetinaNet-R18-FPN from scratch for a wall-clock budget; write detections as JSON.

The images are resized once to the size that both sides train at, kept in memory, and flipped at random; the rate falls
with a cosine over the budget. Imports nothing of clearsight.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torchvision
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms.v2 import functional as F


def build(classes: int, size: tuple[int, int]) -> RetinaNet:
    """Torchvision's own parts, with nothing frozen since training is from scratch."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=torch.nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return RetinaNet(backbone, num_classes=classes, min_size=min(size), max_size=max(size))


def load(path: str, size: tuple[int, int]) -> tuple[torch.Tensor, tuple[float, float]]:
    """One image in [0, 1] at `size`, and the factors `(x, y)` back to the file's pixels."""
    image = torchvision.io.decode_image(path, torchvision.io.ImageReadMode.RGB)
    back = (image.shape[2] / size[1], image.shape[1] / size[0])
    return F.resize(image, list(size), antialias=True).float() / 255, back


def main() -> None:
    """Train on the images and boxes of `--train` (JSON), detect on `--images`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="JSON: [{file, boxes, labels}], boxes in file pixels")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--images", type=Path, required=True, help="text file: one test image a line")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    size = (args.size[0], args.size[1])

    start = time.perf_counter()
    images, targets = [], []
    for row in json.loads(args.train.read_text()):
        image, (back_x, back_y) = load(row["file"], size)
        boxes = torch.tensor(row["boxes"]).reshape(-1, 4) / torch.tensor([back_x, back_y, back_x, back_y])
        images.append(image)
        targets.append({"boxes": boxes, "labels": torch.tensor(row["labels"], dtype=torch.int64)})

    model = build(args.classes, size).to(args.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05)
    seen, budget = 0, args.minutes * 60
    while (elapsed := time.perf_counter() - start) < budget:
        progress = elapsed / budget
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1.0, (progress + 1e-3) / 0.03) * 0.5 * (1 + math.cos(math.pi * progress))
        batch, truth = [], []
        for i in torch.randint(len(images), (args.batch,)).tolist():
            image, boxes = images[i], targets[i]["boxes"].clone()
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
                boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
            batch.append(image.to(args.device))
            truth.append({"boxes": boxes.to(args.device), "labels": targets[i]["labels"].to(args.device)})
        loss = sum(model(batch, truth).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        seen += args.batch
    seconds = time.perf_counter() - start

    model.eval()
    detections = []
    for line in args.images.read_text().split("\n"):
        if not line.strip():
            continue
        image, (back_x, back_y) = load(line.strip(), size)
        with torch.no_grad():
            found = model([image.to(args.device)])[0]
        detections.append(
            {
                "file": line.strip(),
                "boxes": (found["boxes"].cpu() * torch.tensor([back_x, back_y, back_x, back_y])).tolist(),
                "scores": found["scores"].tolist(),
                "labels": found["labels"].tolist(),
            }
        )
    args.out.write_text(
        json.dumps(
            {
                "seconds": seconds,
                "images_per_second": seen / seconds,
                "parameters": sum(p.numel() for p in model.parameters()),
                "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
                "detections": detections,
            }
        )
    )
    print(json.dumps({"written": args.out.name}))  # the harness reads the last line


if __name__ == "__main__":
    main()
