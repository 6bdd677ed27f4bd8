"""Detectors on given regions: where the regions come from, and what is asked of whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from clearsight.models import create_model
from clearsight.models.detect.given_regions import GivenRegions
from clearsight.models.detect.rpn import Proposals
from clearsight.ops.selection import Selection
from clearsight.types import Targets

EVERYTHING = Selection(score_threshold=0.0)


class Asked:
    """A proposer of two fixed regions an image that remembers what it was asked."""

    def __init__(self) -> None:
        self.sizes: list[Tensor | None] = []

    def __call__(self, images: Tensor, sizes: Tensor | None) -> Proposals:
        self.sizes.append(sizes)
        boxes = torch.tensor([[4.0, 6, 40, 50], [20.0, 8, 60, 44]]).expand(len(images), 2, 4)
        return Proposals(boxes=boxes.clone(), scores=torch.ones(len(images), 2))


@pytest.fixture(params=["rcnn", "fast_rcnn"])
def model(request: pytest.FixtureRequest) -> GivenRegions:
    torch.manual_seed(0)
    small = {"fpn_channels": 16, "box_width": 24} if request.param == "fast_rcnn" else {"crop": 64}
    made = create_model(request.param, num_classes=2, backbone="resnet18", **small)
    return cast(GivenRegions, made).eval()


def test_given_regions_are_taken_instead_of_the_proposers(
    model: GivenRegions, as_targets: Callable[..., Targets]
) -> None:
    proposer = Asked()
    model.proposer = proposer
    images, sizes = torch.rand(2, 3, 64, 64), torch.tensor([[64, 64], [48, 60]])
    asked = model.predict(images, sizes, EVERYTHING)
    assert proposer.sizes == [sizes]  # of prediction, so that no region lies in the padding
    given = model.predict(images, sizes, EVERYTHING, proposals=proposer(images, None))
    for one, other in zip(asked, given, strict=True):
        assert len(one) > 0
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)  # pyright: ignore[reportArgumentType]
    elsewhere = proposer(images, None)
    elsewhere.boxes[:] = torch.tensor([10.0, 10, 30, 30])
    moved = model.predict(images, sizes, EVERYTHING, proposals=elsewhere)
    assert not torch.equal(moved[0].scores[:2], asked[0].scores[:2])  # pyright: ignore[reportOptionalSubscript]
    targets = as_targets(
        [torch.tensor([[4.0, 6, 40, 50]]), torch.zeros(0, 4)], [torch.tensor([1]), torch.zeros(0).long()]
    )
    before = len(proposer.sizes)
    torch.manual_seed(1)
    terms = model.loss(images, targets, proposals=proposer(images, None))
    assert len(proposer.sizes) == before + 1  # asked by this test alone
    torch.manual_seed(1)
    again = model.loss(images, targets)
    assert proposer.sizes[-1] is None
    assert terms.keys() == again.keys() == {"class", "box"}
    for name in terms:
        torch.testing.assert_close(terms[name], again[name])


def test_the_classes_start_anew_and_nothing_else(model: GivenRegions) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for value in model.parameters():
        value.data += 0.5
    model.reset_classes()
    after = model.state_dict()
    for name in model.class_layer:
        assert not torch.equal(after[name], before[name] + 0.5), name
    others = [name for name, _ in model.named_parameters() if name not in model.class_layer]
    assert others
    assert all(torch.equal(after[name], before[name] + 0.5) for name in others)
