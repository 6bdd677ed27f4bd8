"""Starts the command line, and says every error so that it can be acted on: one message, never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from clearsight.cli.commands import app
from clearsight.errors import ClearsightError

__all__ = ["main"]

MISTAKE, BUG, STOPPED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code.

    0 is success; 1 is a check that failed, or a fault of clearsight itself; 2 is something the user can put right; 130
    is Ctrl-C.

    Args:
        arguments: as the shell gives them; None takes the process's own.

    Raises:
        SystemExit: always, with the exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("CLEARSIGHT_DEBUG", "0") not in ("", "0")
    given = [one for one in given if one != "--debug"] or ["--help"]
    try:
        code = app(given, prog_name="clearsight", standalone_mode=False)
    except (KeyboardInterrupt, EOFError):
        code = STOPPED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if debug:
            raise
        code = _say(error)
    if code == STOPPED:
        Console(stderr=True).print("stopped", highlight=False)
    raise SystemExit(code if isinstance(code, int) else 0)


def _say(error: Exception) -> int:
    """Print an error; gives the exit code."""
    usage = getattr(error, "format_message", None)  # of Typer's own errors: an unknown option, a missing argument
    if usage is not None:
        _panel(f"{usage()}{_usage_hint(error, usage())}")
        return MISTAKE
    if type(error).__name__ == "Abort":  # how some versions of Typer say Ctrl-C
        return STOPPED
    if isinstance(error, ClearsightError):
        _panel(str(error))
        return MISTAKE
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f"{error.filename}: "
        _panel(f"{place}{error.strerror}")
        return MISTAKE
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        _panel("out of memory; use less at once: loader.batch_size=8, or smaller images: data.size=[240,320]")
        return MISTAKE
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({last[0].name}, line {last[0].lineno})" if last else ""
    _panel(
        f"{type(error).__name__}: {error}{place}\n\nThis should not have happened: it is a fault of clearsight. The "
        "same command with --debug shows where; please report that."
    )
    return BUG


def _usage_hint(error: Exception, message: str) -> str:
    option = str(getattr(error, "option_name", "") or "")
    if "." in option:
        return f"\nA key of the recipe is changed without dashes: {option.lstrip('-')}=VALUE"
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "clearsight")
    return "" if "--help" in message else f"\n`{command} --help` shows what it takes."


def _panel(message: str) -> None:
    """A panel in a terminal; plain text where the output goes to a file or another program, which may search in it."""
    console = Console(stderr=True)
    if console.is_terminal:
        console.print(Panel(Text(message), title="error", title_align="left", border_style="red"))
    else:
        console.print(f"error: {message}", markup=False, highlight=False, soft_wrap=True)
