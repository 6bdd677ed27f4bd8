"""What every segmenter promises: any size, awkward maps, half precision, a start of its classes anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clearsight.models import BUILDERS, create_model
from clearsight.models.segment.segmenter import Segmenter
from clearsight.recipe.model_sections import model_task
from clearsight.types import SemanticMap, Targets

CLASSES = 3
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 4, "depth": 3},
    "unet valid": {"width": 4, "depth": 2, "padding": "valid"},
    "unet on a backbone": {"backbone": "resnet18", "decoder_channels": (16, 12, 8, 8, 4)},
    "unet on another": {"backbone": "mobilenet_v3_small", "decoder_channels": (16, 12, 8, 8, 4)},
    "transunet": {
        "layers": 1, "width": 16, "heads": 2, "backbone_width": 8, "backbone_blocks": (1, 1, 1),
        "decoder": (16, 8, 8, 8, 8), "image_size": 64,
    },
    "swin_unet": {"width": 8, "heads": (1, 2, 2, 4), "window": 4},
    "semantic_fpn": {"fpn_channels": 16, "head_channels": 16},
    "semantic_fpn on another": {"backbone": "mobilenet_v3_small", "fpn_channels": 16, "head_channels": 16},
    "danet": {"head_channels": 16},
    "danet on another": {"backbone": "mobilenet_v3_small", "output_stride": None, "head_channels": 16},
}  # fmt: skip


def make(name: str) -> Segmenter:
    torch.manual_seed(0)
    model = create_model(name.partition(" ")[0], num_classes=CLASSES, **SMALL[name])
    assert isinstance(model, Segmenter)
    return model


def targets_of(semantic: Tensor) -> Targets:
    nothing = torch.zeros(0)
    return Targets(boxes=nothing.reshape(0, 4), labels=nothing.long(), image=nothing.long(), semantic=semantic)


def test_every_segmenter_is_here() -> None:
    assert {name.partition(" ")[0] for name in SMALL} == {name for name in BUILDERS if model_task(name) == "semantic"}


@pytest.mark.parametrize("name", SMALL)
def test_any_size_and_the_valid_part(name: str) -> None:
    model = make(name).eval()
    for size in ((33, 47), (64, 32), (1, 1)):
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        assert model(images).shape == (2, CLASSES, *size)
    images = torch.rand(2, 3, 40, 56)
    first, second = model.predict(images, torch.tensor([[40, 56], [17, 9]]))
    assert isinstance(first, SemanticMap)
    assert first.probs.shape == (CLASSES, 40, 56)
    assert second.labels.shape == (17, 9)
    torch.testing.assert_close(second.probs.sum(dim=0), torch.ones(17, 9))
    assert model.predict(images[:0], torch.zeros(0, 2, dtype=torch.int64)) == []


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("known", ["all", "some", "none"])
def test_maps_with_pixels_that_do_not_count(name: str, known: str) -> None:
    model = make(name).train()
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    semantic = torch.randint(CLASSES, (2, 64, 64))
    if known != "all":
        semantic[0] = 255
    if known == "none":
        semantic[1] = 255
    terms = model.loss(images, targets_of(semantic))
    total = torch.stack(list(terms.values())).sum()
    assert terms.keys() == {"class", "dice"}
    assert all(term.dtype == torch.float32 for term in terms.values())
    total.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(torch.isfinite(grad).all() for grad in grads)
    if known == "none":
        assert float(total.detach()) == 0
    else:
        assert any((grad != 0).any() for grad in grads)


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_gives_much_the_same(name: str) -> None:
    model = make(name).to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
    images, sizes = torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]])
    full = model.predict(images, sizes)[0].probs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.predict(images, sizes)[0].probs
        assert torch.isfinite(model.loss(images, targets_of(torch.zeros(1, 64, 64).long()))["class"])
    assert half.dtype == torch.float32
    assert float((half - full).abs().max()) < 0.1


@pytest.mark.parametrize("name", SMALL)
def test_the_classes_start_anew_and_nothing_else(name: str) -> None:
    model = make(name)
    of_five = create_model(name.partition(" ")[0], num_classes=5, **SMALL[name]).state_dict()
    mine = model.state_dict()
    assert mine.keys() == of_five.keys()
    differing = {key for key in mine if mine[key].shape != of_five[key].shape}
    assert differing == set(model.class_layer)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.5)
    before = {key: value.clone() for key, value in model.named_parameters()}
    model.reset_classes()
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key]) == (key not in model.class_layer), key


@pytest.mark.parametrize("name", SMALL)
def test_a_pixel_that_is_no_number_is_seen_in_the_loss(name: str) -> None:
    model = make(name).eval()
    images = torch.rand(1, 3, 64, 64)
    images[0, 0, 5, 5] = torch.nan
    assert torch.isnan(model.loss(images, targets_of(torch.zeros(1, 64, 64).long()))["class"])


def test_parameters_of_a_backbone_can_have_a_rate_of_their_own() -> None:
    for name in ("unet on a backbone", "semantic_fpn", "danet"):
        inside = [key for key, _ in make(name).named_parameters() if "backbone" in key.split(".")]
        assert len(inside) > 10, name


def test_a_backbone_of_a_classifier_is_taken_over() -> None:
    torch.manual_seed(1)
    published = create_model("resnet18", num_classes=7)
    backbone = published.get_submodule("backbone")
    for name in ("unet on a backbone", "semantic_fpn", "danet"):
        model = make(name)
        taken = model.adapt_weights(backbone.state_dict())
        own = model.net.get_submodule("backbone") if isinstance(model.net, nn.Module) else None
        assert own is not None
        assert {f"net.backbone.{key}" for key, _ in own.named_parameters()} <= taken.keys(), name
