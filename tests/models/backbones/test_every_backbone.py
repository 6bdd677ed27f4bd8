"""The contract of `models.base.Backbone`, held by one network of every class."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.models import create_model
from clearsight.models.backbones import BACKBONES, build_backbone
from clearsight.models.backbones.conv_mixer import ConvMixer
from clearsight.models.backbones.darknet import Darknet
from clearsight.models.backbones.densenet import DenseNet
from clearsight.models.backbones.efficientnet import EfficientNet
from clearsight.models.backbones.fourier_mixer import FourierMixer
from clearsight.models.backbones.hourglass import Hourglass
from clearsight.models.backbones.repvgg import RepVgg
from clearsight.models.backbones.swin import SwinTransformer
from clearsight.models.backbones.vit import VisionTransformer
from clearsight.models.base import Backbone
from clearsight.types import Targets

# The smallest network of each class, and the side of the images that it is tried on.
SMALLEST: dict[str, int] = {
    "resnet18": 64,
    "preact_resnet18": 64,
    "densenet121": 64,
    "vgg11": 64,
    "mobilenet_v1": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "vit_ti_16": 64,
    "swin_t": 64,
    "convmixer_1024_20_ks9_p14": 64,
    "fnet_ti_16": 64,
    "repvgg_a0": 64,
    "acnet18": 64,
    "darknet53": 64,
    "darknet_tiny": 64,
    "hourglass52": 64,
}


# Networks of the same classes with fewer blocks, where that is an argument: exported in a tenth of the time.
SHALLOW: dict[str, Callable[[], Backbone]] = {
    "densenet121": lambda: DenseNet((1, 2, 1, 2)),
    "vit_ti_16": lambda: VisionTransformer(48, 2, 3),
    "swin_t": lambda: SwinTransformer(24, (2, 1, 2, 1), (1, 2, 2, 3)),
    "convmixer_1024_20_ks9_p14": lambda: ConvMixer(24, 2, kernel=5, patch=14),
    "fnet_ti_16": lambda: FourierMixer(48, 2),
    "efficientnet_b0": lambda: EfficientNet(0.25, 0.3),
    "darknet53": lambda: Darknet((1, 1, 2, 1, 1), (8, 16, 24, 32, 40)),
    "hourglass52": lambda: Hourglass(widths=(8, 12, 16, 16), blocks=(1, 1, 1, 1)),
    "repvgg_a0": lambda: RepVgg((1, 1, 2, 1), (16, 24, 32, 48)),
}
# Their export for open sizes takes from ten seconds to half a minute each.
LONG = (
    "acnet18", "darknet53", "densenet121", "googlenet", "hourglass52", "inception_v3", "mobilenet_v1", "mobilenet_v2",
    "mobilenet_v3_small", "swin_t", "vgg11",
)  # fmt: skip
ONE_SIZE = ("swin_t", "fnet_ti_16")  # the windows' masks and the waves are constants of an exported graph


def shallow(name: str) -> nn.Module:
    torch.manual_seed(0)
    backbone = SHALLOW[name]() if name in SHALLOW else build_backbone(name)
    return Both(backbone).eval()


def test_every_class_is_here() -> None:
    with torch.device("meta"):
        classes = {name: type(build_backbone(name)) for name in BACKBONES}
    assert {classes[name] for name in SMALLEST} == set(classes.values())


@pytest.mark.parametrize("name", SMALLEST)
def test_levels_at_any_size(name: str, has_levels: Callable[..., None]) -> None:
    backbone = build_backbone(name, channels=2)
    assert isinstance(backbone, Backbone)
    assert backbone.in_channels == 2
    side, stride = SMALLEST[name], max(backbone.strides.values())
    has_levels(backbone, (side, side), (side + 1, side + 35), (max(side, stride), max(side, stride + 1)))
    assert list(backbone.strides.values()) == sorted(backbone.strides.values())


@pytest.mark.parametrize("name", SMALLEST)
def test_small_input_has_a_quarter_of_the_strides(name: str, has_levels: Callable[..., None]) -> None:
    whole, small = build_backbone(name), build_backbone(name, small_input=True)
    deepest = list(whole.strides)[-1]
    assert 0.8 < 4 * small.strides[deepest] / whole.strides[deepest] < 1.2  # patches are rounded: 4 for 14
    has_levels(small, (32, 28))


@pytest.mark.parametrize("name", SMALLEST)
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name).train()  # pyright: ignore[reportAttributeAccessIssue]
    backbone.embed(torch.randn(2, 3, SMALLEST[name], SMALLEST[name])).square().sum().backward()
    without = [key for key, p in backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("name", SMALLEST)
def test_channels_last_stays_and_half_precision_is_near(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name).eval().to(memory_format=torch.channels_last)  # pyright: ignore
    images = torch.randn(2, 3, SMALLEST[name], SMALLEST[name]).to(memory_format=torch.channels_last)
    with torch.no_grad():
        full = backbone.embed(images)
        levels = backbone.features(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = backbone.embed(images).float()
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in levels.values())
    assert (half - full).abs().max() / full.abs().max() < 0.1


@pytest.mark.parametrize("name", SMALLEST)
def test_wrong_images(name: str) -> None:
    backbone = build_backbone(name)
    stride, side = max(backbone.strides.values()), SMALLEST[name]
    for call in (backbone.features, backbone.embed):
        with pytest.raises(ShapeError, match=rf"expected images \(n, 3, h, w\), got \(1, 4, {side}, {side}\)"):
            call(torch.zeros(1, 4, side, side))
        with pytest.raises(ShapeError, match=r"smaller than|at least"):
            call(torch.zeros(1, 3, stride - 1, side))


class Both(nn.Module):
    """The vector and the levels, as a tuple."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.backbone.embed(images), *self.backbone.features(images).values())


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long if n in LONG else ()) for n in SMALLEST])
def test_onnx_runtime_agrees_at_two_sizes(name: str) -> None:
    model, side = shallow(name), SMALLEST[name]
    sizes = ((side, side + 32), (side + 35, side + 1))
    for first, *others in [sizes[:1], sizes[1:]] if name in ONE_SIZE else [sizes]:
        session = exported(model, first, free=name not in ONE_SIZE)
        for batch, (height, width) in zip((1, 3, 2), (first, first, *others), strict=False):
            images = torch.randn(batch, 3, height, width)
            with torch.no_grad():
                expected = model(images)
            found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
            for mine, theirs in zip(expected, found, strict=True):
                scale = mine.abs().max()
                torch.testing.assert_close(torch.as_tensor(theirs) / scale, mine / scale, rtol=0, atol=1e-4)


