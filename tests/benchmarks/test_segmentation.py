"""The benchmark of segmentation: bars are met, missed or not measured, tables and pictures say what was found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import segmentation
from clearsight.metrics.scores import Scores

BEST = {
    "dice": 0.85, "miou": 0.8, "foreground_rand": 0.9, "boundary_f": 0.9, "hd95": 4.0, "map_50": 0.7, "map": 0.5,
    "dsb_ap": 0.5, "aji": 0.6, "parameters": 4.4, "images_a_second": 3.0, "predict_ms": 100.0,
    "predicted_a_second": 10.0, "peak_mib": 1500.0,
}  # fmt: skip
"""What meets every bar."""


def outcome(minutes: float = 20.0, **values: float) -> dict[str, Any]:
    kept = {"minutes": minutes, "epochs": 7, "images": 6, "size": [256, 256], "values": BEST | values}
    return kept | {"intervals": {"dice": [0.8, 0.9], "map_50": [0.6, 0.75]}}


def all_met() -> dict[str, list[dict[str, Any]]]:
    found = {recipe: [outcome()] for recipe in segmentation.ASKED}
    return found | {"nuclei-maskrcnn": [outcome(boundary_f=0.8)]}


def said(found: dict[str, list[dict[str, Any]]], minutes: float = 20.0) -> dict[str, str]:
    """By name of the bar what its line says first."""
    lines, _ = segmentation.lines_of_bars(found, minutes=minutes)
    assert len(lines) == len(segmentation.bars())
    return {bar.name: line.split("  ")[0].strip() for bar, line in zip(segmentation.bars(), lines, strict=True)}


def test_all_bars_met() -> None:
    assert set(said(all_met()).values()) == {"MET"}


@pytest.mark.parametrize(
    ("recipe", "key", "enough", "too_little"),
    [
        ("membrane-unet", "dice", 0.80, 0.799),
        ("membrane-transunet", "dice", 0.8201, 0.8199),
        ("membrane-swinunet", "dice", 0.8201, 0.8199),
        ("nuclei-maskrcnn", "map_50", 0.6, 0.599),
        ("nuclei-snake", "map_50", 0.6, 0.599),
        ("nuclei-snake", "boundary_f", 0.8001, 0.8),
        ("nuclei-snake", "predicted_a_second", 5.0, 4.99),
    ],
)
def test_each_bar_has_its_edge(recipe: str, key: str, enough: float, too_little: float) -> None:
    found = all_met()
    found[recipe][0]["values"][key] = enough
    assert set(said(found).values()) == {"MET"}
    found[recipe][0]["values"][key] = too_little
    missed = [name for name, verdict in said(found).items() if verdict == "MISSED"]
    assert len(missed) == 1
    assert missed[0].startswith(f"bar: {recipe}: ")


def test_missing_runs_are_never_met() -> None:
    assert set(said({}).values()) == {"not measured"}
    without = all_met()
    del without["membrane-unet"], without["nuclei-maskrcnn"]
    told = said(without)
    assert sorted(told.values()).count("not measured") == 5
    assert [name for name in told if told[name] == "MET" and "snake" not in name] == []
    lines, rows = segmentation.lines_of_bars(without, minutes=20)
    assert len(rows) == 2
    assert any(line.endswith("no run of 20 minutes of nuclei-maskrcnn") for line in lines)


def test_runs_of_another_length_are_shown_and_not_judged() -> None:
    found = all_met() | {"membrane-unet": [outcome(minutes=60.0)]}
    assert list(said(found).values()).count("not measured") == 3
    assert "60 minutes" in segmentation.markdown(found)


def test_a_figure_that_does_not_exist_misses_its_bar_and_has_no_row() -> None:
    found = {"membrane-unet": [outcome(dice=math.nan, hd95=math.nan)]}
    assert said(found)["bar: membrane-unet: Dice of membrane at least 0.8"] == "MISSED"
    names = [row.name for row in segmentation.rows(found)]
    assert names[0] == "membrane-unet: mean IoU"
    assert len(names) == len(segmentation.MAPS) + len(segmentation.COSTS) - 2
    assert "–" in segmentation.markdown(found)


def test_bars_take_the_median_of_the_seeds() -> None:
    three = [outcome(dice=0.5), outcome(dice=0.81), outcome(dice=0.83)]
    assert said({"membrane-unet": three})["bar: membrane-unet: Dice of membrane at least 0.8"] == "MET"
    assert "0.810 (0.500 to 0.830)" in segmentation.markdown({"membrane-unet": three})


def test_tables_have_a_column_a_recipe_and_aligned_lines() -> None:
    lines = segmentation.markdown(all_met()).split("\n\n")
    assert len(lines) == 2  # no table of fruits
    membrane = lines[0].splitlines()
    assert {len(line) for line in membrane} == {len(membrane[0])}
    assert [cell.strip() for cell in membrane[0].split("|")][2:5] == list(segmentation.ASKED[:3])
    assert [cell.strip() for cell in membrane[2].split("|")][1:3] == ["Dice of membrane", "0.850 (0.800 to 0.900)"]
    assert "mask AP50" in lines[1]


def test_rows_keep_intervals_in_their_notes() -> None:
    rows = {row.name: row for row in segmentation.rows({"nuclei-snake": [outcome()]})}
    assert rows["nuclei-snake: mask AP50"].note == "interval over images 0.600 to 0.750; 20 minutes, epoch 7"
    assert rows["nuclei-snake: one image"].better == "lower"


def test_figures_of_maps_are_of_the_membrane() -> None:
    per_class = [
        {"class": "cell", "dice": 0.9, "dice_low": 0.8, "dice_high": 1.0},
        {"class": "membrane", "dice": 0.7, "dice_low": 0.6, "dice_high": 0.75},
    ]
    summary = {"miou": 0.6, "dice": 0.8, "foreground_rand": 0.5, "boundary_f": 0.4, "hd95": 9.0}
    scores = Scores(
        task="semantic", classes=("cell", "membrane"), images=2, summary=summary, per_class=per_class,
        intervals={"miou": (0.5, 0.7), "dice": (0.1, 0.2)},
    )  # fmt: skip
    values, intervals = segmentation.figures(scores)
    assert values == summary | {"dice": 0.7}
    assert intervals == {"dice": (0.6, 0.75), "miou": (0.5, 0.7)}


def test_figures_of_objects_are_those_of_masks() -> None:
    summary = {"map_50": 0.6, "map": 0.4, "box_map": 0.9, "dsb_ap": 0.3, "aji": 0.5, "boundary_f": 0.7}
    scores = Scores(task="instance", classes=("nucleus",), images=2, summary=summary, intervals={"map_50": (0.5, 0.7)})
    values, intervals = segmentation.figures(scores)
    assert values == {key: value for key, value in summary.items() if key != "box_map"}
    assert intervals == {"map_50": (0.5, 0.7)}


def test_wrong_data_is_said_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "membrane").mkdir()
    options = ["segmentation.py", "--data", str(tmp_path), "--nuclei", str(tmp_path / "cells")]
    monkeypatch.setattr("sys.argv", options)
    with pytest.raises(SystemExit) as stopped:
        segmentation.main()
    assert stopped.value.code == 2
    assert "--nuclei PATH" in capsys.readouterr().err
