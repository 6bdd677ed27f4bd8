"""The benchmarks' common ground: ratios point the right way, sides take turns, the JSON file keeps its schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import harness


def options(tmp_path: Path, *extra: str) -> harness.Options:
    return harness.arguments("test", argv=["--json", str(tmp_path / "deep" / "rows.json"), *extra])


def test_ratio_above_one_is_always_in_our_favour() -> None:
    speed = harness.compare("speed", [30, 40, 50], unit="images/s", better="higher", peer="p 1", theirs=[20], bar=2.0)
    assert (speed.value, speed.peer_value, speed.ratio, speed.met) == (40, 20, 2.0, True)
    memory = harness.compare("memory", 500, unit="MiB", better="lower", peer="p 1", theirs=400, bar=1.0)
    assert memory.ratio == pytest.approx(0.8)
    assert memory.met is False


def test_bar_on_the_value_where_there_is_no_peer() -> None:
    assert harness.compare("map", 0.6, unit="mAP", better="higher", bar=0.58).met is True
    assert harness.compare("map", 0.5, unit="mAP", better="higher", bar=0.58).met is False
    assert harness.compare("import", 0.3, unit="s", better="lower", bar=0.3).met is True
    assert harness.compare("import", 0.31, unit="s", better="lower", bar=0.3).met is False
    assert harness.compare("import", 0.31, unit="s", better="lower").met is None


def test_a_peer_that_is_missing_is_neither_met_nor_missed() -> None:
    row = harness.compare("speed", 40, unit="images/s", better="higher", peer="not installed", bar=1.5)
    assert row.bar_on == "ratio"
    assert row.met is None


def test_medians_and_quartiles() -> None:
    row = harness.compare("t", [5, 1, 3, 2, 4], unit="s", better="lower")
    assert (row.value, row.spread, row.runs) == (3, (2, 4), 5)
    assert harness.compare("t", 7, unit="s", better="lower").spread == (7, 7)
    with pytest.raises(ValueError, match="no measurement"):
        harness.compare("t", [], unit="s", better="lower")


def test_zero_has_no_ratio() -> None:
    assert harness.compare("t", 3, unit="s", better="higher", peer="p", theirs=0).ratio is None


def test_sides_take_turns_and_warm_up_is_thrown_away() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    values = harness.alternate({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3, warmup=1)
    assert "".join(order) == "baabbaab"
    assert values == {"a": [3.0, 6.0, 7.0], "b": [4.0, 5.0, 8.0]}
    order.clear()
    assert len(harness.alternate({"a": lambda: side("a")}, rounds=50, warmup=9, quick=True)["a"]) == 2
    assert len(order) == 3


def test_child_gives_its_last_line_and_its_own_peak() -> None:
    code = "import os; x = bytearray({}); print('noise'); print('{{\"t\": \"' + os.environ['OMP_NUM_THREADS'] + '\"}}')"
    small = harness.run_child([sys.executable, "-c", code.format(1)], threads=2)
    large = harness.run_child([sys.executable, "-c", code.format(200 * 2**20)], threads=2)
    assert small.result == {"t": "2"}
    assert small.seconds > 0
    assert 195 < large.peak_mb - small.peak_mb < 210


@pytest.mark.parametrize(
    ("code", "says"),
    [("raise SystemExit('broken pipe dream')", "broken pipe dream"), ("print('3')", "no JSON object"), ("", "no JSON")],
)
def test_child_that_fails_says_why(code: str, says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        harness.run_child([sys.executable, "-c", code])


def test_child_that_hangs_is_killed() -> None:
    with pytest.raises(RuntimeError, match="killed after"):
        harness.run_child([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.5)


def test_json_keeps_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(tmp_path)
    rows = [
        harness.compare("speed", [3, 4], unit="images/s", better="higher", peer="peer 2.0", theirs=[2, 2], bar=9.0),
        harness.compare("time", 0.2, unit="s", better="lower", bar=0.3, note="cold"),
    ]
    assert harness.report("demo", rows, given) == 1
    assert given.json is not None
    raw = json.loads(given.json.read_text())
    assert set(raw) == {"benchmark", "environment", "quick", "rows", "started"}
    wanted = {"name", "value", "unit", "better", "peer", "peer_value", "ratio", "bar"}
    assert all(wanted <= set(row) for row in raw["rows"])
    assert set(raw["environment"]) == {"commit", "cores", "device", "processor", "system", "versions"}
    assert harness.Document.model_validate(raw).rows == rows
    assert str(tmp_path) not in given.json.read_text()
    shown = capsys.readouterr().out
    assert "NO" in shown
    assert "yes" in shown
    assert "Bars missed: speed" in shown


def test_quick_runs_do_not_judge(tmp_path: Path) -> None:
    row = harness.compare("t", 9, unit="s", better="lower", bar=1)
    assert harness.report("demo", [row], options(tmp_path)) == 1
    assert harness.report("demo", [row], options(tmp_path, "--quick")) == 0


def test_a_script_may_show_its_own_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(tmp_path)
    row = harness.compare("speed of it", 9, unit="s", better="lower", bar=1, note="cold")
    assert harness.report("demo", [row], given, table=False) == 1
    assert capsys.readouterr().out.splitlines() == ["Bars missed: speed of it"]
    assert given.json is not None
    assert harness.Document.model_validate_json(given.json.read_text()).rows == [row]


def test_rows_are_closed() -> None:
    with pytest.raises(ValidationError, match="extra"):
        harness.Row.model_validate({"name": "a", "value": 1, "unit": "s", "better": "lower", "speed": 3})
    with pytest.raises(ValidationError, match="better"):
        harness.Row.model_validate({"name": "a", "value": 1, "unit": "s", "better": "faster"})


def test_missing_data_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        harness.need(options(tmp_path, "--data", str(tmp_path)), "bccd")
    assert stopped.value.code == 2
    assert "--data DIR" in capsys.readouterr().err


def test_peer_in_this_interpreter_is_found_first() -> None:
    assert harness.peer_python("pytest") == sys.executable
    assert harness.peer_python("no_such_package_anywhere") is None
