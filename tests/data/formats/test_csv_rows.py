"""Rows with their lines; every fault with its line."""

from __future__ import annotations

import pytest

from clearsight.data.formats.csv_rows import read_table
from clearsight.errors import DataError


def table(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    findings = []
    return read_table(path, findings), findings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    got, findings = table(tmp_path / "a.csv", f"path,label{end}größe.jpg,Käse{end}{end}b.jpg,x{end}", encoding)
    assert [row.cells for row in got.rows] == [["größe.jpg", "Käse"], ["b.jpg", "x"]]
    assert [row.where.rsplit(":", 1)[1] for row in got.rows] == ["2", "4"]
    assert findings == []


def test_line_where_a_row_begins(tmp_path):
    got, _ = table(tmp_path / "a.csv", 'path,label,note\na.jpg,x,"two\nlines"\nb.jpg,y,z\n')
    assert [row.where.rsplit(":", 1)[1] for row in got.rows] == ["2", "4"]


def test_rows_of_another_length(tmp_path, only):
    got, findings = table(tmp_path / "a.csv", "path,label\na.jpg,x,1\nb.jpg\nc.jpg,y\n")
    assert [row.cells[0] for row in got.rows] == ["c.jpg"]
    assert [finding.where[-2:] for finding in findings] == [":2", ":3"]
    assert {(f.id, f.severity, f.action) for f in findings} == {("unreadable-annotation", "error", "row dropped")}
    assert "3 columns, the header has 2" in findings[0].explanation


def test_open_quotation_mark(tmp_path, only):
    cell = "x" * 200_000
    got, findings = table(tmp_path / "a.csv", f'path,label\na.jpg,x\nb.jpg,"{cell}\n')
    assert len(got.rows) == 1
    found = only(findings, "unreadable-annotation")
    assert found.where.endswith(":3")
    assert "quotation mark" in found.explanation


def test_text_that_is_not_utf8(tmp_path, only):
    (tmp_path / "a.csv").write_bytes(b"path,label\na.jpg,K\xe4se\n")
    findings = []
    assert read_table(tmp_path / "a.csv", findings).rows[0].cells[1] == "Käse"
    assert only(findings, "encoding-name").where.endswith(":2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("a.jpg,cat\nb.jpg,dog\n", "add a header line"),
        ("path,label,Label\na,b,c\n", r"a\.csv:1: column 'label' occurs more than once"),
        ("path,label,x,y,width,height\na,b,1,2,3,4\n", "for boxes also xmin"),
        ("path,label,xmin,xmax\na,b,1,2\n", "for boxes also xmin"),
    ],
)
def test_headers_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        table(tmp_path / "a.csv", text)


def test_boxes(tmp_path):
    header = "path;label;xmin;ymin;xmax;ymax\n"
    got, _ = table(tmp_path / "a.csv", header + "a;b;1,5;2;3e1;4\na;b;;;;\na;b;1;2;drei;4\n")
    assert got.decimal_comma
    assert got.box(got.rows[0]) == (1.5, 2.0, 30.0, 4.0)
    assert got.box(got.rows[1]) is None
    with pytest.raises(ValueError, match="xmax is 'drei', a number was expected"):
        got.box(got.rows[2])
