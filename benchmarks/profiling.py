"""Whether counted multiply-adds are those that torchvision publishes, in either mode, and how long counting takes.

Not named after what it measures: a script `profile.py` would hide Python's module of that name.
"""

from __future__ import annotations

import sys
import warnings

import torch
import torchvision.models as zoo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clearsight.measure.count import Count, count, count_both
from clearsight.measure.profile import profile
from harness import Options, Row, alternate, arguments, compare, report, seconds

LIMIT = 9.0  # billions of multiply-adds
ROUNDED = 0.0005  # published with three decimals
QUICK = ("mobilenet_v3_small", "resnet18", "swin_t", "vit_b_32")
PEER = f"FlopCounterMode of torch {torch.__version__}"
HEADS = ("aux", "Aux")  # that only training has


def published(options: Options) -> list[tuple[str, int, float]]:
    """Name, side of the image and published billions of multiply-adds of torchvision's classifiers."""
    found = []
    for name in zoo.list_models(module=zoo):
        for weights in zoo.get_model_weights(name):
            if weights.meta.get("_ops", LIMIT) < LIMIT and (not options.quick or name in QUICK):
                found.append((name, weights.transforms().crop_size[0], weights.meta["_ops"]))
                break
    return found


def build(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # googlenet publishes weights without the heads that only training has
        return zoo.get_model(name, **({"aux_logits": False} if name == "googlenet" else {})).eval()


def off(found: float, said: float) -> float:
    """How far a count is from the published figure, in percent of it, where three decimals can tell."""
    return 100 * max(abs(found - said) - ROUNDED, 0.0) / said


def with_peer(model: nn.Module, x: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as peer, torch.no_grad():
        model(x)
    return peer.get_total_flops() / 2e9


def accuracy(options: Options) -> list[Row]:
    ours, theirs, same = {}, {}, 0
    models = published(options)
    for name, side, said in models:
        model = build(name)
        x = torch.rand(1, 3, side, side)
        ours[name] = off(count(model, x).multiply_adds / 1e9, said)
        theirs[name] = off(with_peer(model, x), said)
        used, trained = count_both(model, torch.empty(2, 3, side, side, device="meta"))
        if isinstance(trained, Count):
            main = [tally for part, tally in trained.layers.items() if not part.startswith(HEADS)]
            same += sum(tally.multiply_adds for tally in main) == used.multiply_adds
    total = len(models)
    worst, worst_of_peer = max(ours, key=ours.__getitem__), max(theirs, key=theirs.__getitem__)
    within = [sum(error <= 0.1 for error in side.values()) for side in (ours, theirs)]
    return [
        compare(
            "largest error in multiply-adds", ours[worst], unit="%", better="lower", bar=0.1, note=f"{total} models"
        ),
        compare(
            "the same of the peer",
            theirs[worst_of_peer],
            unit="%",
            better="lower",
            note=f"{PEER}, evaluation mode on {worst_of_peer}: half of its FLOPs",
        ),
        compare("models within 0.1 %", within[0], unit="models", better="higher", bar=total),
        compare("models within 0.1 %, peer's", within[1], unit="models", better="higher", note=PEER),
        compare("models counted the same in training", same, unit="models", better="higher", bar=total),
    ]


def depthwise() -> list[Row]:
    layer, x = nn.Conv2d(64, 64, 3, padding=1, groups=64), torch.rand(1, 64, 56, 56, requires_grad=True)
    found = count(layer, x, training=True, input_gradient=True)
    forward = with_peer(layer, x) * 1e9
    with FlopCounterMode(display=False) as peer:
        layer(x).sum().backward()
    both = found.multiply_adds + found.backward_multiply_adds
    name = "depthwise: both passes over forward, less 3"
    return [
        compare(name, abs(both / found.multiply_adds - 3), unit="×", better="lower", bar=0.0),
        compare("the same of the peer", peer.get_total_flops() / 2 / forward - 3, unit="×", better="lower", note=PEER),
    ]


def speed(options: Options) -> list[Row]:
    model, x = build("resnet50").to(options.device), torch.rand(1, 3, 224, 224, device=options.device)

    @torch.no_grad()
    def forward() -> None:
        model(x)
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()

    sides = {
        "forward": lambda: seconds(forward),
        "profile": lambda: seconds(lambda: profile(model, x)),
        "fields": lambda: seconds(lambda: profile(model, x, fields=True)),
        "peer": lambda: seconds(lambda: with_peer(model, x)),
    }
    values = alternate(sides, rounds=21, warmup=3, quick=options.quick)
    # each with the forward pass that was measured beside it
    ours, with_fields, theirs = (
        [one / forward for one, forward in zip(values[side], values["forward"], strict=True)]
        for side in ("profile", "fields", "peer")
    )
    return [
        compare(
            "profile of a ResNet-50 over its forward pass",
            ours,
            unit="×",
            better="lower",
            bar=1.5,
            note=f"batch 1, 224×224, fp32, {torch.get_num_threads()} threads; use and training, no timing",
        ),
        compare("the same with receptive fields", with_fields, unit="×", better="lower", bar=1.5),
        compare("the same of the peer, use only", theirs, unit="×", better="lower", note=PEER),
        compare("forward pass of a ResNet-50", values["forward"], unit="s", better="lower"),
    ]


def main() -> int:
    options = arguments((__doc__ or "").splitlines()[0])
    return report("profiling", [*speed(options), *depthwise(), *accuracy(options)], options)


if __name__ == "__main__":
    sys.exit(main())
