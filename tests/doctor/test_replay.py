from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.doctor.nonfinite import NonFinite, RandomState
from clearsight.doctor.replay import load_step, replay_step, save_step
from clearsight.doctor.step_keeper import KeptStep, StepKeeper, explain_step
from clearsight.errors import CheckpointError, ClearsightError, ConfigError, NonFiniteLoss, NotFound
from clearsight.types import Targets


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs().log()


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + (x * 0).sqrt() + 1 / (x.detach() + 3)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.drop = nn.Dropout(0.3)

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        logits = self.drop(self.conv(images / 255)).mean((2, 3))
        return {"class": F.cross_entropy(logits, targets.label), "area": (1 / targets.boxes.sum(dim=1)).mean()}


def net(*more: nn.Module) -> nn.Sequential:
    body = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.02), *more]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(64, 3))


def spoil(model: nn.Module, images: Tensor) -> tuple[NonFinite, KeptStep]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(5)
    with StepKeeper(model, optimizer) as keeper:
        F.cross_entropy(model(images), torch.arange(len(images)) % 3).backward()
        with pytest.raises(NonFiniteLoss):
            optimizer.step()
    assert keeper.found is not None
    assert keeper.blamed is not None
    return keeper.found, keeper.blamed


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("fault", [Log, Root])
def test_the_same_is_found_again_number_by_number(tmp_path: Path, fault: type[nn.Module], channels_last: bool) -> None:
    images = torch.randn(4, 2, 6, 6)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    model = net(fault())
    found, step = spoil(model, images)
    where = save_step(tmp_path, model=model, step=step, found=found, facts={"step": 7}, recipe={"optimizer": {"lr": 1}})
    assert where == tmp_path / "nonfinite"
    torch.randn(50)
    saved = load_step(tmp_path)
    assert saved.found == found
    assert (saved.facts, saved.recipe) == ({"step": 7}, {"optimizer": {"lr": 1}})
    again = replay_step(net(fault()).eval(), saved)
    assert again == found
    assert again.as_dict() == found.as_dict()
    assert replay_step(net(fault()), load_step(where)) == found
    assert found.direction == ("forward" if fault is Log else "backward")


def test_a_model_with_its_own_loss(tmp_path: Path) -> None:
    model = Own()
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    targets = Targets(boxes=boxes, labels=torch.tensor([1, 2]), image=torch.tensor([0, 1]), label=torch.tensor([0, 1]))
    images = torch.randint(0, 255, (2, 1, 6, 6), dtype=torch.uint8)
    step = KeptStep(args=(images, targets), by_loss=True, random_state=RandomState.now())
    found = explain_step(model, step)
    assert found is not None
    assert (found.direction, found.operation, found.samples) == ("loss", "reciprocal", (1,))
    save_step(tmp_path, model=model, step=step, found=found)
    saved = load_step(tmp_path)
    assert isinstance(saved.step.args[1], Targets)
    assert saved.step.args[1].masks is None
    assert replay_step(Own(), saved) == found


def test_nests_modes_and_autocast_come_back(tmp_path: Path) -> None:
    model = net()
    model[1].eval()
    kwargs = {"a": [torch.ones(2, dtype=torch.bool), (1, 2.5, "x", None, True)], "b": {"c": torch.zeros(3, 1).mT}}
    state = RandomState.now()
    gradients = {1: torch.randn(3)}
    step = KeptStep(
        args=(torch.randn(2, requires_grad=True),), kwargs=kwargs, random_state=state, gradients=gradients,
        autocast=("cpu", torch.bfloat16),
    )  # fmt: skip
    save_step(tmp_path, model=model, step=step)
    saved = load_step(tmp_path)
    assert saved.found is None
    assert (
        saved.training == {name for name, one in model.named_modules() if one.training} == set(saved.training) - {"1"}
    )
    assert saved.step.autocast == ("cpu", torch.bfloat16)
    assert saved.step.args[0].requires_grad
    assert torch.equal(saved.step.args[0], step.args[0])
    assert saved.step.kwargs["a"][1] == (1, 2.5, "x", None, True)
    assert torch.equal(saved.step.kwargs["a"][0], kwargs["a"][0])
    assert saved.step.kwargs["b"]["c"].shape == (1, 3)
    assert torch.equal(saved.step.random_state.cpu, state.cpu)
    assert torch.equal(saved.step.gradients[1], gradients[1])
    assert all(torch.equal(saved.weights[name], one) for name, one in model.state_dict().items())


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    step = KeptStep(
        args=(torch.full((2, 4), math.nan),), random_state=RandomState.now(), gradients={0: torch.ones(2, 4)}
    )
    save_step(tmp_path, model=model, step=step)
    assert replay_step(model, load_step(tmp_path)).direction == "input"


