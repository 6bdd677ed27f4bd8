"""What is wrong with a data set, and the same data set in another format.

python examples/check_and_convert.py ../shared/data/bccd yolo out/
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import clearsight as cs


def main(source: Path, to: str, out: Path) -> None:
    data = cs.check_data(source)  # reads every annotation, decodes every image, looks for images in two splits
    print(f"{len(data)} images, {data.counts()}")
    for (kind, severity), count in Counter((f.id, f.severity) for f in data.findings).items():
        print(f"{severity}: {kind} × {count}")

    # Refused, with a list, if the format cannot carry everything; `allow_loss=True` says that you know.
    lost = cs.convert(source, to=to, out=out, allow_loss=True)
    print(f"{to}: {len(lost)} kinds of things could not be carried")
    print(f"read again: {len(cs.read_dataset(out))} images")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: python {sys.argv[0]} SOURCE FORMAT OUT")
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
