"""Published weights: verified, never unpickled, every key accounted for."""

from __future__ import annotations

import hashlib
import pickle
import re
import socket
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from clearsight.errors import NotFound, WeightsError
from clearsight.models import create_model, weights
from clearsight.models.weights import load_weights, read_weights


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """torchvision's ResNet-18 with 7 classes, as it is published."""
    state = torchvision.models.resnet18(weights=None, num_classes=7).state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth", state


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_all_keys_match(published: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = published
    model = create_model("resnet18", num_classes=7)
    report = load_weights(model, path, sha256=digest(path).upper())
    assert len(report.matched) == len(state)
    assert report.missing == report.unexpected == report.shape_mismatch == report.reinitialised == report.adapted == ()
    own = model.state_dict()
    for name, value in state.items():
        torch.testing.assert_close(own[name.replace("fc.", "head.") if "fc." in name else f"backbone.{name}"], value)
    assert str(report) == "122 tensors matched"


def test_safetensors_and_nested_files_give_the_same(published: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    path, state = published
    save_file(state, tmp_path / "resnet18.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "nested.pt")
    plain = read_weights(path)
    for other in ("resnet18.safetensors", "nested.pt"):
        found = read_weights(tmp_path / other)
        assert found.keys() == plain.keys()
        assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_other_classes_start_anew(published: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = published
    model = create_model("resnet18", num_classes=3)
    report = load_weights(model, path)
    assert [line.split(":")[0] for line in report.reinitialised] == ["head.bias", "head.weight"]
    assert "(7, 512) in the file, (3, 512) here" in report.reinitialised[1]
    assert "reinitialised (2)" in str(report)
    assert report.shape_mismatch == ()
    torch.testing.assert_close(model.state_dict()["backbone.conv1.weight"], state["conv1.weight"])


def test_a_detectors_classes_start_at_the_prior(tmp_path: Path) -> None:
    source = create_model("retinanet", num_classes=5, fpn_channels=8, head_convs=0)
    torch.save(source.state_dict(), tmp_path / "five.pt")
    model = create_model("retinanet", num_classes=2, fpn_channels=8, head_convs=0)
    bias = model.state_dict()["head.classification_head.cls_logits.bias"]
    bias.fill_(9.0)
    report = load_weights(model, tmp_path / "five.pt")
    assert len(report.reinitialised) == 2
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))


def test_a_classifiers_backbone_for_a_detector(published: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = published
    model = create_model("retinanet", num_classes=2, fpn_channels=8, head_convs=0)
    report = load_weights(model, path)
    assert len(report.matched) == len(state) - 2
    assert report.unexpected == ()
    assert any(name.startswith("neck.") for name in report.missing)
    assert not any(name.startswith("backbone.") for name in report.missing)


def test_torchvisions_detector_is_translated(tmp_path: Path) -> None:
    theirs = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "retinanet.pth")
    report = load_weights(create_model("retinanet", backbone="resnet50", num_classes=3), tmp_path / "retinanet.pth")
    assert report.missing == report.unexpected == report.shape_mismatch == ()


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_are_shared_out(published: tuple[Path, dict[str, Tensor]], channels: int) -> None:
    path, state = published
    model = create_model("resnet18", num_classes=7, channels=channels)
    report = load_weights(model, path)
    assert report.adapted == (f"backbone.conv1.weight: 3 input channels shared out over {channels}",)
    assert "backbone.conv1.weight" not in report.matched
    weight = model.state_dict()["backbone.conv1.weight"]
    torch.testing.assert_close(weight.sum(1), state["conv1.weight"].sum(1), rtol=1e-4, atol=1e-5)


def test_frozen_norms_take_batch_norms(published: tuple[Path, dict[str, Tensor]]) -> None:
    report = load_weights(create_model("resnet18", num_classes=7, norm="frozen_batch"), published[0])
    assert report.missing == report.unexpected == ()


def test_strict_leaves_the_model_untouched(published: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    state = dict(published[1])
    state["extra.weight"] = state.pop("layer1.0.conv1.weight")
    state["layer1.0.conv2.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "odd.pth")
    model = create_model("resnet18", num_classes=7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match="strict, and not every key fits") as caught:
        load_weights(model, tmp_path / "odd.pth", strict=True)
    for part in (
        "missing (1): backbone.layer1.0.conv1.weight",
        "unexpected (1): backbone.extra.weight",
        "shape mismatch (1): backbone.layer1.0.conv2.weight: (2, 2) in the file, (64, 64, 3, 3) here",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = load_weights(model, tmp_path / "odd.pth")
    assert (report.missing, report.unexpected) == (("backbone.layer1.0.conv1.weight",), ("backbone.extra.weight",))


def test_weights_of_another_model(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(WeightsError, match="nothing in it fits the model"):
        load_weights(create_model("retinanet", num_classes=2), tmp_path / "linear.pt")


def test_a_wrong_checksum(published: tuple[Path, dict[str, Tensor]]) -> None:
    with pytest.raises(WeightsError, match=f"expected sha256 {'0' * 64}, found {digest(published[0])}"):
        read_weights(published[0], sha256="0" * 64)


def test_a_url_is_verified_and_kept(
    published: tuple[Path, dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARSIGHT_CACHE", (tmp_path / "cache").as_posix())
    path, state = published
    with pytest.raises(WeightsError, match="expected sha256"):
        read_weights(path.as_uri(), sha256="0" * 64)
    assert list((tmp_path / "cache" / "weights").iterdir()) == []  # nothing wrong is kept, nor half a file
    found = read_weights(path.as_uri(), sha256=digest(path))
    assert found.keys() == state.keys()
    (kept,) = (tmp_path / "cache" / "weights").iterdir()
    assert kept.name.endswith("-resnet18.pth")
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        read_weights((tmp_path / "absent.pth").as_uri())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a server of this machine offers its files."""
    folder = tmp_path / "www"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder.as_posix()))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_is_checked_by_its_name(
    published: tuple[Path, dict[str, Tensor]], served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARSIGHT_CACHE", (tmp_path / "cache").as_posix())
    folder, address = served
    path, state = published
    while not re.search("[a-f]", start := digest(path)[:8]):  # all digits might be a date, and are not looked at
        state["fc.bias"] += 1
        torch.save(state, path)
    whole = path.read_bytes()
    (folder / f"resnet18-{start}.pth").write_bytes(whole)
    report = load_weights(create_model("resnet18", num_classes=7), f"{address}/resnet18-{start}.pth")
    assert (report.missing, report.unexpected) == ((), ())
    (folder / "other-0abcdef0.pth").write_bytes(whole)
    with pytest.raises(WeightsError, match=f"expected sha256 0abcdef0, found {start}"):
        read_weights(f"{address}/other-0abcdef0.pth")
    (folder / "kept.pth").write_bytes(whole)  # no checksum in its name: taken as it is
    assert read_weights(f"{address}/kept.pth").keys() == published[1].keys()
    with pytest.raises(WeightsError, match=r"absent\.pth: cannot be downloaded \(File not found\); check the address"):
        read_weights(f"{address}/absent.pth")


def test_a_download_that_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARSIGHT_CACHE", (tmp_path / "cache").as_posix())
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 400)

        thread = Thread(target=answer)
        thread.start()
        with pytest.raises(WeightsError, match="broke off after 400 of 1000 bytes; try again"):
            read_weights(f"http://127.0.0.1:{server.getsockname()[1]}/half.pth")
        thread.join()
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


@pytest.mark.parametrize(("name", "checksum"), [("x-f37072fd.pth", "f37072fd"), ("x-20241121.pth", None)])
def test_a_date_is_no_checksum(name: str, checksum: str | None) -> None:
    found = weights.NAMED_CHECKSUM.match(f"https://example.org/models/{name}")
    assert (found and found[1]) == checksum


def test_a_checksum_that_is_none(published: tuple[Path, dict[str, Tensor]]) -> None:
    with pytest.raises(WeightsError, match="sha256: expected 64 hexadecimal digits, found 'f37072fd'"):
        read_weights(published[0], sha256="f37072fd")


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (trap,)

    torch.save({"a": Bomb()}, tmp_path / "bomb.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pt", "raw.pt"):
        with pytest.raises(WeightsError, match="not a weights file that can be read safely"):
            read_weights(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["junk.pt", "junk.safetensors", "empty.pt", "empty.safetensors"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"junk" * 100)
    with pytest.raises(WeightsError, match="not a weights file that can be read safely"):
        read_weights(tmp_path / name)


def test_not_a_state_dict_and_not_a_file(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="expected tensors by name, found list; save a state dict"):
        read_weights(tmp_path / "list.pt")
    with pytest.raises(NotFound, match="no such weights file"):
        read_weights(tmp_path / "absent.pt")
