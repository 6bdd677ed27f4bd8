"""Graphs as ONNX files: written, run once in ONNX Runtime, and kept only if they answer as the model does."""

from __future__ import annotations

import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

__all__ = ["MISSING", "ExportGraph", "example_images", "require_onnx", "run_file", "write_graph"]

MISSING = "it needs onnx, run: pip install 'clearsight[export]'"
TOLERANCE = 1e-4


class ExportGraph(nn.Module, ABC):
    """What becomes one file: a module of tensors to tensors, and what its answers should be.

    Attributes:
        task: as in a recipe.
        inputs: names, of tensors whose first side may have any length.
        outputs: names.
        multiple: of which height and width of the images may be any multiple; None for one size.
    """

    task: str = ""
    inputs: tuple[str, ...] = ("images",)
    outputs: tuple[str, ...] = ()
    multiple: int | None = None

    @abstractmethod
    def check(self, given: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        """Compare what ONNX Runtime gives with what the model's `predict` gives.

        Args:
            given: one tensor an input.
            answers: one tensor an output.

        Raises:
            ConfigError: they differ.
        """

    def require(self, what: str, found: Tensor, expected: Tensor) -> None:
        """Two tensors are equal to 1e-4, relative to the largest value.

        Args:
            what: for the message.
            found: by ONNX Runtime.
            expected: by the model.

        Raises:
            ConfigError: they differ.
        """
        if found.shape != expected.shape:
            raise ConfigError(
                f"export: {what} are {tuple(found.shape)} in ONNX Runtime and {tuple(expected.shape)} in the model"
            )
        if not found.numel():
            return
        gap = (found.double() - expected.double()).abs().max().item()
        allowed = TOLERANCE * max(1.0, expected.double().abs().max().item())
        if not gap <= allowed:
            raise ConfigError(
                f"export: {what} differ by {gap:.3g} between ONNX Runtime and the model, more than {allowed:.1g}; "
                "no file was written"
            )


def require_onnx() -> None:
    """See that all is installed.

    Raises:
        MissingExtra: the packages are not.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        import torchvision  # noqa: F401 - before the exporter looks for its operators
    except ImportError as error:
        raise MissingExtra(f"export: {MISSING}") from error


def example_images(count: int, channels: int, size: tuple[int, int], *, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Images `(count, channels, *size)` of coloured blotches under noise, always the same.

    Args:
        count: how many.
        channels: of each.
        size: `(height, width)`.
        dtype: uint8, or uint16 whose values are 257 times as large.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 5, 7, generator=generator)
    blotches = nn.functional.interpolate(coarse, size, mode="bicubic") * 255
    noise = torch.randn(count, channels, *size, generator=generator) * 20
    values = (blotches + noise).clamp(0, 255).round()
    return (values * 257 if dtype == torch.uint16 else values).to(torch.int32).to(dtype)


def write_graph(graph: ExportGraph, given: Sequence[Tensor], path: Path, *, about: Mapping[str, object]) -> Path:
    """Export, check, and only then put the file in its place.

    Args:
        graph: in evaluation mode. If the exporter finds that the sides of its images are fixed after all, its
            `multiple` becomes None.
        given: one tensor an input, at least two long each (one would be taken for a constant).
        path: the file; folders are made.
        about: the metadata, JSON below the key `clearsight`; `task` and `multiple` are added.

    Returns:
        The file.

    Raises:
        ConfigError: ONNX Runtime's answers are not the model's; no file is left.
    """
    program = _program(graph, given)
    program.model.metadata_props["clearsight"] = json.dumps({"task": graph.task, **about, "multiple": graph.multiple})
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        program.save(new)
        graph.check(given, run_file(new, given))
        if graph.multiple is not None:
            height, width = given[0].shape[-2:]
            other = given[0].repeat(1, 1, 2, 3)[..., : height + graph.multiple, : width + 2 * graph.multiple]
            graph.check([other], run_file(new, [other]))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return path


def run_file(path: Path, given: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a file on one tensor an input, on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    feeds = {name: one.numpy() for name, one in zip(names, given, strict=True)}
    return [torch.as_tensor(one) for one in session.run(None, feeds)]


def _program(graph: ExportGraph, given: Sequence[Tensor]) -> ONNXProgram:
    free: list[dict[int, Any]] = [{0: torch.export.Dim.DYNAMIC} for _ in given]
    if graph.multiple is not None:
        try:
            sides = {2: graph.multiple * torch.export.Dim("rows"), 3: graph.multiple * torch.export.Dim("columns")}
            return _exported(graph, given, [{**free[0], **sides}])
        except torch.onnx.OnnxExporterError:
            graph.multiple = None
    return _exported(graph, given, free)


def _exported(graph: ExportGraph, given: Sequence[Tensor], free: Sequence[dict[int, Any]]) -> ONNXProgram:
    with warnings.catch_warnings(), _quiet("onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # of the exporter's own parts
        program: Any = torch.onnx.export(
            graph,
            tuple(given),
            dynamo=True,
            dynamic_shapes=tuple(free),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            verbose=False,
        )
    return program


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Loggers that say what does not concern the user say nothing."""
    loggers = [logging.getLogger(name) for name in names]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
