"""Receptive fields of torchvision's models: ours against the support of the gradient, place by place."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.measure.reach_trace import trace
from clearsight.measure.receptive_field import receptive_field
from harness import Options, Row, arguments, compare, report

# Layer before the global pool, a size of image that holds the field of its middle place (smaller for large fields:
# what is cut at the border must be exact as well), and the field where others have published it.
MODELS: dict[str, tuple[str, int, int | None]] = {
    "alexnet": ("features", 256, 195),
    "vgg11_bn": ("features", 256, None),
    "vgg16": ("features", 320, 212),
    "squeezenet1_0": ("classifier.2", 224, None),
    "squeezenet1_1": ("classifier.2", 256, None),
    "googlenet": ("inception5b", 512, None),
    "inception_v3": ("Mixed_7c", 1536, None),
    "resnet18": ("layer4", 512, 435),
    "resnet34": ("layer4", 1024, None),
    "resnet50": ("layer4", 544, 427),
    "resnet101": ("layer4", 1088, None),
    "resnext50_32x4d": ("layer4", 544, None),
    "wide_resnet50_2": ("layer4", 544, None),
    "densenet121": ("features", 384, None),
    "shufflenet_v2_x0_5": ("conv5", 640, None),
    "shufflenet_v2_x1_0": ("conv5", 640, None),
    "mobilenet_v2": ("features", 576, 491),
    "mobilenet_v3_small": ("features", 704, None),
    "mobilenet_v3_large": ("features", 768, None),
    "mnasnet0_5": ("layers", 896, None),
    "mnasnet1_0": ("layers", 896, None),
    "regnet_x_400mf": ("trunk_output", 1088, None),
    "regnet_y_400mf": ("trunk_output", 640, None),
    "efficientnet_b0": ("features", 928, None),
    "efficientnet_b1": ("features", 1280, None),
    "convnext_tiny": ("features", 256, None),
    "fcn_resnet50": ("backbone.layer4", 512, None),
    "deeplabv3_resnet50": ("classifier.0.convs.1", 448, None),
}
QUICK = ("alexnet", "squeezenet1_1", "shufflenet_v2_x0_5")
WHOLE = ("mobilenet_v3_large", "efficientnet_b0", "regnet_y_400mf", "vit_b_16", "deeplabv3_resnet50")
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Dropout)
NORMS = (nn.BatchNorm2d, nn.LayerNorm)
Box = tuple[int, int, int, int]


def build(name: str) -> nn.Module:
    more = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith(("fcn", "deeplab")):
        more = {"weights_backbone": None}
    return torchvision.models.get_model(name, weights=None, **more).eval()


def transparent(model: nn.Module) -> nn.Module:
    """A copy in which each path has a positive gradient: positive weights, no activation, no norm, no global gate."""
    model = copy.deepcopy(model).double()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (*ACTIVATIONS, *NORMS)) or type(child).__name__ == "SqueezeExcitation":
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            plain = weight.ndim > 1 and "layer_scale" not in name and "position" not in name
            weight.fill_(1 / weight[0].numel() if plain else 0.0 if name.endswith("bias") else 1.0)
    return model.eval()


@contextlib.contextmanager
def averages_for_maxima() -> Iterator[None]:
    """A maximum has a gradient for one place only, an average for all that were compared."""

    def average(
        x: Tensor,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        dilation: int = 1,
        ceil_mode: bool = False,  # noqa: FBT001, FBT002
        return_indices: bool = False,  # noqa: FBT001, FBT002
    ) -> Tensor:
        return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)

    kept = F.max_pool2d
    F.max_pool2d = average
    try:
        yield
    finally:
        F.max_pool2d = kept


def by_gradient(model: nn.Module, layer: str, size: int) -> Box:
    """First and last row, first and last column of the pixels that the middle place of a layer has a gradient for."""
    image = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: object, out: Tensor) -> None:
        kept.append(out)

    handle = model.get_submodule(layer).register_forward_hook(keep)
    with averages_for_maxima(), contextlib.suppress(ValueError):
        model(image)
    handle.remove()
    height, width = kept[0].shape[-2:]
    (gradient,) = torch.autograd.grad(kept[0][0, :, height // 2, width // 2].sum(), image)
    seen = gradient.abs().sum(dim=(0, 1))
    rows, columns = seen.sum(1).nonzero().flatten(), seen.sum(0).nonzero().flatten()
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def in_theory(model: nn.Module, layer: str, size: int) -> Box:
    """The same of our trace, without global gates."""
    copied = copy.deepcopy(model).to("meta").eval()
    found = trace(copied, torch.empty(1, 3, size, size, device="meta")).modules[layer][0]
    height, width = found.shape[-2:]
    if found.seen is None:
        raise ValueError(f"{layer}: does not depend on the image")
    sides = (one[0, :, height // 2, width // 2].max() for one in found.seen.local)
    up, down, left, right = (float(one.clamp(max=size - 1)) for one in sides)
    up, left = min(up, 0.0), min(left, 0.0)
    return -int(up), int(down), -int(left), int(right)


def exact(options: Options) -> list[Row]:
    names = QUICK if options.quick else tuple(MODELS)
    alike = inside = 0
    rows = []
    for name in names:
        layer, size, published = MODELS[name]
        model = build(name)
        support: Callable[[], Box] = lambda model=model, layer=layer, size=size: by_gradient(  # noqa: E731
            transparent(model), layer, size
        )
        theirs, ours = support(), in_theory(model, layer, size)
        alike += ours == theirs
        bounded = theirs[0] > 0 and theirs[2] > 0 and max(theirs[1], theirs[3]) < size - 1
        inside += ours == theirs and bounded
        field = receptive_field(model, size=256)[layer]
        said = "exact" if ours == theirs else "NOT EXACT"
        cut = "" if bounded else " (cut at the border)"
        print(f"{name:20} {layer:22} {field!s:28} {ours} {theirs} {said}{cut}", flush=True)
        if published is not None:
            side = 0 if field.pixels is None else field.pixels[0]
            rows.append(
                compare(f"{name}: published {published}", abs(side - published), unit="px", better="lower", bar=0)
            )
    note = "rows and columns of the middle place"
    within = compare(
        "models exact, field inside the image",
        inside,
        unit="models",
        better="higher",
        bar=min(25, len(names)),
        note="of the others the field is larger than an image that fits into memory",
    )
    return [compare("models exact", alike, unit="models", better="higher", bar=len(names), note=note), within, *rows]


def whole() -> list[Row]:
    seen = sum(receptive_field(build(name)).outputs[0].whole for name in WHOLE)
    return [compare("gates, attention: whole image", seen, unit="models", better="higher", bar=len(WHOLE))]


def main() -> int:
    options = arguments((__doc__ or "").splitlines()[0])
    return report("receptive_field", [*exact(options), *whole()], options)


if __name__ == "__main__":
    sys.exit(main())
