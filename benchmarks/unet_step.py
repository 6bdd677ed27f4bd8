"""U-Net on a ResNet-18, ours beside segmentation-models-pytorch's: speed of a training step.

Both have the same weights (checked: equal outputs), see the same slices of membrane at 256×256, minimise cross-entropy
plus Dice by the same SGD step. The peer gets its images as normalised floats, made beforehand, and runs as its pages
show it; ours gets them as the loader gives them, uint8, and makes them floats inside the measured step. The last row
gives the peer channels-last memory too.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Options, alternate, arguments, compare, need, report, seconds, stop

if TYPE_CHECKING:
    from torch import Tensor, nn

    from clearsight.models.segment.segmenter import Segmenter

PEER = "segmentation_models_pytorch"
SIDE = 256
CLASSES = 2
CLOSE = 1e-5  # largest difference of the logits over the largest logit


@dataclass(frozen=True, kw_only=True)
class Work:
    """One batch in both forms, and the models."""

    device: str
    images: Tensor
    normal: Tensor
    semantic: Tensor
    ours: Segmenter
    theirs: nn.Module
    theirs_last: nn.Module


def peer() -> Any:  # noqa: ANN401 - a module that need not be installed
    """The peer's package; ends the benchmark with a clear line where it is missing."""
    if importlib.util.find_spec(PEER) is None:
        stop(
            "segmentation-models-pytorch: not installed, and there is nothing else to compare with; run "
            "`pip install --no-deps --target DIR segmentation-models-pytorch`, and this with PYTHONPATH=DIR"
        )
    return importlib.import_module(PEER)


def read_batch(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Corners of the first slices: `(n, 1, 256, 256)` uint8, and 1 where there is membrane."""
    import torch

    from clearsight.data.decode import read_image

    images, labels = [], []
    for number in range(count):
        image, label = (
            torch.from_numpy(read_image(folder / part / f"{number}.png", channels=1).copy())[:SIDE, :SIDE, 0]
            for part in ("image", "label")
        )
        images.append(image[None])
        labels.append((label == 0).long())
    return torch.stack(images), torch.stack(labels)


def make_work(options: Options, batch: int, encoder: str) -> Work:
    """Everything that is measured, on the device; ends the benchmark if the two nets differ."""
    import copy

    import torch

    from clearsight.data.normalisation import Statistics
    from clearsight.models.segment.backbone_unet import BackboneUNet, build_encoder
    from clearsight.models.segment.segmenter import Segmenter
    from clearsight.models.segment.semantic_loss import SemanticLoss

    torch.manual_seed(0)
    images, semantic = (part.to(options.device) for part in read_batch(need(options, "membrane"), batch))
    theirs = peer().Unet(encoder, encoder_weights=None, in_channels=1, classes=CLASSES).to(options.device)
    ours = Segmenter(
        BackboneUNet(build_encoder(encoder, channels=1), CLASSES),
        statistics=Statistics(mean=(0.5,), std=(0.2,)),
        loss=SemanticLoss(CLASSES),
    ).to(options.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    ours.load_state_dict(ours.adapt_weights(theirs.state_dict()), strict=False)
    normal = ours.input_norm(images).contiguous()
    with torch.no_grad():
        found, expected = ours.eval()(images), theirs.eval()(normal)
    if (found - expected).abs().max() > CLOSE * expected.abs().max():
        stop("the two nets differ on the same weights; this would compare nothing")
    return Work(
        device=options.device,
        images=images.contiguous(memory_format=torch.channels_last),
        normal=normal,
        semantic=semantic,
        ours=ours.train(),
        theirs=theirs.train(),
        theirs_last=copy.deepcopy(theirs).to(memory_format=torch.channels_last),  # pyright: ignore[reportCallIssue]
    )


def has_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 natively: then it is our default."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def train_steps(work: Work) -> dict[str, Callable[[], None]]:
    """One training step of each side."""
    import torch
    import torch.nn.functional as F

    from clearsight.types import Targets

    none = torch.zeros(0).long()
    targets = Targets(boxes=torch.zeros(0, 4), labels=none, image=none, semantic=work.semantic)
    dice = peer().losses.DiceLoss(mode="multiclass")
    last = work.normal.contiguous(memory_format=torch.channels_last)

    def step(model: nn.Module, loss_of: Callable[[], Tensor], *, half: bool = False) -> Callable[[], None]:
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

        def run() -> None:
            kind = torch.device(work.device).type
            with torch.autocast(kind, dtype=torch.bfloat16) if half else nullcontext():
                loss = loss_of()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()

        return run

    def ours() -> Tensor:
        return torch.stack(list(work.ours.loss(work.images, targets).values())).sum()

    def theirs(model: nn.Module, images: Tensor) -> Tensor:
        logits = model(images)
        return F.cross_entropy(logits, work.semantic) + dice(logits, work.semantic)

    return {
        "ours": step(work.ours, ours),
        "default": step(work.ours, ours, half=has_bf16(work.device)),
        "theirs": step(work.theirs, lambda: theirs(work.theirs, work.normal)),
        "last": step(work.theirs_last, lambda: theirs(work.theirs_last, last)),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark can be told besides."""
    parser.add_argument("--batch", type=int, default=4, help="images a step, at most 30 (default: 4)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each side (default: 7)")
    parser.add_argument("--encoder", default="resnet18", help="a ResNet by name (default: resnet18)")


def main() -> int:
    options = arguments((__doc__ or "").splitlines()[0], extra=add_arguments)
    batch = min(options.extra.batch, 2) if options.quick else options.extra.batch
    steps = train_steps(make_work(options, batch, options.extra.encoder))
    sides = {name: lambda step=step: batch / seconds(step) for name, step in steps.items()}
    rate = alternate(sides, rounds=options.extra.rounds, quick=options.quick)
    form = "bf16 autocast, channels-last" if has_bf16(options.device) else "channels-last; no bf16 here"
    speed: dict[str, Any] = {"unit": "images/s", "better": "higher", "peer": f"{PEER} {peer().__version__}"}
    rows = [
        compare("train, fp32", rate["ours"], theirs=rate["theirs"], bar=1.2, **speed),
        compare("train, our default", rate["default"], theirs=rate["theirs"], note=f"ours {form}", **speed),
        compare("train, fp32, both channels-last", rate["ours"], theirs=rate["last"], **speed),
    ]
    return report("unet_step", rows, options)


if __name__ == "__main__":
    sys.exit(main())
