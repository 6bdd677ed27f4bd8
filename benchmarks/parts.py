# pyright: reportPrivateImportUsage=false, reportPrivateUsage=false
"""Layers, forward and backward, beside the peer that has them: torch, torchvision, timm, kornia, and common code.

Each pair gets the same input and, where both have weights of the same names and shapes, the same weights. A row is the
median over alternating rounds of the time of one step. `--only WORD` measures the rows whose name has the word.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import Row, alternate, arguments, compare, report, seconds, stop

if TYPE_CHECKING:
    from torch import Tensor, nn

AT_LEAST = 0.98  # as fast, within what alternating medians can tell apart
Maker = Callable[[], Any]


@dataclass(frozen=True)
class Pair:
    """One part beside its peer.

    Args:
        name: of the part.
        peer: whose it is.
        ours: makes ours.
        theirs: makes the peer's.
        shape: of the input.
        bar: of the ratio.
        train: in training mode.
        note: what to know.
        inputs: makes another input than a normal draw of `shape`.
    """

    name: str
    peer: str
    ours: Maker
    theirs: Maker
    shape: tuple[int, ...]
    bar: float | None = AT_LEAST
    train: bool = True
    note: str = ""
    inputs: Callable[[], tuple[Any, ...]] | None = None


MAP = (8, 64, 40, 40)


def norms() -> Iterator[Pair]:
    """Normalisation and dropout."""
    import timm.layers as timm
    import torch
    import torchvision
    from torch import nn

    from clearsight.nn.conv import conv_norm, norm_after
    from clearsight.nn.dropout import DropBlock, DropPath
    from clearsight.nn.norm import norm

    class ConvThenNorm(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)
            self.norm = norm_after(name, self.conv)
            if name == "cross_iteration":
                self.norm.burn_in = 0  # pyright: ignore[reportArgumentType]

        def forward(self, x: Tensor) -> Tensor:
            return conv_norm(self.conv, self.norm, x)

    class MaskLoop(nn.Module):
        """What circulates: a Python loop over samples and seeds that blanks one block after the other."""

        def forward(self, x: Tensor) -> Tensor:
            rate = 0.1 * x.shape[2] * x.shape[3] / 49 / ((x.shape[2] - 6) * (x.shape[3] - 6))
            mask = torch.ones_like(x)
            for sample in range(len(x)):
                seeds = torch.rand(x.shape[1], x.shape[2] - 6, x.shape[3] - 6) < rate
                for channel, row, column in seeds.nonzero().tolist():
                    mask[sample, channel, row : row + 7, column : column + 7] = 0
            return x * mask * (mask.numel() / mask.sum())

    yield Pair(
        "frozen batch norm",
        "torchvision",
        lambda: norm("frozen_batch", 64),
        lambda: torchvision.ops.FrozenBatchNorm2d(64),
        MAP,
    )
    yield Pair(
        "layer norm over channels", "timm", lambda: norm("layer_channels", 64), lambda: timm.LayerNorm2d(64), MAP
    )
    yield Pair("local response norm", "torch", lambda: norm("local_response", 64), lambda: nn.LocalResponseNorm(5), MAP)
    yield Pair("group norm", "torch", lambda: norm("group", 64, groups=32), lambda: nn.GroupNorm(32, 64), MAP)
    yield Pair(
        "cross-iteration norm after a convolution",
        "batch norm",
        lambda: ConvThenNorm("cross_iteration"),
        lambda: ConvThenNorm("batch"),
        MAP,
        bar=0.5,
        note="window 8; at most twice the cost",
    )
    yield Pair(
        "drop block", "timm", lambda: DropBlock(0.1, 7), lambda: timm.DropBlock2d(0.1, 7, couple_channels=False), MAP
    )
    yield Pair(
        "drop block beside torchvision",
        "torchvision",
        lambda: DropBlock(0.1, 7),
        lambda: torchvision.ops.DropBlock2d(0.1, 7),
        MAP,
    )
    yield Pair(
        "drop block beside a loop over samples", "common loop", lambda: DropBlock(0.1, 7), MaskLoop, MAP, bar=3.0
    )
    yield Pair("drop path", "timm", lambda: DropPath(0.2), lambda: timm.DropPath(0.2), MAP)


def blocks() -> Iterator[Pair]:
    """Convolutional blocks."""
    import timm.layers as timm
    import torchvision
    from torch import nn
    from torchvision.models import densenet, mobilenetv2, resnet
    from torchvision.models.googlenet import Inception as TheirInception

    from clearsight.nn.conv import ConvNormAct
    from clearsight.nn.conv_mixer import ConvMixerBlock
    from clearsight.nn.dense import DenseBlock
    from clearsight.nn.dynamic import DynamicConv2d
    from clearsight.nn.inception import Inception
    from clearsight.nn.inverted_residual import InvertedResidualV2
    from clearsight.nn.residual import BasicBlock, Bottleneck
    from clearsight.nn.squeeze_excite import SqueezeExcite

    def mixer_of_timm() -> nn.Module:
        from timm.models.convmixer import Residual

        step = nn.Sequential(nn.Conv2d(64, 64, 9, groups=64, padding="same"), nn.GELU(), nn.BatchNorm2d(64))
        return nn.Sequential(Residual(step), nn.Conv2d(64, 64, 1), nn.GELU(), nn.BatchNorm2d(64))

    wide = (8, 256, 20, 20)
    yield Pair(
        "convolution, norm, ReLU",
        "torchvision",
        lambda: ConvNormAct(64, 64),
        lambda: torchvision.ops.Conv2dNormActivation(64, 64),
        MAP,
    )
    yield Pair(
        "the same in use",
        "torchvision",
        lambda: ConvNormAct(64, 64),
        lambda: torchvision.ops.Conv2dNormActivation(64, 64),
        MAP,
        train=False,
    )
    yield Pair("basic block", "torchvision", lambda: BasicBlock(64, 64), lambda: resnet.BasicBlock(64, 64), MAP)
    yield Pair("bottleneck", "torchvision", lambda: Bottleneck(256, 64), lambda: resnet.Bottleneck(256, 64), wide)
    yield Pair(
        "squeeze and excitation",
        "torchvision",
        lambda: SqueezeExcite(64, reduction=16),
        lambda: torchvision.ops.SqueezeExcitation(64, 8),
        MAP,
    )
    yield Pair(
        "inverted residual",
        "torchvision",
        lambda: InvertedResidualV2(64, 64),
        lambda: mobilenetv2.InvertedResidual(64, 64, 1, 6),
        MAP,
    )
    yield Pair(
        "dense block of 4",
        "torchvision",
        lambda: DenseBlock(4, 64, 32),
        lambda: densenet._DenseBlock(4, 64, 4, 32, 0.0),
        MAP,
    )
    yield Pair(
        "Inception",
        "torchvision",
        lambda: Inception(64, (64, 96, 128, 16, 32, 32)),
        lambda: TheirInception(64, 64, 96, 128, 16, 32, 32),
        MAP,
    )
    yield Pair("ConvMixer block", "timm", lambda: ConvMixerBlock(64), mixer_of_timm, MAP)
    yield Pair(
        "dynamic convolution of 4 experts",
        "timm",
        lambda: DynamicConv2d(64, 64, 3, experts=4),
        lambda: _routed(timm.CondConv2d(64, 64, 3, padding=1, num_experts=4, bias=True)),
        MAP,
    )


def _routed(conv: nn.Module) -> nn.Module:
    """A convolution of timm's takes the mixing weights; this makes them as ours does, from the mean of the image."""
    from torch import nn

    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.route = conv, nn.Linear(64, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x, self.route(x.mean((2, 3))).softmax(1))

    return Routed()


