"""The API reference: one generated page for each room of the package, so that it cannot fall behind the code."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).resolve().parent.parent.parent / "src" / "clearsight"
# In the order in which a reader meets them; a room that is not named here follows at the end.
ORDER = ("api", "recipe", "types", "errors", "data", "models", "nn", "losses", "assign", "ops", "train", "metrics")


def public_modules() -> dict[str, list[str]]:
    """The public modules of each room, by dotted name, the room's own first."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts and not any(part.startswith("_") for part in parts):
            rooms.setdefault(parts[0], []).append(".".join(("clearsight", *parts)))
    rank = {name: position for position, name in enumerate(ORDER)}
    return {name: sorted(rooms[name]) for name in sorted(rooms, key=lambda name: (rank.get(name, len(rank)), name))}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the pages to the navigation."""
    pages = [{name: f"reference/{name}.md"} for name in public_modules()]
    config.nav = [*(config.nav or []), {"API reference": pages}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site."""
    for name, modules in public_modules().items():
        text = f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files
