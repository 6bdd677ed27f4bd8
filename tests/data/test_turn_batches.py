"""Batches that turn by a quarter as a whole: shapes, boxes on their objects, the same for any number of workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clearsight.data.formats import voc
from clearsight.data.loader import Loader
from clearsight.data.samples import SampleSet
from clearsight.recipe.schema import AugmentConfig, DataConfig


def _loader(folder: Path, *, turn: float, workers: int = 0) -> Loader:
    data = DataConfig(root=str(folder), size=(96, 128))
    augment = AugmentConfig(flip_horizontal=0.0, turn_batches=turn)
    samples = SampleSet(voc.read(folder).split("val"), data=data, augment=augment, seed=3)
    return Loader(samples, batch_size=8, workers=workers, seed=3)


@pytest.mark.real
def test_a_turned_batch_is_the_unturned_one_turned(shared_data: Path) -> None:
    plain = next(_loader(shared_data / "bccd", turn=0.0).epoch(0))
    turned = next(_loader(shared_data / "bccd", turn=1.0).epoch(0))
    assert plain.images.shape == (8, 3, 96, 128)
    assert turned.images.shape == (8, 3, 128, 96)
    torch.testing.assert_close(turned.images, torch.rot90(plain.images, 1, (2, 3)))
    left, top, right, bottom = plain.targets.boxes.unbind(1)
    torch.testing.assert_close(turned.targets.boxes, torch.stack((top, 128 - right, bottom, 128 - left), dim=1))
    assert turned.sizes.tolist() == [[128, 96]] * 8


@pytest.mark.real
def test_which_batches_turn_does_not_depend_on_workers(shared_data: Path) -> None:
    def shapes(workers: int) -> list[tuple[int, ...]]:
        loader = _loader(shared_data / "bccd", turn=0.5, workers=workers)
        found = [tuple(batch.images.shape) for epoch in range(3) for batch in loader.epoch(epoch)]
        loader.close()
        return found

    alone = shapes(0)
    assert len(set(alone)) == 2  # some turned, some not
    assert shapes(2) == alone
