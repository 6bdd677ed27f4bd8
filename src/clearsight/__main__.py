"""`python -m clearsight`: the same as the command `clearsight`."""

from __future__ import annotations

from clearsight.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
