import math

import pytest

from clearsight.errors import ConfigError
from clearsight.recipe.yaml_text import dump_value, parse_document, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("010", 10),
        ("0x1f", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("[240,320]", [240, 320]),
        ("{patience: 5}", {"patience": 5}),
        ("'7'", "7"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    parsed = parse_value(text).value
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "1:30", "2020-01-01", "1_000", "<<", "bf16-mixed", "e5"])
def test_what_yaml_1_1_would_change_stays_a_text(text):
    assert parse_value(text).value == text


@pytest.mark.parametrize("text", ["[1] photos", "[240,320", "a: b: c", "/data/set #3", "#1", "!!python/object:os.x"])
def test_what_is_no_yaml_stays_a_text(text):
    assert parse_value(text).value == text


def test_infinity_and_nan():
    assert parse_value("-.inf").value == -math.inf
    assert math.isnan(parse_value(".NaN").value)


@pytest.mark.parametrize(
    "value",
    [
        "1e3",
        "yes",
        "null",
        "",
        "a: b",
        "#x",
        "é",
        " x",
        "two\nlines",
        1e-5,
        1e22,
        0.1,
        3,
        None,
        True,
        [1, 2.5, "7", "a"],
    ],
)
def test_what_is_written_reads_back(value):
    text = dump_value(value)
    assert parse_document(f"key: {text}", "x").value == {"key": value}


def test_lines_and_written_forms_are_kept():
    text = parse_document("a: 1\nb:\n  c: 007\n  d: [x,\n      y]\n", "x.yaml")
    assert text.lines[("a",)] == 1
    assert text.lines[("b", "c")] == 3
    assert text.lines[("b", "d", 1)] == 5
    assert text.written[("b", "c")] == "007"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n\tc: 1\n", r"x\.yaml:3: not valid YAML: .*spaces"),
        ("a: b: c\n", r"x\.yaml:1: not valid YAML: .*quotes"),
        ("a: 1\nb: 2\na: 3\n", r"x\.yaml:3: key 'a' is given twice, first in line 1"),
        ("a: 1\n---\nb: 2\n", r"x\.yaml:2: not valid YAML"),
        ("a: !!python/object/apply:os.system [echo]\n", r"x\.yaml:1: tag .* is not understood"),
        ("a: !mine 3\n", r"x\.yaml:1: tag '!mine' is not understood"),
        ("[1, 2]: 3\n", r"x\.yaml:1: a key must be a plain word"),
        ("a: !!int abc\n", r"x\.yaml:1: 'abc' is no int"),
        ("a: " + "9" * 5000, r"x\.yaml:1: '9+' is no int"),
        ("a: \x00", r"x\.yaml: not valid YAML"),
        ("a: " + "[" * 3000, "x.yaml: lists or mappings are nested too deeply"),
        ("a: &a [*a]\n", r"x\.yaml:1: aliases or nesting expand to too much"),
    ],
)
def test_faults_name_the_line(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_document(text, "x.yaml")


def test_aliases_of_aliases_do_not_fill_the_memory():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="expand to too much"):
        parse_document("\n".join(lines), "x.yaml")
