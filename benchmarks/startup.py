"""How long a user waits for `import clearsight` and for `clearsight --help`, in fresh processes."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import alternate, arguments, compare, peer_python, report, run_child, stop

IMPORT = """
import json, time
start = time.perf_counter()
import {package}
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
        "import": lambda: take(sys.executable, IMPORT.format(package="clearsight")),
        "help": lambda: take(sys.executable, HELP.format(program=program.as_posix())),
    }
    name = None
    if peer is not None:
        sides["peer"] = lambda: take(peer, IMPORT.format(package="ultralytics"))
        name = f"ultralytics {run_child([peer, '-c', IMPORT.format(package='ultralytics')]).result['version']}"
    values = alternate(sides, rounds=11, quick=options.quick)
    rows = [
        compare("import clearsight", values["import"], unit="s", better="lower", bar=0.3),
        compare("clearsight --help", values["help"], unit="s", better="lower", bar=1.0),
    ]
    if peer is not None:
        beside = {"peer": name, "theirs": values["peer"]}
        rows.append(compare("import, beside a peer", values["import"], unit="s", better="lower", **beside))
    return report("startup", rows, options)


if __name__ == "__main__":
    sys.exit(main())
