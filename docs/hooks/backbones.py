"""The table of docs/backbones.md, written from the code; `make techniques` runs it."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from clearsight.measure.count import count
from clearsight.models.backbones import BACKBONES, build_backbone
from clearsight.models.base import Backbone

PAGE = Path(__file__).resolve().parent.parent / "backbones.md"
START, END = "<!-- table: written by docs/hooks/backbones.py -->", "<!-- end of the table -->"
CLASSES = 1000


class _Whole(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.embedding, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone.embed(images))


def row(name: str) -> str:
    """One network: parameters and multiply-adds of the classifier of 1,000 classes, and its levels."""
    with torch.device("cpu" if name.startswith("fnet") else "meta"):  # waves are made of numbers
        model = _Whole(build_backbone(name)).eval()
        side = 299 if name == "inception_v3" else 224
        images = torch.empty(1, 3, side, side)
    parameters = sum(p.numel() for p in model.parameters())
    macs = count(model, images).multiply_adds
    levels = ", ".join(f"{level} {model.backbone.channels[level]}/{s}" for level, s in model.backbone.strides.items())
    size = "" if side == 224 else f" ({side} px)"
    return f"| `{name}` | {parameters / 1e6:.2f} | {macs / 1e9:.2f}{size} | {levels} |"


def table() -> str:
    """All rows, and their heads."""
    heads = "| name | parameters, M | multiply-adds, G | level: channels/stride |\n| --- | --- | --- | --- |"
    return "\n".join([heads, *(row(name) for name in BACKBONES)])


def written(page: str, rows: str) -> str:
    """The page with these rows."""
    return re.sub(f"(?s){re.escape(START)}.*{re.escape(END)}", f"{START}\n{rows}\n{END}", page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
