"""Say what is wrong with a data set, then write it as YOLO.

python examples/check_and_convert.py DATA OUT
"""

from __future__ import annotations

import sys

import clearsight as cs


def main(path: str, out: str) -> None:
    data = cs.check_data(path)
    print(f"{len(data)} usable images, {data.format}, classes {data.counts()}")
    for finding in data.findings:
        print(f"{finding.severity}: {finding.where}: {finding.explanation} ({finding.action or 'nothing is done'})")

    lost = [
        finding for finding in cs.convert(path, to="yolo", out=out, allow_loss=True) if finding.id == "lost-on-write"
    ]
    for finding in lost:
        print(f"lost: {finding.explanation}")
    print(f"written: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
