"""RetinaNet-R18-FPN, ours beside torchvision's: training speed, peak memory, inference with post-processing.

Both have the same parameters (checked), see the same blood-smear photos and boxes at 240×320, take the same SGD step.
torchvision's gets its images as floats in a list, made beforehand; it pads them to a multiple of 32 itself. Ours gets
them as the loader gives them, uint8, and makes them floats inside the measured step.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Options, alternate, arguments, compare, need, report, run_child, seconds, stop

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet

    from clearsight.models.detect.retinanet import RetinaNet
    from clearsight.types import Targets

SIZE = (240, 320)
CLASSES = 3
CANDIDATES = 500  # class scores above the threshold an image that a trained model has on these photos
LEAST_SCORE = 0.05  # this and the number of detections as torchvision's
DETECTIONS = 300


@dataclass(frozen=True, kw_only=True)
class Work:
    """One batch in both forms, and both models."""

    device: str
    images: Tensor
    targets: Targets
    listed: list[Tensor]
    annotated: list[dict[str, Tensor]]
    ours: RetinaNet
    theirs: TorchvisionRetinaNet


def make_models() -> tuple[RetinaNet, TorchvisionRetinaNet]:
    """Our model and torchvision's with the same weights; ends the benchmark if the parameters differ."""
    import torch
    from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    from clearsight.models import create_model
    from clearsight.models.detect.retinanet import RetinaNet

    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=torch.nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    theirs = TorchvisionRetinaNet(backbone, num_classes=CLASSES, min_size=SIZE[0], max_size=SIZE[1])
    ours = create_model("retinanet", backbone="resnet18", num_classes=CLASSES)
    if not isinstance(ours, RetinaNet):
        stop("create_model('retinanet') gave another model")
    copy_weights(theirs, ours)
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (ours, theirs)]
    if counts[0] != counts[1]:
        stop(f"parameters differ: ours {counts[0]}, torchvision's {counts[1]}; this would compare nothing")
    return ours, theirs


def copy_weights(theirs: TorchvisionRetinaNet, ours: RetinaNet) -> None:
    """Torchvision's weights into our model."""
    from clearsight.models.detect.retinanet import convert_torchvision_retinanet

    ours.load_state_dict(convert_torchvision_retinanet(theirs.state_dict()), strict=False)


def read_batch(folder: Path, count: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """The first photos with boxes, resized: `(n, 3, h, w)` uint8 and torchvision's form of their targets."""
    import numpy as np
    import torch
    from torchvision.transforms.v2.functional import resize

    from clearsight.data.decode import read_image
    from clearsight.data.formats import voc

    dataset = voc.read(folder).split("train")
    records = [record for record in dataset.records if record.objects][:count]
    images, targets = [], []
    for record in records:
        image = torch.from_numpy(np.ascontiguousarray(read_image(record.image, channels=3))).permute(2, 0, 1)
        factor = torch.tensor([SIZE[1] / image.shape[2], SIZE[0] / image.shape[1]]).repeat(2)
        boxes = torch.tensor([item.box for item in record.objects], dtype=torch.float32) * factor
        images.append(resize(image, list(SIZE), antialias=True))
        targets.append({"boxes": boxes, "labels": torch.tensor([item.label for item in record.objects])})
    return torch.stack(images), targets


def make_work(options: Options, batch: int) -> Work:
    """Everything that is measured, on the device."""
    import torch

    from clearsight.types import Targets

    images, annotated = read_batch(need(options, "bccd"), batch)
    device = options.device
    ours, theirs = make_models()
    targets = Targets(
        boxes=torch.cat([target["boxes"] for target in annotated]),
        labels=torch.cat([target["labels"] for target in annotated]),
        image=torch.arange(batch).repeat_interleave(torch.tensor([len(target["labels"]) for target in annotated])),
    )
    return Work(
        device=device,
        images=images.to(device).contiguous(memory_format=torch.channels_last),
        targets=targets.to(device),
        listed=[(image / 255).to(device) for image in images],
        annotated=[{name: value.to(device) for name, value in target.items()} for target in annotated],
        ours=ours.to(device).to(memory_format=torch.channels_last),  # pyright: ignore[reportCallIssue]
        theirs=theirs.to(device),
    )


def has_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 natively: then it is our default."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextmanager
def precision(device: str, *, half: bool) -> Iterator[None]:
    """bf16 autocast, or nothing."""
    import torch

    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16) if half else nullcontext():
        yield


