"""The table of the classes of each task."""

from __future__ import annotations

import numpy as np
import pytest

from clearsight.metrics.compare_maps import compare_maps
from clearsight.metrics.scores import Scores
from clearsight.metrics.semantic import score_semantic
from clearsight.report.class_tables import class_table


def test_a_segmenters_classes() -> None:
    truth = np.zeros((40, 40), np.int64)
    truth[10:30, 10:30] = 1
    predicted = np.roll(truth, 1, axis=0)
    results = [compare_maps(predicted, truth, 3, path=f"{k}.png") for k in range(3)]
    table = class_table(score_semantic(results, ("ground", "lake", "snow"), bootstrap=20))
    assert table is not None
    assert [column.name for column in table.columns][:4] == ["Class", "Pixels", "IoU", "IoU, 95 % interval"]
    assert {len(row) for row in table.rows} == {len(table.columns)}
    ground, lake, snow = table.rows
    assert (lake[0].text, lake[1].text) == ("lake", "1,200")
    shared = 19 * 20 / (21 * 20)
    assert lake[2].sort == pytest.approx(shared)
    assert lake[3].whisker == pytest.approx((shared, shared, shared))
    assert (lake[7].text, lake[8].text) == ("1.000", "1")  # a boundary that is off by one pixel
    assert ground[1].text == f"{3 * (1600 - 400):,}"
    assert [cell.text for cell in snow[2:4]] == ["–", "–"]
    assert snow[3].whisker is None
    assert "within 2 pixels" in table.help


def test_tasks_have_columns_of_their_own() -> None:
    heads = {}
    for task in ("classification", "detection", "instance", "semantic"):
        scores = Scores(task=task, classes=("a",), images=1, per_class=[{"class": "a"}], settings={"tolerance": 2.0})
        table = class_table(scores)
        assert table is not None
        heads[task] = [column.name for column in table.columns]
        assert all(cell.text == "–" for cell in table.rows[0][1:])
    assert heads["detection"] == heads["instance"]
    assert "Images" in heads["classification"]
    assert class_table(Scores(task="semantic", classes=("a",), images=0)) is None
