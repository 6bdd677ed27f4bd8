import torch

from clearsight.deploy.prediction import Prediction, Predictions
from clearsight.types import Classification, Finding, Instances

CLASSES = ("cat", "dog")


def detection(count=2):
    instances = Instances(
        boxes=torch.tensor([[1.0, 2.0, 3.0, 5.0], [0.0, 0.0, 8.0, 6.0]])[:count],
        labels=torch.tensor([1, 0])[:count],
        scores=torch.tensor([0.75, 0.5])[:count],
    )
    return Prediction(path=None, size=(6, 8), classes=CLASSES, instances=instances)


def classification():
    probs = Classification(probs=torch.tensor([0.25, 0.75]))
    return Prediction(path=None, size=(6, 8), classes=CLASSES, classification=probs)


def test_a_detection_speaks_in_names():
    found = detection()
    assert len(found) == 2
    assert found.names == ["dog", "cat"]
    assert found.scores == [0.75, 0.5]
    assert found.boxes[0] == (1.0, 2.0, 3.0, 5.0)


def test_a_classification_speaks_in_names():
    found = classification()
    assert len(found) == 1
    assert (found.names, found.scores, found.boxes) == (["dog"], [0.75], [])
    assert found.rows() == [
        {"file": "", "height": 6, "width": 8, "class": "dog", "score": 0.75, "p_cat": 0.25, "p_dog": 0.75}
    ]


def test_an_image_without_objects_has_one_empty_row():
    (row,) = detection(0).rows()
    assert (row["class"], row["x1"], row["height"]) == (None, None, 6)


def test_rows_of_all_images_make_a_table():
    finding = Finding(id="empty-file", severity="error", where="a.jpg", explanation="zero bytes")
    found = Predictions([detection(), detection(0)], [finding])
    table = found.to_frame()
    assert list(table["class"].fillna("none")) == ["dog", "cat", "none"]
    assert table["x2"].tolist()[:2] == [3.0, 8.0]
    assert found.findings == [finding]
    assert found[1].names == []
