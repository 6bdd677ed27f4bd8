import numpy as np
import pytest

from clearsight.metrics.mistakes import confusion_matrix, explain, find_mistakes, rank_worst
from clearsight.metrics.overlaps import Overlap

NAMES = ("RBC", "WBC")
CELL = [0, 0, 10, 10]


def mistakes_of(image, threshold=0.0):
    return find_mistakes(image, NAMES, threshold=threshold)


@pytest.mark.parametrize(
    ("boxes", "labels", "truth", "truth_labels", "kinds"),
    [
        ([CELL], [0], [CELL], [0], []),
        ([], [], [CELL], [0], ["missed"]),
        ([CELL], [0], [], [], ["background"]),
        ([CELL], [1], [CELL], [0], ["wrong class"]),
        ([CELL, CELL], [0, 0], [CELL], [0], ["duplicate"]),
        ([[0, 0, 10, 4]], [0], [CELL], [0], ["poor box"]),
        ([[0, 0, 10, 0.5]], [0], [CELL], [0], ["background", "missed"]),
        # The right class comes first even where a wrong one scores higher and overlaps more.
        ([CELL, [0, 0, 10, 8]], [1, 0], [CELL], [0], ["background"]),
        # A detection of the wrong class with a poor box is two mistakes.
        ([[0, 0, 10, 4]], [1], [CELL], [0], ["background", "missed"]),
    ],
)
def test_every_mistake_gets_one_kind(one_image, boxes, labels, truth, truth_labels, kinds):
    found = mistakes_of(one_image(boxes, labels, truth, truth_labels))
    assert [m["kind"] for m in found.mistakes] == kinds


def test_a_mistake_names_classes_score_overlap_and_place(one_image):
    (mistake,) = mistakes_of(one_image([[0, 0, 10, 6]], [1], [CELL], [0], scores=[0.75])).mistakes
    assert mistake == {
        "kind": "wrong class",
        "truth": "RBC",
        "predicted": "WBC",
        "score": 0.75,
        "iou": pytest.approx(0.6),
        "box": [0.0, 0.0, 10.0, 6.0],
    }


def test_what_was_found_is_paired_by_its_place(one_image):
    boxes = [[50, 50, 60, 60], [0, 0, 10, 8], [0, 0, 10, 10]]
    truth = [[90, 90, 99, 99], [80, 80, 85, 85], CELL]
    image = one_image(boxes, [0, 0, 0], truth, [0, 0, 0], scores=[0.3, 0.6, 0.9], ignore=[True, False, False])
    assert mistakes_of(image).matched == [(2, 2, 1.0)]
    assert mistakes_of(one_image([CELL], [1], [CELL], [0])).matched == []


def test_a_given_overlap_stands_in_for_that_of_the_boxes(one_image):
    overlap = Overlap(np.array([[60.0, 0.0]]), np.array([80.0]), np.array([80.0, 10.0]))
    image = one_image([[50, 50, 60, 60]], [0], [CELL, CELL], [0, 0], ignore=[False, False])
    found = find_mistakes(image, NAMES, threshold=0.0, overlap=overlap)
    assert found.matched == [(0, 0, 0.6)]
    assert [m["kind"] for m in found.mistakes] == ["missed"]
    image.truth.ignore[0] = True
    assert find_mistakes(image, NAMES, threshold=0.0, overlap=overlap).pairs == [(0, -1)]  # excused: 60 of its 80 px


def test_ignored_objects_are_neither_missed_nor_found(one_image):
    image = one_image([[0, 0, 10, 10], [2, 2, 8, 8]], [0, 1], [[0, 0, 20, 20]], [0], ignore=[True])
    found = mistakes_of(image)
    assert found.mistakes == []
    assert found.pairs == []


def test_the_threshold_is_the_lowest_score_that_counts(one_image):
    image = one_image([CELL, [50, 50, 60, 60]], [0, 0], [CELL], [0], scores=[0.8, 0.25])
    assert [m["kind"] for m in mistakes_of(image, 0.25).mistakes] == ["background"]
    assert mistakes_of(image, 0.26).mistakes == []


def test_confusion_has_background_last(one_image):
    images = [
        mistakes_of(one_image([CELL, [50, 50, 60, 60]], [0, 1], [CELL, [90, 90, 99, 99]], [0, 1])),
        mistakes_of(one_image([CELL], [1], [CELL], [0])),
    ]
    assert confusion_matrix(images, 2) == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert confusion_matrix([], 2) == [[0] * 3] * 3


def test_confusion_rows_count_objects_and_columns_count_detections(make_results):
    results = make_results(20, seed=4)
    classes = ("a", "b", "c")
    matrix = np.array(confusion_matrix([find_mistakes(r, classes, threshold=0.0) for r in results], 3))
    objects = np.bincount(np.concatenate([r.truth.labels.numpy() for r in results]), minlength=3)
    found = np.bincount(np.concatenate([r.predicted.labels.numpy() for r in results]), minlength=3)
    assert matrix[:3].sum(axis=1).tolist() == objects.tolist()
    assert matrix[:, :3].sum(axis=0).tolist() == found.tolist()
    assert matrix[3, 3] == 0


def test_worst_images_first_and_why_in_words(one_image):
    results = [
        one_image([CELL], [0], [CELL], [0], name="good.jpg"),
        one_image([], [], [CELL, [50, 50, 60, 60]], [0, 1], name="two.jpg"),
        one_image([CELL, [50, 50, 60, 60]], [0, 0], [CELL], [0], name="one.jpg"),
        one_image([], [], [CELL], [0], name="one-of-one.jpg"),
    ]
    images = [mistakes_of(r) for r in results]
    rows = rank_worst(results, images, limit=9)
    assert [row["path"] for row in rows] == ["two.jpg", "one-of-one.jpg", "one.jpg"]
    assert [row["error"] for row in rows] == [2.0, 1.0, 1.0]
    assert rows[0]["why"] == "2 missed (1 RBC, 1 WBC)"
    assert rows[2]["why"] == "1 found where nothing is labelled (RBC)"
    assert rows[0]["image"] == 1
    assert len(rank_worst(results, images, limit=1)) == 1
    assert explain([]) == ""
    wrong = mistakes_of(one_image([CELL], [1], [CELL], [0])).mistakes
    assert explain(wrong) == "1 given the wrong class (RBC taken for WBC)"
