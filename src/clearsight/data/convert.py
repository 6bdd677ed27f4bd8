"""From one annotation format to another, and never a loss that was not agreed to."""

from __future__ import annotations

from pathlib import Path

from clearsight.data.formats import FORMATS
from clearsight.data.read import read_annotations
from clearsight.errors import ConfigError, DataError
from clearsight.types import Finding

__all__ = ["convert"]


def convert(
    path: str | Path,
    *,
    source: str = "auto",
    to: str,
    out: str | Path,
    allow_loss: bool = False,
) -> list[Finding]:
    """Read a data set and write it in another format, images included (as hard links where the file system has them).

    What the target cannot carry is found before anything is written. Losses of content are refused unless allowed; what
    can be made anew (ids, the folder an image lay in) is told, but is no reason to refuse. What a reader cannot
    understand is dropped and is among the findings; all other values are carried as they are, boxes outside their
    image too.

    Args:
        path: folder or annotation file of the source.
        source: its format; `auto` looks at the files.
        to: the format to write, a key of `clearsight.data.formats.FORMATS`.
        out: a folder that does not exist yet or is empty.
        allow_loss: write in spite of losses.

    Returns:
        Everything found while reading, and what was lost (`lost-on-write`).

    Raises:
        ConfigError: no such format.
        NotFound: the source does not exist.
        DataError: the target cannot carry everything, the source has nothing usable, or `out` has files in it.
    """
    if to not in FORMATS:
        raise ConfigError(f"to: there is no format {to!r}; there are {', '.join(FORMATS)}")
    target = Path(out).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target}: files are there already; choose a folder that does not exist or is empty")
    dataset = read_annotations(path, format=source)
    if not dataset.records:
        first = "".join(f"\n  - {finding.where}: {finding.explanation}" for finding in dataset.findings[:5])
        raise DataError(f"{path}: nothing to convert, read as {dataset.format}{first}", dataset.findings)
    losses = [finding for finding in FORMATS[to].loses(dataset) if finding.severity != "info"]
    if losses and not allow_loss:
        listed = "".join(f"\n  - {finding.explanation}" for finding in losses)
        raise DataError(
            f"{path}: {to} would lose:{listed}\nTo write it all the same, allow the loss (--allow-loss)", losses
        )
    try:
        return [*dataset.findings, *FORMATS[to].write(dataset, target)]
    except OSError as err:
        raise DataError(f"{target}: cannot be written: {err}") from err
