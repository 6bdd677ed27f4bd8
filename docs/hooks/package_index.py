"""What is in the package, which tests use it and which papers it names: read off the source, never imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

_DOCUMENTED = (ast.FunctionDef, ast.ClassDef)


class Definition(NamedTuple):
    """Where a name is defined, and what its docstring (for a constant: its comment) says."""

    module: str
    name: str
    doc: str

    @property
    def dotted(self) -> str:
        """The full name."""
        return f"{self.module}.{self.name}"

    @property
    def summary(self) -> str:
        """The first line."""
        return self.doc.strip().partition("\n")[0]


class Citation(NamedTuple):
    """A paper or a book: what to call it, and its address where it has one."""

    text: str
    url: str

    def __str__(self) -> str:
        return f"[{self.text}]({self.url})" if self.url else self.text


class Package:
    """The source of the package.

    Args:
        root: of the repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.texts: dict[str, str] = {}  # by dotted module
        for path in sorted((root / "src" / "clearsight").rglob("*.py")):
            parts = path.relative_to(root / "src").with_suffix("").parts
            self.texts[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
        self.trees = {module: ast.parse(text) for module, text in self.texts.items()}
        self.bindings = {module: dict(_bound(tree.body)) for module, tree in self.trees.items()}

    def path(self, module: str) -> str:
        """A module's file, from the root of the repository."""
        stem = "/".join(("src", *module.split(".")))
        return f"{stem}.py" if (self.root / f"{stem}.py").is_file() else f"{stem}/__init__.py"

    def doc(self, module: str) -> str:
        """A module's docstring."""
        return ast.get_docstring(self.trees[module]) or ""

    def find(self, module: str, name: str) -> Definition | str | None:
        """What `module.name` is: a definition, wherever it was imported from, a module by its name, or nothing."""
        node = self.bindings.get(module, {}).get(name)
        if isinstance(node, ast.ImportFrom):
            original = next(entry.name for entry in node.names if name in (entry.asname, entry.name))
            if (node.module, original) != (module, name):  # a package that imports its own module
                return self.find(node.module or "", original)
        elif isinstance(node, _DOCUMENTED):
            return Definition(module, name, ast.get_docstring(node) or "")
        elif node is not None:
            line = self.texts[module].splitlines()[node.lineno - 1]
            return Definition(module, name, line.partition("  # ")[2])
        inner = f"{module}.{name}"
        return inner if inner in self.texts else None

    def public(self, module: str) -> list[str]:
        """The literal `__all__` of a module."""
        node = self.bindings[module].get("__all__")
        return list(ast.literal_eval(node.value)) if isinstance(node, ast.Assign) else []

    @cached_property
    def implied(self) -> dict[str, set[str]]:
        """For classes and tables (`{"gelu": GELU}`), the full names of what they are made of in the same file.

        Whoever uses `Lstm` uses `lstm_backward`, and a test that goes through all of `DROPOUTS` uses each of them.
        """
        return {
            f"{module}.{name}": {
                f"{module}.{part.id}"
                for part in ast.walk(node)
                if isinstance(part, ast.Name) and part.id != name and isinstance(bound.get(part.id), _DOCUMENTED)
            }
            for module, bound in self.bindings.items()
            for name, node in bound.items()
            if isinstance(node, ast.ClassDef | ast.Assign | ast.AnnAssign)
        }

    @cached_property
    def authors(self) -> dict[str, str]:
        """Authors and year of each address that some docstring gives with them."""
        nodes = (node for tree in self.trees.values() for node in ast.walk(tree))
        docs = (ast.get_docstring(node) or "" for node in nodes if isinstance(node, _DOCUMENTED))
        named = {entry.url: entry.text for doc in docs for entry in citations(doc) if entry.url}
        return {url: text for url, text in named.items() if text[-4:].isdigit()}


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """What statements bind, imports for type checking included."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _bound(node.body)
        elif isinstance(node, _DOCUMENTED):
            yield node.name, node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clearsight"):
            yield from ((entry.asname or entry.name, node) for entry in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, node) for target in targets if isinstance(target, ast.Name))


# ------------------------------------------------------------------------------------------------ tests
def tests_by_name(package: Package) -> dict[str, list[str]]:
    """The test files that use each name, from the root of the repository, the one closest to its own file first."""
    users: dict[str, list[str]] = {}
    for path in sorted((package.root / "tests").rglob("test_*.py")):
        for name in names_used(ast.parse(path.read_text(encoding="utf-8")), package):
            users.setdefault(name, []).append(path.relative_to(package.root).as_posix())
    return {name: sorted(files, key=lambda file: _distance(name, file)) for name, files in users.items()}


def names_used(tree: ast.Module, package: Package) -> set[str]:
    """Full names of everything of the package that a test file uses; to import it is not enough."""
    local: dict[str, Definition | str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clearsight"):
            found = {entry.asname or entry.name: package.find(node.module or "", entry.name) for entry in node.names}
            local |= {name: what for name, what in found.items() if what is not None}
        elif isinstance(node, ast.Import):
            local |= {entry.asname or "clearsight": entry.name for entry in node.names if entry.name in package.texts}
    reached = [_reached(node, local, package) for node in ast.walk(tree)]
    # `getattr(activations, f"{name}_backward")`, with the names in a parametrisation.
    modules = {what for what in local.values() if isinstance(what, str)} - {"clearsight"}
    reached += [package.find(module, text) for module in sorted(modules) for text in _texts(tree)]
    used = {what.dotted for what in reached if isinstance(what, Definition)}
    return used.union(*(package.implied.get(name, set()) for name in used))


def _reached(node: ast.AST, local: dict[str, Definition | str], package: Package) -> Definition | str | None:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return local.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _reached(node.value, local, package)
        return package.find(owner, node.attr) if isinstance(owner, str) else None
    return None


def _texts(tree: ast.Module) -> list[str]:
    """The string constants of a file, and each with the ends of its f-strings."""
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    joined = (node.values[-1] for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) and len(node.values) == 2)
    ends = [str(end.value) for end in joined if isinstance(end, ast.Constant)]
    return [text + end for text in texts for end in ("", *ends)]


def _distance(dotted: str, file: str) -> tuple[bool, bool]:
    """First the file that mirrors the one a name is defined in, then those of its folder."""
    *folders, module = dotted.split(".")[1:-1] or [""]
    folder = "/".join(("tests", *folders))
    return file != f"{folder}/test_{module}.py", not file.startswith(f"{folder}/test_")


# ------------------------------------------------------------------------------------------------ papers
_NAME = r"(?:(?:[Vv]an|[Dd]e|[Ll]e) )?[A-Z]\w*[a-z][\w’'-]*"
_SEVERAL = rf"{_NAME}(?:(?:, {_NAME})*,? and {_NAME}| et al\.)"
_AUTHORS = rf"(?:{_SEVERAL}|{_NAME})"
_PAPER = re.compile(rf"({_AUTHORS}),? \(?((?:19|20)\d\d)\b((?: \([^)]*\))?,?(?: [^.;()]*?)?[ (](?:arXiv|doi):\S+)?")
_BOOK = re.compile(rf"({_AUTHORS}), ([A-Z][\w ]+), (?:\d\w\w ed\.|section|chapter|equation|Algorithm)")
_ADDRESS = re.compile(rf"(?:({_SEVERAL}),? \(?)?(arXiv|doi):([\w./()-]*\w)")
_HOSTS = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
_NO_AUTHORS = {"In", "Pascal", "Since"}


def citations(text: str) -> list[Citation]:
    """The papers and books that a docstring names, in its order; an address without authors stands for itself."""
    text = " ".join(text.split()).replace(" & ", " and ")
    found: list[tuple[int, Citation]] = []
    for match in _PAPER.finditer(text):
        if match[1] not in _NO_AUTHORS:
            found.append((match.start(), Citation(f"{match[1]} {match[2]}", _url(match[3] or ""))))
    for match in _BOOK.finditer(text):
        found.append((match.start(), Citation(f"{match[1]}, {match[2]}", "")))
    named = {citation.url for _, citation in found}
    for match in _ADDRESS.finditer(text):
        if (url := _url(match[0])) not in named:
            found.append((match.start(), Citation(match[1] or match[0], url)))
    return [citation for _, citation in sorted(found)]


def _url(text: str) -> str:
    match = _ADDRESS.search(text)
    return _HOSTS[match[2]] + match[3] if match else ""
