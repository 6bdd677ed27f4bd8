"""Depth on nets that segment: what they give, pixels without depth, export, and that they learn a scene's depth."""

from __future__ import annotations

import math
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from clearsight.data.normalisation import Statistics
from clearsight.errors import RangeError, ShapeError
from clearsight.losses.depth import scale_invariant_loss
from clearsight.metrics.depth import depth_errors
from clearsight.models.backbones import build_backbone
from clearsight.models.segment.backbone_unet import BackboneUNet, build_encoder
from clearsight.models.segment.danet import Danet
from clearsight.models.segment.depth import DepthNet
from clearsight.models.segment.pixel_model import PixelNet
from clearsight.models.segment.semantic_fpn import SemanticFpn
from clearsight.models.segment.swin_unet import SwinUnet
from clearsight.models.segment.unet import UNet
from clearsight.models.weights import load_weights

GREY = Statistics(mean=(0.5,), std=(0.25,))


def small(classes: int = 1, *, lam: float = 0.5) -> DepthNet:
    return DepthNet(UNet(1, classes, width=4, depth=2), statistics=GREY, lam=lam)


def fpn() -> SemanticFpn:
    return SemanticFpn(build_backbone("resnet18", channels=1, levels=("c5",)), 1, fpn_channels=16, head_channels=8)


NETS = {
    "unet": lambda: UNet(1, 1, width=4, depth=2),
    "unet, valid": lambda: UNet(1, 1, width=4, depth=2, padding="valid"),
    "backbone": lambda: BackboneUNet(build_encoder("resnet18", channels=1), 1, widths=(16, 12, 8, 8, 4)),
    "swin": lambda: SwinUnet(1, channels=1, width=16, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8), window=4),
    "fpn": fpn,
    "danet": lambda: Danet(build_backbone("resnet18", channels=1), 1, head_channels=16),
}


@pytest.mark.parametrize("name", NETS)
def test_any_net_and_any_size(name: str) -> None:
    net: PixelNet = NETS[name]()
    model = DepthNet(net, statistics=GREY).eval()
    for size in ((1, 1), (33, 47)):
        images = torch.randint(0, 256, (2, 1, *size), dtype=torch.uint8)
        with torch.no_grad():
            found = model(images)
            assert found.shape == (2, 1, *size)
            assert (found > 0).all()
            assert found.isfinite().all()
            torch.testing.assert_close(found.log(), net(model.input_norm(images)), rtol=1e-4, atol=1e-5)
            assert model(images[:0]).shape == (0, 1, *size)


def test_extremes_stay_above_zero_and_finite() -> None:
    model = small().eval()
    assert isinstance(model.net, UNet)
    for bias in (-1e4, 1e4):
        nn.init.constant_(model.net.get_parameter("out.bias"), bias)
        found = model(torch.zeros(1, 1, 8, 8))
        assert (found > 0).all()
        assert found.isfinite().all()
        depth = torch.ones(1, 8, 8)
        assert model.loss(torch.zeros(1, 1, 8, 8), depth)["scale_invariant"] > 1e6  # which is not held


def test_the_loss_is_of_logarithms_and_of_known_depths() -> None:
    model, images = small(lam=0.8).eval(), torch.rand(2, 1, 9, 12)
    depth = torch.rand(2, 1, 9, 12) * 5 + 0.5
    depth[0, :, :4] = 0
    depth[1, :, :, 3] = math.nan
    terms = model.loss(images, depth)
    assert terms.keys() == {"scale_invariant"}
    expected = scale_invariant_loss(model(images).log(), depth, lam=0.8)
    torch.testing.assert_close(terms["scale_invariant"], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.loss(images, depth[:, 0])["scale_invariant"], terms["scale_invariant"])
    assert abs(expected - scale_invariant_loss(model(images).log(), depth)) > 1e-4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.loss(images, depth)["scale_invariant"].dtype == torch.float32
        assert model(images).dtype == torch.float32


