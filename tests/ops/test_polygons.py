"""Shape of polygons by hand, against loops over pairs of edges, scikit-image and scipy."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial import ConvexHull
from skimage.measure import approximate_polygon

from clearsight.errors import DataError, RangeError, ShapeError
from clearsight.ops.contours import polygon_area
from clearsight.ops.polygons import convex_hull, is_convex, is_simple, self_intersections, simplify_polygon

SQUARE = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
BOW = np.array([[0.0, 0.0], [4.0, 4.0], [4.0, 0.0], [0.0, 4.0]])
RINGS = arrays.arrays(
    float, st.tuples(st.integers(0, 8), st.just(2)), elements=st.integers(0, 6).map(lambda value: value / 2)
)


def without_repeats(ring: np.ndarray) -> list[tuple[float, float]]:
    points = [tuple(point) for point in ring.tolist()]
    return [point for i, point in enumerate(points) if point != points[(i + 1) % len(points)]]


def share_a_point(a: tuple, b: tuple, c: tuple, d: tuple) -> bool:
    """Whether two closed segments meet, in fractions: the parameters of the crossing of their lines, or their order."""
    a, b, c, d = (tuple(map(Fraction, point)) for point in (a, b, c, d))
    r, s, q = (b[0] - a[0], b[1] - a[1]), (d[0] - c[0], d[1] - c[1]), (c[0] - a[0], c[1] - a[1])
    det = r[0] * s[1] - r[1] * s[0]
    if det:
        t, u = (q[0] * s[1] - q[1] * s[0]) / det, (q[0] * r[1] - q[1] * r[0]) / det
        return 0 <= t <= 1 and 0 <= u <= 1
    if q[0] * r[1] - q[1] * r[0]:
        return False
    return max(min(a, b), min(c, d)) <= min(max(a, b), max(c, d))  # on one line: as intervals


@settings(max_examples=300, deadline=None)
@given(RINGS)
def test_edges_that_meet_are_those_of_a_loop(ring: np.ndarray):
    points = without_repeats(ring)
    count = len(points)
    expected = 0
    for i, j in combinations(range(count if count >= 3 else 0), 2):
        a, b, c, d = points[i], points[(i + 1) % count], points[j], points[(j + 1) % count]
        if j == i + 1 or (i, j) == (0, count - 1):
            (u, v), (x, y) = (b[0] - a[0], b[1] - a[1]), (d[0] - c[0], d[1] - c[1])
            expected += u * y == v * x and u * x + v * y < 0
        else:
            expected += share_a_point(a, b, c, d)
    assert len(self_intersections(ring)) == expected
    assert is_simple(ring) == (count >= 3 and not expected)


def test_self_intersections_by_hand():
    assert self_intersections(BOW).tolist() == [[0, 2]]
    assert self_intersections(BOW, touching=False).tolist() == [[0, 2]]
    assert self_intersections(SQUARE).shape == (0, 2)
    touching = np.array([[0, 0], [4, 0], [4, 4], [2, 0], [0, 4]])  # a vertex on another edge
    assert self_intersections(touching).tolist() == [[0, 2], [0, 3]]
    assert self_intersections(touching, touching=False).shape == (0, 2)
    spike = np.array([[0, 0], [4, 0], [8, 0], [4, 0], [4, 4]])
    assert [1, 2] in self_intersections(spike).tolist()
    star = np.array([[np.sin(4 * np.pi * k / 5), np.cos(4 * np.pi * k / 5)] for k in range(5)])
    assert len(self_intersections(star)) == 5


def test_padding_by_the_last_vertex_changes_nothing():
    padded = np.concatenate([BOW, np.repeat(BOW[-1:], 3, axis=0)])
    assert self_intersections(padded).tolist() == [[0, 2]]
    assert is_simple(np.concatenate([SQUARE, np.repeat(SQUARE[-1:], 3, axis=0)]))
    assert is_simple(np.concatenate([SQUARE, SQUARE[:1]]))


def test_pairs_are_the_same_some_at_a_time(monkeypatch: pytest.MonkeyPatch):
    ring = np.random.default_rng(0).uniform(0, 9, (30, 2))
    whole = self_intersections(ring)
    monkeypatch.setattr("clearsight.ops.polygons._PAIRS_AT_ONCE", 70)
    assert len(whole) > 20
    assert self_intersections(ring).tolist() == whole.tolist()


def test_fewer_than_three_vertices_are_defined():
    for few in (np.empty((0, 2)), SQUARE[:1], SQUARE[:2], np.repeat(SQUARE[:1], 5, axis=0)):
        assert not is_simple(few)
        assert not is_convex(few)
        assert self_intersections(few).shape == (0, 2)
        assert len(simplify_polygon(few, 1.0)) <= len(few)
        assert len(convex_hull(few)) == len(np.unique(few, axis=0))


# ------------------------------------------------------------------------------------------------ simplify
@pytest.mark.parametrize("tolerance", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(6))
def test_both_halves_are_simplified_as_by_scikit_image(seed: int, tolerance: float):
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (20 + rng.normal(0, 2, (90, 1)).cumsum(0) / 4)
    middle = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    halves = ring[: middle + 1], np.concatenate([ring[middle:], ring[:1]])
    first, second = (approximate_polygon(half, tolerance) for half in halves)
    np.testing.assert_array_equal(simplify_polygon(ring, tolerance), np.concatenate([first[:-1], second[:-1]]))


@settings(max_examples=200, deadline=None)
@given(RINGS, st.sampled_from([0.0, 0.4, 1.0, 5.0]))
def test_what_is_left_out_lies_near(ring: np.ndarray, tolerance: float):
    points = without_repeats(ring)
    out = [tuple(point) for point in simplify_polygon(ring, tolerance).tolist()]
    if len(points) < 3:
        return
    assert len(out) >= 3
    assert out[0] == points[0]
    at = [-1]
    for vertex in out:  # a part of the vertices, in order
        at.append(points.index(vertex, at[-1] + 1))
    for point in set(points) - set(out):
        edges = zip(out, out[1:] + out[:1], strict=True)
        assert min(to_segment(np.array(point), np.array(a), np.array(b)) for a, b in edges) <= tolerance + 1e-12


def to_segment(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    share = np.clip(np.dot(point - start, end - start) / max(np.dot(end - start, end - start), 1e-300), 0, 1)
    return float(np.linalg.norm(point - start - share * (end - start)))


def test_simplified_by_hand():
    dense = np.array([[0, 0], [1, 0], [2, 0], [2, 2], [1, 2.2], [0, 2]])
    assert simplify_polygon(dense, 0.0).tolist() == [[0, 0], [2, 0], [2, 2], [1, 2.2], [0, 2]]
    assert simplify_polygon(dense, 0.5).tolist() == [[0, 0], [2, 0], [2, 2], [0, 2]]
    assert len(simplify_polygon(SQUARE, 100.0)) == 3  # small objects do not vanish
    diagonal = np.array([[0, 0], [1, 3], [2, 6], [3, 9], [9, 9]])
    assert simplify_polygon(diagonal, 0.0).tolist() == [[0, 0], [3, 9], [9, 9]]


# ------------------------------------------------------------------------------------------------ convexity
def test_convexity_by_hand():
    assert is_convex(SQUARE)
    assert is_convex(SQUARE[::-1])
    assert is_convex(np.array([[0, 0], [2, 0], [4, 0], [4, 4]]))  # a straight corner
    assert not is_convex(BOW)
    assert not is_convex(np.array([[0, 0], [4, 0], [1, 1], [0, 4]]))
    assert not is_convex(SQUARE * [1, 0])
    star = np.array([[np.sin(4 * np.pi * k / 5), np.cos(4 * np.pi * k / 5)] for k in range(5)])
    assert not is_convex(star)  # turns one way only, but twice around


@settings(max_examples=150, deadline=None)
@given(RINGS)
def test_hull_is_convex_and_is_scipys(points: np.ndarray):
    hull = convex_hull(points)
    if len(hull) < 3:
        assert np.linalg.matrix_rank(points - points[:1]) <= 1
        return
    theirs = ConvexHull(points)
    assert is_convex(hull)
    assert {tuple(p) for p in hull.tolist()} <= {tuple(p) for p in points.tolist()}
    assert polygon_area(hull, signed=True) == pytest.approx(theirs.volume, abs=1e-9)
    assert hull[0].tolist() == min(points.tolist())


def test_hull_of_points_on_one_line_is_its_ends():
    assert convex_hull(np.array([[1, 1], [3, 3], [0, 0], [2, 2]])).tolist() == [[0, 0], [3, 3]]


# ------------------------------------------------------------------------------------------------ errors
def test_wrong_arguments_are_refused():
    for call in (self_intersections, is_simple, is_convex, convex_hull, lambda ring: simplify_polygon(ring, 1.0)):
        with pytest.raises(ShapeError, match=r"expected \(p, 2\) xy vertices, got \(3, 3\)"):
            call(np.zeros((3, 3)))
        with pytest.raises(DataError, match="NaN or infinite"):
            call(np.array([[0, 0], [1, np.nan], [1, 1]]))
    for tolerance in (-1.0, np.nan):
        with pytest.raises(RangeError, match="at least 0"):
            simplify_polygon(SQUARE, tolerance)
