"""docs/techniques.md is what the code says today, and what it is written with notices what is missing."""

from __future__ import annotations

import ast
import importlib
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def hooks(repo_root):
    """The scripts beside mkdocs.yml: they are no package."""
    folder = str(repo_root / "docs" / "hooks")
    sys.path.insert(0, folder)
    yield {name: importlib.import_module(name) for name in ("links", "package_index", "techniques")}
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def techniques(hooks) -> ModuleType:
    return hooks["techniques"]


@pytest.fixture(scope="module")
def index(hooks) -> ModuleType:
    return hooks["package_index"]


@pytest.fixture(scope="module")
def package(index, repo_root):
    return index.Package(repo_root)


@pytest.fixture(scope="module")
def users(index, package) -> dict[str, list[str]]:
    return index.tests_by_name(package)


@pytest.fixture(scope="module")
def catalogue(techniques):
    return techniques.Catalogue.read()


# ------------------------------------------------------------------------------------------------ the page
def test_every_name_is_there_tested_and_in_its_place(techniques, catalogue, package, users) -> None:
    assert techniques.faults(catalogue, package, users) == []


@pytest.mark.parametrize("name", ["techniques.md", "techniques_names.md"])
def test_the_pages_are_what_the_code_says(techniques, catalogue, package, users, repo_root, name) -> None:
    written = (repo_root / "docs" / name).read_text(encoding="utf-8")
    due = techniques.pages(catalogue, package, users)
    assert written == due[name], f"docs/{name} is behind the code: run `make techniques` and commit it"
    assert len(due) == 2


def test_rows_that_must_be_there(catalogue) -> None:
    ids = {row.id for row in catalogue.rows}
    for letter, numbers in (("R", range(1, 15)), ("N", (*range(1, 11), 12, 13)), ("L", (*range(1, 13), 14))):
        assert {f"{letter}{number}" for number in numbers} - ids == set()


# ------------------------------------------------------------------------------------------------ faults
@pytest.fixture(scope="module")
def new_faults(techniques, catalogue, package, users):
    """What is told of a changed catalogue, or of fewer tests, beyond what is told today."""
    today = techniques.faults(catalogue, package, users)

    def told(changed=catalogue, by: dict[str, list[str]] = users) -> list[str]:
        return [line for line in techniques.faults(changed, package, by) if line not in today]

    return told


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("clearsight.nn.dropout.DropBlok", "there is no such name"),
        ("clearsight.no_such.thing", "there is no such name"),
        ("clearsight.nn.dropout", "there is no such name"),  # a module is no technique
        ("clearsight.reference.check_gradient", "is defined as clearsight.reference.gradient_check.check_gradient"),
        ("clearsight.nn.dropout._Dropping", "is not in `__all__`"),
        ("clearsight.nn.dropout.DROPOUTS", "has no docstring"),
        ("clearsight.nn.dropout.DROPOUTS", "in a row and in `unlisted`"),
    ],
)
def test_a_wrong_name_is_told(techniques, catalogue, new_faults, name, fault) -> None:
    planted = techniques.Row("R99", "Planted", (name,))
    found = new_faults(replace(catalogue, rows=(*catalogue.rows, planted)))
    assert [line for line in found if line.startswith(f"{name}: ") and fault in line]


def test_a_name_without_test_is_told(users, new_faults) -> None:
    fewer = {name: files for name, files in users.items() if not name.endswith(".DropBlock")}
    assert new_faults(by=fewer) == ["clearsight.nn.dropout.DropBlock: no test uses it; write one"]


def test_a_public_name_in_no_row_is_told(catalogue, new_faults) -> None:
    fewer = replace(catalogue, rows=tuple(row for row in catalogue.rows if row.id != "L7"))
    (found,) = new_faults(fewer)
    assert found.startswith("clearsight.losses.regularise.flood: is in no row")
    reasons = dict(catalogue.unlisted)
    removed, _ = reasons.popitem()
    (found,) = new_faults(replace(catalogue, unlisted=reasons))
    assert found.startswith(f"{removed}: is in no row")


def test_every_room_is_complete(techniques, package) -> None:
    names = techniques.public_names(package)
    for room in techniques.COMPLETE:
        assert any(name.startswith(f"{room}.") for name in names), room
    assert "clearsight.reference.gradient_check.check_gradient" in names  # where it is defined
    assert not any(name.startswith("clearsight.reference.check_gradient") for name in names)


