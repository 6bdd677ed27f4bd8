import math

from clearsight.metrics import Scores
from clearsight.report import ReportContent
from clearsight.report.tables import data_table, flat, key_figures, score_tables, statistics_rows


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_tables_of_a_detector(detection_scores):
    tables = {t.id: t for t in score_tables(ReportContent(title="x", scores={"test": detection_scores}))}
    assert list(tables) == ["classes", "sizes", "mistakes"]
    first, row = tables["classes"].rows[0], detection_scores.per_class[0]
    assert first[0].text == "RBC"
    assert first[0].color == "#0072b2"
    assert first[1].text == str(row["objects"])
    assert first[2].text == f"{row['ap']:.3f}"
    assert first[3].whisker == (row["ap_low"], row["ap"], row["ap_high"])
    assert sum(cell[1].sort for cell in tables["mistakes"].rows) == sum(detection_scores.mistakes.values())
    assert all(len(row) == len(t.columns) for t in tables.values() for row in t.rows)


def test_tables_of_a_classifier(classification_scores):
    (table,) = score_tables(ReportContent(title="x", scores={"val": classification_scores}))
    assert [row[0].text for row in table.rows] == ["cat", "dog", "owl"]
    assert key_figures(classification_scores)[0][0] == "Accuracy"
    assert "–" in key_figures(classification_scores)[0][2]


def test_several_splits_stand_side_by_side(detection_scores):
    content = ReportContent(title="x", scores={"test": detection_scores, "val": detection_scores})
    assert [row[0].text for row in score_tables(content)[0].rows] == ["test", "val"]


def test_what_does_not_exist_is_a_dash_and_sorts_last():
    nothing = {"class": "a", "objects": 0, "ap": math.nan, "ap_low": math.nan, "ap_high": math.nan}
    scores = Scores(task="detection", classes=("a",), images=1, summary={"map": math.nan}, per_class=[nothing])
    (table,) = score_tables(ReportContent(title="x", scores={"test": scores}))
    assert texts(table)[0][2:4] == ["–", "–"]
    assert table.rows[0][3].whisker is None
    assert math.isnan(table.rows[0][2].sort)
    assert key_figures(scores) == [("mAP", "–", "")]
    assert score_tables(ReportContent(title="x")) == []


def test_the_data_in_rows():
    table = data_table({"images": {"train": 205, "test": 72}, "counts": {"train": {"a": 1200, "b": 3}}})
    assert table is not None
    assert texts(table) == [["train", "205", "1,203", "1,200", "3"], ["test", "72", "–", "0", "0"]]
    assert data_table({}) is None
    bare = data_table({"images": {"train": 24, "test": 6}})
    assert bare is not None
    assert ([column.name for column in bare.columns], bare.title) == (["Split", "Images"], "Images")


def test_statistics_have_readable_names():
    sizes = {f"{i}×10": 2 for i in range(10)}
    rows = statistics_rows({"images": {"train": 3}, "image_sizes": sizes, "mean": [0.5, 0.25], "bits_deep": 16})
    assert rows[0] == ("Images of 0×10 px", "2")
    assert rows[8:] == [("Images of 2 other sizes", "4"), ("Mean of each channel", "0.5, 0.25"), ("bits deep", "16")]


def test_nested_values_become_dotted_names():
    values = {"git": {"commit": "abc", "dirty": False}, "list": list(range(20)), "none": None, "gpu": "", "x": 0.123456}
    assert flat(values) == [
        ("git.commit", "abc"),
        ("git.dirty", "False"),
        ("list", "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (20)"),
        ("none", "–"),
        ("gpu", "–"),
        ("x", "0.1235"),
    ]
