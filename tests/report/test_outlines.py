"""Outlines of masks, filled again pixel by pixel, are the masks."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from swin_dense.report.outlines import polygons

RING_OPEN_AT_A_CORNER = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], bool)


def filled(parts, shape):
    """Count for each pixel the vertical edges to its left: odd inside (the even-odd rule)."""
    crossings = np.zeros(shape, int)
    for ring in (ring for part in parts for ring in part):
        for (x, y), (to_x, to_y) in pairwise(ring):
            if x == to_x:
                crossings[min(y, to_y) : max(y, to_y), x:] += 1
    return crossings % 2 == 1


def area(ring):
    return sum(x * b - a * y for (x, y), (a, b) in pairwise(ring)) / 2


@pytest.mark.parametrize("seed", range(40))
def test_an_outline_has_exactly_the_pixels_of_its_mask(seed):
    random = np.random.default_rng(seed)
    mask = random.random(random.integers(1, 12, 2)) < random.uniform(0.2, 0.9)
    parts = polygons(mask)
    assert np.array_equal(filled(parts, mask.shape), mask)
    number, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    assert len(parts) == number - 1
    for outer, *holes in parts:
        assert area(outer) > 0
        assert all(area(hole) < 0 for hole in holes)
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            assert len(set(ring[:-1])) == len(ring) - 1, "a ring touches itself"
            steps = np.diff(ring, axis=0)
            turns = (steps[:, 0] == 0) != (np.roll(steps, 1, axis=0)[:, 0] == 0)
            assert turns.all(), "a corner lies on a straight line"


def test_a_hole_that_touches_the_outside_at_a_corner_is_a_ring_of_its_own():
    [[outer, hole]] = polygons(RING_OPEN_AT_A_CORNER, left=10, top=20)
    assert (area(outer), area(hole)) == (8, -1)
    assert (11, 21) in outer
    assert set(hole) == {(11, 21), (12, 21), (12, 22), (11, 22)}


def test_nothing_has_no_outline():
    assert polygons(np.zeros((3, 5), bool)) == polygons(np.zeros((0, 0), bool)) == []
