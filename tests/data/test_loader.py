from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clearsight.data.dataset import Dataset
from clearsight.data.formats import voc
from clearsight.data.loader import Loader
from clearsight.data.samples import SampleSet
from clearsight.errors import DataError, RangeError
from clearsight.recipe.schema import AugmentConfig, DataConfig
from clearsight.types import Batch, Sample

DATA = DataConfig(size=(64, 64))
AUGMENT = AugmentConfig(
    flip_vertical=0.5,
    rotate=20,
    zoom=(0.6, 1.5),
    brightness=0.2,
    hue=0.1,
    mosaic=0.4,
    mixup=0.3,
    cutout=0.3,
    copy_paste=0.5,
)


@contextmanager
def loader_of(dataset: Dataset, *, cache: str = "ram", task: str = "detection", **options: object) -> Iterator[Loader]:
    samples = SampleSet(dataset, data=DATA, augment=AUGMENT, seed=4, cache=cache, task=task)
    loader = Loader(samples, **{"batch_size": 6, "seed": 4, **options})
    try:
        yield loader
    finally:
        loader.close()


def assert_same(a: Batch, b: Batch) -> None:
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.sizes, b.sizes)
    assert a.meta == b.meta
    for name in a.targets.__slots__:
        one, other = getattr(a.targets, name), getattr(b.targets, name)
        assert (one is None) == (other is None), name
        assert one is None or torch.equal(one, other), name


@pytest.fixture(scope="module")
def reference(digit_scenes: Dataset) -> dict[int, list[Batch]]:
    with loader_of(digit_scenes, cache="none") as loader:
        return {epoch: list(loader.epoch(epoch)) for epoch in (0, 1, 2)}


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_are_the_same_bits_for_any_number_of_workers(
    digit_scenes: Dataset, reference: dict[int, list[Batch]], workers: int
) -> None:
    with loader_of(digit_scenes, workers=workers) as loader:
        assert len(loader) == len(reference[0]) == 6
        for epoch in (0, 1, 2):
            found = list(loader.epoch(epoch))
            assert len(found) == 6
            for one, other in zip(found, reference[epoch], strict=True):
                assert_same(one, other)
                assert one.images.is_contiguous(memory_format=torch.channels_last)


def test_masks_too(digit_scenes: Dataset) -> None:
    with loader_of(digit_scenes, task="instance") as one, loader_of(digit_scenes, task="instance", workers=2) as two:
        for a, b in zip(one.epoch(1), two.epoch(1), strict=True):
            assert_same(a, b)
            assert a.targets.masks is not None
            assert a.targets.contours is not None


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_start_anywhere(digit_scenes: Dataset, reference: dict[int, list[Batch]], workers: int) -> None:
    with loader_of(digit_scenes, workers=workers) as loader:
        for start in (4, 0, 6):  # in this order: earlier epochs must not matter
            found = list(loader.epoch(1, start))
            assert len(found) == 6 - start
            for one, other in zip(found, reference[1][start:], strict=True):
                assert_same(one, other)
        with pytest.raises(RangeError, match="start is 7"):
            loader.epoch(1, 7)