# ------------------------------------------------------------------------------------------------ bad input
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = net()
    images = torch.randn(4, 2, 6, 6)
    images[1] = math.nan
    found, step = spoil(model, images)
    return save_step(tmp_path, model=model, step=step, found=found)


def test_no_folder_and_no_step(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such folder"):
        load_step(tmp_path / "absent")
    with pytest.raises(NotFound, match="no step was saved"):
        load_step(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "batch.safetensors", "state.json"])
@pytest.mark.parametrize("fault", ["cut", "empty", "absent", "noise"])
def test_damaged_files_are_told(folder: Path, name: str, fault: str) -> None:
    path = folder / name
    data = path.read_bytes()
    if fault == "absent":
        path.unlink()
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": os.urandom(len(data))}[fault])
    with pytest.raises(ClearsightError, match=r"damaged|no step was saved"):
        load_step(folder)


@pytest.mark.parametrize("key", ["args", "kwargs", "random", "sha256", "training", "by_loss", "found", "gradients"])
@pytest.mark.parametrize("value", [..., 3, [], "x"])
def test_odd_states_are_told(folder: Path, key: str, value: object) -> None:
    content = json.loads((folder / "state.json").read_text())
    if value is ...:
        del content[key]
    else:
        content[key] = value
    (folder / "state.json").write_text(json.dumps(content))
    harmless = (key == "by_loss" and value is not ...) or (key == "training" and isinstance(value, str | list))
    if harmless:
        load_step(folder)
        return
    with pytest.raises(CheckpointError, match="damaged"):
        load_step(folder)


@pytest.mark.parametrize("text", ["[1]", '{"format": 99}', "null"])
def test_other_formats_are_told(folder: Path, text: str) -> None:
    (folder / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match="format 1"):
        load_step(folder)


def test_files_of_two_saves_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    step = KeptStep(args=(torch.ones(1),), random_state=RandomState.now())
    other = save_step(tmp_path / "other", model=net(), step=step)
    (folder / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is not the file that belongs"):
        load_step(folder)


def test_another_model_is_refused(folder: Path) -> None:
    saved = load_step(folder)
    with pytest.raises(CheckpointError, match="another model"):
        replay_step(nn.Linear(2, 2), saved)
    wider = net()
    wider[-1] = nn.Linear(64, 5)
    with pytest.raises(CheckpointError, match=r"2 tensors differ \(5\.weight"):
        replay_step(wider, saved)


def test_a_step_that_is_finite_now(tmp_path: Path) -> None:
    step = KeptStep(args=(torch.randn(2, 2, 6, 6),), random_state=RandomState.now(), gradients={0: torch.ones(2, 3)})
    save_step(tmp_path, model=net(), step=step)
    with pytest.raises(CheckpointError, match="all is finite"):
        replay_step(net(), load_step(tmp_path))


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    state = RandomState.now()
    with pytest.raises(ConfigError, match=r"args\.0 is a object"):
        save_step(tmp_path, model=net(), step=KeptStep(args=(object(),), random_state=state))
    with pytest.raises(ConfigError, match="plain JSON"):
        save_step(tmp_path, model=net(), step=KeptStep(args=(), random_state=state), facts={"a": object()})
    with pytest.raises(ConfigError, match="plain JSON"):
        save_step(tmp_path, model=net(), step=KeptStep(args=(), random_state=state), facts={"a": math.nan})
    assert not (tmp_path / "nonfinite").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "nonfinite").write_text("a file")
    with pytest.raises(CheckpointError, match="could not be saved"):
        save_step(tmp_path, model=net(), step=KeptStep(args=(), random_state=RandomState.now()))


def test_a_write_that_fails_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_step(folder.parent, model=net(), step=KeptStep(args=(), random_state=RandomState.now()))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