def train_steps(work: Work) -> dict[str, Callable[[], None]]:
    """One training step of each side."""
    import torch

    def optimiser(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    mine, other = optimiser(work.ours), optimiser(work.theirs)

    def ours(*, half: bool) -> None:
        work.ours.train()
        with precision(work.device, half=half):
            loss = torch.stack(list(work.ours.loss(work.images, work.targets).values())).sum()
        mine.zero_grad()
        loss.backward()
        mine.step()
        loss.item()

    def theirs() -> None:
        work.theirs.train()
        loss = torch.stack(list(work.theirs(work.listed, work.annotated).values())).sum()
        other.zero_grad()
        loss.backward()
        other.step()
        loss.item()

    return {"ours": lambda: ours(half=False), "default": lambda: ours(half=has_bf16(work.device)), "theirs": theirs}


def predict_steps(work: Work) -> dict[str, Callable[[], int]]:
    """One inference of each side, from images to boxes on the CPU."""
    import torch

    from clearsight.ops.selection import Selection

    sizes = torch.tensor([SIZE] * len(work.listed))
    selection = Selection(score_threshold=LEAST_SCORE, max_detections=DETECTIONS)

    def ours(*, half: bool) -> int:
        work.ours.eval()
        with torch.inference_mode(), precision(work.device, half=half):
            return sum(len(found.boxes.cpu()) for found in work.ours.predict(work.images, sizes, selection))

    def theirs() -> int:
        work.theirs.eval()
        with torch.inference_mode():
            return sum(len(found["boxes"].cpu()) for found in work.theirs(work.listed))

    return {"ours": lambda: ours(half=False), "default": lambda: ours(half=has_bf16(work.device)), "theirs": theirs}


def train_briefly(work: Work, steps: int) -> None:
    """Teach our model the batch, give it the number of candidates of a trained one, and copy it to torchvision's."""
    import torch

    from clearsight.models.detect.retinanet import convert_torchvision_retinanet
    from clearsight.models.detect.retinanet_head import RetinaNetHead

    optimiser = torch.optim.AdamW(work.ours.parameters(), lr=3e-4)
    for _ in range(steps):
        with precision(work.device, half=has_bf16(work.device)):
            loss = torch.stack(list(work.ours.loss(work.images, work.targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    work.ours.eval()
    with torch.no_grad():
        logits = work.ours(work.images).logits
        kept = logits.flatten().topk(CANDIDATES * len(logits)).values[-1]
        limit = torch.logit(torch.tensor(LEAST_SCORE))
        head = work.ours.head
        if not isinstance(head, RetinaNetHead):
            raise TypeError(f"expected RetinaNet's own head, got {type(head).__name__}")
        head.classification_head.cls_logits.bias += limit - kept
    copied = work.theirs.state_dict()
    mine = work.ours.state_dict()
    names = convert_torchvision_retinanet({name: torch.tensor(i) for i, name in enumerate(copied)})
    order = list(copied)
    work.theirs.load_state_dict({order[int(i)]: mine[name] for name, i in names.items()})


def memory_child(options: Options, side: str, batch: int) -> None:
    """In a process of its own: a few training steps of one side, then its peak memory is read from outside."""
    import torch

    work = make_work(options, batch)
    step = train_steps(work)[side]
    for _ in range(2):
        step()
    peak = torch.cuda.max_memory_allocated() / 2**20 if work.device.startswith("cuda") else 0.0
    print(json.dumps({"peak": peak}))


def peak_memory(options: Options, side: str, batch: int) -> float:
    """MiB, of a fresh process that trains one side (on a GPU: the memory allocated there)."""
    command = [sys.executable, __file__, "--data", options.data, "--device", options.device]
    child = run_child([*command, "--memory-of", side, "--batch", str(batch)])
    return child.result["peak"] if options.device.startswith("cuda") else child.peak_mb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark can be told besides."""
    parser.add_argument("--batch", type=int, default=8, help="images a step (default: 8)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each side (default: 7)")
    parser.add_argument("--memory-of", choices=("ours", "default", "theirs"), help=argparse.SUPPRESS)


def main() -> int:
    options = arguments((__doc__ or "").splitlines()[0], extra=add_arguments)
    batch = min(options.extra.batch, 2) if options.quick else options.extra.batch
    if options.extra.memory_of:
        memory_child(options, options.extra.memory_of, batch)
        return 0
    import torchvision

    peer = f"torchvision {torchvision.__version__.split('+')[0]}"
    rounds = options.extra.rounds
    memory = {side: [] for side in ("ours", "default", "theirs")}
    for _ in range(1 if options.quick else 3):
        for side, values in memory.items():
            values.append(peak_memory(options, side, batch))

    work = make_work(options, batch)

    def rates(steps: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
        def rate(step: Callable[[], object]) -> float:
            return batch * repeat / seconds(lambda: [step() for _ in range(repeat)])

        sides = {name: lambda step=step: rate(step) for name, step in steps.items()}
        return alternate(sides, rounds=rounds, quick=options.quick)

    trained = rates(train_steps(work), 1)
    train_briefly(work, 2 if options.quick else 12)
    steps = predict_steps(work)
    found = {name: step() / batch for name, step in steps.items()}
    predicted = rates(steps, 1 if options.quick else 2)

    form = "bf16 autocast, channels-last" if has_bf16(options.device) else "channels-last; no bf16 here"
    default = f"ours {form}; peer fp32"
    speed: dict[str, Any] = {"unit": "images/s", "better": "higher", "peer": peer}
    size: dict[str, Any] = {"unit": "MiB", "better": "lower", "peer": peer}
    boxes = f"{CANDIDATES} candidates an image; boxes an image: {found['ours']:.1f}, peer {found['theirs']:.1f}"
    rows = [
        compare("train, fp32", trained["ours"], theirs=trained["theirs"], bar=1.1, **speed),
        compare("train, our default", trained["default"], theirs=trained["theirs"], bar=2.0, note=default, **speed),
        compare("peak memory, fp32", memory["ours"], theirs=memory["theirs"], bar=1.0, **size),
        compare("peak memory, our default", memory["default"], theirs=memory["theirs"], **size),
        compare("predict, fp32", predicted["ours"], theirs=predicted["theirs"], bar=1.3, note=boxes, **speed),
        compare(
            "predict, our default", predicted["default"], theirs=predicted["theirs"], bar=1.3, note=default, **speed
        ),
    ]
    return report("train_throughput", rows, options)


if __name__ == "__main__":
    sys.exit(main())
