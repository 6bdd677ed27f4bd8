"""The page "From formula to gradient": its code runs and prints what it says, and what it quotes is in the source."""

from __future__ import annotations

import contextlib
import io
import re
from textwrap import dedent
from typing import NamedTuple

import pytest


class Block(NamedTuple):
    """One fenced block of code."""

    language: str
    title: str
    text: str


@pytest.fixture
def blocks(repo_root) -> list[Block]:
    page = (repo_root / "docs" / "gradients.md").read_text(encoding="utf-8")
    found = re.findall(r'^```(\w+)(?: title="([^"\n]+)")?\n(.*?)^```$', page, flags=re.MULTILINE | re.DOTALL)
    assert page.count("\n```") == 2 * len(found)  # none is missed
    return [Block(*parts) for parts in found]


def test_the_code_prints_what_the_page_says(blocks) -> None:
    namespace: dict[str, object] = {}
    printed = 0
    for block, after in zip(blocks, [*blocks[1:], Block("", "", "")], strict=True):
        if (block.language, block.title) != ("python", ""):
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block.text, "gradients.md", "exec"), namespace)
        said = after.text if after.title == "prints" else ""
        assert out.getvalue() == said, block.text
        printed += bool(said)
    assert printed == sum(block.title == "prints" for block in blocks)  # each stands behind the code it is of
    assert printed >= 10


def test_quoted_code_is_in_the_source(blocks, repo_root) -> None:
    quoted = [block for block in blocks if block.title.startswith("src/")]
    assert len(quoted) >= 6
    for block in quoted:
        lines = (repo_root / block.title).read_text(encoding="utf-8").splitlines()
        wanted = block.text.splitlines()
        parts = ("\n".join(lines[start : start + len(wanted)]) for start in range(len(lines)))
        assert block.text.rstrip() in map(dedent, parts), f"{block.title} has no longer:\n{block.text}"
