"""Published weights, from a file or a URL: verified, never unpickled, every key accounted for."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tempfile
import urllib.request
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from clearsight.data.digit_scenes import cache_folder
from clearsight.errors import NotFound, WeightsError
from clearsight.models.backbones.published import adapt_first_layer

__all__ = ["WeightsReport", "load_weights", "read_weights"]

SCHEMES = ("http", "https", "file")
# The start of the checksum in a download's name; without a letter it may as well be a date.
NAMED_CHECKSUM = re.compile(r"https?://[^?#]*-(?=\d*[a-f])([0-9a-f]{8})\.(?:pth|pt|safetensors)$")
OPTIONAL = ("num_batches_tracked",)  # a counter that old files lack and frozen norms do not have


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What became of every key.

    Args:
        matched: loaded as they are.
        missing: of the model, not in the file: they keep their initial values.
        unexpected: of the file, not in the model: they were left out.
        shape_mismatch: `name: file's shape, model's shape`; the model's keep their initial values.
        adapted: loaded after a change, with what was changed.
        reinitialised: class layers that start anew because the number of classes differs.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shape_mismatch: tuple[str, ...]
    adapted: tuple[str, ...] = ()
    reinitialised: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} tensors matched"]
        for title in ("adapted", "reinitialised", "missing", "unexpected", "shape_mismatch"):
            names = getattr(self, title)
            if names:
                lines.append(f"{title.replace('_', ' ')} ({len(names)}): {', '.join(names)}")
        return "\n".join(lines)


def load_weights(
    model: nn.Module, source: str | Path, *, sha256: str | None = None, strict: bool = False
) -> WeightsReport:
    """Load weights into a model, in place.

    Published names, torchvision's or timm's, are translated by the model's `adapt_weights`. First convolutions for
    another number of input channels are adapted (`backbones.published.adapt_first_layer`). Where the number of classes
    differs, the class layer starts anew (a detector's at its prior) and the report says so.

    Args:
        model: any module.
        source: a `.safetensors` file, a torch file of tensors, or a URL (`https:`, `http:`, `file:`) of one. A download
            is kept in the cache folder and used again.
        sha256: the file's checksum in hexadecimal. None checks a download against the start of its checksum that
            torchvision writes into its files' names (`resnet18-f37072fd.pth`), and nothing where there is none.
        strict: any missing, unexpected or mismatched key is an error, and the model is left untouched.

    Returns:
        What became of every key.

    Raises:
        NotFound: the file does not exist.
        WeightsError: the checksum differs, the file cannot be read, nothing in it fits, or `strict` and not all fits.
    """
    state = read_weights(source, sha256=sha256)
    if hasattr(model, "adapt_weights"):
        state = model.adapt_weights(state)  # pyright: ignore[reportCallIssue]
    fitting, report, class_layer = _compare(model, state)
    faults = report.missing + report.unexpected + report.shape_mismatch
    if not fitting or (strict and (faults or class_layer)):
        why = "nothing in it fits the model" if not fitting else "strict, and not every key fits"
        raise WeightsError(f"{source}: {why}\n{report}")
    model.load_state_dict(fitting, strict=False)
    if class_layer:
        model.reset_classes()  # pyright: ignore[reportCallIssue]
    return report


def read_weights(source: str | Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a weights file, on the CPU; no code in the file is ever run.

    Args:
        source: see `load_weights`.
        sha256: see `load_weights`.

    Returns:
        Tensors by name; a torch file's `state_dict`, `model` or `model_state_dict` entry is looked into.

    Raises:
        NotFound: the file does not exist.
        WeightsError: the checksum differs or the file is not one of tensors.
    """
    path = _fetch(str(source), sha256) if urlparse(str(source)).scheme in SCHEMES else Path(source)
    if not path.is_file():
        raise NotFound(f"{path}: no such weights file; give the path or URL of a .safetensors or torch file")
    _verify(path, sha256, str(source))
    try:
        loaded = _parse(path)
    except Exception as error:  # a damaged file fails somewhere inside the parsers, with whatever error comes first
        raise _unreadable(source, error) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{source}: expected tensors by name, found {type(loaded).__name__}; save a state dict")
    return dict(loaded)


def _parse(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints on how to read such a file with code allowed
        return torch.load(path, map_location="cpu", weights_only=True)


def _unreadable(source: str | Path, error: Exception) -> WeightsError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return WeightsError(
        f"{source}: not a weights file that can be read safely ({first}); expected safetensors, or tensors by name "
        "saved with torch.save. Files that need code to load are refused"
    )


def _compare(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], WeightsReport, bool]:
    """Tensors that fit, what became of every key, and whether the class layer must start anew."""
    own = model.state_dict()
    fitting, mismatch, adapted = {}, [], []
    for name in own.keys() & state.keys():
        value, shape = state[name], tuple(own[name].shape)
        if tuple(value.shape) == shape:
            fitting[name] = value
        elif _first_layer(value, own[name], model):
            fitting[name] = adapt_first_layer(value, shape[1])
            adapted.append(f"{name}: {value.shape[1]} input channels shared out over {shape[1]}")
        else:
            mismatch.append(name)
    layer = set(getattr(model, "class_layer", ())) & own.keys()
    reset = bool(layer & set(mismatch))
    described = {
        name: f"{name}: {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} here" for name in mismatch
    }
    report = WeightsReport(
        matched=tuple(sorted(fitting.keys() - {line.split(":")[0] for line in adapted})),
        missing=tuple(sorted(name for name in own.keys() - state.keys() if not _optional(name))),
        unexpected=tuple(sorted(name for name in state.keys() - own.keys() if not _optional(name))),
        shape_mismatch=tuple(described[name] for name in sorted(mismatch) if not (reset and name in layer)),
        adapted=tuple(adapted),
        reinitialised=tuple(described[name] for name in sorted(mismatch) if reset and name in layer),
    )
    return fitting, report, reset


def _first_layer(value: Tensor, own: Tensor, model: nn.Module) -> bool:
    """Whether the two differ in the number of the image's channels alone."""
    channels = getattr(getattr(model, "backbone", model), "in_channels", None)
    others = (0, 2, 3)
    return (
        value.ndim == own.ndim == 4
        and own.shape[1] == channels
        and all(value.shape[axis] == own.shape[axis] for axis in others)
    )


def _optional(name: str) -> bool:
    """Keys whose absence means nothing: counters, and the input statistics, which come of the data."""
    return name.endswith(OPTIONAL) or name.startswith("input_norm.")


def _verify(path: Path, sha256: str | None, source: str) -> None:
    if sha256 is None and (named := NAMED_CHECKSUM.match(source)):
        sha256 = named[1]
    elif sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256.lower()):
        raise WeightsError(f"sha256: expected 64 hexadecimal digits, found {sha256!r}")
    if sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(sha256.lower()):
        raise WeightsError(
            f"{source}: expected sha256 {sha256.lower()}, found {found}; the file is damaged or another one"
        )


def _fetch(url: str, sha256: str | None) -> Path:
    """A URL's file in the cache; downloaded beside its place, verified, and then moved there in one step."""
    name = Path(urlparse(url).path).name or "weights"
    target = cache_folder() / "weights" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    if target.is_file() and urlparse(url).scheme != "file":
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, timeout=60) as response:
            while block := response.read(1 << 20):
                out.write(block)
            written, promised = out.tell(), response.headers.get("Content-Length")
        if promised is not None and written != int(promised):
            raise WeightsError(f"{url}: the download broke off after {written} of {promised} bytes; try again")
        _verify(Path(partial), sha256, url)
        Path(partial).replace(target)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", None) or error
        raise WeightsError(f"{url}: cannot be downloaded ({why}); check the address or give a file") from error
    finally:
        Path(partial).unlink(missing_ok=True)
    return target
