"""docs/detectors.md and a page for each detector, written from the code, detectors.toml and the benchmark's figures."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clearsight.assign import ASSIGNERS
from clearsight.measure.count import count
from clearsight.models import BUILDERS, create_model
from clearsight.models.detect.sliding_regions import SlidingRegions
from clearsight.recipe.model_sections import MODEL_SECTIONS, model_task
from clearsight.recipe.section import Section
from clearsight.recipe.yaml_text import dump_value

DOCS = Path(__file__).resolve().parent.parent
TEXT = tomllib.loads((DOCS / "detectors.toml").read_text(encoding="utf-8"))
FIGURES = DOCS / "detection.json"
SIZE = (240, 320)
CLASSES = 3
RUNS = {"light": "cells"}  # what the benchmark calls it
DETECTORS = tuple(name for name in BUILDERS if model_task(name) == "detection")


def build(name: str) -> nn.Module:
    """A detector as its section has it, on a ResNet-18 where it takes a backbone."""
    options = {} if name == "light" else {"backbone": "resnet18"}
    return create_model(name, num_classes=CLASSES, **options).eval()


def stages(model: nn.Module) -> int:
    """How often boxes are predicted, one from the other; regions that are given do not count."""
    heads = getattr(model, "box_heads", [model.box_head] if hasattr(model, "box_head") else [])
    return len(heads) + (hasattr(model, "rpn") or not heads)


def anchors(model: nn.Module) -> str:
    """Anchors of one place, by level where they differ in number."""
    if isinstance(proposer := getattr(model, "proposer", None), SlidingRegions):
        return f"{len(proposer.ratios)}, sliding"
    for part in (model, getattr(model, "rpn", None)):
        points = getattr(part, "points", None)
        given = getattr(points, "anchors", None) or getattr(points, "shapes", None)
        if given is not None:
            counts = sorted({len(cell) for cell in given})
            return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return "none"


def labels(name: str, model: nn.Module) -> str:
    """Which points learn an object: the default assigner, or what the text says."""
    for part in model.modules():
        for one in (part, getattr(part, "criterion", None)):
            assigner = getattr(one, "assigner", None)
            found = [known for known, kind in ASSIGNERS.items() if inspect.isclass(kind) and type(assigner) is kind]
            if found:
                return f"`{found[0]}`"
    return TEXT["detectors"][name]["labels"]


def figures() -> dict[str, tuple[float, str]]:
    """By row of the benchmark its value and note; empty before the first run."""
    if not FIGURES.is_file():
        return {}
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))
    return {row["name"]: (row["value"], row["note"]) for row in kept["rows"]}


def measured(name: str, known: dict[str, tuple[float, str]]) -> tuple[str, str, str]:
    """Score with its interval, prediction and training speed, as far as they are known."""
    run = RUNS.get(name, name)
    if f"{run}: mAP" not in known:
        return "–", "–", "–"
    value, note = known[f"{run}: mAP"]
    bounds = re.search(r"images ([\d.]+) to ([\d.]+)", note)
    interval = "" if bounds is None else f" ({bounds[1]} to {bounds[2]})"
    speed, training = known[f"{run}: prediction"][0], known[f"{run}: training"][0]
    return f"{value:.3f}{interval}", f"{speed:.0f} ms", f"{training:.1f}"


def row(name: str, known: dict[str, tuple[float, str]]) -> str:
    """One line of the map."""
    model = build(name)
    parameters = sum(p.numel() for p in model.parameters())
    flops = count(model, torch.empty(1, 3, *SIZE)).flops
    score, speed, training = measured(name, known)
    title = TEXT["detectors"][name]["title"]
    cells = (f"[{title}](detectors/{name}.md)", f"{stages(model)}", anchors(model), labels(name, model),
             f"{parameters / 1e6:.1f}", f"{flops / 1e9:.1f}", score, speed, training)  # fmt: skip
    return f"| {' | '.join(cells)} |"


def overview() -> str:
    """The map of methods."""
    known = figures()
    heads = ("method", "stages", "anchors", "points by", "parameters, M", "GFLOPs", "AP on cells", "prediction",
             "training, images/s")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *(row(name, known) for name in DETECTORS)]
    minutes = json.loads(FIGURES.read_text(encoding="utf-8"))["minutes"] if FIGURES.is_file() else 15
    parts = [TEXT["intro"], TEXT["choice"], TEXT["table"].format(minutes=minutes), "\n".join(lines)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def papers(model: nn.Module) -> str:
    """What the docstring names as the method's source."""
    text = " ".join((type(model).__doc__ or "").split())
    found = re.findall(r"([A-Z][\w-]+(?: and [A-Z][\w-]+| et al\.)? \d{4})[^(]{0,60}?arXiv:(\d{4}\.\d{4,5})", text)
    listed = [f"{who}, [arXiv:{number}](https://arxiv.org/abs/{number})" for who, number in dict.fromkeys(found)]
    return "; ".join(listed) or "none: it is our own"


def options(section: type[Section]) -> str:
    """The keys of its recipe section."""
    lines = ["| key of `model` | default | what |", "| --- | --- | --- |"]
    for key, field in section.model_fields.items():
        if key == "name":
            continue
        value: Any = field.default
        shown = f"name: {value.name}" if isinstance(value, Section) else dump_value(_plain(value))
        about = " ".join((field.description or "").split())
        if isinstance(value, Section):
            about = about or "Which points learn which object; any of the [assigners](../techniques.md)."
        lines.append(f"| `{key}` | `{shown}` | {about} |")
    return "\n".join(lines)


def _plain(value: Any) -> Any:  # noqa: ANN401 - what YAML can hold
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def page(name: str) -> str:
    """What one detector is, when to take it, what it costs, whose it is, and its options."""
    model, about, section = build(name), TEXT["detectors"][name], MODEL_SECTIONS[name]
    score, speed, training = measured(name, figures())
    flops = count(model, torch.empty(1, 3, *SIZE)).flops
    parameters = sum(p.numel() for p in model.parameters())
    recipe = RUNS.get(name, name)
    cost = (
        f"{parameters / 1e6:.1f} M parameters and {flops / 1e9:.1f} GFLOPs for an image of {SIZE[0]}×{SIZE[1]} pixels "
        f"with {'its own backbone' if name == 'light' else 'a ResNet-18'}."
    )
    if score != "–":
        cost += f" On blood cells ([map](../detectors.md)): AP {score}, prediction {speed}, {training} images/s."
    what = " ".join((section.__doc__ or "").split())
    return f"""# {about["title"]}

<!-- Written from docs/detectors.toml and the code; change them and run `make techniques`. -->

{what}

```
clearsight train {recipe} data.root=PATH
```

## When to take it

{about["when"].strip()}

## What it costs

{cost}

## Options

{options(section)}

## Source

{papers(model)}. What differs from it is said in the API reference of `{type(model).__module__}`.
"""


if __name__ == "__main__":
    (DOCS / "detectors").mkdir(exist_ok=True)
    (DOCS / "detectors.md").write_text(overview(), encoding="utf-8")
    for each in DETECTORS:
        (DOCS / "detectors" / f"{each}.md").write_text(page(each), encoding="utf-8")
