"""Watershed against scikit-image, and touching objects split: by hand, and on real nuclei with what it gains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.segmentation import watershed as peer

from clearsight.errors import ConfigError, DataError, RangeError, ShapeError
from clearsight.ops.components import connected_components
from clearsight.ops.watershed import split_touching, watershed


def disks(*circles: tuple[float, float, float], size: tuple[int, int] = (40, 60)) -> torch.Tensor:
    y, x = np.mgrid[: size[0], : size[1]]
    return torch.from_numpy(np.logical_or.reduce([(y - cy) ** 2 + (x - cx) ** 2 <= r * r for cy, cx, r in circles]))


def aggregated_jaccard(truth: np.ndarray, found: np.ndarray) -> float:
    """Kumar et al. 2017: each nucleus with the found object of the largest IoU; what no nucleus took is added below."""
    rows, columns = int(truth.max()) + 1, int(found.max()) + 1
    both = np.bincount((truth * columns + found).ravel(), minlength=rows * columns).reshape(rows, columns)
    union = both.sum(1)[1:, None] + both.sum(0)[None, 1:] - both[1:, 1:]
    best = (both[1:, 1:] / union).argmax(axis=1)
    each = np.arange(rows - 1)
    unused = np.setdiff1d(np.arange(columns - 1), best)
    return both[1:, 1:][each, best].sum() / (union[each, best].sum() + both.sum(0)[1:][unused].sum())


# ------------------------------------------------------------------------------------------------ watershed
@pytest.mark.parametrize("kind", ["levels", "smooth", "fine"])
def test_basins_are_scikit_images(kind: str):
    rng, equal = np.random.default_rng(0), []
    for _ in range(12):
        shape = tuple(rng.integers(5, 50, 2))
        smooth = gaussian_filter(rng.normal(size=shape), 2) * 200
        surface = {"levels": rng.integers(0, 20, shape), "smooth": smooth.astype(int), "fine": smooth}[kind]
        markers = np.zeros(shape, dtype=np.int64)
        markers.flat[rng.choice(markers.size, 6, replace=False)] = np.arange(1, 7)
        mask = rng.random(shape) < 0.95
        ours = watershed(torch.from_numpy(surface), torch.from_numpy(markers), mask=torch.from_numpy(mask)).numpy()
        equal.append((ours == peer(surface, markers, mask=mask)).mean())
    assert np.mean(equal) >= 0.99
    if kind == "fine":  # no ties
        assert min(equal) == 1


def test_level_ground_is_split_in_the_middle():
    corridor = torch.zeros(1, 11)
    markers = torch.zeros(1, 11, dtype=torch.int64)
    markers[0, 0], markers[0, 10] = 4, 9
    # The pixel in the middle is reached by both in the same step: the first marker's flood has it.
    assert watershed(corridor, markers).tolist() == [[4] * 6 + [9] * 5]


def test_what_no_flood_reaches_stays_dry():
    markers = torch.tensor([[1, 0, 0, 0, 0]])
    mask = torch.tensor([[True, True, False, True, True]])
    assert watershed(torch.zeros(1, 5), markers, mask=mask).tolist() == [[1, 1, 0, 0, 0]]
    assert watershed(torch.zeros(1, 5), markers * 0).tolist() == [[0] * 5]
    assert watershed(torch.zeros(1, 5), markers, mask=~mask).tolist() == [[0] * 5]  # a marker outside the mask


def test_images_of_a_batch_flood_by_themselves():
    surface, markers = torch.randint(0, 9, (3, 12, 14)), torch.randint(0, 40, (3, 12, 14)) % 40 % 7
    markers[torch.rand(markers.shape) < 0.9] = 0
    alone = [watershed(one, marks) for one, marks in zip(surface, markers, strict=True)]
    assert torch.equal(watershed(surface, markers), torch.stack(alone))


def test_wrong_surfaces_are_refused():
    marks, surface = torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, 4)
    with pytest.raises(ShapeError, match="of one shape"):
        watershed(surface[:2], marks)
    with pytest.raises(ShapeError, match="of one shape"):
        watershed(surface[0], marks[0])
    with pytest.raises(ConfigError, match="markers: must be integers"):
        watershed(surface, surface)
    with pytest.raises(ConfigError, match="mask: must be bool"):
        watershed(surface, marks, mask=marks)
    with pytest.raises(DataError, match="a value is NaN"):
        watershed(surface * torch.nan, marks)


# ------------------------------------------------------------------------------------------------ touching objects
def test_two_disks_are_split_at_their_neck():
    mask = disks((20, 18, 12), (20, 40, 12))
    assert connected_components(mask)[1] == 1
    labels = split_touching(mask)
    assert labels.dtype == torch.int32
    assert torch.equal(labels > 0, mask)
    assert labels.max() == 2
    assert set(labels[:, :29].unique().tolist()) == {0, 1}
    assert set(labels[:, 30:].unique().tolist()) == {0, 2}


def test_one_disk_stays_whole_also_where_the_border_cuts_it():
    assert split_touching(disks((20, 30, 15))).max() == 1
    assert split_touching(disks((0, 30, 15))).max() == 1
    assert split_touching(torch.ones(9, 9, dtype=torch.bool)).tolist() == [[1] * 9] * 9


def test_distance_between_peaks_decides():
    mask = disks((20, 22, 8), (20, 34, 8))
    assert split_touching(mask, min_distance=5).max() == 2
    assert split_touching(mask, min_distance=14).max() == 1


def test_every_component_has_an_object_however_small_and_near():
    mask = disks((20, 20, 10))
    mask[20, 32] = mask[0, 0] = True  # one pixel, within reach of the disk's peak
    assert split_touching(mask, min_distance=15).max() == 3
    assert split_touching(mask, min_distance=15, min_area=50).max() == 3


def test_small_basins_are_left_to_their_neighbours():
    mask = disks((20, 18, 12), (20, 33, 5))
    small = split_touching(mask, min_distance=3)
    assert small.max() == 2
    whole = split_touching(mask, min_distance=3, min_area=int((small == 2).sum()) + 1)
    assert torch.equal(whole, mask.int())
    assert torch.equal(split_touching(mask, min_distance=3, min_area=int((small == 2).sum())), small)


def test_a_batch_is_split_image_by_image():
    masks = torch.stack([disks((20, 18, 12), (20, 40, 12)), disks((9, 9, 5)), disks((20, 30, 9), (20, 44, 9)) * False])
    together = split_touching(masks, min_area=30)
    assert torch.equal(together, torch.stack([split_touching(mask, min_area=30) for mask in masks]))
    assert together.amax(dim=(1, 2)).tolist() == [2, 1, 0]
    assert split_touching(masks[:0]).shape == (0, 40, 60)
    assert split_touching(masks[:, :0]).shape == (3, 0, 60)


def test_what_is_no_mask_is_refused():
    with pytest.raises(ShapeError, match=r"expected \(h, w\) or \(n, h, w\), got \(3,\)"):
        split_touching(torch.ones(3, dtype=torch.bool))
    with pytest.raises(ConfigError, match="a soft mask needs a threshold"):
        split_touching(torch.rand(3, 3))
    with pytest.raises(RangeError, match="min_distance: must be at least 1"):
        split_touching(torch.ones(3, 3, dtype=torch.bool), min_distance=0)


@pytest.mark.real
def test_real_nuclei_are_counted_better_after_the_split(shared_data: Path):
    from PIL import Image

    before, after, agree = [], [], []
    errors = np.zeros(2, dtype=np.int64)
    for path in sorted((shared_data / "nuclei/instances").glob("*.png"))[:20]:
        with Image.open(path) as file:
            found = np.array(file)
        truth = np.unique(found, return_inverse=True)[1].reshape(found.shape)
        mask = torch.from_numpy(truth > 0)
        joined, split = connected_components(mask)[0].numpy(), split_touching(mask).numpy()
        before.append(aggregated_jaccard(truth, joined))
        after.append(aggregated_jaccard(truth, split))
        errors += abs(int(joined.max()) - int(truth.max())), abs(int(split.max()) - int(truth.max()))
        depth = np.asarray(distance_transform_edt(mask.numpy()))
        markers = np.zeros_like(split)
        for number in range(1, int(split.max()) + 1):  # the deepest pixel of each is its marker
            own = np.where(split == number, depth, 0)
            markers.flat[own.argmax()] = number
        agree.append((peer(-depth, markers, mask=mask.numpy()) == split)[mask.numpy()].mean())
    assert np.mean(after) > np.mean(before) + 0.05
    assert errors[1] < errors[0] / 1.5
    assert min(agree) > 0.99
