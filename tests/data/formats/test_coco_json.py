"""One COCO file: every wrong type is named with its place and costs only what it is in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearsight.data.formats.coco_json import load_coco
from clearsight.types import Finding


def load(tmp_path: Path, value: object):
    file, findings = tmp_path / "a.json", list[Finding]()
    if isinstance(value, bytes):
        file.write_bytes(value)
    else:
        file.write_text(value if isinstance(value, str) else json.dumps(value))
    return load_coco(file, findings), findings


def fine(**changes) -> dict:
    value = {
        "images": [{"id": 1, "file_name": "a.png", "height": 3, "width": 4}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return {**value, **changes}


def test_a_fine_file(tmp_path: Path):
    file, findings = load(tmp_path, fine(info={"a": 1}))
    assert findings == []
    assert file is not None
    assert (len(file.images), len(file.annotations), len(file.categories), file.extra) == (1, 1, 1, {"info": {"a": 1}})


@pytest.mark.parametrize(
    ("text", "id_", "words"),
    [
        ("", "empty-file", "the file is empty"),
        ('{"images": [\n1,,]}', "unreadable-annotation", "no valid JSON"),
        ("[" * 200_000, "unreadable-annotation", "cannot be read"),
        ("[1]", "json-type", r"the file is a list ([1]), expected an object"),
        (fine(images={}), "json-type", "'images' is an object ({}), expected a list"),
        (fine(annotations=None), "json-type", "'annotations' is missing or null, expected a list"),
        ({"images": []}, "json-type", "'categories' is missing or null"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: object, id_: str, words: str):
    file, findings = load(tmp_path, text)
    assert file is None
    assert [(finding.id, finding.severity) for finding in findings] == [(id_, "error")]
    assert words in findings[0].explanation


def test_the_line_of_a_syntax_error_is_told(tmp_path: Path):
    _, findings = load(tmp_path, '{"images": [\n\n1,,]}')
    assert findings[0].where.endswith("a.json:3")


@pytest.mark.parametrize(
    ("changes", "id_", "where", "words", "left"),
    [
        ({"images": [7]}, "json-type", "#images[0]", "the entry is a number (7), expected an object", (0, 0, 1)),
        ({"images": [{"id": 1.5}]}, "json-type", "#images[0]", "id is a number (1.5)", (0, 0, 1)),
        ({"images": [{"id": 1}]}, "json-type", "#images[0]", "file_name is missing or null", (0, 0, 1)),
        ({"images": [{"id": 1, "file_name": 3}]}, "json-type", "#images[0]", "file_name is a number (3)", (0, 0, 1)),
        ({"annotations": ["x"]}, "json-type", "#annotations[0]", "the entry is text ('x')", (1, 0, 1)),
        ({"annotations": [{"id": 5}]}, "json-type", "#5", "image_id is missing or null", (1, 0, 1)),
        ({"annotations": [{"image_id": [1]}]}, "json-type", "#annotations[0]", "image_id is a list", (1, 0, 1)),
        (
            {"annotations": [{"id": 5, "image_id": 2}]},
            "annotation-without-image",
            "#5",
            "the id of no image",
            (1, 0, 1),
        ),
        ({"categories": [{"id": 1}]}, "json-type", "#categories[0]", "name is missing or null", (1, 1, 0)),
        ({"categories": [{"id": True, "name": "x"}]}, "json-type", "#categories[0]", "id is a truth value", (1, 1, 0)),
    ],
)
def test_a_wrong_entry_costs_itself_only(tmp_path: Path, changes, id_: str, where: str, words: str, left):
    file, findings = load(tmp_path, fine(**changes))
    assert file is not None
    assert (len(file.images), len(file.annotations), len(file.categories)) == left
    assert (findings[0].id, findings[0].severity) == (id_, "error")
    assert findings[0].where.endswith(where)
    assert words in findings[0].explanation


@pytest.mark.parametrize("height", ["3", 0, -1, 2.5, True])
def test_a_side_of_a_wrong_type_is_left_to_the_image(tmp_path: Path, height: object):
    images = [{"id": 1, "file_name": "a.png", "height": height, "width": 4}]
    file, findings = load(tmp_path, fine(images=images))
    assert file is not None
    assert "height" not in file.images[1]
    assert findings[0].severity == "warning"
    assert "expected a whole number of pixels" in findings[0].explanation


@pytest.mark.parametrize(
    ("table", "entry", "severity"),
    [
        ("images", {"id": 1, "file_name": "b.png"}, "error"),
        ("categories", {"id": 1, "name": "dog"}, "error"),
        ("annotations", {"id": 1, "image_id": 1, "category_id": 1}, "warning"),
    ],
)
def test_an_id_given_twice(tmp_path: Path, table: str, entry: dict, severity: str):
    value = fine()
    value[table].append(entry)
    file, findings = load(tmp_path, value)
    assert file is not None
    assert [(finding.id, finding.severity) for finding in findings] == [("duplicate-id", severity)]
    assert "is given twice" in findings[0].explanation
    assert file.images[1]["file_name"] == "a.png"
    assert file.categories[1]["name"] == "cat"


def test_text_that_is_not_utf8_is_read_with_a_warning(tmp_path: Path):
    value = json.dumps(fine(categories=[{"id": 1, "name": "é"}]), ensure_ascii=False, indent=1)
    file, findings = load(tmp_path, value.encode("latin-1"))
    assert file is not None
    assert file.categories[1]["name"] == "é"
    assert [finding.id for finding in findings] == ["encoding-name"]
    file, findings = load(tmp_path, value.encode("utf-8-sig"))
    assert file is not None
    assert findings == []
