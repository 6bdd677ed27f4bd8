"""Links to files of the repository, which a code host follows and the site does not have.

`[nn.norm](../src/clearsight/nn/norm.py)` leads to that module in the API reference; where `: ` and names in backticks
follow, each of them gets a link of its own. Other files, such as tests, stay as text.
"""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_MODULE = re.compile(r"\[([^\]]+)\]\(\.\./src/(clearsight/[\w/]+)\.py\)(: `\w+`(?:, `\w+`)*)?")
_FILE = re.compile(r"\[([^\]]+)\]\(\.\./[\w./-]+\)")
_WIDE = {"techniques.md", "techniques_names.md"}  # their tables need the room that the contents take


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of one page; mkdocstrings finds where a full name is described, and complains if nowhere."""
    if page.file.src_uri in _WIDE:
        page.meta["hide"] = ["toc"]
    return _FILE.sub(r"\1", _MODULE.sub(_to_the_reference, markdown))


def _to_the_reference(link: re.Match[str]) -> str:
    text, path, names = link.groups()
    module = path.removesuffix("/__init__").replace("/", ".")
    linked = re.sub(r"`(\w+)`", rf"[`\1`][{module}.\1]", names or "")
    return f"[{text}][{module}]{linked}"
