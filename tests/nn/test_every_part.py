"""What every layer must stand: mixed precision, compilation, channels-last, empty batches, ONNX, copying, bad input."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import clearsight.nn
from clearsight.errors import ConfigError

HERE = Path(__file__).resolve().parent


def load_table() -> ModuleType:
    """The file `parts.py` beside this one; tests are no package."""
    spec = importlib.util.spec_from_file_location("parts", HERE / "parts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["parts"] = module
    spec.loader.exec_module(module)
    return module


TABLE = load_table()
PARTS = TABLE.PARTS


class Together(nn.Module):
    """Parts beside each other on one input: one export for many takes a fraction of the time."""

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [first(part(*[x.clone() for x in inputs])) for part in self.parts]


def groups(size: int = 8) -> list[list[str]]:
    """Names of parts that take the same input, at most so many at a time."""
    by_input: dict[object, list[str]] = {}
    for name, part in PARTS.items():
        if "onnx" not in part.without:
            by_input.setdefault(part.inputs, []).append(name)
    return [names[i : i + size] for names in by_input.values() for i in range(0, len(names), size)]


def exported(layer: nn.Module, inputs: tuple[Tensor, ...]) -> onnxruntime.InferenceSession:
    """The layer as ONNX Runtime runs it, for batches of any size."""
    names = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    shapes = (names,) if isinstance(layer, Together) else names
    program = torch.onnx.export(layer, inputs, dynamo=True, verbose=False, dynamic_shapes=shapes)
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])


GROUPS = groups()
every_part = pytest.mark.parametrize("name", PARTS)


def parts_for(test: str) -> pytest.MarkDecorator:
    """The parts that a test is asked of."""
    return pytest.mark.parametrize("name", [name for name, part in PARTS.items() if test not in part.without])


def made(name: str, n: int = 3, *, train: bool = True) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A layer with settled statistics, and its input."""
    layer, inputs = PARTS[name].build(), PARTS[name].inputs(n)
    return layer.train(train), inputs


def first(output: Any) -> Tensor:
    """The output, or the first of several."""
    return output if isinstance(output, Tensor) else first(output[0])


def trained(layer: nn.Module, inputs: tuple[Tensor, ...], *, backend: str | None = None) -> tuple[Tensor, list[Tensor]]:
    """Output of a seeded step, compiled or not, and the gradients of inputs and parameters."""
    torch.manual_seed(1)
    leaves = [x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs]

    def run(*xs: Tensor) -> Tensor:
        return first(layer(*[x * 1 if x.is_floating_point() else x for x in xs]))  # no leaf is changed in place

    if backend is None:
        output = run(*leaves)
    else:
        output = torch.compile(run, backend=backend, fullgraph=True, dynamic=False)(*leaves)
    wanted = [x for x in (*leaves, *layer.parameters()) if x.requires_grad]
    gradients = torch.autograd.grad(output.float().square().sum(), wanted, allow_unused=True)
    return output.detach(), [torch.zeros(()) if g is None else g for g in gradients]


