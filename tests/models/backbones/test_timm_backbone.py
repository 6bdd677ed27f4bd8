"""Networks of timm as backbones: timm's numbers, and levels as every backbone has them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import timm
import torch

from clearsight.errors import ConfigError, MissingExtra, ShapeError
from clearsight.models.backbones.timm_backbone import TimmBackbone

NAMES = (
    "resnet18",
    "resnetv2_18",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "convnext_atto",
    "regnetx_002",
    "ghostnet_100",
)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_timms(name: str, same_as_peer: Callable[..., None]) -> None:
    same_as_peer(TimmBackbone(name), timm.create_model(name), size=(64, 47))


def test_numbers_of_vit_are_timms(same_as_peer: Callable[..., None]) -> None:
    theirs = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, dynamic_img_pad=True)
    same_as_peer(TimmBackbone("vit_tiny_patch16_224"), theirs, size=(64, 97))


def test_numbers_of_swin_are_timms(same_as_peer: Callable[..., None]) -> None:
    theirs = timm.create_model("swin_tiny_patch4_window7_224", strict_img_size=False)
    same_as_peer(TimmBackbone("swin_tiny_patch4_window7_224"), theirs, size=(64, 36))


@pytest.mark.parametrize("name", [*NAMES, "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convmixer_768_32"])
def test_levels(name: str, has_levels: Callable[..., None]) -> None:
    model = TimmBackbone(name, channels=2)
    has_levels(model, (97, 65), (32, 32))
    expected = {"c3": 7, "c4": 14, "c5": 28} if "convmixer" in name else {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
    assert model.strides == expected


def test_levels_are_timms_feature_maps() -> None:
    model = TimmBackbone("efficientnet_b0").eval()
    theirs = timm.create_model("efficientnet_b0", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    shared = {name: value for name, value in model.net.state_dict().items() if name in theirs.state_dict()}
    theirs.load_state_dict(shared)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for found, expected in zip(model.features(x).values(), theirs(x), strict=True):
            torch.testing.assert_close(found, expected)
        odd = torch.randn(1, 3, 50, 70)
        filled = torch.nn.functional.pad(odd, (0, 26, 0, 14))
        for found, expected in zip(model.features(odd).values(), theirs(filled), strict=True):
            torch.testing.assert_close(found, expected[..., : found.shape[2], : found.shape[3]])


def test_the_pyramid_of_vit_is_of_its_tokens_after_the_norm() -> None:
    model, x = TimmBackbone("vit_tiny_patch16_224").eval(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        tokens = model.net.forward_features(x)[:, 1:]
        torch.testing.assert_close(model.features(x)["c4"].flatten(2).transpose(1, 2), tokens)
        torch.testing.assert_close(model(x), model.features(x)["c5"])


def test_paths_are_dropped_only_where_asked_for() -> None:
    def rates(drop_path: float) -> list[float]:
        net = TimmBackbone("swin_tiny_patch4_window7_224", drop_path=drop_path).net
        return [layer.drop_prob for layer in net.modules() if type(layer).__name__ == "DropPath"]

    assert not any(rates(0.0))  # timm's own is 0.1 here
    assert max(rates(0.3)) == pytest.approx(0.3)
    with pytest.raises(ConfigError, match="timm:ghostnet_100: there is no drop_path in this network"):
        TimmBackbone("ghostnet_100", drop_path=0.1)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match="no network named 'resnet81'; did you mean 'resnet18'"):
        TimmBackbone("resnet81")
    with pytest.raises(ConfigError, match=r"no network named '¿'; timm.list_models\(\) has all names"):
        TimmBackbone("¿")
    with pytest.raises(ConfigError, match="leave `norm` out"):
        TimmBackbone("resnet18", norm="group")
    with pytest.raises(ConfigError, match="leave `small_input` out"):
        TimmBackbone("resnet18", small_input=True)
    with pytest.raises(ConfigError, match="takes images of 224×224 only"):
        TimmBackbone("mixer_s32_224")
    with torch.device("meta"):
        unpadded = TimmBackbone("inception_v3")
        with pytest.raises(ConfigError, match="it has layers without padding; choose another network"):
            unpadded.features(torch.zeros(1, 3, 97, 65))
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        TimmBackbone("resnet18").features(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="31×64 are smaller than its largest stride, 32"):
        TimmBackbone("resnet18").embed(torch.zeros(1, 3, 31, 64))


def test_without_timm_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"pip install 'clearsight\[timm\]'"):
        TimmBackbone("resnet18")