def exported(model: nn.Module, size: tuple[int, int], *, free: bool) -> InferenceSession:
    """The model in ONNX Runtime, for any batch, and any size where that is `free`."""
    auto = torch.export.Dim.AUTO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (torch.randn(2, 3, *size),),
            dynamo=True,
            dynamic_shapes=({0: auto, 2: auto, 3: auto} if free else {0: auto},),
            verbose=False,
        )
    assert program is not None
    written = io.BytesIO()
    program.save(written)
    return InferenceSession(written.getvalue())


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long if n in LONG else ()) for n in SMALLEST])
def test_compiles_in_one_graph(name: str) -> None:
    torch.compiler.reset()  # each network is one more form of the same code, and their number is limited
    model = shallow(name)
    images = torch.randn(1, 3, SMALLEST[name], SMALLEST[name])
    with torch.no_grad():
        found, expected = torch.compile(model, backend="aot_eager", fullgraph=True)(images), model(images)
    for mine, theirs in zip(found, expected, strict=True):
        scale = theirs.abs().max()
        torch.testing.assert_close(mine / scale, theirs / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["retinanet", "light"])
@pytest.mark.parametrize("name", SMALLEST)
def test_detectors_take_it(name: str, method: str) -> None:
    torch.manual_seed(0)
    model = create_model(method, backbone=name, num_classes=2, fpn_channels=16)
    side = max(SMALLEST[name], 96)
    images = torch.rand(2, 3, side + 5, side)
    targets = Targets(boxes=torch.tensor([[4.0, 8.0, 60.0, 70.0]]), labels=torch.tensor([1]), image=torch.tensor([0]))
    loss = sum(model.loss(images, targets).values())  # pyright: ignore[reportCallIssue]
    loss.backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.isfinite(loss)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        found = model.eval().predict(images, torch.tensor([[side + 5, side]] * 2))  # pyright: ignore
    assert len(found) == 2


def test_unknown_names_and_options() -> None:
    with pytest.raises(ConfigError, match="there is none named 'resnet19'; did you mean 'resnet1"):
        build_backbone("resnet19")
    with pytest.raises(ConfigError, match="resnet18: there is no auxiliary in this network"):
        build_backbone("resnet18", auxiliary=True)
    with pytest.raises(
        ConfigError, match=r"no level c2, which this model reads; it has c3 \(stride 7\), c4 \(stride 14\)"
    ):
        build_backbone("convmixer_768_32", levels=("c2", "c3"))
    with pytest.raises(ConfigError, match="timm: there is no network named 'resnet81'"):
        create_model("timm:resnet81", num_classes=2)


def test_a_vgg_of_a_detector_has_no_hidden_layers() -> None:
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in build_backbone("vgg16", levels=levels).parameters())  # pyright: ignore
            for levels in ((), ("c3", "c4", "c5"))
        ]
    assert sizes == [134_260_544, 14_714_688]