# ------------------------------------------------------------------------------------------------ each part
@every_part
def test_under_autocast_values_are_close_and_gradients_finite(name: str) -> None:
    layer, inputs = made(name)
    expected, _ = trained(copy.deepcopy(layer), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, gradients = trained(copy.deepcopy(layer), inputs)
        half, _ = trained(layer, tuple(x.bfloat16() if x.ndim > 2 and x.is_floating_point() else x for x in inputs))
    assert mixed.dtype in (torch.float32, torch.bfloat16)
    if "bfloat16" not in PARTS[name].without:
        assert half.dtype == torch.bfloat16  # what follows in a network runs in half precision too
    assert all(torch.isfinite(g).all() for g in gradients)
    scale = expected.abs().amax()
    for found in (mixed, half):
        torch.testing.assert_close(found.float() / scale, expected / scale, rtol=0.05, atol=0.05)


def compiled_is_eager(name: str, backend: str) -> None:
    torch.compiler.reset()
    layer, inputs = made(name)
    before = None
    for train in (True, False):
        layer.train(train)
        expected, gradients = trained(copy.deepcopy(layer), inputs)
        if before is not None and torch.equal(expected, before):
            return  # in use it is what it is in training
        before = expected
        found, others = trained(layer, inputs, backend=backend)
        if train and "draws" in PARTS[name].without:
            assert found.shape == expected.shape
            assert torch.isfinite(found).all()
            continue
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(others, gradients, rtol=1e-3, atol=1e-3)


@parts_for("compile")
def test_compiled_is_eager(name: str) -> None:
    compiled_is_eager(name, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SpatiallySeparable", "norm(group)"])
def test_compiled_to_machine_code_is_eager(name: str) -> None:
    compiled_is_eager(name, "inductor")


@parts_for("channels_last")
def test_channels_last_stays_and_changes_no_number(name: str) -> None:
    layer, inputs = made(name, train=False)
    expected = first(layer(*[x.clone() for x in inputs]))
    assert expected.ndim == 4
    moved = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
    found = first(layer.to(memory_format=torch.channels_last)(*moved))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


@every_part
def test_an_empty_batch_passes_forward_and_backward(name: str) -> None:
    for train in (True, False):
        layer, inputs = made(name, 0, train=train)
        like, _ = trained(*made(name, 2, train=train))
        output, gradients = trained(layer, inputs)
        assert output.shape[1:] == like.shape[1:]
        assert output.numel() == 0
        assert all(torch.isfinite(g).all() for g in gradients)
        assert all(torch.isfinite(b).all() for b in layer.buffers() if b.is_floating_point())


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
@pytest.mark.filterwarnings("ignore")  # of the exporter itself
def test_exported_to_onnx_they_give_the_same_numbers(group: list[str]) -> None:
    layers = Together(made(name)[0] for name in group)
    inputs = PARTS[group[0]].inputs(3)
    for layer in layers.parts:
        trained(layer, inputs)  # running statistics that are not those of the start
    layers.eval()
    try:
        session = exported(layers, inputs)
    except RuntimeError:
        for name, layer in zip(group, layers.parts, strict=True):
            print(name)  # the last one is at fault
            exported(layer, inputs)
        raise
    for n in (3, 5):
        inputs = PARTS[group[0]].inputs(n)
        fed = {spot.name: x.numpy().copy() for spot, x in zip(session.get_inputs(), inputs, strict=True)}
        with torch.no_grad():
            expected = layers(*inputs)
        for name, mine, theirs in zip(group, expected, session.run(None, fed), strict=True):
            np.testing.assert_allclose(theirs, mine.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


@every_part
def test_a_copy_and_a_checkpoint_are_the_same_layer(name: str) -> None:
    layer, inputs = made(name)
    trained(layer, inputs)
    layer.eval()
    expected = first(layer(*[x.clone() for x in inputs]))
    torch.testing.assert_close(first(copy.deepcopy(layer)(*[x.clone() for x in inputs])), expected, rtol=0, atol=0)
    other = PARTS[name].build().eval()
    assert other.load_state_dict(layer.state_dict(), strict=True)
    torch.testing.assert_close(first(other(*inputs)), expected, rtol=0, atol=0)


@parts_for("rank")
def test_a_wrong_rank_is_refused(name: str) -> None:
    layer, inputs = made(name)
    with pytest.raises((ValueError, RuntimeError, IndexError)) as caught:
        layer(inputs[0].flatten(0, max(1, inputs[0].ndim - 2)), *inputs[1:])
    assert len(str(caught.value)) > 20  # says something


# ------------------------------------------------------------------------------------------------ the table
def offered() -> dict[str, object]:
    """What the files of `clearsight.nn` offer, by name."""
    found = {}
    for info in pkgutil.iter_modules(clearsight.nn.__path__):
        module = importlib.import_module(f"clearsight.nn.{info.name}")
        found |= {name: getattr(module, name) for name in module.__all__}
    return found


def makes_a_layer(thing: object) -> bool:
    if not inspect.isfunction(thing):
        return False
    returned = get_type_hints(thing).get("return")
    return isinstance(returned, type) and issubclass(returned, nn.Module)


def test_no_part_is_forgotten() -> None:
    built = {type(layer) for part in PARTS.values() for layer in part.build().modules()}
    stems = {name.partition("(")[0].partition(",")[0] for name in PARTS}
    public = offered()
    missing = [
        name
        for name, thing in public.items()
        if name not in TABLE.EXCEPTIONS
        and (
            (isinstance(thing, type) and issubclass(thing, nn.Module) and thing not in built)
            or (makes_a_layer(thing) and name not in stems)
        )
    ]
    assert missing == []
    assert sorted(set(TABLE.EXCEPTIONS) - set(public)) == []


@pytest.mark.parametrize("what", TABLE.BY_NAME)
def test_an_unknown_name_is_told_the_nearest(what: str) -> None:
    make = TABLE.BY_NAME[what]
    with pytest.raises(ConfigError, match=r"'no such layer'; choose one of \w+"):
        make("no such layer")
    with pytest.raises(ConfigError) as caught:
        make("no such layer")
    a_name = str(caught.value).rpartition("choose one of ")[2].split(", ")[-1]
    with pytest.raises(ConfigError, match=f"; did you mean '{a_name}'"):
        make(a_name + "x")