def test_skipped_batches_are_not_loaded(digit_scenes: Dataset) -> None:
    with loader_of(digit_scenes) as loader:
        asked: list[int] = []
        base = loader.samples.base
        loader.samples.base = lambda index: asked.append(index) or base(index)
        loader.samples._augmenter = None
        (batch,) = loader.epoch(0, 5)
    assert asked == [meta.index for meta in batch.meta]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_left_early_does_not_disturb_the_next(
    digit_scenes: Dataset, reference: dict[int, list[Batch]], workers: int
) -> None:
    with loader_of(digit_scenes, workers=workers) as loader:
        for number in (1, 2):
            left = loader.epoch(0)
            for _ in range(number):
                next(left)
            found = list(loader.epoch(2))
            for one, other in zip(found, reference[2], strict=True):
                assert_same(one, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_ahead_changes_no_batch(digit_scenes: Dataset, reference: dict[int, list[Batch]], workers: int) -> None:
    with loader_of(digit_scenes, workers=workers, read_ahead=True) as loader:
        for epoch, start in ((0, 0), (1, 0), (2, 0), (0, 0), (1, 4), (2, 0), (0, 6), (1, 0), (1, 0)):
            found = list(loader.epoch(epoch, start))
            assert len(found) == 6 - start
            for one, other in zip(found, reference[epoch][start:], strict=True):
                assert_same(one, other)
        left = loader.epoch(2)
        next(left)
        left.close()  # pyright: ignore[reportAttributeAccessIssue]
        for one, other in zip(loader.epoch(2, 1), reference[2][1:], strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_left_alone(digit_scenes: Dataset, workers: int) -> None:
    with loader_of(digit_scenes, workers=workers) as loader:
        torch.manual_seed(1)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
        for epoch in (0, 1):
            next(iter(loader.epoch(epoch)))
        list(loader.epoch(2))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


def test_two_processes_see_what_one_sees(digit_scenes: Dataset, reference: dict[int, list[Batch]]) -> None:
    with loader_of(digit_scenes, rank=0, world=2) as one, loader_of(digit_scenes, rank=1, world=2) as two:
        assert len(one) == len(two) == 6
        for whole, first, second in zip(reference[1], one.epoch(1), two.epoch(1), strict=True):
            assert torch.equal(whole.images, torch.cat((first.images, second.images)))
            assert torch.equal(whole.targets.boxes, torch.cat((first.targets.boxes, second.targets.boxes)))


def test_processes_turn_the_same_batches(digit_scenes: Dataset) -> None:
    data = DataConfig(size=(48, 64), fit="stretch")
    augment = AugmentConfig(turn_batches=0.5)
    samples = SampleSet(digit_scenes, data=data, augment=augment, seed=4, task="detection")
    loaders = [Loader(samples, batch_size=6, seed=4, rank=rank, world=3) for rank in range(3)]
    shapes = [[batch.images.shape[2:] for epoch in (0, 1) for batch in loader.epoch(epoch)] for loader in loaders]
    assert shapes[0] == shapes[1] == shapes[2]
    assert set(shapes[0]) == {(48, 64), (64, 48)}
    resumed = [batch.images.shape[2:] for batch in loaders[0].epoch(1, 2)]
    assert resumed == shapes[0][6 + 2 :]


def test_evaluation_sees_every_image_once_in_order(digit_scenes: Dataset) -> None:
    with loader_of(digit_scenes, shuffle=False, drop_last=False, workers=2) as loader:
        order = [meta.index for batch in loader.epoch(0) for meta in batch.meta]
    assert order == list(range(40))
    assert len(loader) == 7


def test_fewer_images_than_a_batch_give_one(digit_scenes: Dataset) -> None:
    few = replace(digit_scenes, records=digit_scenes.records[:4])
    with loader_of(few) as loader:
        (batch,) = loader.epoch(0)
    assert len(batch) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_named_with_its_index(digit_scenes: Dataset, tmp_path: Path, workers: int) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(digit_scenes.records[9].image.read_bytes()[:200])
    records = list(digit_scenes.records)
    records[9] = replace(records[9], image=broken)
    with (
        loader_of(replace(digit_scenes, records=records), workers=workers, shuffle=False, cache="none") as loader,
        pytest.raises(DataError, match=r"broken\.png \(sample 9, epoch 3\)") as caught,
    ):
        list(loader.epoch(3))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unexpected_error_is_named_too_and_keeps_its_traceback(digit_scenes: Dataset, workers: int) -> None:
    class Faulty(SampleSet):
        def base(self, index: int) -> Sample:
            if index == 7:
                raise ZeroDivisionError("seven")
            return super().base(index)

    loader = Loader(Faulty(digit_scenes, data=DATA), batch_size=4, workers=workers, shuffle=False)
    name = digit_scenes.records[7].image.name
    with pytest.raises(DataError, match=rf"{name} \(sample 7, epoch 0\): ZeroDivisionError: seven") as caught:
        list(loader.epoch(0))
    assert "in base" in caught.value.__notes__[0]
    loader.close()


@pytest.mark.slow
def test_a_killed_worker_is_an_error_that_says_what_to_do(digit_scenes: Dataset) -> None:
    class Deadly(SampleSet):
        def base(self, index: int) -> Sample:
            if index == 13:
                os.kill(os.getpid(), 9)
            return super().base(index)

    loader = Loader(Deadly(digit_scenes, data=DATA), batch_size=4, workers=2, shuffle=False)
    with pytest.raises(DataError, match=r"loader\.workers"):
        list(loader.epoch(0))
    loader.close()


def test_only_large_tensors_travel_in_shared_memory(digit_scenes: Dataset) -> None:
    with loader_of(digit_scenes, task="instance", workers=1) as loader:
        batch = next(loader.epoch(0))
        assert type(batch) is Batch
        assert batch.images.is_shared()
        assert batch.targets.masks is not None
        assert batch.targets.masks.is_shared()
        small = (batch.sizes, batch.targets.boxes, batch.targets.labels, batch.targets.image)
        assert not any(tensor.is_shared() for tensor in small)
        for tensor in small:
            tensor += 1  # they are the receiver's own


def test_workers_live_until_close(digit_scenes: Dataset) -> None:
    with loader_of(digit_scenes, workers=2) as loader:
        list(loader.epoch(0))
        workers = loader._loader._iterator._workers
        list(loader.epoch(1))
        assert loader._loader._iterator._workers is workers
        assert all(worker.is_alive() for worker in workers)
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()
    loader.close()  # twice does no harm
    with pytest.raises(DataError, match="closed"):
        next(iter(loader.epoch(2)))


def test_an_interrupt_is_for_the_parent(digit_scenes: Dataset, reference: dict[int, list[Batch]]) -> None:
    with loader_of(digit_scenes, workers=2) as loader:
        list(loader.epoch(0))
        for worker in loader._loader._iterator._workers:
            os.kill(worker.pid, signal.SIGINT)
        for one, other in zip(loader.epoch(1), reference[1], strict=True):
            assert_same(one, other)


def test_workers_fill_the_cache_for_all(digit_scenes: Dataset) -> None:
    with loader_of(digit_scenes, workers=2) as loader:
        assert loader.samples._cache.get(11) is None
        list(loader.epoch(0))
        loaded = [index for index in range(40) if loader.samples._cache.get(index) is not None]
    assert len(loaded) >= 36  # the last, short batch was dropped


@pytest.mark.real
def test_real_photos_are_the_same_with_and_without_workers(shared_data: Path) -> None:
    dataset = voc.read(shared_data / "bccd").split("val")
    with loader_of(dataset, batch_size=16) as one, loader_of(dataset, batch_size=16, workers=2, cache="none") as two:
        for a, b in zip(one.epoch(0), two.epoch(0), strict=True):
            assert_same(a, b)
            assert len(a.targets.boxes) > 50
