import numpy as np
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


def outlined():
    rings = torch.tensor([
        [[1.0, 1], [5, 1], [5, 5], [1, 5]],
        [[2.0, 2], [4, 2], [4, 4], [2, 4]],
        [[6.0, 0], [8, 0], [7, 4], [7, 4]],
    ])  # fmt: skip
    instances = Instances(
        boxes=torch.tensor([[1.0, 1, 5, 5], [6, 0, 8, 4], [0, 0, 1, 1]]),
        labels=torch.tensor([1, 0, 0]),
        scores=torch.tensor([0.75, 0.5, 0.5]),
        contours=rings,
        ring_object=torch.tensor([0, 0, 1]),
    )
    return Prediction(path=None, size=(6, 8), classes=CLASSES, instances=instances)


def test_outlines_are_rings_without_padding_and_masks_on_demand():
    found = outlined()
    assert [[len(ring) for ring in rings] for rings in found.polygons] == [[4, 4], [3], []]
    masks = found.masks
    assert masks.shape == (3, 6, 8)
    assert masks[0].sum() == 16 - 4  # the ring within is a hole
    assert masks[1].any()
    assert not masks[2].any()
    assert detection().polygons == []


def test_a_ring_of_one_place_keeps_its_vertex():
    found = outlined()
    found.instances.contours[2] = torch.tensor([3.0, 3.0])
    assert found.polygons[1][0].tolist() == [[3.0, 3.0]]


def test_a_class_map_speaks_in_classes():
    labels = np.zeros((6, 8), np.uint8)
    labels[:3] = 1
    found = Prediction(path=None, size=(6, 8), classes=CLASSES, semantic=labels)
    assert len(found) == 2
    assert (found.names, found.scores, found.boxes, found.polygons) == (["cat", "dog"], [], [], [])
    assert [(row["class"], row["pixels"], row["share"]) for row in found.rows()] == [("cat", 24, 0.5), ("dog", 24, 0.5)]
