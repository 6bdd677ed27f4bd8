"""How long a user waits for `import clearsight`, for `clearsight --help` and for the first use, in fresh processes."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import alternate, arguments, compare, peer_python, report, run_child, stop

IMPORT = """
import json, time
start = time.perf_counter()
import {package}
{package}.{used}  # what is loaded lazily is loaded now
print(json.dumps({{"seconds": time.perf_counter() - start, "version": getattr({package}, "__version__", "")}}))
"""
HELP = """
import json, subprocess, sys, time
start = time.perf_counter()
subprocess.run(["{program}", "--help"], stdout=subprocess.DEVNULL, check=True)
print(json.dumps({{"seconds": time.perf_counter() - start}}))
"""


def main() -> int:
    options = arguments(__doc__ or "")
    peer = peer_python("ultralytics")
    program = Path(sys.executable).with_name("clearsight")
    if not program.is_file():
        stop(f"{program.name}: not installed beside {Path(sys.executable).name}; run: pip install -e .")

    def take(python: str, code: str) -> float:
        return float(run_child([python, "-c", code]).result["seconds"])

    sides = {
        "import": lambda: take(sys.executable, IMPORT.format(package="clearsight", used="__version__")),
        "use": lambda: take(sys.executable, IMPORT.format(package="clearsight", used="train")),
        "help": lambda: take(sys.executable, HELP.format(program=program.as_posix())),
    }
    name = "ultralytics (not installed here)"
    if peer is not None:
        code = IMPORT.format(package="ultralytics", used="YOLO")
        sides["peer"] = lambda: take(peer, code)
        name = f"ultralytics {run_child([peer, '-c', code]).result['version']}"
    values = alternate(sides, rounds=11, quick=options.quick)
    rows = [
        compare("import clearsight", values["import"], unit="s", better="lower", bar=0.3),
        compare("clearsight --help", values["help"], unit="s", better="lower", bar=1.0),
        compare(
            "until train can be called",
            values["use"],
            unit="s",
            better="lower",
            peer=name,
            theirs=values.get("peer"),
            note="both with PyTorch loaded; the peer: until YOLO can be called",
        ),
    ]
    return report("startup", rows, options)


if __name__ == "__main__":
    sys.exit(main())
