"""Components against scikit-image, and the objects of semantic maps by hand and against its region properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.measure import label, regionprops

from clearsight.errors import ConfigError, ShapeError
from clearsight.ops.components import connected_components, connected_instances
from clearsight.types import Instances

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(arrays.arrays(bool, SHAPES), arrays.arrays(np.int64, SHAPES, elements=st.integers(-1, 3))),
    st.sampled_from([4, 8]),
)
def test_components_are_scikit_images(masks: np.ndarray, connectivity: int):
    labels, counts = connected_components(torch.from_numpy(masks), connectivity=connectivity)
    assert labels.dtype == torch.int32
    assert counts.dtype == torch.int64
    for mask, ours, count in zip(masks, labels.numpy(), counts.tolist(), strict=True):
        theirs = label(mask, background=0, connectivity=connectivity // 4)
        assert count == theirs.max(initial=0)
        # Theirs are numbered by the first pixel as well, which makes them equal and not only the same parts.
        np.testing.assert_array_equal(ours, theirs)


def test_one_mask_is_a_batch_of_one():
    mask = torch.tensor([[1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    labels, count = connected_components(mask)
    assert labels.tolist() == [[1, 1, 0], [0, 0, 2]]
    assert count.tolist() == 2
    assert connected_components(mask, connectivity=8)[1].tolist() == 1
    assert connected_components(mask.T)[0].tolist() == [[1, 0], [1, 0], [0, 2]]  # strided


def test_classes_are_numbered_together_by_their_first_pixels():
    classes = torch.tensor([[3, 3, 1], [1, 0, 1], [3, 2, 2]], dtype=torch.uint8)
    assert connected_components(classes)[0].tolist() == [[1, 1, 2], [3, 0, 2], [4, 5, 5]]


def test_nothing_has_no_components():
    for shape in ((0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 3, 4)):
        labels, counts = connected_components(torch.zeros(shape, dtype=torch.bool))
        assert labels.shape == shape
        assert counts.tolist() == [0] * shape[0]


def test_instances_by_hand():
    semantic = torch.tensor([[0, 2, 2, 255], [1, 0, 2, 255], [1, 0, 0, 2]])
    (found,) = connected_instances(semantic[None])
    assert found.labels.tolist() == [2, 1, 2]
    assert found.boxes.tolist() == [[1, 0, 3, 2], [0, 1, 1, 3], [3, 2, 4, 3]]
    assert found.boxes.dtype == torch.float32
    assert found.masks is not None
    assert [mask.nonzero().tolist() for mask in found.masks] == [[[0, 1], [0, 2], [1, 2]], [[1, 0], [2, 0]], [[2, 3]]]
    assert found.scores is None
    assert connected_instances(semantic[None], min_area=2)[0].labels.tolist() == [2, 1]
    assert connected_instances(semantic[None], connectivity=8)[0].labels.tolist() == [2, 1]


def test_background_and_void_are_what_they_are_told_to_be():
    semantic = torch.tensor([[[0, 0, 255], [7, 1, 1]]], dtype=torch.uint8)
    assert connected_instances(semantic, background=1)[0].labels.tolist() == [0, 7]
    assert connected_instances(semantic, background=None)[0].labels.tolist() == [0, 7, 1]
    assert connected_instances(semantic, ignore_index=7)[0].labels.tolist() == [255, 1]


def test_scores_are_mean_probabilities_of_the_class():
    probs = torch.rand(2, 3, 6, 7).softmax(dim=1)
    semantic = probs.argmax(dim=1)
    for index, found in enumerate(connected_instances(semantic, probs=probs)):
        assert found.masks is not None
        assert found.scores is not None
        assert len(found) > 2
        for mask, kind, score in zip(found.masks, found.labels, found.scores, strict=True):
            torch.testing.assert_close(score, probs[index, kind][mask].mean())


def test_a_map_without_objects():
    for shape in ((2, 3, 4), (2, 0, 4)):
        for found in connected_instances(torch.zeros(shape, dtype=torch.int64)):
            assert len(found) == 0
            assert found.boxes.shape == (0, 4)
            assert found.masks is not None
            assert found.masks.shape == (0, *shape[1:])
    assert connected_instances(torch.zeros(0, 3, 4, dtype=torch.int64)) == []


def test_wrong_arguments_are_refused():
    with pytest.raises(ShapeError, match=r"expected \(n, h, w\) or \(h, w\), got \(3,\)"):
        connected_components(torch.ones(3, dtype=torch.bool))
    with pytest.raises(ConfigError, match="a soft mask needs a threshold"):
        connected_components(torch.rand(3, 3))
    with pytest.raises(ConfigError, match="must be 4 or 8, got 6"):
        connected_components(torch.ones(3, 3, dtype=torch.bool), connectivity=6)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match=r"for one map pass semantic\[None\]"):
        connected_instances(torch.ones(3, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="a soft mask needs a threshold"):
        connected_instances(torch.rand(1, 3, 3))
    with pytest.raises(ShapeError, match=r"probs: expected \(n, k, h, w\)"):
        connected_instances(torch.ones(1, 3, 3, dtype=torch.int64), probs=torch.rand(1, 2, 3, 4))


@pytest.mark.real
def test_objects_of_real_masks_are_their_regions(shared_data: Path):
    from PIL import Image

    with Image.open(sorted((shared_data / "nuclei/instances").glob("*.png"))[0]) as file:
        semantic = torch.from_numpy((np.array(file) > 0).astype(np.int64))
    found: Instances = connected_instances(semantic[None])[0]
    regions = regionprops(label(semantic.numpy(), connectivity=1))
    assert len(found) == len(regions) > 10
    for box, mask, region in zip(found.boxes, found.masks, regions, strict=True):
        top, left, bottom, right = region.bbox
        assert box.tolist() == [left, top, right, bottom]
        assert int(mask.sum()) == region.area
