"""Samples and small data sets for tests of the data pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from clearsight.data.dataset import Dataset
from clearsight.data.digit_scenes import read_digit_scenes
from clearsight.data.geometry import mask_boxes, wrap_instances
from clearsight.ops.outlines import mask_to_polygons
from clearsight.types import ImageMeta, Instances, Sample


def blobs(size: tuple[int, int], n: int, rng: np.random.Generator) -> np.ndarray:
    """`(n, h, w)` bool ellipses that lie inside."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    masks = []
    for _ in range(n):
        ry, rx = rng.uniform(4, size[0] / 4), rng.uniform(4, size[1] / 4)
        y, x = rng.uniform(ry, size[0] - ry), rng.uniform(rx, size[1] - rx)
        masks.append(((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 < 1)
    return np.array(masks).reshape(n, *size)


def sample_of(
    size: tuple[int, int] = (48, 64), n: int = 4, *, channels: int = 3, dtype: torch.dtype = torch.uint8, seed: int = 0
) -> Sample:
    """A sample with every kind of target; its image is noise, so that any change of place shows."""
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(blobs(size, n, rng))
    rings = [(number, ring) for number in range(n) for ring in mask_to_polygons(masks[number].numpy())]
    longest = max((len(ring) for _, ring in rings), default=0)
    contours = np.zeros((len(rings), longest, 2), dtype=np.float32)
    for row, (_, ring) in zip(contours, rings, strict=True):
        row[: len(ring)], row[len(ring) :] = ring, ring[-1]
    instances = Instances(
        boxes=mask_boxes(masks),
        labels=torch.arange(n),
        masks=masks,
        contours=torch.from_numpy(contours),
        ring_object=torch.tensor([number for number, _ in rings], dtype=torch.int64),
    )
    semantic = torch.zeros(size, dtype=torch.int64)
    for number in range(n):
        semantic[masks[number]] = number + 1
    top = 256 if dtype == torch.uint8 else 65536
    pixels = torch.from_numpy(rng.integers(0, top, (*size, channels)).astype(np.int32)).to(dtype)
    return Sample(
        image=tv_tensors.Image(pixels.permute(2, 0, 1)),
        instances=wrap_instances(instances, size),
        semantic=tv_tensors.Mask(semantic),
        label=1,
        meta=ImageMeta(path=Path(f"{seed}.png"), index=seed, size=size),
    )


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., Sample]:
    """See `sample_of`."""
    return sample_of


@pytest.fixture(scope="session")
def digit_scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty scenes of digits with all kinds of labels; do not change it."""
    return read_digit_scenes(tmp_path_factory.mktemp("digits"), scenes=40, seed=5)
