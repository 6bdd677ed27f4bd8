import numpy as np
import pytest
import torch

from clearsight.deploy.tiled_seam import Seam
from clearsight.deploy.tiles import plan_tiles


def stitch(tiles, windows):
    """All pieces in their places, `(k, h, w)`."""
    height, width = tiles.size
    bands, above = [], None
    for number, row in enumerate(tiles.rows):
        below = height if number + 1 == len(tiles.rows) else tiles.rows[number + 1].first
        seam = Seam(above, finished=below - row.first, width=width)
        bands.append(torch.cat(list(seam.pieces(windows(row), row, tiles.columns)), dim=2))
        above = seam.below
    return torch.cat(bands, dim=1)


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [
        ((40, 50), (16, 16), 4),
        ((41, 17), (16, 16), 15),
        ((33, 100), (20, 30), 12),
        ((9, 9), (16, 16), 3),
        ((40, 50), (16, 9), 0),
    ],
)
def test_the_sum_of_weighted_windows(size, tile, overlap):
    tiles = plan_tiles(size, tile, overlap)
    rng = np.random.default_rng(0)
    made = {
        (row, column): torch.from_numpy(rng.random((3, row.stop - row.start, column.stop - column.start)))
        for row in tiles.rows
        for column in tiles.columns
    }
    expected = np.zeros((3, *size))
    for (row, column), window in made.items():
        weight = np.outer(row.weight, column.weight)
        expected[:, row.first : row.last, column.first : column.last] += window.numpy() * weight
    found = stitch(tiles, lambda row: [made[row, column] for column in tiles.columns])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_exact_windows_are_put_side_by_side():
    tiles = plan_tiles((70, 45), (61, 53), valid_depth=2)
    image = torch.from_numpy(np.random.default_rng(0).random((2, 120, 120)))

    def windows(row):
        for column in tiles.columns:  # the net's output: all of it, also what is not kept
            yield image[:, row.origin : row.stop - 20, column.origin : column.stop - 20]

    assert torch.equal(stitch(tiles, windows), image[:, :70, :45])


def test_only_the_overlap_is_kept():
    tiles = plan_tiles((300, 200), (64, 64), 8)
    row, after = tiles.rows[:2]
    seam = Seam(None, finished=after.first - row.first, width=200)
    list(seam.pieces((torch.ones(2, 64, 64) for _ in tiles.columns), row, tiles.columns))
    assert seam.below.shape == (2, row.last - after.first, 200)
    assert seam.below.shape[1] == 17  # 300 rows in six tiles of 64: neighbours share at least these
