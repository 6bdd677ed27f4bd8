"""The command line: one command a verb, thin; see `cli.commands`. PyTorch is loaded by the commands that need it."""

from __future__ import annotations

from clearsight.cli.commands import app
from clearsight.cli.start import main

__all__ = ["app", "main"]