# ------------------------------------------------------------------------------------------------ the source
@pytest.mark.parametrize(
    ("test", "used"),
    [
        ("from clearsight.nn.dropout import DropBlock as B\nB(7)", ["nn.dropout.DropBlock"]),
        ("from clearsight.nn.dropout import DropBlock", []),  # to import is not to use
        ("from clearsight.nn import dropout as d\nd.DropBlock(7)", ["nn.dropout.DropBlock"]),
        ("import clearsight as cs\ncs.read_dataset('x')", ["data.read.read_dataset"]),
        ("import clearsight as cs\ncs.train('x')", ["api.train"]),  # the verb, not the folder
        ("from clearsight.reference import check_gradient as c\nc", ["reference.gradient_check.check_gradient"]),
        ("from clearsight.train import loop\nloop.fit()", ["train.loop.fit"]),
        (
            "from clearsight.reference import linear as m\n'linear', getattr(m, f'{name}_backward')",
            ["reference.linear.linear", "reference.linear.linear_backward"],
        ),
        ("from torch import nn\nnn.Linear", []),
    ],
)
def test_names_used(index, package, test, used) -> None:
    found = index.names_used(ast.parse(test), package)
    assert found >= {f"clearsight.{name}" for name in used}
    assert bool(found) == bool(used)


def test_a_class_uses_what_it_is_made_of(index, package) -> None:
    used = index.names_used(ast.parse("from clearsight.reference.lstm import Lstm\nLstm(1, 2)"), package)
    assert {"clearsight.reference.lstm.Lstm", "clearsight.reference.lstm.lstm_backward"} <= used
    used = index.names_used(ast.parse("from clearsight.nn.dropout import DROPOUTS\nlist(DROPOUTS)"), package)
    assert "clearsight.nn.dropout.GaussianDropout" in used


def test_the_mirror_comes_first(users) -> None:
    assert users["clearsight.nn.dropout.DropBlock"][0] == "tests/nn/test_dropout.py"
    assert users["clearsight.reference.linear.linear"][0] == "tests/reference/test_linear.py"
    assert users["clearsight.assign.build_assigner"][0].startswith("tests/assign/")
    assert users["clearsight.assign.simota.SimOta"][0] == "tests/assign/test_simota.py"
    assert min(users["clearsight.assign.simota.SimOta"]) != "tests/assign/test_simota.py"


@pytest.mark.parametrize(
    ("doc", "cited"),
    [
        ("Method: Ghiasi et al. 2018, arXiv:1810.12890, Algorithm 1.", ["Ghiasi et al. 2018 1810.12890"]),
        ("Method: Wu and Johnson 2021, Rethinking\n  BatchNorm, arXiv:2105.07576.", ["Wu and Johnson 2021 2105.07576"]),
        ("Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450.", ["Ba, Kiros and Hinton 2016 1607.06450"]),
        ("as torchvision (Zheng et al. 2020, arXiv:1911.08287); see", ["Zheng et al. 2020 1911.08287"]),
        ("Source: Nocedal & Wright, Numerical Optimization, 2nd ed.", ["Nocedal and Wright, Numerical Optimization "]),
        ("the form of PyTorch (arXiv:1905.02244).", ["arXiv:1905.02244 1905.02244"]),
        ("(Hendrycks & Gimpel, arXiv:1606.08415)", ["Hendrycks and Gimpel 1606.08415"]),
        ("Efron 1979; Elman 1990, Finding structure.", ["Efron 1979 ", "Elman 1990 "]),
        (
            "Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6_10: the rarest class first",
            ["Sechidis et al. 2011 978-3-642-23808-6_10"],
        ),
        ("Pascal VOC 2010 and later. In 2015 it changed. COCO 2017.", []),
    ],
)
def test_citations(index, doc, cited) -> None:
    assert [f"{entry.text} {entry.url.rpartition('/')[2]}" for entry in index.citations(doc)] == cited


def test_a_row_names_each_source_once(techniques, package) -> None:
    dropout = "clearsight.nn.dropout"
    row = techniques.Row("N99", "Planted", (f"{dropout}.anneal_drop", f"{dropout}.DropBlock"))
    # The first docstring has no address; the second has the same paper with it.
    assert [str(entry) for entry in techniques.sources_of(row, package)] == [
        "[Ghiasi et al. 2018](https://arxiv.org/abs/1810.12890)"
    ]


def test_text_that_fits_a_table(techniques) -> None:
    assert techniques.in_table("`|a| < b`, x_i * y | z [0, 1]") == (
        r"<code>&#124;a&#124; &lt; b</code>, x\_i \* y &#124; z \[0, 1\]"
    )
    assert techniques.in_table("plain `a < b` text") == "plain `a < b` text"


# ------------------------------------------------------------------------------------------------ the site
def test_links_on_the_site(hooks) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="design.md"), meta={})

    def on_the_site(text: str) -> str:
        return hooks["links"].on_page_markdown(text, page, None, None)

    module = "[nn.norm](../src/clearsight/nn/norm.py)"
    assert on_the_site(f"{module} is") == "[nn.norm][clearsight.nn.norm] is"
    assert on_the_site(f"{module}: `norm`, `B`<br>") == (
        "[nn.norm][clearsight.nn.norm]: [`norm`][clearsight.nn.norm.norm], [`B`][clearsight.nn.norm.B]<br>"
    )
    assert on_the_site("[assign](../src/clearsight/assign/__init__.py)") == "[assign][clearsight.assign]"
    assert on_the_site("[nn/test_norm.py](../tests/nn/test_norm.py) [x](y.md)") == "nn/test_norm.py [x](y.md)"
