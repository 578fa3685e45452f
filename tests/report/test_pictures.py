"""Overlays: colours where labels and segments are, the names of what is there."""

import numpy as np
import pytest

from swin_dense.datasets.colours import palette
from swin_dense.report.pictures import (
    STRENGTH,
    enlarged,
    enlargement,
    label_overlay,
    segment_overlay,
)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (211, 5), (500, 700)])
def test_pixels_are_mixed_and_the_legend_is_beside(height, width):
    rgb = np.full((height, width, 3), 100, np.uint8)
    labels = np.zeros((height, width), np.int64)
    labels[-1, -1] = 2
    colours = [(200, 0, 40), (1, 2, 3), (0, 255, 0)]
    out = label_overlay(rgb, labels, ("sky", "never", "tree"), colours)
    factor = enlargement(height, width)
    assert out.dtype == np.uint8
    assert out.shape[0] >= factor * height
    assert out.shape[1] > factor * width
    expected = [round(100 * (1 - STRENGTH) + c * STRENGTH) for c in colours[2]]
    corner = out[factor * height - 1, factor * width - 1].astype(int)
    assert np.abs(corner - expected).max() <= 1


def test_only_present_classes_have_a_legend_colour():
    colours = [(200, 0, 40), (0, 0, 255)]
    labels = np.zeros((480, 490), int)
    out = label_overlay(np.zeros((480, 490, 3), np.uint8), labels, ("a", "b"), colours)
    legend = out[:, 490:].reshape(-1, 3).tolist()
    assert list(colours[0]) in legend
    assert list(colours[1]) not in legend


@pytest.mark.parametrize(
    ("size", "factor"), [((480, 481), 1), ((2000, 479), 1), ((240, 900), 2), ((72, 104), 6)]
)
def test_small_images_are_enlarged(size, factor):
    assert enlargement(*size) == factor
    assert enlarged(np.zeros((*size, 3), np.uint8), factor).shape[:2] == tuple(
        side * factor for side in size
    )


def test_colours_are_distinct():
    assert len(set(palette(150))) == 150


CAT, SKY = (200, 60, 40), (20, 90, 220)


def rows(*names):
    return [{"id": i, "class": name, "score": 0.5} for i, name in enumerate(names, start=1)]


def test_segments_are_coloured_by_class_and_objects_of_one_class_differ():
    segments = np.zeros((600, 900), int)
    segments[:, 300:600], segments[:, 600:750], segments[:, 750:] = 1, 2, 3
    rgb = np.full((600, 900, 3), 100, np.uint8)
    out = segment_overlay(rgb, segments, rows("sky", "cat", "cat"), {"cat": CAT, "sky": SKY})
    assert (out.shape, out.dtype) == ((600, 900, 3), np.uint8)
    assert (out[20, 100] == 100).all()  # no segment, no colour
    for x, colour in ((320, SKY), (620, CAT)):
        expected = 100 * (1 - STRENGTH) + np.array(colour) * STRENGTH
        assert np.abs(out[20, x] - expected).max() <= 1
    assert np.abs(out[20, 620].astype(int) - out[20, 800]).sum() > 20
    for border in (299, 599, 749):
        assert (out[20, border] == 255).all()


def test_each_segment_has_its_name_on_it():
    segments = np.ones((480, 600), int)
    rgb = np.zeros((480, 600, 3), np.uint8)
    named = segment_overlay(rgb, segments, rows("sky"), {"sky": SKY})
    written = (named == 255).all(-1)
    assert written.any()
    ys, xs = np.nonzero(written)
    assert ys.max() - ys.min() < 30
    assert xs.max() - xs.min() > 20
    other = segment_overlay(rgb, segments, rows("sea"), {"sea": SKY})
    assert not np.array_equal(named, other)


def test_names_stay_in_the_picture():
    """The name of a segment in a corner is drawn whole, as that of one in the middle."""
    light = set()
    for place in ((25, 35), (0, 0), (0, 69), (49, 0), (49, 69)):
        segments = np.zeros((50, 70), int)
        segments[place] = 1
        black = np.zeros((50, 70, 3), np.uint8)
        out = segment_overlay(black, segments, rows("zebra crossing"), {"zebra crossing": CAT})
        assert out.shape == (50 * 9, 70 * 9, 3)
        light.add(int((out > 150).all(-1).sum()))
    assert len(light) == 1
    assert light.pop() > 200


def test_no_segment_leaves_the_picture():
    rgb = np.random.default_rng(1).integers(0, 256, (500, 520, 3)).astype(np.uint8)
    assert np.array_equal(segment_overlay(rgb, np.zeros((500, 520), int), [], {}), rgb)
