"""The classifier: torchvision's numbers, its loss, and that it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from clearsight.errors import ConfigError
from clearsight.models import create_model
from clearsight.models.classify.classifier import Classifier
from clearsight.types import Targets


def labelled(label: Tensor) -> Targets:
    return Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), image=torch.zeros(0).long(), label=label)


def small(**options: object) -> Classifier:
    model = create_model("resnet18", num_classes=4, **options)
    assert isinstance(model, Classifier)
    return model


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_is_torchvisions(name: str) -> None:
    theirs = getattr(torchvision.models, name)(weights=None, num_classes=7).eval()
    ours = create_model(name, num_classes=7).eval()
    state = ours.adapt_weights(theirs.state_dict())  # pyright: ignore[reportCallIssue]
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["input_norm.mean", "input_norm.std"], [])
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(normal), rtol=1e-4, atol=1e-4)


def test_predictions_are_probabilities() -> None:
    model = small().eval()
    images = torch.rand(3, 3, 48, 48)
    found = model.predict(images, torch.tensor([[48, 48]] * 3))
    assert len(found) == 3
    with torch.no_grad():
        torch.testing.assert_close(torch.stack([each.probs for each in found]), model(images).softmax(1))
    assert found[0].label == int(found[0].probs.argmax())


def test_loss_with_ids_probabilities_and_smoothing() -> None:
    model = small(label_smoothing=0.1).eval()
    images, ids = torch.rand(3, 3, 48, 48), torch.tensor([0, 3, 1])
    expected = torch.nn.functional.cross_entropy(model(images), ids, label_smoothing=0.1)
    torch.testing.assert_close(model.loss(images, labelled(ids))["class"], expected)
    torch.testing.assert_close(model.loss(images, labelled(torch.eye(4)[ids]))["class"], expected)


def test_dropout_is_off_in_evaluation() -> None:
    model = small(dropout=0.5)
    images = torch.rand(2, 3, 48, 48)
    model.eval()
    torch.testing.assert_close(model(images), model(images), rtol=0, atol=0)
    model.train()
    model.backbone.eval()  # pyright: ignore[reportAttributeAccessIssue]
    assert not torch.equal(model(images), model(images))


def test_without_labels() -> None:
    targets = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), image=torch.zeros(0).long())
    with pytest.raises(ConfigError, match=r"targets\.label is None; the data has no image-level labels"):
        small().loss(torch.rand(1, 3, 32, 32), targets)


def test_export_equals_eager() -> None:
    model = small(small_input=True).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))


@pytest.mark.real
def test_overfits_eight_photos(shared_data: Path) -> None:
    from torchvision.transforms.v2.functional import resize

    from clearsight.data.decode import read_image

    folders = sorted(path for path in (shared_data / "sign_digits").iterdir() if path.is_dir())[:4]
    files = [sorted(folder.iterdir())[i] for folder in folders for i in range(2)]
    photos = [torch.from_numpy(read_image(file, channels=3).copy()).permute(2, 0, 1) for file in files]
    images = torch.stack([resize(photo, [48, 48], antialias=True) for photo in photos])
    labels = torch.arange(4).repeat_interleave(2)
    model = small()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(30):
        loss = model.loss(images, labelled(labels))["class"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = model.eval().predict(images, torch.tensor([[48, 48]] * 8))
    assert [each.label for each in found] == labels.tolist()
    assert min(each.score for each in found) > 0.8
