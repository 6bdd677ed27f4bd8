"""Copies are told from pictures that are merely alike, whatever the set; pictures of nothing match nothing."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.doctor.data.crop_features import FEATURES
from clearsight.doctor.data.perceptual_hash import perceptual_hashes
from clearsight.doctor.data.picture_pairs import find_picture_pairs, varied_rows
from clearsight.doctor.data.scan import Scan


def scan_of(thumbnails: np.ndarray, md5: list[str] | None = None) -> Scan:
    n = len(thumbnails)
    none = np.zeros(0, dtype=np.int64)
    return Scan(
        readable=np.ones(n, dtype=bool),
        size=np.full((n, 2), 32),
        channels=np.ones(n, dtype=np.int64),
        md5=tuple(md5 or map(str, range(n))),
        phash=perceptual_hashes(thumbnails),
        mean=np.zeros((n, 3)),
        std=np.zeros((n, 3)),
        percentiles=np.zeros((n, 5)),
        sharpness=np.zeros(n),
        entropy=np.zeros(n),
        thumbnails=thumbnails,
        features=np.zeros((n, FEATURES), dtype=np.float32),
        object_record=none,
        object_index=none,
        object_label=none,
        object_features=np.zeros((0, FEATURES), dtype=np.float32),
    )


def blurry(rng: np.random.Generator, n: int) -> np.ndarray:
    coarse = rng.integers(0, 256, (n, 8, 8), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC)) for one in coarse])


def brighter(pictures: np.ndarray) -> np.ndarray:
    return np.rint(pictures * 0.9 + 12).astype(np.uint8)


def found_among(thumbnails: np.ndarray, **options: float) -> list[list[int]]:
    scan = scan_of(thumbnails)
    return find_picture_pairs(scan, varied_rows(scan, np.arange(len(scan))), **options).rows.tolist()


def test_copies_are_found_and_nothing_else() -> None:
    pictures = blurry(np.random.default_rng(0), 300)
    assert found_among(pictures) == []
    assert sorted(found_among(np.concatenate((pictures, brighter(pictures[10:20]))))) == [
        [10 + row, 300 + row] for row in range(10)
    ]


def test_the_most_alike_come_first_and_the_threshold_is_kept() -> None:
    rng = np.random.default_rng(0)
    picture = blurry(rng, 1)[0].astype(np.float64)
    noisy = [picture + rng.normal(0, sigma, picture.shape) for sigma in (1, 3, 6)]
    thumbnails = np.stack([picture, *noisy]).clip(0, 255).round().astype(np.uint8)
    scan = scan_of(thumbnails)
    pairs = find_picture_pairs(scan, np.arange(4))
    assert pairs.rows[0].tolist() == [0, 1]
    assert (np.diff(pairs.similarity) <= 0).all()
    expected = np.corrcoef(thumbnails.reshape(4, -1))
    np.testing.assert_allclose(pairs.similarity, expected[pairs.rows[:, 0], pairs.rows[:, 1]])
    least = (pairs.similarity[0] + pairs.similarity[1]) / 2
    assert len(find_picture_pairs(scan, np.arange(4), similarity=float(least))) < len(pairs)


def test_only_the_rows_that_are_given() -> None:
    pictures = blurry(np.random.default_rng(0), 5)
    scan = scan_of(np.concatenate((pictures, brighter(pictures))))
    assert find_picture_pairs(scan, np.array([7, 1, 2, 8])).rows.tolist() == [[2, 7]]
    assert find_picture_pairs(scan, np.zeros(0, dtype=np.int64)).rows.shape == (0, 2)


def test_equal_bytes_are_no_pair() -> None:
    picture = blurry(np.random.default_rng(0), 1)
    thumbnails = np.concatenate((picture, picture, brighter(picture)))
    pairs = find_picture_pairs(scan_of(thumbnails, ["a", "a", "b"]), np.arange(3))
    assert sorted(pairs.rows.tolist()) == [[0, 2], [1, 2]]


def test_pictures_of_nothing_match_nothing() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 255, (200, 1, 1))
    thumbnails = (levels + rng.integers(0, 2, (200, 32, 32))).astype(np.uint8)
    thumbnails[100:] = 128
    scan = scan_of(thumbnails)
    assert len(varied_rows(scan, np.arange(200))) == 0
    assert found_among(thumbnails) == []


def test_a_crowd_of_copies_costs_no_square() -> None:
    thumbnails = np.repeat(blurry(np.random.default_rng(0), 1), 3000, axis=0)
    scan = scan_of(thumbnails)
    pairs = find_picture_pairs(scan, np.arange(3000)).rows
    assert len(pairs) == 64 * 63 // 2 + 3000 - 64
    assert len(np.unique(pairs)) == 3000


def test_likeness_is_told_from_copies() -> None:
    """Pictures with little to tell them apart, alike in all degrees; and copies among them."""
    rng = np.random.default_rng(0)
    base = blurry(rng, 1)[0].astype(np.float64)
    own = blurry(rng, 250).astype(np.float64) - 128
    alike = (base + rng.uniform(0.1, 0.4, (250, 1, 1)) * own).clip(0, 255).round().astype(np.uint8)
    assert found_among(alike) == []
    copies = found_among(np.concatenate((alike, brighter(alike[-25:]))))
    planted = [[225 + row, 250 + row] for row in range(25)]
    assert [pair for pair in planted if pair not in copies] == []
    assert len(copies) <= 30


@pytest.mark.real
def test_real_digits_are_no_copies(shared_data: Path) -> None:
    with gzip.open(shared_data / "mnist_t10k" / "t10k-images-idx3-ubyte.gz") as file:
        digits = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 28, 28)
    thumbnails = np.stack([np.asarray(Image.fromarray(x).resize((32, 32), Image.Resampling.BILINEAR)) for x in digits])
    assert found_among(thumbnails) == []
    planted = found_among(np.concatenate((thumbnails, brighter(thumbnails[:20]))))
    assert [pair for pair in planted if pair[1] < 10000] == []
    assert len(planted) == 20


@pytest.mark.real
def test_real_nuclei_look_alike_and_are_no_copies(shared_data: Path) -> None:
    from scipy.ndimage import center_of_mass

    crops = []
    for file in sorted((shared_data / "nuclei" / "images").glob("*.png")):
        picture = np.asarray(Image.open(file).convert("L"))
        instances = np.asarray(Image.open(shared_data / "nuclei" / "instances" / file.name))
        centres = center_of_mass(instances > 0, instances, np.unique(instances)[1:21])
        for y, x in np.rint(centres).astype(int):
            crop = picture[max(0, y - 16) : y + 16, max(0, x - 16) : x + 16].astype(float)
            if crop.shape == (32, 32) and np.ptp(crop) > 8:
                whole = Image.fromarray(np.rint(255 * (crop - crop.min()) / np.ptp(crop)).astype(np.uint8))
                small = whole.resize((16, 16), Image.Resampling.BOX)
                crops.append(np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC)))
    nuclei = np.stack(crops)
    assert len(nuclei) > 300
    assert found_among(nuclei) == []
    assert sorted(found_among(np.concatenate((nuclei, brighter(nuclei[:3]))))) == [
        [row, len(nuclei) + row] for row in range(3)
    ]
