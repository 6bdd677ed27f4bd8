"""Bands of rows into a tiled TIFF, as they come: the file appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from clearsight.errors import ConfigError

__all__ = ["check_output", "write_bands"]

_SIDE = 256  # of a tile, as viewers and whole-slide software like it


def check_output(path: Path, source: object) -> None:
    """Refuse, before hours of work, a file that could not be written at their end; makes its folder.

    Raises:
        ConfigError: not a name of a TIFF, a folder, the image itself, or in a folder that cannot be made.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(f"{path}: results are written as TIFF; give a name that ends in .tif")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder; give the name of a file")
        same = isinstance(source, str | Path) and path.exists() and path.samefile(Path(source).expanduser())
    except OSError as err:
        raise _unwritable(path, err) from err
    if same:
        raise ConfigError(f"{path}: is the image itself, which the result would replace; give another name")


def write_bands(path: Path, bands: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Write a BigTIFF in tiles of 256 × 256, compressed without loss, as its rows come.

    Until the last row is written it has another name (`.NAME.PID.part`), which is removed when the work ends early.

    Args:
        path: of the result; a file of that name is replaced.
        bands: `(rows, w)` or `(rows, w, k)`, from top to bottom.
        shape: of all rows together, `(h, w)` or `(h, w, k)`.
        dtype: of the bands.

    Raises:
        ConfigError: the file cannot be written, or the disk is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    tile = (_SIDE, _SIDE)
    try:
        with tifffile.TiffWriter(part, bigtiff=True) as tif:
            tif.write(
                _tiles(bands, shape),
                shape=shape,
                dtype=dtype,
                tile=tile,
                compression="zlib",
                photometric="minisblack",
                planarconfig="contig" if len(shape) == 3 else None,
                metadata=None,
                maxworkers=1,
            )
        part.replace(path)
    except OSError as err:
        raise _unwritable(path, err) from err
    finally:
        part.unlink(missing_ok=True)


def _unwritable(path: Path, err: OSError) -> ConfigError:
    return ConfigError(f"{path}: the result cannot be written: {err.strerror or err}; give another place")


def _tiles(bands: Iterator[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Tiles in the order in which a TIFF has them; those at the right and the bottom are filled up with zeros."""
    held = None
    for band in bands:
        held = band if held is None else np.concatenate((held, band))
        whole = len(held) // _SIDE * _SIDE
        for top in range(0, whole, _SIDE):
            yield from _cut(held[top : top + _SIDE], shape[1])
        held = held[whole:]
    if held is not None and len(held):
        yield from _cut(held, shape[1])


def _cut(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    for left in range(0, width, _SIDE):
        piece = rows[:, left : left + _SIDE]
        tile = np.zeros((_SIDE, _SIDE, *rows.shape[2:]), rows.dtype)
        tile[: piece.shape[0], : piece.shape[1]] = piece
        yield tile