def test_nothing_known_costs_nothing() -> None:
    model = small()
    loss = model.loss(torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8))["scale_invariant"]
    loss.backward()
    assert loss.item() == 0
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_predictions_are_cut_to_the_valid_part() -> None:
    model = small().eval()
    images = torch.randint(0, 256, (2, 1, 20, 30), dtype=torch.uint8)
    found = model.predict(images, torch.tensor([[20, 30], [17, 9]]))
    assert [tuple(each.shape) for each in found] == [(20, 30), (17, 9)]
    assert not found[0].requires_grad
    torch.testing.assert_close(found[1], model(images)[1, 0, :17, :9].detach())


def test_bad_arguments() -> None:
    with pytest.raises(ShapeError, match="the net gives 2 channels, expected one"):
        small(2)(torch.zeros(1, 1, 8, 8))
    with pytest.raises(RangeError, match=r"lam: must be in \[0, 1\], got 2"):
        small(lam=2.0)
    with pytest.raises(ShapeError, match=r"depth: expected .*\(1, 1, 8, 8\), got \(1, 1, 8, 9\)"):
        small().loss(torch.zeros(1, 1, 8, 8), torch.ones(1, 8, 9))


def test_weights_of_a_classifier_and_its_own(tmp_path: Path) -> None:
    model, other = DepthNet(fpn(), statistics=GREY), DepthNet(fpn(), statistics=GREY)
    assert model.class_layer == ("net.head.weight", "net.head.bias")
    backbone = build_backbone("resnet18", channels=1)
    torch.save(backbone.state_dict(), tmp_path / "classifier.pt")  # pyright: ignore[reportAttributeAccessIssue]
    report = load_weights(model, tmp_path / "classifier.pt")
    assert not report.unexpected
    assert not [name for name in report.missing if name.startswith("net.backbone.")]
    torch.save(model.state_dict(), tmp_path / "own.pt")
    assert not load_weights(other, tmp_path / "own.pt").missing
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    other.reset_classes()
    assert not torch.equal(other.net.head.weight, model.net.head.weight)  # pyright: ignore


def test_exported_it_agrees(tmp_path: Path) -> None:
    model = small().eval()
    images = torch.randint(0, 256, (1, 1, 21, 30), dtype=torch.uint8)
    path = tmp_path / "depth.onnx"
    torch.onnx.export(model, (images,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(images).detach(), rtol=1e-4, atol=1e-5)


def slopes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Planes seen at an angle under a fog: darker is nearer; the exact depth is known, and unknown in a corner."""
    across, down = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 24), indexing="xy")
    lean = torch.rand(count, 3, 1, 1, generator=generator)
    depth = 1 / (0.15 + 0.1 * lean[:, 0] + 0.06 * (2 * lean[:, 1] - 1) * across + 0.06 * lean[:, 2] * down)
    noise = 0.02 * torch.randn(count, 24, 24, generator=generator)
    images = (1 - (-depth / 6).exp() + noise).clamp(0, 1)
    depth[:, :4, :4] = 0
    return (images * 255).to(torch.uint8)[:, None], depth


def test_it_learns_depth() -> None:
    """Of planes not seen before it knows the depth, scale and all, better than their mean map."""
    generator = torch.Generator().manual_seed(0)
    images, depth = slopes(64, generator)
    held, truth = slopes(16, generator)
    model = DepthNet(UNet(1, 1, width=8, depth=2), statistics=GREY)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=120)
    for step in range(120):
        chosen = torch.arange(8) + step % 8 * 8
        loss = model.loss(images[chosen], depth[chosen])["scale_invariant"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    found = torch.stack(model.eval().predict(held, torch.tensor([[24, 24]] * 16)))
    errors = depth_errors(found, truth)
    baseline = depth_errors(depth.mean(0).clamp(min=0.1).expand_as(truth), truth)
    assert baseline.abs_rel > 0.08
    assert errors.abs_rel < 0.5 * baseline.abs_rel
    assert errors.delta_1 > 0.93