def attention() -> Iterator[Pair]:
    """Attention and transformers."""
    from torch import nn
    from torchvision.models import swin_transformer, vision_transformer

    from clearsight.nn.attention import SelfAttention
    from clearsight.nn.transformer import TransformerBlock
    from clearsight.nn.upsample import PatchMerging
    from clearsight.nn.window_attention import WindowAttention

    class OfTorch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(192, 6, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    tokens, map_last = (4, 197, 192), (4, 56, 56, 96)
    yield Pair("self-attention", "torch", lambda: SelfAttention(192, 6), OfTorch, tokens)
    for shift in (0, 3):
        name = "shifted-window attention" if shift else "window attention"
        yield Pair(
            name,
            "torchvision",
            partial(WindowAttention, 96, 3, 7, shift=shift),
            partial(swin_transformer.ShiftedWindowAttention, 96, [7, 7], [shift, shift], 3),
            map_last,
        )
    yield Pair(
        "transformer block",
        "torchvision",
        lambda: TransformerBlock(192, SelfAttention(192, 6)),
        lambda: vision_transformer.EncoderBlock(6, 192, 768, 0.0, 0.0),
        tokens,
    )
    yield Pair(
        "patch merging", "torchvision", lambda: PatchMerging(96), lambda: swin_transformer.PatchMerging(96), map_last
    )


def pooling() -> Iterator[Pair]:
    """Pooling of boxes, and blur."""
    import kornia
    import timm.layers as timm
    import torch
    from torch import nn
    from torchvision.ops import MultiScaleRoIAlign

    from clearsight.nn.pool import BlurPool
    from clearsight.nn.roi import RoIAlign

    strides = (4, 8, 16, 32)

    def levels() -> tuple[list[Tensor], Tensor, Tensor]:
        maps = [torch.randn(2, 64, 320 // stride, 320 // stride, requires_grad=True) for stride in strides]
        corner, side = torch.rand(256, 2) * 200, torch.rand(256, 2) * 100 + 16
        return maps, torch.cat((corner, corner + side), dim=1), torch.arange(256) // 128

    class OfTorchvision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.align = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)

        def forward(self, maps: list[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
            split = [boxes[image == number] for number in range(2)]
            return self.align({str(level): x for level, x in enumerate(maps)}, split, [(320, 320)] * 2)

    yield Pair("RoI align over 4 levels", "torchvision", lambda: RoIAlign(7, strides), OfTorchvision, (), inputs=levels)
    yield Pair("blur pool", "timm", BlurPool, lambda: timm.BlurPool2d(64), MAP)
    yield Pair(
        "blur pool beside kornia",
        "kornia",
        BlurPool,
        lambda: kornia.filters.BlurPool2D(3, 2),
        MAP,
        note="kornia pads with zeros inside the convolution; reflecting the border, as in the paper, is one more pass",
    )


def large_kernels() -> Iterator[Pair]:
    """Convolution through spectra."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    from clearsight.nn.fft_conv import fft_conv2d

    class Large(nn.Module):
        def __init__(self, side: int, *, direct: bool) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 16, side, side) / side)
            self.side, self.convolve = side, F.conv2d if direct else fft_conv2d

        def forward(self, x: Tensor) -> Tensor:
            return self.convolve(x, self.weight, padding=self.side // 2)

    for side in (31, 51):
        yield Pair(
            f"FFT convolution, {side}×{side}",
            "torch",
            partial(Large, side, direct=False),
            partial(Large, side, direct=True),
            (1, 16, 128, 128),
            bar=1.0,
        )


def sequences() -> Iterator[Pair]:
    """Recurrent nets."""
    import torch
    from torch import nn

    from clearsight.nn.recurrent import recurrent

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(64, 128, batch_first=True, bidirectional=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]

    def texts() -> tuple[Tensor, Tensor]:
        return torch.randn(64, 20, 64, requires_grad=True), torch.randint(3, 21, (64,))

    yield Pair(
        "LSTM on sequences of several lengths",
        "torch, packed",
        lambda: recurrent("lstm", 64, 128, bidirectional=True),
        Packed,
        (),
        inputs=texts,
        note="ours exports to ONNX; packed sequences do not",
    )


FAMILIES = (norms, blocks, attention, pooling, large_kernels, sequences)


def step(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Forward and backward."""
    out = layer(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    out.sum().backward()


def measure(pair: Pair, rounds: int, *, quick: bool) -> Row:
    """Both sides in turns, on the same input; several steps a measurement where one is short."""
    import torch

    torch.manual_seed(0)
    ours, theirs = pair.ours().train(pair.train), pair.theirs().train(pair.train)
    mine, other = ours.state_dict(), theirs.state_dict()
    if mine.keys() == other.keys() and all(mine[name].shape == other[name].shape for name in mine):
        theirs.load_state_dict(mine)
    if pair.inputs is not None:
        inputs = pair.inputs()
    else:
        x = torch.randn(pair.shape)
        if pair.shape == MAP or pair.shape[1:2] == (256,):
            x = x.contiguous(memory_format=torch.channels_last)
            ours, theirs = (layer.to(memory_format=torch.channels_last) for layer in (ours, theirs))
        inputs = (x.requires_grad_(),)
    for layer in (ours, theirs):
        step(layer, inputs)
    once = seconds(lambda: step(ours, inputs))
    repeat = 1 if quick else max(1, round(0.03 / once))
    sides = {
        name: lambda layer=layer: seconds(lambda: [step(layer, inputs) for _ in range(repeat)]) / repeat * 1e3
        for name, layer in (("ours", ours), ("theirs", theirs))
    }
    found = alternate(sides, rounds=rounds, warmup=2, quick=quick)
    return compare(
        pair.name,
        found["ours"],
        unit="ms",
        better="lower",
        peer=pair.peer,
        theirs=found["theirs"],
        bar=pair.bar,
        note=pair.note,
    )


def main() -> int:
    """Measure and report."""

    def extra(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", metavar="WORD", help="rows whose name has this word")
        parser.add_argument("--rounds", type=int, default=15, help="measurements of each side (default: 15)")
        parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")

    options = arguments((__doc__ or "").splitlines()[0], extra=extra)
    try:
        import kornia  # noqa: F401
        import timm  # noqa: F401
    except ImportError as err:
        stop(f"{err.name}: not installed; pip install 'clearsight[bench]'")
    import torch

    if options.extra.threads:
        torch.set_num_threads(options.extra.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    pairs = [pair for family in FAMILIES for pair in family()]
    wanted = [pair for pair in pairs if options.extra.only in pair.name]
    if not wanted:
        stop(f"--only {options.extra.only}: no such row; there are: {', '.join(pair.name for pair in pairs)}")
    return report("parts", [measure(pair, options.extra.rounds, quick=options.quick) for pair in wanted], options)


if __name__ == "__main__":
    sys.exit(main())
