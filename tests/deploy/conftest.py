"""Real images, and the comparison of what is found in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clearsight.types import Instances


@pytest.fixture
def photos(shared_data: Path) -> Callable[[int, tuple[int, int]], Tensor]:
    """The first microscope photos of nuclei, resized: `(n, 3, h, w)` uint8."""
    from torchvision.transforms.v2.functional import resize

    from clearsight.data.decode import read_image
    from clearsight.data.read import read_dataset

    def read(count: int, size: tuple[int, int]) -> Tensor:
        records = read_dataset(shared_data / "nuclei", images="skip").records[:count]
        images = [torch.from_numpy(read_image(one.image, channels=3).copy()).permute(2, 0, 1) for one in records]
        return torch.stack([resize(image, list(size), antialias=True) for image in images])

    return read


@pytest.fixture
def assert_same() -> Callable[[Sequence[Tensor], Sequence[Instances]], list[tuple[Tensor, Tensor]]]:
    """Boxes, labels and scores are equal but for the order of equal scores; gives which row is which, by image."""

    def compare(found: Sequence[Tensor], expected: Sequence[Instances]) -> list[tuple[Tensor, Tensor]]:
        rows = []
        for boxes, labels, scores, truth in zip(*found, expected, strict=True):
            assert truth.scores is not None
            count = int((scores > 0).sum())
            assert count == len(truth)
            assert bool((labels[count:] == -1).all())
            assert not bool(boxes[count:].any())
            mine = in_one_order(boxes[:count], labels[:count], scores[:count])
            theirs = in_one_order(truth.boxes, truth.labels, truth.scores)
            pairs = ((boxes, truth.boxes), (labels, truth.labels), (scores, truth.scores))
            for one, other in pairs:
                torch.testing.assert_close(one[mine], other[theirs], rtol=1e-4, atol=2e-3)
            rows.append((mine, theirs))
        return rows

    return compare


def in_one_order(boxes: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """Places of rows in an order that does not depend on that of equal scores."""
    rows = torch.cat((scores[:, None], labels[:, None].float(), boxes), dim=1)
    return torch.argsort(rows.double() @ torch.tensor([1e4, 1e3, 1.0, 0.37, 0.11, 0.053], dtype=torch.float64))
